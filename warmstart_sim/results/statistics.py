"""Summarises a run's rounds over seeds, with paired statistics.

A cell is one arm with one combination of varied values and one seed. Means are over complete cells only; cells that
diverged, gave up or have not reached the last round are counted in columns of their own. Shared rounds (a first phase
that all arms start from) do not count towards an arm's accuracy, seconds, epochs or steps.

Seconds are of three kinds, isolated, estimated and concurrent; `counted_seconds` decides which of them a round has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.typing import DataFrameGroupBy
from scipy.special import stdtr, stdtrit

from warmstart_sim.results.inference import LEVEL, holm_factors, lower_bounds

FAILED = ("diverged", "gave_up")
UNKNOWN = {"cell_complete": True, "device_name": None}  # in tables of earlier versions
# Of a cell: sums over its rounds.
COSTS = ("train_seconds", "criterion_seconds", "epochs", "steps", "samples_seen", "flops")
RATIOS = {"time_ratio": "compared_seconds", "samples_ratio": "samples_seen", "flops_ratio": "flops"}
ESTIMATE = "estimated_isolated_seconds"
CONCURRENT = "concurrent"
TOLERANCE = 1.05  # of an estimate above the measured seconds, for noise
MOST_IMPOSSIBLE = 0.2  # share of the cells; with more, no estimate of a run is used
NOISE_DIGITS = 12  # later digits depend on the order of a sum; they are rounded off, so that equal means are equal


def counted_seconds(rounds: pd.DataFrame) -> pd.DataFrame:
    """Adds `compared_seconds`, those that summaries and figures of time use, and sets `timing` to their kind.

    Seconds of different kinds cannot be compared: a cell that ran beside others had to wait for them.

    Args:
        rounds: As in rounds.csv.

    Returns:
        The same rows, with `timing`:

        - isolated: measured alone on the device;
        - estimated: `estimated_isolated_seconds`, for rounds that ran beside other cells; empty for cells whose
          estimates are impossible;
        - concurrent: measured beside other cells, because there is no estimate, or because the estimates of so many
          cells are impossible that none of the run is used.
    """
    alone = estimates(rounds)
    impossible = _impossible_estimates(rounds)
    few = _count_cells(rounds[impossible]) <= MOST_IMPOSSIBLE * _count_cells(rounds[alone.notna()])
    known = (rounds["timing"] == CONCURRENT) & alone.notna() & few
    return rounds.assign(
        compared_seconds=rounds["train_seconds"].where(~known, alone.mask(impossible)).astype(float),
        timing=rounds["timing"].where(~known, "estimated"),
    )


def _impossible_estimates(rounds: pd.DataFrame) -> pd.Series[bool]:
    """Whether a round's cell has estimates that exceed what was measured beside other cells, by over `TOLERANCE`.

    Alone on the device, a cell cannot take longer than beside others: the step time was measured at a slower moment
    than that of the cell.
    """
    rounds = rounds.assign(**{ESTIMATE: estimates(rounds)})
    beside = rounds[(rounds["timing"] == CONCURRENT) & rounds[ESTIMATE].notna()]
    sums = _grouped(beside, _cell_columns(rounds))[[ESTIMATE, "train_seconds"]].transform("sum")
    return (sums[ESTIMATE] > TOLERANCE * sums["train_seconds"]).reindex(rounds.index, fill_value=False)


def count_impossible_estimates(rounds: pd.DataFrame) -> tuple[int, int]:
    """The number of cells with impossible estimates, and of all cells with estimates."""
    return _count_cells(rounds[_impossible_estimates(rounds)]), _count_cells(rounds[estimates(rounds).notna()])


def _count_cells(rounds: pd.DataFrame) -> int:
    return len(rounds[_cell_columns(rounds)].drop_duplicates())


def _cell_columns(rounds: pd.DataFrame) -> list[str]:
    """The columns that say which cell a row is of: those before `round`."""
    columns = list(rounds.columns)
    return columns[: columns.index("round")]


def estimates(rounds: pd.DataFrame) -> pd.Series[float]:
    """The column of estimated seconds; empty for tables of earlier versions, which lack it."""
    return rounds.get(ESTIMATE, pd.Series(np.nan, rounds.index)).astype(float)


def cells(rounds: pd.DataFrame, axes: Sequence[str], metric: str) -> pd.DataFrame:
    """One row for each cell: its accuracy, its cost and its state.

    `state` is complete, unfinished (by `cell_complete`; in tables without it, before the last round of any cell of the
    same setting), diverged or gave_up; only complete cells count. `curve_accuracy` is the mean over rounds; costs are
    sums over rounds: epochs, steps, samples, FLOPs and seconds. `train_seconds` and `criterion_seconds` are measured,
    `compared_seconds` are those of `counted_seconds`, and `timing` is their kind, or mixed if there are several;
    `first_phase_seconds` and `first_phase_timing` are the same for the shared rounds. `device_name` is mixed if rounds
    were trained on several devices.
    """
    keys = ["strategy", *axes, "seed"]
    rounds = counted_seconds(rounds).sort_values([*keys, "round"]).assign(accuracy=rounds[metric])
    says_complete = "cell_complete" in rounds
    rounds = rounds.assign(**{name: rounds.get(name, value) for name, value in UNKNOWN.items()})
    rounds = rounds.assign(**{status: rounds["status"] == status for status in FAILED})
    shared = rounds["shared"].astype(bool)
    own, first = rounds[~shared], rounds[shared]
    groups = _grouped(own, keys)
    # Only pandas's built-in aggregations: a Python function for each group takes seconds with thousands of cells.
    table = groups.agg(
        last_round=("round", "max"),
        **{status: (status, "any") for status in FAILED},
        curve_accuracy=("accuracy", "mean"),
        **{column: (column, "sum") for column in COSTS},
        converged_share=("converged", "mean"),
        cell_complete=("cell_complete", "all"),
    )
    table["state"] = np.select([table.pop(status) for status in FAILED], FAILED, "complete")
    table["compared_seconds"] = groups["compared_seconds"].sum(min_count=1)
    for column in ("timing", "device_name"):
        table[column] = timing_kinds(own, keys, column)
    last = own.drop_duplicates(keys, keep="last").rename(columns={"accuracy": "final_accuracy"})
    table = table.reset_index().merge(last[[*keys, "final_accuracy"]], on=keys)
    unfinished = ~table.pop("cell_complete")
    if not says_complete:
        settings = [axis for axis in axes if rounds[axis].notna().all()]
        reached = _grouped(table, settings)["last_round"].transform("max") if settings else table["last_round"].max()
        unfinished |= table["last_round"] < reached
    table.loc[(table["state"] == "complete") & unfinished, "state"] = "unfinished"
    of_first = _grouped(first, keys).agg(first_phase_seconds=("compared_seconds", "sum"))
    of_first["first_phase_timing"] = timing_kinds(first, keys, "timing")
    return table.merge(of_first.reset_index(), on=keys, how="left")


def timing_kinds(frame: pd.DataFrame, by: Sequence[str], column: str) -> pd.Series[str]:
    """The kind of seconds (or the device) of each group, by group: one kind, mixed if there are several, or empty."""
    names = frame[column].dropna().unique()
    numbers = frame[column].map({name: float(number) for number, name in enumerate(names)}).astype(float)
    ends = _grouped(frame.assign(kind=numbers), by)["kind"].agg(["min", "max"])
    return ends["min"].mask(ends["min"] < ends["max"], -1).map({**dict(enumerate(names)), -1: "mixed"})


def over_seeds(frame: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Summarises `value` over the rows of each group: the mean and its uncertainty.

    Returns:
        Columns `by`, then seeds (how many values), mean, std (n - 1), low and high (95 % t-interval of the mean),
        and p (two-sided t-test of mean = 0). With one value std, low, high and p are empty; with equal values low, high
        and p are, because chance ties say nothing about other seeds (low and high are 0 if all values are).
    """
    return _each_over_seeds(frame, by, [value])[value]


