"""Compares a run with the numbers that a paper states, or with another run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from warmstart_sim.errors import WarmstartError
from warmstart_sim.published import PublishedNumber, published_numbers
from warmstart_sim.results.columns import column_of, plain
from warmstart_sim.results.inference import LEVEL
from warmstart_sim.results.statistics import COSTS, FAILED
from warmstart_sim.results.tables import Run, bundles

AGREES, DIFFERS, TOO_FEW, NO_CELL = "agrees", "differs", "too few seeds to say", "not in this run"
NOT_MEASURED, OTHER_MACHINE = "not measured", "time not comparable"
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
    of n seeds here and p of m seeds in the paper. Where the paper states no spread, p is ours; where it does not say
    over how many seeds, m is 1. `agrees`: the interval holds zero and reaches no further than `margin` points
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
        WarmstartError: The run is a rehearsal, or its scenario has no `reproduces`.
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
            rows += _gap_beside(table, number, reference, margin)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def published_points(run: Run) -> pd.DataFrame:
    """The accuracies that papers state for the last round of what a run reproduces, for its figures.

    Returns:
        A row for each number and setting: strategy, the run's axes, metric, and as fractions value, low and high (the
        value minus and plus its spread, empty without); no rows for a rehearsal.
    """
    columns = ["strategy", *run.axes]
    points: list[dict[Any, Any]] = []
    numbers = [number for row in run.scenario.get("reproduces") or () for number in published_numbers(row)]
    table = _cell_table(run) if numbers and not is_rehearsal(run) else pd.DataFrame()
    for number in numbers:
        scale = UNITS.get(number.unit, np.nan)
        if number.metric not in table or number.metric in COSTS or np.isnan(scale * number.value):
            continue
        found = _cells_of(table, number)
        found = found[found["round"] == found["last_round"]]
        ends = {"low": number.value - number.spread, "high": number.value + number.spread}
        point = {"value": scale * number.value, **{end: scale * value for end, value in ends.items()}}
        settings = found[columns].drop_duplicates().to_dict("records")
        points += ({**setting, "metric": number.metric, **point} for setting in settings)
    return pd.DataFrame(points, columns=[*columns, "metric", "value", "low", "high"])


def is_rehearsal(run: Run) -> bool:
    """Whether a run is a rehearsal, whose numbers mean nothing."""
    return bool(run.environment.get("rehearsal") or run.scenario.get("rehearsal"))


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
    if is_rehearsal(run):
        raise WarmstartError("this run is a rehearsal on stand-in data; its numbers mean nothing beside others")


def _cell_table(run: Run) -> pd.DataFrame:
    """The run's rounds and a row for each cell with costs summed over its own rounds.

    Added columns: `state` and `last_round` of the cell, and `settings`, all its settings by column.
    """
    keys = ["strategy", *run.axes, "seed"]
    states = run.cells[[*keys, "state", "last_round"]]
    settings = states[keys[:-1]].drop_duplicates()
    settings["settings"] = pd.Series(
        [_settings(run, row) for row in settings.to_dict("records")], settings.index, dtype=object
    )
    states = states.merge(settings, on=keys[:-1])
    rounds = run.rounds.merge(states, on=keys)
    own = rounds[~rounds["shared"].astype(bool)]
    sums = own.groupby(keys, dropna=False, observed=True, as_index=False).agg(
        {**dict.fromkeys([cost for cost in COSTS if cost in own], "sum"), **dict.fromkeys(states.columns[-3:], "first")}
    )
    return pd.concat([rounds, sums.assign(round=ALL_ROUNDS)], ignore_index=True)


def _cells_of(table: pd.DataFrame, number: PublishedNumber) -> pd.DataFrame:
    """The rows of `_cell_table` that a number is about.

    A number of one round needs only that this round was finished; a number of the last or of all rounds, the cell.
    """
    condition = {column_of(key): plain(value) for key, value in number.condition.items() if key != "round"}
    found = table[table["settings"].map(lambda settings: condition.items() <= settings.items()).astype(bool)]
    at = number.condition.get("round", "all" if number.metric in COSTS else "last")
    if at in ("all", "last"):
        return found[found["round"] == (ALL_ROUNDS if at == "all" else found["last_round"])]
    found = found[found["round"] == int(at)]
    return found.assign(state=found["status"].where(found["status"].isin(FAILED), "complete"))


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
    found = _cells_of(table, number)
    if found.empty:
        yield {**_about(number), "verdict": NO_CELL}
        return
    for more, cell in _by_setting(run, found):
        measured = (_complete(cell)[number.metric] / UNITS[number.unit]).dropna()
        failed = int(cell["state"].isin(FAILED).sum())
        yield {
            **_about(number), "measured": measured.mean(), "measured_std": measured.std(), "seeds": len(measured),
            "failed": failed, **_verdict(number, measured, failed, margin),
        } | ({"condition": _about(number)["condition"] + more} if more else {})  # fmt: skip


def _by_setting(run: Run, found: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The cells of each setting, after the arm and the varied values that tell the settings apart, in words."""
    apart = [key for key in ("strategy", *run.axes) if found[key].nunique(dropna=False) > 1]
    for values, cell in found.groupby(apart, dropna=False, observed=True) if apart else [((), found)]:
        yield "".join(f"; {key}={value}" for key, value in _known(zip(apart, values, strict=True)).items()), cell


