"""Compares a run with the numbers that a paper states, or with another run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from warmstart_sim.errors import WarmstartError
from warmstart_sim.published import PublishedNumber, published_numbers
from warmstart_sim.results.claim_checks import SUMMED, plain
from warmstart_sim.results.columns import column_of
from warmstart_sim.results.inference import LEVEL
from warmstart_sim.results.statistics import FAILED, cells
from warmstart_sim.results.tables import Run, bundles

AGREES, DIFFERS, TOO_FEW, NO_CELL = "agrees", "differs", "too few seeds to say", "not in this run"
NOT_MEASURED, OTHER_MACHINE = "not measured", "another machine"
ALL_ROUNDS = -1  # the index of a row that sums up a cell
SAME_TIME = 0.1  # of the other run's seconds: the same for times on one kind of device
MARGIN = 2.0  # points: an interval that holds zero and is wider than this to either side says nothing
UNITS = {"percent": 0.01, "percentage points": 0.01, "fraction": 1.0, "minutes": 60.0, "seconds": 1.0, "hours": 3600.0}
COLUMNS = (
    "row", "condition", "metric", "unit", "published", "published_spread", "spread_kind", "published_seeds",
    "measured", "measured_std", "seeds", "failed", "difference", "low", "high", "verdict", "where", "note",
)  # fmt: skip


def compare_with_papers(run: Run, margin: float = MARGIN) -> pd.DataFrame:
    """The numbers that papers state for what a run reproduces, each beside the run's own.

    The interval is Welch's for the difference of two means: half = t(0.975, df) sqrt(s^2/n + p^2/m), with deviation s
    of n seeds here and p of m seeds in the paper. Where the paper states no spread, or not over how many seeds, it
    counts as one run with our deviation. `agrees`: the interval holds zero and reaches no further than `margin` points
    to either side of the difference; `differs`: it does not hold zero. Where cells failed that the paper leaves blank,
    the two agree. Seconds depend on the machine and get no verdict. Where a table has random init as well, one more row
    compares the difference from it: ours is paired by seed, and the published spread is sqrt(p^2 + q^2).

    Args:
        run: The run.
        margin: In points of accuracy.

    Returns:
        A row for each number (for each setting of the run that meets its condition), with `COLUMNS`; measured values
        are in the paper's unit.

    Raises:
        WarmstartError: The run is a rehearsal, or reproduces nothing that has numbers.
    """
    check_comparable(run)
    reproduced = list(run.scenario.get("reproduces") or ())
    if not reproduced:
        raise WarmstartError(
            f"the scenario '{run.scenario.get('name')}' names nothing that it reproduces; add `reproduces: [A-T1]`, "
            "or compare it with another run: --to RUN_DIR"
        )
    table = _cell_table(run)
    numbers = [number for row in reproduced for number in published_numbers(row)]
    references = {_apart_from_strategy(number): number for number in numbers if _is_random_init(number)}
    rows: list[dict[str, Any]] = []
    for number in numbers:
        rows += _beside(run, table, number, margin)
        reference = references.get(_apart_from_strategy(number))
        if reference is not None and reference is not number and number.unit == "percent":
            rows += _gap_beside(run, table, number, reference, margin)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _is_random_init(number: PublishedNumber) -> bool:
    return number.condition.get("strategy") == "random_init"


def _apart_from_strategy(number: PublishedNumber) -> tuple[Any, ...]:
    """What a number has in common with that of random init in the same place of the same table."""
    return number.row, number.metric, *sorted((k, v) for k, v in number.condition.items() if k != "strategy")


def check_comparable(run: Run) -> None:
    """Refuses a rehearsal.

    Raises:
        WarmstartError: The run is one.
    """
    if run.environment.get("rehearsal") or run.scenario.get("rehearsal"):
        raise WarmstartError("this run is a rehearsal on stand-in data; its numbers mean nothing beside others")


def _cell_table(run: Run) -> pd.DataFrame:
    """The run's rounds with the state of their cell, and a row for each cell with costs summed over its own rounds."""
    keys = ["strategy", *run.axes, "seed"]
    states = cells(run.rounds, run.axes, run.metric)[[*keys, "state", "last_round"]]
    rounds = run.rounds.merge(states, on=keys)
    own = rounds[~rounds["shared"].astype(bool)]
    sums = own.groupby(keys, dropna=False, observed=True, as_index=False).agg(
        {**{cost: "sum" for cost in SUMMED if cost in own}, "state": "first", "last_round": "first"}
    )
    return pd.concat([rounds, sums.assign(round=ALL_ROUNDS)], ignore_index=True)


def _cells_of(run: Run, table: pd.DataFrame, number: PublishedNumber) -> pd.DataFrame:
    """The rows of `_cell_table` that a number is about."""
    condition = {key: value for key, value in number.condition.items() if key != "round"}
    found = table[_meets(run, table, condition)]
    at = number.condition.get("round", "all" if number.metric in SUMMED else "last")
    index = {"all": ALL_ROUNDS, "last": found["last_round"]}
    return found[found["round"] == (index[at] if at in index else int(at))]


