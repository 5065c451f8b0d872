"""Summarises a run's rounds over seeds, with paired statistics.

A cell is one arm with one combination of varied values and one seed. Means are over complete cells only; cells that
diverged, gave up or have not reached the last round are counted in columns of their own. Shared rounds (a first phase
that all arms start from) do not count towards an arm's accuracy, seconds, epochs or steps.

Seconds are of three kinds, isolated, estimated and concurrent; `counted_seconds` decides which of them a round has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.typing import DataFrameGroupBy
from scipy.special import stdtr, stdtrit

FAILED = ("diverged", "gave_up")
ESTIMATE = "estimated_isolated_seconds"
NOISE_DIGITS = 12  # later digits depend on the order of a sum; they are rounded off, so that equal means are equal


def counted_seconds(rounds: pd.DataFrame) -> pd.DataFrame:
    """The rounds with the seconds that summaries and figures of time use, and their kind.

    Seconds of different kinds cannot be compared: a cell that ran beside others had to wait for them.

    Args:
        rounds: As in rounds.csv.

    Returns:
        The same rows; `timing` is the kind of `train_seconds`:

        - isolated: as measured, alone on the device;
        - estimated: `estimated_isolated_seconds` replaces the seconds measured beside other cells, which move to
          `concurrent_train_seconds` (empty in all other rows);
        - concurrent: as measured beside other cells, because there is no estimate.
    """
    alone = estimates(rounds)
    known = (rounds["timing"] == "concurrent") & alone.notna()
    return rounds.assign(
        train_seconds=rounds["train_seconds"].where(~known, alone),
        concurrent_train_seconds=rounds["train_seconds"].where(known).astype(float),
        timing=rounds["timing"].where(~known, "estimated"),
    )


def estimates(rounds: pd.DataFrame) -> pd.Series[float]:
    """The column of estimated seconds; empty for tables of earlier versions, which lack it."""
    return rounds.get(ESTIMATE, pd.Series(np.nan, rounds.index)).astype(float)


def cells(rounds: pd.DataFrame, axes: Sequence[str], metric: str) -> pd.DataFrame:
    """One row for each cell: its accuracy, its cost and its state.

    `state` is complete, unfinished (before the last round that any cell of the same setting has reached), diverged or
    gave_up; only complete cells count. `curve_accuracy` is the mean over rounds; `epochs`, `steps` and the seconds,
    which are those of `counted_seconds`, are sums over rounds. `timing` is the kind of these seconds, or mixed if there
    are several; `first_phase_seconds` and `first_phase_timing` are the same for the shared rounds.
    """
    keys = ["strategy", *axes, "seed"]
    rounds = counted_seconds(rounds).sort_values([*keys, "round"]).assign(accuracy=rounds[metric])
    rounds = rounds.assign(**{status: rounds["status"] == status for status in FAILED})
    shared = rounds["shared"].astype(bool)
    own, first = rounds[~shared], rounds[shared]
    groups = _grouped(own, keys)
    # Only pandas's built-in aggregations: a Python function for each group takes seconds with thousands of cells.
    table = groups.agg(
        last_round=("round", "max"),
        **{status: (status, "any") for status in FAILED},
        curve_accuracy=("accuracy", "mean"),
        train_seconds=("train_seconds", "sum"),
        epochs=("epochs", "sum"),
        steps=("steps", "sum"),
        converged=("converged", "mean"),
    )
    table["state"] = np.select([table.pop(status) for status in FAILED], FAILED, "complete")
    table["concurrent_train_seconds"] = groups["concurrent_train_seconds"].sum(min_count=1)
    table["timing"] = timing_kinds(own, keys, "timing")
    last = own.drop_duplicates(keys, keep="last").rename(columns={"accuracy": "final_accuracy"})
    table = table.reset_index().merge(last[[*keys, "final_accuracy"]], on=keys)
    settings = [axis for axis in axes if rounds[axis].notna().all()]
    reached = _grouped(table, settings)["last_round"].transform("max") if settings else table["last_round"].max()
    table.loc[(table["state"] == "complete") & (table["last_round"] < reached), "state"] = "unfinished"
    of_first = _grouped(first, keys).agg(first_phase_seconds=("train_seconds", "sum"))
    of_first["first_phase_timing"] = timing_kinds(first, keys, "timing")
    return table.merge(of_first.reset_index(), on=keys, how="left")


def timing_kinds(frame: pd.DataFrame, by: Sequence[str], column: str) -> pd.Series[str]:
    """The kind of seconds of each group, indexed by group: one kind, mixed if there are several, or empty."""
    names = frame[column].dropna().unique()
    numbers = frame[column].map({name: float(number) for number, name in enumerate(names)}).astype(float)
    ends = _grouped(frame.assign(kind=numbers), by)["kind"].agg(["min", "max"])
    return ends["min"].mask(ends["min"] < ends["max"], -1).map({**dict(enumerate(names)), -1: "mixed"})


def over_seeds(frame: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Summarises `value` over the rows of each group: the mean and its uncertainty.

    Returns:
        Columns `by`, then seeds (how many values), mean, std (n - 1), low and high (95 % t-interval of the mean),
        and p (two-sided t-test of mean = 0). With one value std, low, high and p are empty; with equal values p is.
    """
    table = _grouped(frame, by)[value].agg(seeds="count", mean="mean", std="std").astype(float).reset_index()
    table[["mean", "std"]] = table[["mean", "std"]].round(NOISE_DIGITS)
    # With one value std is empty, so the degree of freedom that is written here has no effect.
    freedom = np.maximum(table["seeds"] - 1, 1)
    error = table["std"] / np.sqrt(table["seeds"])
    half = stdtrit(freedom, 0.975) * error
    p = 2 * stdtr(freedom, -(table["mean"].abs() / error.where(error > 0)))
    return table.assign(low=table["mean"] - half, high=table["mean"] + half, p=p)