def _each_over_seeds(frame: pd.DataFrame, by: Sequence[str], values: Sequence[str]) -> dict[str, pd.DataFrame]:
    """`over_seeds` of several columns at once, which takes hardly longer than of one."""
    groups = _grouped(frame.astype(dict.fromkeys(values, float)), by)[list(values)]
    counts, means, deviations = groups.count(), groups.mean(), groups.std()
    keys = counts[[]].reset_index()
    tables = {}
    for value in values:
        count = counts[value].to_numpy(float)
        mean, std = (each[value].to_numpy(float).round(NOISE_DIGITS) for each in (means, deviations))
        # With one value std is empty, so the degree of freedom that is written here has no effect.
        freedom = np.maximum(count - 1, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = std / np.sqrt(count)
            half = np.where((error > 0) | (mean == 0), stdtrit(freedom, 0.975) * error, np.nan)
            p = 2 * stdtr(freedom, -(np.abs(mean) / np.where(error > 0, error, np.nan)))
        tables[value] = keys.assign(seeds=count, mean=mean, std=std, low=mean - half, high=mean + half, p=p)
    return tables


def _grouped(frame: pd.DataFrame, by: Sequence[str]) -> DataFrameGroupBy[Any, Any]:
    """Groups the rows, including groups with an empty varied value."""
    return frame.groupby(list(by), dropna=False, observed=True)


def paired(complete: pd.DataFrame, axes: Sequence[str], reference: str) -> pd.DataFrame:
    """Pairs each complete cell with the complete cell of the reference arm, if there is one.

    The partner has the same seed and the same values on those axes that the reference arm has.

    Returns:
        A row for each pair: the cell's own columns, `difference` and `curve_difference` (fractions), and the logarithms
        of the ratios of costs: `log_time_ratio` of `compared_seconds`, which is empty if those of the two are of
        different kinds or from different devices, `log_samples_ratio` and `log_flops_ratio`.
    """
    base = complete[complete["strategy"] == reference]
    on = ["seed", *(axis for axis in axes if base[axis].notna().any())]
    others = complete[complete["strategy"] != reference]
    pairs = others.merge(
        base[[*on, "final_accuracy", "curve_accuracy", "timing", "device_name", *RATIOS.values()]],
        on=on,
        suffixes=("", "_reference"),
        validate="many_to_one",
    )
    same_timing = (pairs["timing"] == pairs["timing_reference"]) & (pairs["timing"] != "mixed")
    device, other = pairs["device_name"], pairs["device_name_reference"]
    same_device = device.isna() | other.isna() | ((device == other) & (device != "mixed"))
    ratios = {name: (pairs[cost] / pairs[f"{cost}_reference"]).astype(float) for name, cost in RATIOS.items()}
    ratios["time_ratio"] = ratios["time_ratio"].where(same_timing & same_device)
    logs = {f"log_{name}": np.log(ratio.where((ratio > 0) & np.isfinite(ratio))) for name, ratio in ratios.items()}
    return pairs.assign(
        difference=pairs["final_accuracy"] - pairs["final_accuracy_reference"],
        curve_difference=pairs["curve_accuracy"] - pairs["curve_accuracy_reference"],
        **logs,
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
        - train_seconds, criterion_seconds, epochs, steps, samples_seen, flops: as measured, sums over an arm's own
          rounds, mean over seeds; converged_share: of rounds;
        - compared_seconds, _std, _low, _high: the train seconds of the kind that `timing` names (isolated, estimated,
          concurrent, or mixed): see `counted_seconds`; its interval is one on the log scale; first_phase_seconds,
          first_phase_timing: of the shared rounds;
        - pairs: seeds that the reference completed as well; the rest is about differences within a seed;
        - difference, _std, _low, _high, _p: of final accuracy, with a paired t-test; the interval and p are empty if
          the difference is the same in all seeds;
        - difference_low_holm, _high_holm, _p_holm: adjusted by Holm's method for all differences of the run;
        - difference_bound, difference_bound_std: one-sided 95 % lower bound of the difference, and the deviation
          between seeds that it rests on, which settings of an arm share if seeds are few: see
          `inference.lower_bounds`;
        - curve_difference, _low, _high: of curve accuracy;
        - time_ratio, _low, _high: of compared_seconds, over timed_pairs seeds; geometric mean, with the t-interval of
          the log ratios; samples_ratio, flops_ratio: the same of samples_seen and flops, without intervals;
        - device_name: of the cells, or mixed; ratios of seconds are taken within one device.
    """
    table = cells(rounds, axes, metric)
    keys = ["strategy", *axes]
    complete = table[table["state"] == "complete"]
    pairs = paired(complete, axes, reference)

    states = pd.DataFrame({state: table["state"] == state for state in ("unfinished", *FAILED)}).astype(int)
    means = _summarize_columns(
        complete, keys,
        {"final_accuracy": ("std", "low", "high"), "curve_accuracy": ()}
        | dict.fromkeys((*COSTS, "converged_share", "first_phase_seconds"), ())
        | {"compared_seconds": ("std", "low", "high")},
    )  # fmt: skip
    logs = {f"log_{name}": ("low", "high") if name == "time_ratio" else () for name in RATIOS}
    ratios = _summarize_columns(pairs, keys, logs)
    parts = [
        _grouped(complete, keys).size().rename("seeds").reset_index(),
        _grouped(table[keys].join(states), keys).sum().reset_index(),
        _limits_above_zero(means),
        _grouped(pairs, keys).size().rename("pairs").reset_index(),
        adjusted_differences(pairs, keys),
        _lower_bounds(pairs, keys),
        _summarize_columns(pairs, keys, {"curve_difference": ("low", "high")}),
        _grouped(pairs, keys)["log_time_ratio"].count().rename("timed_pairs").reset_index(),
        ratios.set_index(keys).apply(np.exp).rename(columns=lambda column: column.removeprefix("log_")).reset_index(),
        *(
            timing_kinds(complete, keys, column).rename(column).reset_index()
            for column in ("timing", "first_phase_timing", "device_name")
        ),
    ]
    result = table[keys].drop_duplicates()
    for part in parts:
        result = result.merge(part, how="left", on=keys)
    counts = ("seeds", "pairs", "timed_pairs")
    return result.fillna(dict.fromkeys(counts, 0)).astype(dict.fromkeys(counts, int))


def _limits_above_zero(seconds: pd.DataFrame) -> pd.DataFrame:
    """Intervals of mean seconds on the log scale: mean * exp(+-h / mean) in place of mean +- h.

    By the delta method, h / mean is half of the interval of log(mean). The limits enclose the mean, and are positive.
    """
    mean = seconds["compared_seconds"]
    half = ((seconds["compared_seconds_high"] - mean) / mean).where(mean > 0)
    return seconds.assign(compared_seconds_low=mean * np.exp(-half), compared_seconds_high=mean * np.exp(half))


def adjusted_differences(pairs: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Summarises `difference` over the rows of each group: see the columns of `summary` with this name.

    Args:
        pairs: A row for each pair, with `difference`.
        keys: The columns that make a group. Holm's method adjusts for all groups.
    """
    differences = _summarize_columns(pairs, keys, {"difference": ("std", "low", "high", "p")})
    count = _grouped(pairs, keys)["difference"].count().to_numpy()
    freedom = np.maximum(count - 1, 1)
    error: pd.Series[float] = differences["difference_std"] / np.sqrt(count)
    error = error.where((error > 0) | (differences["difference"] == 0))
    factor = pd.Series(np.nan, differences.index)
    tested = differences["difference_p"].notna()
    factor[tested] = holm_factors(differences.loc[tested, "difference_p"].to_numpy())
    half = stdtrit(freedom, 1 - LEVEL / 2 / factor.fillna(1)) * error
    return differences.assign(
        difference_low_holm=differences["difference"] - half,
        difference_high_holm=differences["difference"] + half,
        difference_p_holm=(differences["difference_p"] * factor).clip(upper=1),
    )


def _lower_bounds(pairs: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """`inference.lower_bounds` of each arm's settings that are compared with the same cells of the reference."""
    shared = ["strategy", *(axis for axis in keys[1:] if f"{axis}_reference" in pairs)]
    parts = [lower_bounds(each, keys) for _, each in _grouped(pairs, shared)]
    return pd.concat(parts) if parts else lower_bounds(pairs, keys)


def _summarize_columns(frame: pd.DataFrame, keys: list[str], values: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """`over_seeds` of some columns, with each one's mean in a column of its name.

    Args:
        frame: The rows.
        keys: The columns that make a group.
        values: The further columns of `over_seeds` to keep for each, as `value_std` and so on.
    """
    tables = _each_over_seeds(frame, keys, list(values))
    summary = next(iter(tables.values()))[keys]
    for value, columns in values.items():
        names = {value: "mean"} | {f"{value}_{column}": column for column in columns}
        summary = summary.assign(**{name: tables[value][column] for name, column in names.items()})
    return summary


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