def _about(number: PublishedNumber) -> dict[str, Any]:
    return {
        "row": number.row, "condition": "; ".join(f"{key}={value}" for key, value in number.condition.items()),
        "metric": number.metric, "unit": number.unit, "published": number.value, "published_spread": number.spread,
        "spread_kind": number.spread_kind, "published_seeds": number.seeds, "seeds": 0, "failed": 0,
        "where": number.where, "note": number.note,
    }  # fmt: skip


def _beside(run: Run, table: pd.DataFrame, number: PublishedNumber, margin: float) -> Iterator[dict[str, Any]]:
    """A number beside the run's own, for each setting that meets its condition."""
    if number.metric not in table or number.unit not in UNITS:
        yield {**_about(number), "verdict": NOT_MEASURED}
        return
    found = _cells_of(run, table, number)
    if found.empty:
        yield {**_about(number), "verdict": NO_CELL}
        return
    for more, cell in _by_setting(run, found, number):
        measured = (_complete(cell)[number.metric] / UNITS[number.unit]).dropna()
        failed = int(cell["state"].isin(FAILED).sum())
        yield {
            **_about(number), "measured": measured.mean(), "measured_std": measured.std(), "seeds": len(measured),
            "failed": failed, **_verdict(number, measured, failed, margin),
        } | ({"condition": _about(number)["condition"] + more} if more else {})  # fmt: skip


def _by_setting(run: Run, found: pd.DataFrame, number: PublishedNumber) -> Iterator[tuple[str, pd.DataFrame]]:
    """The cells of each setting, after the varied values that the number's condition does not mention, in words."""
    mentioned = set(map(column_of, number.condition))
    apart = [axis for axis in run.axes if axis not in mentioned and found[axis].nunique() > 1]
    if not apart:
        yield "", found
    else:
        for values, cell in found.groupby(apart, dropna=False, observed=True):
            yield "".join(f"; {axis}={value}" for axis, value in zip(apart, values, strict=True)), cell


def _complete(cell: pd.DataFrame) -> pd.DataFrame:
    return cell[~cell["state"].isin([*FAILED, "unfinished"])]


def _gap_beside(
    run: Run, table: pd.DataFrame, number: PublishedNumber, reference: PublishedNumber, margin: float
) -> Iterator[dict[str, Any]]:
    """The difference from random init, ours paired by seed, beside the difference of the two published means."""
    if number.metric not in table or np.isnan([number.value, reference.value]).any():
        return
    mine, base = (_complete(_cells_of(run, table, each)) for each in (number, reference))
    pairs = mine.merge(base[["seed", number.metric]], on="seed", suffixes=("", "_reference"))
    if pairs["seed"].duplicated().any() or pairs.empty:  # several settings meet the condition, or none
        return
    gaps = ((pairs[number.metric] - pairs[f"{number.metric}_reference"]) / UNITS[number.unit]).dropna()
    spread = float(np.hypot(number.spread, reference.spread))
    published = replace(number, value=round(number.value - reference.value, 10), spread=spread)
    yield {
        **_about(published), "metric": f"{number.metric} minus random_init's", "note": "", "measured": gaps.mean(),
        "measured_std": gaps.std(), "seeds": len(gaps), **_verdict(published, gaps, 0, margin),
    }  # fmt: skip


def _verdict(number: PublishedNumber, measured: pd.Series[float], failed: int, margin: float) -> dict[str, Any]:
    if np.isnan(number.value):
        return {"verdict": AGREES if failed and measured.empty else DIFFERS if len(measured) else TOO_FEW}
    if measured.empty:
        return {"verdict": DIFFERS if failed else NOT_MEASURED}
    difference = measured.mean() - number.value
    if UNITS[number.unit] > 1 or number.unit == "seconds":
        return {"difference": difference, "verdict": OTHER_MACHINE}
    low, high = welch_interval(
        measured.mean(), measured.std(), len(measured), number.value, *_published_spread(number, measured.std())
    )
    half_margin = margin * (1 if UNITS[number.unit] == 0.01 else 0.01)
    return {"difference": difference, "low": low, "high": high, "verdict": _word(difference, low, high, half_margin)}


def _published_spread(number: PublishedNumber, ours: float) -> tuple[float, int]:
    """The deviation and the number of seeds behind a published mean."""
    seeds = number.seeds or 1
    if np.isnan(number.spread):
        return ours, seeds
    if number.spread_kind == "sem":
        return number.spread * np.sqrt(seeds), seeds
    if number.spread_kind == "ci95" and seeds > 1:
        return number.spread * np.sqrt(seeds) / float(stdtrit(seeds - 1, 1 - LEVEL / 2)), seeds
    return number.spread, seeds


def _word(difference: float, low: float, high: float, margin: float) -> str:
    if np.isnan(low):
        return TOO_FEW
    if low > 0 or high < 0:
        return DIFFERS
    return AGREES if high - difference <= margin else TOO_FEW