def _grouped(frame: pd.DataFrame, by: Sequence[str]) -> DataFrameGroupBy[Any, Any]:
    """Groups the rows, including groups with an empty varied value."""
    return frame.groupby(list(by), dropna=False, observed=True)


def paired(complete: pd.DataFrame, axes: Sequence[str], reference: str) -> pd.DataFrame:
    """Pairs each complete cell with the complete cell of the reference arm, if there is one.

    The partner has the same seed and the same values on those axes that the reference arm has.

    Returns:
        A row for each pair: the cell's own columns, `difference` and `curve_difference` (fractions), and
        `log_time_ratio`, which is empty if the seconds of the two are of different kinds.
    """
    base = complete[complete["strategy"] == reference]
    on = ["seed", *(axis for axis in axes if base[axis].notna().any())]
    others = complete[complete["strategy"] != reference]
    pairs = others.merge(
        base[[*on, "final_accuracy", "curve_accuracy", "train_seconds", "timing"]],
        on=on,
        suffixes=("", "_reference"),
        validate="many_to_one",
    )
    same_timing = (pairs["timing"] == pairs["timing_reference"]) & (pairs["timing"] != "mixed")
    timed = same_timing & (pairs["train_seconds"] > 0) & (pairs["train_seconds_reference"] > 0)
    ratio = (pairs["train_seconds"] / pairs["train_seconds_reference"]).where(timed)
    return pairs.assign(
        difference=pairs["final_accuracy"] - pairs["final_accuracy_reference"],
        curve_difference=pairs["curve_accuracy"] - pairs["curve_accuracy_reference"],
        log_time_ratio=np.log(ratio),
    )