def _complete(cell: pd.DataFrame) -> pd.DataFrame:
    return cell[cell["state"] == "complete"]


def _gap_beside(
    table: pd.DataFrame, number: PublishedNumber, reference: PublishedNumber, margin: float
) -> Iterator[dict[str, Any]]:
    """The difference from random init, ours paired by seed, beside the difference of the two published means."""
    if number.metric not in table or np.isnan([number.value, reference.value]).any():
        return
    mine, base = (_complete(_cells_of(table, each)) for each in (number, reference))
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
    difference = measured.mean() - number.value
    if UNITS[number.unit] > 1 or number.unit == "seconds":
        return {"difference": difference, "verdict": OTHER_MACHINE if len(measured) else NOT_MEASURED}
    if np.isnan(number.value):
        return {"verdict": AGREES if failed and measured.empty else DIFFERS if len(measured) else TOO_FEW}
    if measured.empty:
        return {"verdict": DIFFERS if failed else NOT_MEASURED}
    low, high = welch_interval(
        measured.mean(), measured.std(), len(measured), number.value, *_published_spread(number, measured.std())
    )
    in_unit = margin * (1 if UNITS[number.unit] == 0.01 else 0.01)
    verdict = _word(difference, low, high, in_unit, len(measured))
    return {"difference": difference, "low": low, "high": high, "verdict": verdict}


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


def _word(difference: float, low: float, high: float, margin: float, seeds: int) -> str:
    if np.isnan(low):  # one seed, or no spread at all, as where every seed reaches 100 %
        return AGREES if difference == 0 and seeds > 1 else TOO_FEW
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


def _settings(run: Run, row: Mapping[Any, Any]) -> dict[str, str]:
    """All settings of a cell by column, in the form of `plain`: `data_name`, `lambda`, labels of bundles and so on.

    They are those of the scenario's sections, then of its axes, then of the arm, then of the axes of the arm.

    Args:
        run: The run.
        row: The cell's arm and varied values, by column.
    """
    scenario = run.scenario
    found: dict[str, Any] = {}
    for section in ("data", "stream", "model", "training"):
        _set(found, section, scenario.get(section))
    labels = bundles(scenario)
    for key in sorted(scenario.get("vary") or {}, key=lambda key: key not in labels):
        settings = scenario["vary"][key][str(row[key])] if key in labels else {key: row.get(column_of(key))}
        for name in sorted(settings, key=lambda name: name.count(".")):  # a section before its keys
            _set(found, name, settings[name])
    arm = scenario["strategies"][str(row["strategy"])] or {}
    for key, value in (arm.get("training") or {}).items():
        merges = key in ("optimizer", "schedule", "later_rounds") and isinstance(value, Mapping) and "name" not in value
        _set(found, f"training.{key}", value, replace=not merges)
    for key, value in arm.items():
        if key != "training":
            _set(found, key, value)
    own = {axis: value for axis, value in _known(row.items()).items() if axis not in run.common_axes or axis in labels}
    return {column_of(key): plain(value) for key, value in found.items() if value is not None} | own


