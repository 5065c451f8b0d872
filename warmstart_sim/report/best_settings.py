"""Describes the best settings of a grid: the most accurate one, and the quickest that is not clearly below."""

from __future__ import annotations

from typing import Any

import pandas as pd

from warmstart_sim.report.grids import Grid
from warmstart_sim.report.wording import axis_names, is_empty, percent, points, readable, setting_label
from warmstart_sim.results.tables import Run

MOST_DESCRIBED = 3  # combinations of other varied values
WIDE = 0.02  # an interval that goes further below zero does not support "as accurate"
Row = dict[Any, Any]


def describe_best_settings(run: Run, grid: Grid) -> str:
    """Describes the best settings for each combination of arm and other varied values, with a warning on selection."""
    described = [
        f"{panel.title}: {text}" if panel.title else text
        for panel in grid.panels(run)
        if (text := _describe_panel(run, grid, panel.settings))
    ]
    if not described:
        return ""
    sentences, more = described[:MOST_DESCRIBED], len(described) - MOST_DESCRIBED
    if more > 0:
        sentences.append(f"summary.csv has the numbers of {more} more combinations of varied values.")
    sentences.append(
        f"The best of {len(grid.rows) * len(grid.columns):,} settings is chosen by the same seeds that measure it, so "
        "its accuracy and its interval are optimistic; measure it again with other seeds."
    )
    return " ".join(sentences)


def _describe_panel(run: Run, grid: Grid, settings: pd.DataFrame) -> str:
    measured = settings[settings["final_accuracy"].notna()]
    if measured.empty:
        return ""
    all_seeds = measured["seeds"] == measured["seeds"].max()
    sound = measured[all_seeds & (measured["gave_up"] + measured["diverged"] == 0)]
    candidates: list[Row] = (measured if sound.empty else sound).to_dict("records")
    names = {axis: name for axis, name in axis_names(run).items() if axis in (grid.row, grid.column)}
    best = max(candidates, key=lambda row: row["final_accuracy"])
    sentences = [_most_accurate(run, best, names, len(candidates))]
    compared = [row for row in candidates if not is_empty(row["difference"])]
    if compared:
        sentences.append(_quickest(compared, names, readable(run.reference)))
    return " ".join(sentences)


def _most_accurate(run: Run, best: Row, names: dict[str, str], count: int) -> str:
    accuracy = f"{percent(best['final_accuracy'])} final {readable(run.metric)}"
    text = (
        f"Of {count:,} settings of {readable(str(best['strategy']))} the most accurate is "
        f"{setting_label(best, names)}: {accuracy}"
    )
    if is_empty(best["difference"]):
        return f"{text}."
    time = "" if is_empty(best["time_ratio"]) else f", at {_share_of_time(best)}"
    one_seed = is_empty(best["difference_low"])
    seeds = "one seed, which supports no interval" if one_seed else f"{best['pairs']} seeds"
    return f"{text}, {_difference(best)} points from {readable(run.reference)}{time} ({seeds})."


def _quickest(compared: list[Row], names: dict[str, str], reference: str) -> str:
    """The quickest setting whose interval reaches zero or above; with one seed, whose difference does."""
    one_seed = all(is_empty(row["difference_high"]) for row in compared)
    bound = "difference" if one_seed else "difference_high"
    which = f"at or above {reference}" if one_seed else f"not clearly below {reference}"
    eligible = [row for row in compared if not is_empty(row[bound]) and row[bound] >= 0]
    if not eligible:
        return f"Every setting is {'below' if one_seed else 'clearly below'} {reference}."
    timed = [row for row in eligible if not is_empty(row["time_ratio"])]
    if not timed:
        return f"The quickest setting is unknown: times of the settings and of {reference} are of different kinds."
    row = min(timed, key=lambda row: row["time_ratio"])
    if row["time_ratio"] >= 1:
        return f"Every setting that is {which} needs at least the training time of {reference}."
    quickest = f"The quickest setting that is {which} is {setting_label(row, names)}"
    if one_seed:
        return (
            f"{quickest}, at {_share_of_time(row)} (difference {_difference(row)}; one seed, which supports no "
            "interval)."
        )
    return f"{quickest}: {_verdict(row)} {reference} at {_share_of_time(row)} (difference {_difference(row)})."


def _verdict(row: Row) -> str:
    if row["difference_low"] > 0:
        return "more accurate than"
    if row["difference_low"] < -WIDE:
        return "with so few seeds not distinguishable from"
    return "as accurate as"


def _difference(row: Row) -> str:
    return points(row["difference"], row["difference_low"], row["difference_high"])


def _share_of_time(row: Row) -> str:
    """The setting's time, such as "34 % of its time" for a sentence that names the reference before."""
    estimated = "an estimated " if row["timing"] == "estimated" else ""
    return f"{estimated}{percent(row['time_ratio'], digits=0)} of its time"
