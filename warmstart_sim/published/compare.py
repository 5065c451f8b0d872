"""Compares a run with the numbers that papers state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from warmstart_sim.errors import WarmstartError
from warmstart_sim.published import PublishedNumber, published_numbers
from warmstart_sim.results.agreement import (
    AGREES,
    COLUMNS,
    DIFFERS,
    MARGIN,
    NO_CELL,
    NOT_MEASURED,
    OTHER_MACHINE,
    UNDECIDED,
    UNITS,
    check_comparable,
    is_rehearsal,
    verdict,
)
from warmstart_sim.results.cell_settings import cell_settings, known
from warmstart_sim.results.columns import column_of, plain
from warmstart_sim.results.inference import LEVEL, welch_interval
from warmstart_sim.results.statistics import COSTS, FAILED
from warmstart_sim.results.tables import Run

ALL_ROUNDS = -1  # the index of a row that sums up a cell


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
    reproduced = check_reproduces(run)
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


def check_reproduces(run: Run) -> list[str]:
    """The rows of papers that a run reproduces.

    Raises:
        WarmstartError: Its scenario names none.
    """
    reproduced = list(run.scenario.get("reproduces") or ())
    if not reproduced:
        raise WarmstartError(
            f"the scenario '{run.scenario.get('name')}' names nothing that it reproduces; add `reproduces: [A-T1]`, "
            "or compare it with another run: --to RUN_DIR"
        )
    return reproduced


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


def _is_random_init(number: PublishedNumber) -> bool:
    return number.condition.get("strategy") == "random_init"


def _apart_from_strategy(number: PublishedNumber) -> tuple[Any, ...]:
    """What a number has in common with that of random init in the same place of the same table."""
    return number.row, number.metric, *sorted((k, v) for k, v in number.condition.items() if k != "strategy")


def _cell_table(run: Run) -> pd.DataFrame:
    """The run's rounds and a row for each cell with costs summed over its own rounds.

    Added columns: `state` and `last_round` of the cell, and `settings`, all its settings by column.
    """
    keys = ["strategy", *run.axes, "seed"]
    states = run.cells[[*keys, "state", "last_round"]]
    settings = states[keys[:-1]].drop_duplicates()
    settings["settings"] = pd.Series(
        [cell_settings(run, row) for row in settings.to_dict("records")], settings.index, dtype=object
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
        yield "".join(f"; {key}={value}" for key, value in known(zip(apart, values, strict=True)).items()), cell


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
        return {"verdict": AGREES if failed and measured.empty else DIFFERS if len(measured) else UNDECIDED}
    if measured.empty:
        return {"verdict": DIFFERS if failed else NOT_MEASURED}
    low, high = welch_interval(
        measured.mean(), measured.std(), len(measured), number.value, *_published_spread(number, measured.std())
    )
    in_unit = margin * (1 if UNITS[number.unit] == 0.01 else 0.01)
    word = verdict(difference, low, high, in_unit, len(measured))
    return {"difference": difference, "low": low, "high": high, "verdict": word}


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
