"""Drops settings that cannot win: successive halving by paired differences from random init."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from warmstart_sim.results.statistics import summary

REFERENCE = "random_init"


@dataclass(frozen=True)
class Setting:
    """A way to start that competes with random init."""

    start: str
    lam: float | None = None
    sigma: float | None = None

    @property
    def label(self) -> str:
        """Its label in scenarios and tables."""
        return self.start if self.lam is None else f"{self.start}_{self.lam:g}_{self.sigma:g}"

    @property
    def arm(self) -> dict[str, Any]:
        """The arm in a scenario."""
        options = {} if self.lam is None else {"lambda": self.lam, "sigma": self.sigma}
        return {"start": self.start, **options}


# From the first that is tried in a small budget to the last.
SETTINGS = (
    Setting("warm_start"),
    Setting("shrink_perturb", 0.6, 0.1),
    Setting("shrink_perturb", 0.8, 0.01),
    Setting("shrink_perturb", 0.4, 0.1),
    Setting("shrink_perturb", 0.6, 0.01),
    Setting("shrink_perturb", 0.8, 0.1),
    Setting("shrink_perturb", 0.2, 0.1),
    Setting("shrink_perturb", 0.4, 0.01),
    Setting("shrink_perturb", 0.9, 0.1),
)


def over_rounds(rounds: pd.DataFrame, first: int, metric: str = "test_accuracy") -> pd.DataFrame:
    """The rows from round `first` on, with each cell's mean accuracy over them in the place of each round's.

    A summary of them is about that mean, and about the sums of seconds, samples and epochs over these rounds.
    """
    later = rounds[rounds["round"] >= first]
    means = later.groupby(["strategy", "seed"], observed=True)[metric].transform("mean")
    return later.assign(**{metric: means})


def compare(rounds: pd.DataFrame, first: int) -> pd.DataFrame:
    """A row for each start: its mean accuracy from round `first` on, and its paired difference from random init."""
    names = rounds["strategy"].astype(str)
    return summary(over_rounds(rounds.assign(strategy=names), first), (), "test_accuracy", REFERENCE)


def trend(rounds: pd.DataFrame, label: str, first: int) -> tuple[float, float]:
    """How much a start's difference from random init has changed from the rounds before `first` to those from it on.

    It compares equally many rounds before and after, but not the first, in which all starts agree.

    Args:
        rounds: Complete rounds of the start and of random init, with the same seeds.
        label: The start.
        first: The index of a round, at least 2.

    Returns:
        The mean over seeds and its standard error, which is NaN with one seed.
    """
    accuracy = rounds.pivot_table("test_accuracy", ["seed", "round"], "strategy", observed=True)
    difference = (accuracy[label] - accuracy[REFERENCE]).unstack("round")
    later = int(rounds["round"].max()) + 1 - first
    before = difference.loc[:, max(1, first - later) : first - 1].mean(axis=1)
    change = difference.loc[:, first:].mean(axis=1) - before
    return float(change.mean()), float(change.std()) / len(change) ** 0.5


def ranked(table: pd.DataFrame, margin: float) -> list[str]:
    """The labels of settings that trained in every seed, the best first.

    The quickest of those that are non-inferior to random init come first (the lower bound of the difference is above
    -margin, and they need less training); then the others by that bound.

    Args:
        table: From `compare`.
        margin: The loss of accuracy that does not matter, as a fraction.
    """
    rows: list[dict[Any, Any]] = table[table["strategy"] != REFERENCE].to_dict("records")
    sound = [row for row in rows if row["pairs"] > 1 and row["gave_up"] + row["diverged"] == 0]

    def place(row: dict[Any, Any]) -> tuple[bool, float]:
        if row["difference_bound"] > -margin and cost(row) < 1:
            return False, cost(row)
        return True, -row["difference_bound"]

    return [row["strategy"] for row in sorted(sound, key=place)]


def cost(row: dict[Any, Any]) -> float:
    """The share of random init's training: of its time where that was measured alone or estimated, else of samples."""
    ratio = row["time_ratio"] if row["timing"] in ("isolated", "estimated") else row["samples_ratio"]
    return float(row["samples_ratio"] if pd.isna(ratio) else ratio)