def welch_interval(
    mean: float, std: float, count: int, other: float, other_std: float, other_count: int
) -> tuple[float, float]:
    """The 95 % interval of mean - other for two independent means with their own deviations (Welch 1947).

    half = t(0.975, df) sqrt(a + b) with a = std^2 / count, b = other_std^2 / other_count, and Satterthwaite's
    df = (a + b)^2 / (a^2 / (count - 1) + b^2 / (other_count - 1)). A mean of one run has no deviation of its own; its
    term then has the other's degrees of freedom.

    Returns:
        The ends; NaN with fewer than two runs here, or if neither side varies.
    """
    a, b = std**2 / count, other_std**2 / other_count
    if count < 2 or not a + b > 0:
        return np.nan, np.nan
    freedom = (a + b) ** 2 / (a**2 / (count - 1) + b**2 / (other_count - 1 if other_count > 1 else count - 1))
    half = float(stdtrit(freedom, 1 - LEVEL / 2) * np.sqrt(a + b))
    return mean - other - half, mean - other + half


def _meets(run: Run, table: pd.DataFrame, condition: Mapping[str, str]) -> pd.Series[bool]:
    """Whether each row's cell meets a condition."""
    keys = ["strategy", *run.axes]
    settings = table[keys].drop_duplicates()
    chosen = [
        all(_setting(run, row, key) == plain(value) for key, value in condition.items())
        for row in settings.to_dict("records")
    ]
    marked = table[keys].merge(settings.assign(chosen=chosen), on=keys, how="left")
    return pd.Series(marked["chosen"].to_numpy(bool), table.index)


def _setting(run: Run, row: Mapping[Any, Any], key: str) -> str | None:
    """What a cell has for a column or a dotted key, in the form of `plain`; None if it has no such setting."""
    column = column_of(key)
    if column in row:
        value = row[column]
        return None if pd.isna(value) else plain(value)
    for bundle in bundles(run.scenario):
        if bundle in row:
            settings = run.scenario["vary"][bundle][str(row[bundle])]
            if (value := _dotted(settings, key)) is not None:
                return plain(value)
    arm = run.scenario["strategies"][str(row["strategy"])] or {}
    for settings in (arm, run.scenario):
        if (value := _dotted(settings, key)) is not None:
            return plain(value)
    return None


def _dotted(settings: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, whose steps may be joined in the mapping's own keys; a bare name stands for `name`."""
    if key in settings:
        return settings[key]
    for head, value in settings.items():
        if key.startswith(f"{head}."):
            rest = key[len(head) + 1 :]
            if isinstance(value, Mapping):
                return _dotted(value, rest)
            return value if rest == "name" else None
    return None


def compare_runs(run: Run, other: Run, margin: float = MARGIN) -> pd.DataFrame:
    """Two runs side by side: the metric and the train seconds after the last round, for every setting of both.

    Args:
        run: The run.
        other: What it is compared with; its numbers are in the columns `published...`.
        margin: As in `compare_with_papers`.

    Raises:
        WarmstartError: One is a rehearsal, or they have no arm, no varied value or no metric in common.
    """
    check_comparable(run)
    check_comparable(other)
    if run.metric != other.metric:
        raise WarmstartError(f"the two runs have different metrics: {run.metric} and {other.metric}")
    keys = ["strategy", *(axis for axis in run.axes if axis in other.axes)]
    ours, theirs = (_over_seeds(each, keys) for each in (run, other))
    rows = []
    for setting, mine in ours.items():
        if setting not in theirs:
            continue
        yours = theirs[setting]
        written = "; ".join(f"{key}={value}" for key, value in zip(keys, setting, strict=True) if value != "nan")
        same_device = pd.concat([mine, yours])["device_name"].nunique() == 1
        for metric, unit in ((run.metric, "percent"), ("train_seconds", "seconds")):
            a, b = (each[metric].dropna() / UNITS[unit] for each in (mine, yours))
            difference = a.mean() - b.mean()
            low, high = welch_interval(a.mean(), a.std(), len(a), b.mean(), b.std(), len(b))
            if len(b) < 2:
                low, high = np.nan, np.nan
            enough = margin if unit == "percent" else SAME_TIME * b.mean()
            verdict = _word(difference, low, high, enough) if unit == "percent" or same_device else OTHER_MACHINE
            rows.append(
                {
                    "row": "", "condition": written, "metric": metric, "unit": unit, "published": b.mean(),
                    "published_spread": b.std(), "spread_kind": "std", "published_seeds": len(b), "measured": a.mean(),
                    "measured_std": a.std(), "seeds": len(a), "failed": 0, "difference": difference, "low": low,
                    "high": high, "verdict": verdict, "where": "", "note": "",
                }
            )  # fmt: skip
    if not rows:
        raise WarmstartError("the two runs have no strategy with the same varied values in common")
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _over_seeds(run: Run, keys: list[str]) -> dict[tuple[str, ...], pd.DataFrame]:
    """The complete cells of each setting: the metric after the last round and the summed train seconds."""
    table = cells(run.rounds, run.axes, run.metric)
    complete = table[table["state"] == "complete"].rename(columns={"final_accuracy": run.metric})
    return {tuple(map(plain, setting)): rows for setting, rows in complete.groupby(keys, dropna=False, observed=True)}
