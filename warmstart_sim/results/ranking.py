"""Ranks arms by accuracy at equal time and by time at equal accuracy, with paired tests and groups."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from warmstart_sim.results.columns import Row
from warmstart_sim.results.inference import LEVEL
from warmstart_sim.results.statistics import adjusted_differences, counted_seconds


def known_seconds(rounds: pd.DataFrame, arm: list[str]) -> pd.Series[float]:
    """The seconds of each round, as `counted_seconds` has them, with those that it leaves empty filled in.

    A round without a usable estimate has its steps times what a step of the arm takes in other seeds; without any
    usable estimate of the arm, its measured seconds.

    Args:
        rounds: As in rounds.csv.
        arm: The columns that make an arm with its varied values.
    """
    counted = counted_seconds(rounds)
    seconds, steps = counted["compared_seconds"], counted["steps"]
    timed = counted.assign(seconds=seconds, steps=steps.where(seconds.notna()))
    of_arm = timed.groupby(arm, dropna=False, observed=True)[["seconds", "steps"]].transform("sum")
    return seconds.fillna(steps * of_arm["seconds"] / of_arm["steps"]).fillna(counted["train_seconds"])


def accuracy_at(budget: float, seconds: np.ndarray, accuracy: np.ndarray) -> float:
    """The accuracy at a time, on the line through the ends of the rounds; before and after them, that of the nearest.

    Args:
        budget: The time.
        seconds: Train seconds up to the end of each round, increasing, shape (rounds,).
        accuracy: At the end of each round, shape (rounds,).

    >>> accuracy_at(3.0, np.array([2.0, 4.0]), np.array([0.5, 0.7]))
    0.6
    """
    return float(np.interp(budget, seconds, accuracy))


def time_to(target: float, seconds: np.ndarray, accuracy: np.ndarray) -> float:
    """The first time at which the line through the ends of the rounds reaches an accuracy; infinity if it never does.

    >>> time_to(0.6, np.array([2.0, 4.0, 5.0]), np.array([0.5, 0.7, 0.6]))
    3.0
    """
    reached = accuracy >= target
    if not reached.any():
        return float("inf")
    first = int(reached.argmax())
    start = max(0, first - 1)
    return float(np.interp(target, accuracy[[start, first]], seconds[[start, first]]))


def critical_difference(arms: int, seeds: int) -> float:
    """How far apart two mean ranks must be to differ at the 5 % level among all pairs (Nemenyi's test).

    CD = q(0.95; k, inf) / sqrt(2) sqrt(k (k + 1) / (6 n)) for k arms and n seeds, with the studentised range q. Source:
    Demšar 2006, section 3.2.2.

    >>> round(critical_difference(arms=4, seeds=14), 3)
    1.254
    """
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - LEVEL, arms, np.inf)) / math.sqrt(2)
    return q * math.sqrt(arms * (arms + 1) / (6 * seeds))


def groups_of(ranks: np.ndarray, difference: float) -> list[str]:
    """The groups of arms that do not differ, as letters: arms that share no letter differ.

    Args:
        ranks: Mean ranks in increasing order.
        difference: The critical difference.

    >>> groups_of(np.array([1.0, 2.0, 3.5]), 1.6)
    ['a', 'ab', 'b']
    """
    last = np.searchsorted(ranks, ranks + difference, side="right")  # of a group that begins with each arm, exclusive
    begins = [first for first, end in enumerate(last) if first == 0 or end > last[first - 1]]
    names = [chr(ord("a") + index) if index < 26 else f"({index})" for index in range(len(begins))]
    return [
        "".join(name for name, first in zip(names, begins, strict=True) if first <= arm < last[first])
        for arm in range(len(ranks))
    ]


def rank_arms(
    rounds: pd.DataFrame, reference: str, budget: float | None = None, target: float | None = None
) -> Iterator[Row]:
    """The rows of the analysis `ranking` for one setting, the most accurate arm first.

    Args:
        rounds: Complete cells only: strategy, seed, round, seconds, accuracy.
        reference: The arm that tests compare with.
        budget: The equal time, in seconds. Default: the mean total of the arm with the least.
        target: The equal accuracy. Default: the mean final accuracy of the arm with the lowest.
    """
    curves = {
        cell: (rows["seconds"].cumsum().to_numpy(), rows["accuracy"].to_numpy())
        for cell, rows in rounds.sort_values("round").groupby(["strategy", "seed"], observed=True)
    }
    index = pd.MultiIndex.from_tuples(curves, names=["strategy", "seed"])

    def by_arm(values: list[float]) -> pd.DataFrame:
        """A column for each arm, a row for each seed that all arms completed."""
        return pd.Series(values, index).unstack("strategy").dropna()

    total, final = (by_arm([float(curve[part][-1]) for curve in curves.values()]) for part in (0, 1))
    if total.empty:
        return
    budget = float(total.mean().min()) if budget is None else budget
    target = float(final.mean().min()) if target is None else target
    accuracy = by_arm([accuracy_at(budget, *curve) for curve in curves.values()])
    seconds = by_arm([time_to(target, *curve) for curve in curves.values()])

    seeds, arms = accuracy.shape
    gain = _tested(accuracy.sub(accuracy[reference], axis=0)).to_dict("index")
    ratio = seconds.div(seconds[reference], axis=0)
    slower = _tested(ratio.where(np.isfinite(ratio) & (ratio > 0)).transform("log"))
    time_ranks = seconds.median().rank(method="min")
    ranks = accuracy.rank(axis=1, ascending=False).mean().sort_values(kind="stable")
    groups = groups_of(ranks.to_numpy(), critical_difference(arms, seeds) if arms > 1 else 0.0)
    for place, (arm, group) in enumerate(zip(map(str, ranks.index), groups, strict=True), start=1):
        tested, timed = gain[arm], slower.loc[arm]
        yield {
            "rank": place,
            "strategy": arm,
            "groups": group,
            "verdict": "" if arm == reference else _verdict(tested),
            "mean_rank": ranks[arm],
            "accuracy": accuracy[arm].mean(),
            "difference": tested["difference"],
            "difference_low": tested["difference_low_holm"],
            "difference_high": tested["difference_high_holm"],
            "p_holm": tested["difference_p_holm"],
            "time_rank": time_ranks[arm],
            "time_ratio": np.exp(timed["difference"]),
            "time_ratio_low": np.exp(timed["difference_low_holm"]),
            "time_ratio_high": np.exp(timed["difference_high_holm"]),
            "time_p_holm": timed["difference_p_holm"],
            "reached": int(np.isfinite(seconds[arm]).sum()),
            "seeds": seeds,
            "final_accuracy": final[arm].mean(),
            "equal_seconds": budget,
            "equal_accuracy": target,
        }


def _tested(differences: pd.DataFrame) -> pd.DataFrame:
    """Paired t-tests of each arm (a column) over seeds (rows), adjusted by Holm's method."""
    pairs = differences.melt(var_name="strategy", value_name="difference")
    return adjusted_differences(pairs, ["strategy"]).set_index("strategy")


def _verdict(tested: Mapping[Hashable, Any]) -> str:
    if not tested["difference_p_holm"] < LEVEL:
        return "noise"
    return "gain" if tested["difference"] > 0 else "loss"