def _set(found: dict[str, Any], key: str, value: Any, replace: bool = True) -> None:
    """Sets a dotted key, and those below it if the value is a mapping; a bare name stands for `name`."""
    if replace:
        for each in [each for each in found if each.startswith(f"{key}.")]:
            del found[each]
    if isinstance(value, Mapping):
        for name, inside in value.items():
            _set(found, f"{key}.{name}", inside)
    else:
        found |= {key: value, f"{key}.name": value} if isinstance(value, str) else {key: value}


def compare_runs(run: Run, other: Run, margin: float = MARGIN) -> pd.DataFrame:
    """Two runs side by side: the metric after the last round and the train seconds, for every setting of both.

    Seconds get a verdict if both are of one kind (`statistics.counted_seconds`) and from devices of one name. An axis
    that only one run has tells settings apart, each of which is compared with the same setting of the other run.

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
    both = ["strategy", *(axis for axis in run.axes if axis in other.axes)]
    theirs = _by_values(other)
    rows: list[dict[str, Any]] = []
    for values, mine in _by_values(run):
        for other_values, yours in theirs:
            if all(values.get(key) == other_values.get(key) for key in both):
                condition = "; ".join(f"{key}={value}" for key, value in {**values, **other_values}.items())
                rows += (
                    {"condition": condition, **beside} for beside in _run_beside_run(run.metric, mine, yours, margin)
                )
    if not rows:
        raise WarmstartError("the two runs have no strategy with the same varied values in common")
    return pd.DataFrame(rows).assign(row="", spread_kind="std", failed=0, where="", note="")[list(COLUMNS)]


def _by_values(run: Run) -> list[tuple[dict[str, str], pd.DataFrame]]:
    """The arm and the varied values of each setting, by column, and its complete cells, with the run's metric."""
    complete = run.cells[run.cells["state"] == "complete"].rename(columns={"final_accuracy": run.metric})
    keys = ["strategy", *run.axes]
    groups = complete.groupby(keys, dropna=False, observed=True)
    return [(_known(zip(keys, values, strict=True)), rows) for values, rows in groups]


def _known(pairs: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """The pairs without empty values, in the form of `plain`."""
    return {key: plain(value) for key, value in pairs if not pd.isna(value)}


def _run_beside_run(metric: str, mine: pd.DataFrame, yours: pd.DataFrame, margin: float) -> Iterator[dict[str, Any]]:
    """The metric and the train seconds of one setting in two runs."""
    both = pd.concat([mine, yours])
    same_clock = all(both[each].nunique() == 1 and "mixed" not in set(both[each]) for each in ("device_name", "timing"))
    for column, name, unit in ((metric, metric, "percent"), ("compared_seconds", "train_seconds", "seconds")):
        a, b = (each[column].dropna() / UNITS[unit] for each in (mine, yours))
        low, high = np.nan, np.nan
        if len(b) > 1:
            low, high = welch_interval(a.mean(), a.std(), len(a), b.mean(), b.std(), len(b))
        difference = a.mean() - b.mean()
        verdict = _word(difference, low, high, margin if unit == "percent" else SAME_TIME * b.mean(), len(a))
        yield {
            "metric": name, "unit": unit, "published": b.mean(), "published_spread": b.std(), "published_seeds": len(b),
            "measured": a.mean(), "measured_std": a.std(), "seeds": len(a), "difference": difference,
            "low": low, "high": high, "verdict": verdict if unit == "percent" or same_clock else OTHER_MACHINE,
        }  # fmt: skip
