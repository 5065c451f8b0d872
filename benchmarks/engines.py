"""Compares our engine with Avalanche's loop and our plugins on the same scenario, in one run.

    python benchmarks/engines.py [--device cuda] [--models mlp,small_cnn] [--out engines.md]

Both train the same cell with the same seed to 99 % train accuracy, in turns. The table also shows whether they reach
the same weights, and the same number of epochs in every round.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shlex
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from document import Budget, Document, Row, Section

from warmstart_sim.experiment.run_cell import run_cell
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.results.environment import environment
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario import Cell, plan

# Chunks of synthetic 3x32x32 images; the cap keeps a round of ResNet-18 on a CPU within a minute.
MODELS: dict[str, tuple[Any, int, int]] = {
    "mlp": ({"name": "mlp"}, 1000, 100),
    "small_cnn": ({"name": "small_cnn"}, 500, 30),
    "resnet18_w16": ({"name": "resnet18", "width": 16}, 250, 12),
}
ROUNDS = 3
HEAD = (
    "model", "ours: train s", "criterion s", "Avalanche: train s", "criterion s", "train, ours / Avalanche",
    "both, ours / Avalanche", "epochs", "largest difference of a weight", "turns",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """The cell trained by one engine."""

    train_seconds: float
    criterion_seconds: float
    epochs: tuple[int, ...]
    weights: dict[str, torch.Tensor]

    @property
    def seconds(self) -> float:
        return self.train_seconds + self.criterion_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS))
    parser.add_argument("--repeats", type=int, default=3, help="turns of each engine")
    parser.add_argument("--minutes", type=float, default=30.0, help="start nothing new after this time")
    parser.add_argument("--out", type=Path, help="also write the document to this file")
    arguments = parser.parse_args()
    where = environment(arguments.device, workers=1, rehearsal=False)
    document = Document(arguments.out)
    document.write("# The same training in both engines\n")
    document.write(
        f"{where['device_name']}, {where['cores']} cores, torch {where['torch']}, avalanche-lib "
        f"{where['avalanche-lib']}, commit {where['commit']}, {datetime.date.today()}.\n"
    )
    document.write(f"`{shlex.join(['python', 'benchmarks/engines.py', *sys.argv[1:]])}`")
    note = (
        f"Shrink and perturb on {ROUNDS} accumulating chunks of synthetic 3x32x32 images, batch 128, Adam, one thread, "
        "to 99 % train accuracy; the criterion is the accuracy check after each epoch. Seconds are medians over the "
        "turns, ratios are medians of the ratios per turn (lowest and highest in brackets). Both load from memory, "
        "without workers."
    )
    pieces = {name: lambda budget, name=name: rows(name, arguments, budget) for name in arguments.models}
    document.add(Section("Ours over Avalanche's", note, HEAD, pieces), Budget(60 * arguments.minutes, len(pieces)))
    sys.exit(1 if document.failures else 0)


def rows(name: str, arguments: argparse.Namespace, budget: Budget) -> Iterator[Row]:
    cell = cell_of(name)
    turns = []
    for turn in range(arguments.repeats + 1):
        both = tuple(
            trained(cell, ExecutionSettings(Path(), arguments.device, engine=each)) for each in ("native", "avalanche")
        )
        if turn:  # the first one warms up
            turns.append(both)
        if turns and budget.over:
            break
    ours, theirs = turns[-1]
    difference = max((ours.weights[key].double() - theirs.weights[key]).abs().max().item() for key in ours.weights)
    same = ours.epochs == theirs.epochs
    yield (
        name,
        *(
            f"{statistics.median(getattr(both[k], what) for both in turns):.2f}"
            for k in range(2)
            for what in ("train_seconds", "criterion_seconds")
        ),
        ratio([a.train_seconds / b.train_seconds for a, b in turns]),
        ratio([a.seconds / b.seconds for a, b in turns]),
        " ".join(map(str, ours.epochs)) + ("" if same else f" / {' '.join(map(str, theirs.epochs))}"),
        f"{difference:g}",
        str(len(turns)),
    )


def ratio(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def cell_of(name: str) -> Cell:
    model, chunk, cap = MODELS[name]
    scenario = {
        "name": "engines",
        "data": {
            "name": "synthetic", "like": "cifar10", "train_samples": ROUNDS * chunk, "test_samples": 10,
            "validation_fraction": 0,
        },
        "stream": {"name": "online", "chunk_size": chunk},
        "model": model,
        "training": {"until": {"train_accuracy": 0.99, "max_epochs": cap}},
        "strategies": {"shrink_perturb": {}},
        "seeds": [0],
    }  # fmt: skip
    return plan(scenario, "benchmark")[1][0]


def trained(cell: Cell, settings: ExecutionSettings) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        run_cell(cell, run, settings)
        stored = run.cell(cell.id).result()
        weights = run.cell(cell.id).weights()
    assert stored is not None
    assert weights is not None
    rounds = stored["rounds"]
    return Result(
        sum(row["train_seconds"] for row in rounds), sum(row["criterion_seconds"] for row in rounds),
        tuple(row["epochs"] for row in rounds), dict(weights),
    )  # fmt: skip


if __name__ == "__main__":
    main()
