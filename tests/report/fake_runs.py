"""Run folders with made-up numbers, shaped as real ones: what the report is tested on."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

ARMS: dict[str, dict[str, Any]] = {
    "random_init": {"start": "random_init"},
    "warm_start": {"start": "warm_start"},
    "shrink_perturb": {"start": "shrink_perturb", "lambda": 0.6, "sigma": 0.1},
}
# What an arm loses in final accuracy, and its share of random init's epochs.
EFFECT = {"random_init": (0.0, 1.0), "warm_start": (-0.08, 0.25), "shrink_perturb": (0.01, 0.5)}


def write_run(
    folder: Path,
    stream: str = "online",
    seeds: int = 5,
    rounds: int = 6,
    arms: dict[str, dict[str, Any]] = ARMS,
    vary: dict[str, list[Any]] | None = None,
    leave_out: Any = lambda cell: False,
    failed: dict[tuple[str, int], str] | None = None,
    rehearsal: bool = False,
    timing: Any = lambda cell: "shared",
    epochs_per_round: int = 30,
    accuracy: float = 0.72,
) -> Path:
    """Writes scenario.yaml, environment.json, rounds.csv and epochs.csv of a run that was never run.

    Args:
        folder: Where to.
        stream: online, split (two rounds, the first shared) or static.
        seeds: The number of seeds.
        rounds: Rounds of an online stream.
        arms: As in a scenario file.
        vary: As in a scenario file.
        leave_out: `leave_out({"strategy", "seed", varied values, "round"})` says which rows are not there.
        failed: (arm, seed) -> the status in which its second own round ends the cell.
        rehearsal: What environment.json says.
        timing: `timing(cell)` is isolated or shared.
        epochs_per_round: Of random init, about.
        accuracy: Of random init in the last round, about.
    """
    vary, failed = vary or {}, failed or {}
    rounds = {"online": rounds, "split": 2, "static": 1}[stream]
    columns = {key: key.rpartition(".")[2] if key.startswith("strategies.") else key for key in vary}
    rng = np.random.default_rng(0)
    round_rows, epoch_rows = [], []
    for arm, seed in itertools.product(arms, range(seeds)):
        mine = [key for key in vary if not key.startswith("strategies.") or key.startswith(f"strategies.{arm}.")]
        for values in itertools.product(*(vary[key] for key in mine)):
            varied = dict.fromkeys(columns.values(), "") | {columns[k]: v for k, v in zip(mine, values)}
            offset, share = _effect(arm, varied)
            common = np.random.default_rng(seed).normal(0, 0.01)
            own = rng.normal(0, 0.006)
            for index in range(rounds):
                shared = stream == "split" and index == 0
                cell = {"scenario": f"fake_{stream}", "strategy": arm, "seed": seed, **varied, "round": index}
                if leave_out(cell):
                    continue
                status = failed.get((arm, seed), "converged") if index == min(1, rounds - 1) else "converged"
                draw = np.random.default_rng(1000 + seed) if shared else rng
                grown = (index + 1) / rounds
                final = accuracy * (0.55 + 0.45 * grown**0.5) + common + (0 if shared else own) + draw.normal(0, 0.004)
                final += 0 if shared or index == 0 else offset * grown
                final = float("nan") if status == "diverged" else min(final, 0.999)
                first = shared or index == 0
                epochs = max(2, int(epochs_per_round * (1 if first else share) * draw.uniform(0.85, 1.15)))
                samples = int(6000 * grown)
                steps = epochs * -(-samples // 128)
                seconds = steps * 0.004 * draw.uniform(0.95, 1.1)
                round_rows.append(
                    {
                        **cell, "shared": shared, "train_samples": samples, "new_samples": 6000 // rounds,
                        "epochs": epochs, "steps": steps, "samples_seen": epochs * samples,
                        "flops": steps * 1e9, "converged": status == "converged", "status": status,
                        "train_accuracy": 0.995, "train_loss": 0.02, "validation_accuracy": final,
                        "validation_loss": 1.2, "test_accuracy": "", "test_loss": "", "train_seconds": seconds,
                        "criterion_seconds": seconds / 5, "evaluation_seconds": 0.01, "setup_seconds": 0.1,
                        "timing": timing(cell), "threads": 1, "device": "cpu",
                    }
                )  # fmt: skip
                start = 0.1 if first or arm.startswith("random") else 0.45
                for epoch in range(1, epochs + 1):
                    done = 1 - np.exp(-4 * epoch / epochs)
                    epoch_rows.append(
                        {
                            **cell, "shared": shared, "epoch": epoch, "steps": steps // epochs, "learning_rate": 0.001,
                            "running_train_accuracy": 0.3 + 0.69 * done, "running_train_loss": 1 - done + draw.uniform(0, 0.01),
                            "train_accuracy": "" if epoch % 2 else 0.3 + 0.69 * done,
                            "validation_accuracy": start + (final - start) * done + draw.normal(0, 0.008)
                            if stream != "online" else "",
                            "test_accuracy": "", "train_seconds": seconds / epochs,
                        }
                    )  # fmt: skip
                if status in ("diverged", "gave_up"):
                    break
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("rounds.csv", round_rows), ("epochs.csv", epoch_rows)):
        _write_csv(folder / name, rows, list(columns.values()))
    scenario = {
        "name": f"fake_{stream}",
        "data": {"name": "noisy_digits", "validation_fraction": 0.3333},
        "scenario": {"name": stream},
        "model": {"name": "small_cnn"},
        "training": {"optimizer": {"name": "adam", "lr": 0.001}, "batch_size": 128},
        "strategies": arms,
        "seeds": list(range(seeds)),
        "vary": vary,
        "metric": "validation_accuracy",
    }
    (folder / "scenario.yaml").write_text(yaml.safe_dump(scenario, sort_keys=False), encoding="utf-8")
    environment = {
        "python": "3.12.1", "torch": "2.15.0", "device": "cpu", "cpu": "an <AMD> core & more", "commit": "abc1234",
        "date": "2026-11-21 10:00", "command": f"warmstart-sim run fake_{stream}", "rehearsal": rehearsal,
    }  # fmt: skip
    (folder / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    return folder


def _effect(arm: str, varied: dict[str, Any]) -> tuple[float, float]:
    offset, share = EFFECT.get(arm, (-0.03, 0.4))
    if varied.get("lambda", "") != "":
        lam = float(varied["lambda"])
        return 0.015 - 0.1 * max(0.0, lam - 0.4), 1 - 0.8 * lam
    if "scenario.fraction" in varied and arm != "random_init":
        return offset * (1 - float(varied["scenario.fraction"])), share
    return offset, share


ROUND_COLUMNS = ["shared", "train_samples", "new_samples", "epochs", "steps", "samples_seen", "flops", "converged", "status", "train_accuracy", "train_loss", "validation_accuracy", "validation_loss", "test_accuracy", "test_loss", "train_seconds", "criterion_seconds", "evaluation_seconds", "setup_seconds", "timing", "threads", "device"]
EPOCH_COLUMNS = ["shared", "epoch", "steps", "learning_rate", "running_train_accuracy", "running_train_loss", "train_accuracy", "validation_accuracy", "test_accuracy", "train_seconds"]


def _write_csv(path: Path, rows: list[dict[str, Any]], axes: list[str]) -> None:
    columns = ["scenario", "strategy", "seed", *axes, "round"]
    columns += ROUND_COLUMNS if path.name == "rounds.csv" else EPOCH_COLUMNS
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
