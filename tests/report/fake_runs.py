"""Run folders with made-up numbers, shaped as real ones: what the report is tested on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from warmstart_sim.results.columns import EPOCH_COLUMNS, ROUND_COLUMNS, column_of

Cell = dict[str, Any]

ARMS: dict[str, dict[str, Any]] = {
    "random_init": {"start": "random_init"},
    "warm_start": {"start": "warm_start"},
    "shrink_perturb": {"start": "shrink_perturb", "lambda": 0.6, "sigma": 0.1},
}
ROUNDS = {"online": 6, "split": 2, "static": 1, "pretrain": 2}
SAMPLES = 6000
FRACTIONS = [0.1, 0.3, 0.6, 1.0]
REACHED = {"cifar10": 0.72, "cifar100": 0.31, "svhn": 0.93}  # by random init, on all data
WORDS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "svhn": "SVHN"}
# As in a scenario's `vary.pair`.
PAIRS = {
    f"{WORDS[source]} to {WORDS[target]}": {"stream.source.name": source, "data.name": target}
    for target, sources in {
        "cifar10": ["cifar100", "svhn"],
        "svhn": ["cifar10", "cifar100"],
        "cifar100": ["cifar10", "svhn"],
    }.items()
    for source in sources
}


def write_run(
    folder: Path,
    stream: str = "online",
    seeds: int = 5,
    arms: Mapping[str, Mapping[str, Any]] = ARMS,
    vary: Mapping[str, list[Any] | Mapping[str, Any]] | None = None,
    checkpoint: bool = False,
    notes: Sequence[str] = (),
    leave_out: Callable[[Cell], bool] = lambda cell: False,
    failed: Mapping[tuple[str, int], str] | None = None,
    rehearsal: bool = False,
    timing: Callable[[Cell], str] = lambda cell: "concurrent",
    estimated: Callable[[Cell], bool] = lambda cell: False,
) -> Path:
    """Writes scenario.yaml, environment.json, rounds.csv and epochs.csv of a run that was never run.

    Args:
        folder: Where to.
        stream: online, split (two rounds, the first shared), static, or pretrain (the first round on other data).
        seeds: The number of seeds.
        arms: As in a scenario file.
        vary: As in a scenario file.
        checkpoint: Whether a file of weights takes the place of the first round.
        notes: As in environment.json.
        leave_out: Says of {strategy, seed, varied values, round} whether its rows are not there.
        failed: (arm, seed) -> the status in which its second round ends the cell.
        rehearsal: What environment.json says.
        timing: "isolated" or "concurrent" for {strategy, seed, varied values, round}.
        estimated: Whether a concurrent round has an estimate: a fifth of its seconds, and 0.01 s more for each seed.
    """
    vary, failed = vary or {}, failed or {}
    rng = np.random.default_rng(0)
    rounds: list[Cell] = []
    epochs: list[Cell] = []
    for cell in _cells(stream, arms, seeds, vary):
        data = _data_of(stream, cell, vary)
        offset, share = _effect(cell, stream)
        luck = np.random.default_rng(cell["seed"]).normal(0, 0.01)
        own_luck = rng.normal(0, 0.006)
        for index in range(ROUNDS[stream]):
            place = {**cell, "round": index}
            if leave_out(place) or (checkpoint and index == 0):
                continue
            shared = stream in ("split", "pretrain") and index == 0
            draw = np.random.default_rng(1000 + cell["seed"]) if shared else rng  # the same in all arms
            grown = _grown(stream, cell, index)
            status = failed.get((cell["strategy"], cell["seed"]), "converged") if index == 1 else "converged"
            effect = 0 if shared else own_luck + (offset * grown if index else 0)
            without = REACHED.get(data[index], 0.72) * (0.55 + 0.45 * grown**0.5)
            reached = without + luck + effect + draw.normal(0, 0.004)
            reached = float("nan") if status == "diverged" else reached
            count = int(30 * (share if index else 1) * draw.uniform(0.85, 1.15))
            steps = -(-int(SAMPLES * grown) // 128)
            seconds = count * steps * 0.004 * draw.uniform(0.95, 1.1)
            known = timing(place) == "concurrent" and estimated(place)
            rounds.append(
                {
                    **place, "shared": shared, "dataset": data[index], "train_samples": int(SAMPLES * grown),
                    "new_samples": int(SAMPLES * (grown if stream == "pretrain" else 1 / ROUNDS[stream])),
                    "epochs": count, "steps": count * steps,
                    "samples_seen": count * int(SAMPLES * grown), "flops": count * steps * 1e9,
                    "converged": status == "converged", "status": status, "train_accuracy": 0.995, "train_loss": 0.02,
                    "validation_accuracy": reached, "validation_loss": 1.2, "train_seconds": seconds,
                    "criterion_seconds": seconds / 5, "evaluation_seconds": 0.01, "setup_seconds": 0.1,
                    "timing": timing(place), "threads": 1, "device": "cpu",
                    "estimated_isolated_seconds": seconds / 5 + cell["seed"] / 100 if known else None,
                }
            )  # fmt: skip
            start = 0.1 if index == 0 or cell["strategy"] == "random_init" else 0.45
            for epoch in range(1, count + 1):
                done = 1 - np.exp(-4 * epoch / count)
                measured = start + (reached - start) * done + draw.normal(0, 0.008)
                epochs.append(
                    {
                        **place, "shared": shared, "epoch": epoch, "steps": steps, "learning_rate": 0.001,
                        "running_train_accuracy": 0.3 + 0.69 * done,
                        "running_train_loss": 1 - done + draw.uniform(0, 0.01),
                        "train_accuracy": None if epoch % 2 else 0.3 + 0.69 * done,
                        "validation_accuracy": None if stream == "online" else measured,
                        "train_seconds": seconds / count,
                    }
                )  # fmt: skip
            if status in ("diverged", "gave_up"):
                break
    folder.mkdir(parents=True, exist_ok=True)
    identity = ["scenario", "strategy", "seed", *map(_column, vary)]
    pd.DataFrame(rounds, columns=[*identity, *ROUND_COLUMNS]).rename(columns=column_of).to_csv(
        folder / "rounds.csv", index=False
    )
    pd.DataFrame(epochs, columns=[*identity, *EPOCH_COLUMNS]).rename(columns=column_of).to_csv(
        folder / "epochs.csv", index=False
    )
    scenario = {
        "name": f"fake_{stream}",
        "title": "",
        "data": {"name": "noisy_digits", "validation_fraction": 0.3333},
        "stream": {"name": stream, **({"head": "keep"} if stream == "pretrain" else {})},
        "strategies": {label: dict(arm) for label, arm in arms.items()},
        "seeds": list(range(seeds)),
        **({"vary": dict(vary)} if vary else {}),
        "metric": "validation_accuracy",
    }
    (folder / "scenario.yaml").write_text(yaml.safe_dump(scenario, sort_keys=False), encoding="utf-8")
    environment = {
        "date": "2026-11-21T10:00:00+00:00", "command": f"warmstart-sim run fake_{stream}", "rehearsal": rehearsal,
        "device": "cpu", "device_name": "an <AMD> core & more", "python": "3.12.1", "torch": "2.15.0", "commit": None,
        **({"notes": list(notes)} if notes else {}),
    }  # fmt: skip
    (folder / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    return folder


def _cells(
    stream: str, arms: Mapping[str, Mapping[str, Any]], seeds: int, vary: Mapping[str, list[Any] | Mapping[str, Any]]
) -> Iterator[Cell]:
    for arm, seed in itertools.product(arms, range(seeds)):
        mine = [key for key in vary if not key.startswith("strategies.") or key.split(".")[1] == arm]
        for values in itertools.product(*(vary[key] for key in mine)):
            varied = dict(zip(map(_column, mine), values, strict=True))
            yield {"scenario": f"fake_{stream}", "strategy": arm, "seed": seed, **varied}


def _column(key: str) -> str:
    return key.split(".", 2)[2] if key.startswith("strategies.") else key


def _data_of(stream: str, cell: Cell, vary: Mapping[str, list[Any] | Mapping[str, Any]]) -> list[str]:
    """The data set of each round."""
    settings: dict[str, Any] = {}
    for key, values in vary.items():
        settings |= values[cell[key]] if isinstance(values, Mapping) else {key: cell.get(_column(key))}
    target = settings.get("data.name", "noisy_digits")
    first = settings.get("stream.source.name", "cifar100") if stream == "pretrain" else target
    return [first, *[target] * (ROUNDS[stream] - 1)]


def _grown(stream: str, cell: Cell, index: int) -> float:
    """The share of the data that a round trains on."""
    if stream == "pretrain":
        return cell.get("stream.fraction", 1) if index else 1
    return (index + 1) / ROUNDS[stream]


def _effect(cell: Cell, stream: str) -> tuple[float, float]:
    """What the arm gains in final accuracy, and its share of random init's epochs."""
    if stream == "pretrain":  # with few data pre-training helps, with many it harms
        kept = {"random_init": 0, "warm_start": 1}.get(cell["strategy"], cell.get("lambda", 0.3))
        gain = kept * (0.07 - 0.12 * cell.get("stream.fraction", 1)) + 0.1 * kept * (1 - kept)
        return gain, 1 - 0.7 * kept
    if "lambda" in cell:
        return 0.015 - 0.1 * max(0.0, cell["lambda"] - 0.4), 1 - 0.8 * cell["lambda"]
    arms = {"random_init": (0.0, 1.0), "warm_start": (-0.08, 0.25), "shrink_perturb": (0.01, 0.5)}
    offset, share = arms.get(cell["strategy"], (-0.03, 0.4))
    return offset * (1 - cell.get("stream.fraction", 0)), share
