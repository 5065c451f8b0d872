"""How fast warmstart-sim trains: one Markdown document, mostly ratios, measured in one run.

    python benchmarks/speed.py                          everything; tens of minutes on a CPU
    python benchmarks/speed.py --minutes 6              as much as fits, with a list of what was skipped
    python benchmarks/speed.py --device cuda --out speed.md
    python benchmarks/speed.py --only cells --models mlp,small_cnn --neighbour
    python benchmarks/speed.py --compile --models logistic_regression,mlp,small_cnn,resnet18_w16 --repeats 9 \\
        --out results/speed_cpu.md                      the tables of results/, with the README's; half an hour

Sections: `cells` compares one cell with other training loops (loops.py), `limits` shows what limits a step (limits.py),
`many` trains R cells at once, and on a CPU one cell per core (many.py). jobs.py estimates the time of a whole job.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import math
import multiprocessing
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import limits
import loops
import many
import torch
from document import Budget, Document, Section

from warmstart_sim.experiment.cell_trainer import set_up_torch
from warmstart_sim.results.environment import environment
from warmstart_sim.training.settings import Training

SECTIONS = ("cells", "limits", "many")


def main() -> None:
    arguments = parsed()
    device = torch.device(arguments.device)
    set_up_torch(device, Training())
    ends = time.perf_counter() + 60 * arguments.minutes

    document = Document(arguments.out)
    describe(document, arguments.device, arguments.neighbour)
    with neighbour(arguments.neighbour):
        sections = list(chosen(arguments, device))
        budget = Budget(ends - time.perf_counter(), sum(len(section.pieces) for section in sections))
        for section in sections:
            document.add(section, budget)
    sys.exit(1 if document.failures else 0)


def chosen(arguments: argparse.Namespace, device: torch.device) -> Iterator[Section]:
    if "cells" in arguments.only:
        yield loops.section(
            arguments.models, device,
            repeats=arguments.repeats, steps=arguments.steps, with_compiled=arguments.compile,
        )  # fmt: skip
    if "limits" in arguments.only:
        yield limits.section(arguments.models, device)
    if "many" in arguments.only:
        yield from many.sections(arguments.models, device, arguments.most, min(arguments.repeats, many.CORE_TURNS))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", type=_names(SECTIONS), default=SECTIONS, help=f"sections: {','.join(SECTIONS)}")
    parser.add_argument("--models", type=_names(loops.MODELS), default=tuple(loops.MODELS))
    parser.add_argument("--repeats", type=int, default=7, help="the maximum number of turns of each loop")
    parser.add_argument("--steps", type=int, help="batches per epoch, instead of each model's default")
    parser.add_argument("--most", type=int, default=32, help="the largest number of cells at once")
    parser.add_argument("--minutes", type=float, default=math.inf, help="start nothing new after this time")
    parser.add_argument("--compile", action="store_true", help="also time torch.compile (compiles for minutes)")
    parser.add_argument("--neighbour", action="store_true", help="keep another process busy on one core")
    parser.add_argument("--out", type=Path, help="also write the document to this file")
    return parser.parse_args()


def _names(known: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    def names(text: str) -> tuple[str, ...]:
        chosen = tuple(text.split(","))
        if unknown := set(chosen) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose from {', '.join(known)}")
        return chosen

    return names


def describe(document: Document, device: str, busy: bool) -> None:
    """Writes the title, the environment and the command."""
    where = environment(device, workers=1, rehearsal=False)
    document.write("# How fast warmstart-sim trains\n")
    document.write(
        f"{where['device_name']}, {where['cores']} cores, torch {where['torch']}, commit {where['commit']}, "
        f"{datetime.date.today()}{'; another process keeps one core busy' if busy else ''}.\n"
    )
    document.write(f"`{shlex.join(['python', 'benchmarks/speed.py', *sys.argv[1:]])}`")


@contextlib.contextmanager
def neighbour(wanted: bool) -> Iterator[None]:
    """Keeps one core busy with another process, if `wanted`."""
    process = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True) if wanted else None
    if process:
        process.start()
    try:
        yield
    finally:
        if process:
            process.kill()


def _spin() -> None:
    while True:
        pass


if __name__ == "__main__":
    main()