def summary(rounds: pd.DataFrame, axes: Sequence[str], metric: str, reference: str) -> pd.DataFrame:
    """One row for each arm and combination of varied values.

    Args:
        rounds: As in rounds.csv.
        axes: Its columns of varied values.
        metric: Its column of the headline accuracy.
        reference: The arm that differences and ratios are taken to; in its own rows they are empty.

    Returns:
        The arm and its varied values, then:

        - seeds, unfinished, diverged, gave_up: the number of complete cells, which the rest is about, and of others;
        - final_accuracy, _std, _low, _high: of the last round, mean over seeds, 95 % t-interval; fractions;
        - curve_accuracy: mean over rounds, then over seeds;
        - train_seconds, _std, _low, _high: the sum over an arm's own rounds, of the kind that timing names;
        - concurrent_train_seconds: where they are estimated, the seconds measured beside other cells;
        - first_phase_seconds, first_phase_timing: the same of the shared rounds;
        - epochs, steps: sums over rounds, mean over seeds; converged: the share of rounds that converged;
        - pairs: seeds that the reference completed as well; the rest is about differences within a seed;
        - difference, _low, _high, _p: of final accuracy, with a paired t-test; p is empty if all seeds are equal;
        - curve_difference, _low, _high: of curve accuracy;
        - time_ratio, _low, _high: of train seconds; geometric mean, with the t-interval of the log ratios;
        - timing: the kind of train_seconds: isolated, estimated, concurrent, or mixed.
    """
    table = cells(rounds, axes, metric)
    keys = ["strategy", *axes]
    complete = table[table["state"] == "complete"]
    pairs = paired(complete, axes, reference)

    states = pd.DataFrame({state: table["state"] == state for state in ("unfinished", *FAILED)}).astype(int)
    ratio = _summarize_column(pairs, keys, "log_time_ratio", "low", "high").set_index(keys).apply(np.exp).reset_index()
    parts = [
        _grouped(complete, keys).size().rename("seeds").reset_index(),
        _grouped(table[keys].join(states), keys).sum().reset_index(),
        _summarize_column(complete, keys, "final_accuracy", "std", "low", "high"),
        _summarize_column(complete, keys, "curve_accuracy"),
        _summarize_column(complete, keys, "train_seconds", "std", "low", "high"),
        *(_summarize_column(complete, keys, column) for column in ("concurrent_train_seconds", "first_phase_seconds")),
        *(_summarize_column(complete, keys, column) for column in ("epochs", "steps", "converged")),
        _grouped(pairs, keys).size().rename("pairs").reset_index(),
        _summarize_column(pairs, keys, "difference", "low", "high", "p"),
        _summarize_column(pairs, keys, "curve_difference", "low", "high"),
        ratio.rename(columns=lambda name: name.removeprefix("log_")),
        *(
            timing_kinds(complete, keys, column).rename(column).reset_index()
            for column in ("timing", "first_phase_timing")
        ),
    ]
    result = table[keys].drop_duplicates()
    for part in parts:
        result = result.merge(part, how="left", on=keys)
    return result.fillna({"seeds": 0, "pairs": 0}).astype({"seeds": int, "pairs": int})


def _summarize_column(frame: pd.DataFrame, keys: list[str], value: str, *columns: str) -> pd.DataFrame:
    """`over_seeds` with the mean in the column `value`, and others of its columns as `value_std` and so on."""
    names = {"mean": value} | {column: f"{value}_{column}" for column in columns}
    return over_seeds(frame, keys, value)[[*keys, *names]].rename(columns=names)


def most_accurate(summary: pd.DataFrame, reference: str, most: int) -> pd.DataFrame:
    """The `most` most accurate rows of a summary, in its order; the rows of the reference are always among them.

    Args:
        summary: From `summary`.
        reference: The reference arm; its rows are kept first, up to `most`.
        most: The number of rows to keep.
    """
    if len(summary) <= most:
        return summary
    first = summary["strategy"] == reference
    accuracy = summary["final_accuracy"].where(~first, np.inf)
    return summary.loc[accuracy.sort_values(ascending=False, kind="stable").index[:most].sort_values()]
