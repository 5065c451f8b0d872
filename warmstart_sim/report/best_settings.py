"""The best settings of a grid in words: the most accurate one, and the quickest that is not clearly below."""

from __future__ import annotations

from typing import Any

import pandas as pd

from warmstart_sim.report.grids import Grid
from warmstart_sim.report.wording import axis_names, is_empty, percent, plain, points, setting
from warmstart_sim.results.tables import Run

MOST_SAID = 3  # combinations of other varied values
WIDE = 0.02  # an interval that goes further below zero than this says little about "as accurate"
Row = dict[Any, Any]


def best_settings(run: Run, grid: Grid) -> str:
    """A sentence or two for each combination of arm and other varied values, and what choosing does to them."""
    told, count = [], 0
    for title, _, rows in grid.panels(run):
        if sentences := _of_panel(run, grid, rows):
            count += 1
            told += [f"{title}: {sentences}" if title else sentences] * (count <= MOST_SAID)
    if not told:
        return ""
    if count > MOST_SAID:
        told.append(f"Of {count - MOST_SAID} more combinations of varied values, summary.csv has the numbers.")
    return " ".join([*told, _selection(grid)])


def _selection(grid: Grid) -> str:
    chosen = len(grid.rows) * len(grid.columns)
    return (
        f"The best of {chosen:,} settings is chosen by the same seeds that measure it, so it looks better than it is, "
        "and its interval does not allow for that; other seeds will tell."
    )


def _of_panel(run: Run, grid: Grid, rows: pd.DataFrame) -> str:
    measured = rows[rows["final_accuracy"].notna()]
    if measured.empty:
        return ""
    sound = measured[(measured["seeds"] == measured["seeds"].max()) & (measured["gave_up"] + measured["diverged"] == 0)]
    chosen = measured if sound.empty else sound
    candidates: list[Row] = chosen.to_dict("records")
    best = max(candidates, key=lambda row: row["final_accuracy"])
    sentences = [_most_accurate(run, grid, best, len(candidates))]
    compared = [row for row in candidates if not is_empty(row["difference"])]
    if compared:
        sentences.append(_quickest(run, grid, compared))
    return " ".join(sentences)


def _most_accurate(run: Run, grid: Grid, best: Row, count: int) -> str:
    label, place = plain(str(best["strategy"])), setting(best, _names(run, grid))
    accuracy = f"{percent(best['final_accuracy'])} final {plain(run.metric)}"
    text = f"Of {count:,} settings of {label} the most accurate is {place}: {accuracy}"
    if is_empty(best["difference"]):
        return f"{text}."
    return f"{text}, {_difference(best)} points from {plain(run.reference)}{_share(best, ', at ')}{_seeds(best)}."


def _quickest(run: Run, grid: Grid, compared: list[Row]) -> str:
    """The quickest setting whose interval reaches zero or above, or with one seed whose accuracy does."""
    reference = plain(run.reference)
    one_seed = all(is_empty(row["difference_high"]) for row in compared)
    bound = "difference" if one_seed else "difference_high"
    level = [row for row in compared if not is_empty(row[bound]) and row[bound] >= 0]
    if not level:
        what = f"ends at or above {reference}" if one_seed else f"comes without being clearly below {reference}"
        return f"None of them {what}."
    timed = [row for row in level if not is_empty(row["time_ratio"])]
    if not timed:
        return f"Which is the quickest cannot be said: their times and those of {reference} are not of one kind."
    row = min(timed, key=lambda row: row["time_ratio"])
    place = setting(row, _names(run, grid))
    if row["time_ratio"] >= 1:
        return f"None of those that are {_level(one_seed, reference)} is quicker than {reference}."
    if one_seed:
        return (
            f"The quickest that ends at or above {reference} is {place}, at {_share(row)} (difference "
            f"{_difference(row)}; one seed, which supports no interval)."
        )
    return (
        f"The quickest that is not clearly below {reference} is {place}: {_verdict(row)} {reference} at "
        f"{_share(row)} (difference {_difference(row)})."
    )


def _level(one_seed: bool, reference: str) -> str:
    return f"at or above {reference}" if one_seed else f"not clearly below {reference}"


def _verdict(row: Row) -> str:
    if row["difference_low"] > 0:
        return "more accurate than"
    if row["difference_low"] < -WIDE:
        return "with this few seeds not to be told apart from"
    return "as accurate as"


def _difference(row: Row) -> str:
    return points(row["difference"], row["difference_low"], row["difference_high"])


def _share(row: Row, before: str = "") -> str:
    """The setting's time in words, such as "34 % of its time"; nothing where it is not known."""
    if is_empty(row["time_ratio"]):
        return ""
    estimated = "an estimated " if row["timing"] == "estimated" else ""
    return f"{before}{estimated}{percent(row['time_ratio'], digits=0)} of its time"


def _seeds(row: Row) -> str:
    return " (one seed, which supports no interval)" if is_empty(row["difference_low"]) else f" ({row['pairs']} seeds)"


def _names(run: Run, grid: Grid) -> dict[str, str]:
    return {axis: name for axis, name in axis_names(run).items() if axis in (grid.row, grid.column)}
