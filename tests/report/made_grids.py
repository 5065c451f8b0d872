"""Grids with made-up numbers, of any size, written at once: what the figures of grids are tested on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from warmstart_sim.results.columns import EPOCH_COLUMNS, ROUND_COLUMNS, column_of

LAMBDAS = [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]
SIGMAS = [1.0, 0.1, 0.01, 0.001, 0.0001, 0.0]
ARMS = {"random_init": {"start": "random_init"}, "shrink_perturb": {"start": "shrink_perturb"}}
Tweak = Callable[[pd.DataFrame], pd.DataFrame]


def write_grid(
    folder: Path,
    lambdas: Sequence[float] = LAMBDAS,
    sigmas: Sequence[float] = SIGMAS,
    seeds: int = 3,
    rounds: int = 3,
    more: Mapping[str, Sequence[Any]] | None = None,
    tweak: Tweak = lambda table: table,
    reference: bool = True,
    keys: tuple[str, str] = ("lambda", "sigma"),
) -> Path:
    """Writes the tables of a grid of shrink-perturb beside random init.

    Args:
        folder: Where to.
        lambdas: Values of the first key.
        sigmas: Values of the second key.
        seeds: How many.
        rounds: How many.
        more: Other varied settings, which both arms have.
        tweak: What becomes of rounds.csv before it is written.
        reference: Whether there is random init.
        keys: What the two are called.
    """
    rng = np.random.default_rng(1)
    more = more or {}
    arms = ARMS if reference else {"shrink_perturb": ARMS["shrink_perturb"]}
    plain = {**{key: list(values) for key, values in more.items()}, "seed": range(seeds), "round": range(rounds)}
    grid = _product({"strategy": ["shrink_perturb"], keys[0]: lambdas, keys[1]: sigmas, **plain})
    beside = _product({"strategy": ["random_init"], keys[0]: [np.nan], keys[1]: [np.nan], **plain})
    table = pd.concat([beside, grid] if reference else [grid], ignore_index=True)
    first, second = table[keys[0]].fillna(0), table[keys[1]].fillna(1)
    grown = (table["round"] + 1) / rounds
    luck = np.random.default_rng(0).normal(0, 0.01, seeds)[table["seed"]]
    seconds = (3 - 2 * first + second / 5) * grown * rng.uniform(0.9, 1.1, len(table))
    reached = 0.5 + 0.2 * grown**0.5 - 0.06 * first**2 * (table["round"] > 0) + luck + rng.normal(0, 0.004, len(table))
    table = table.assign(
        scenario="made", shared=False, dataset="d", train_samples=1000 * (table["round"] + 1), new_samples=1000,
        epochs=10, steps=100, samples_seen=10_000, flops=1e9, converged=True, status="converged", train_accuracy=0.99,
        train_loss=0.1, test_accuracy=reached, test_loss=1.0, train_seconds=seconds, criterion_seconds=0.1,
        evaluation_seconds=0.1, setup_seconds=0.1, timing="isolated", threads=1, device="cpu",
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    identity = ["scenario", "strategy", "seed", *keys, *more]
    table = tweak(table).reindex(columns=[*identity, *ROUND_COLUMNS])
    table.rename(columns=column_of).to_csv(folder / "rounds.csv", index=False)
    pd.DataFrame(columns=[*identity, *EPOCH_COLUMNS]).rename(columns=column_of).to_csv(
        folder / "epochs.csv", index=False
    )
    own = {f"strategies.shrink_perturb.{key}": [*values] for key, values in zip(keys, (lambdas, sigmas), strict=True)}
    scenario = {
        "name": "made", "title": "", "data": {"name": "digits"}, "stream": {"name": "online"}, "strategies": arms,
        "seeds": list(range(seeds)), "vary": {**own, **{key: [*values] for key, values in more.items()}},
        "metric": "test_accuracy",
    }  # fmt: skip
    (folder / "scenario.yaml").write_text(yaml.safe_dump(scenario, sort_keys=False), encoding="utf-8")
    (folder / "environment.json").write_text(json.dumps({"command": "made", "device": "cpu"}), encoding="utf-8")
    return folder


def _product(values: Mapping[str, Any]) -> pd.DataFrame:
    return pd.MultiIndex.from_product(list(values.values()), names=list(values)).to_frame(index=False)


def with_failures(table: pd.DataFrame) -> pd.DataFrame:
    """Eight settings give up, one diverges, one is not finished, one is not there, and one seed of one gives up."""
    lam, sigma, late = table["lambda"], table["sigma"], table["round"] > 0
    given_up = (lam <= 0.2) & (sigma <= 0.01) | (lam == 0.4) & (sigma == 0) & (table["seed"] == 1)
    diverged = (lam == 0.4) & (sigma == 0.001)
    table.loc[given_up & late, ["status", "test_accuracy"]] = ["gave_up", 0.1]
    table.loc[diverged & late, "status"] = "diverged"
    table.loc[diverged & late, "test_accuracy"] = np.nan
    begun = (lam == 0.8) & (sigma == 1)
    table["cell_complete"] = ~begun
    short = begun & (table["round"] == 2)
    absent = (lam == 0.8) & (sigma == 0.1)
    return table[~(short | absent)]
