"""What was found, in plain words that follow from the numbers; and what is missing or failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from warmstart_sim.report.best_settings import best_settings
from warmstart_sim.report.grids import grids_of
from warmstart_sim.report.wording import (
    at,
    axis_names,
    capital,
    is_empty,
    listed,
    percent,
    plain,
    points,
    ratio,
    setting,
)  # fmt: skip
from warmstart_sim.results.statistics import FAILED, cells
from warmstart_sim.results.tables import Run, missing

STATES = {"diverged": "diverged", "gave_up": "gave up", "unfinished": "not finished yet"}
MOST_VALUES, MOST_LABELS = 6, 3  # of a number and of a bundle, in a sentence
Row = dict[str, Any]


def sentence(run: Run, summary: pd.DataFrame | None = None) -> str:
    """What a run found: the best settings of its grids, and a sentence for each arm.

    Args:
        run: The run.
        summary: Its summary, where it is there already.
    """
    summary = run.summary() if summary is None else summary
    best = [best_settings(run, grid) for grid in grids_of(run)]
    return " ".join(filter(None, [*best, describe(summary, run.reference, axis_names(run), run.metric)]))


def describe(summary: pd.DataFrame, reference: str, names: Mapping[str, str], metric: str) -> str:
    """What a summary says: each arm against the reference, in accuracy and in training time.

    An arm is below or above only where the 95 % interval of the paired difference lies on one side of zero, and "not
    clearly different" otherwise. One seed supports no interval, and the sentence says so.

    Args:
        summary: From `statistics.summary`.
        reference: The arm that the others are compared with.
        names: What the columns of varied values are called: see `wording.axis_names`.
        metric: "validation_accuracy" or "test_accuracy".
    """
    summary = summary.astype({"strategy": str})
    measured = summary.dropna(subset="final_accuracy")
    compared = measured.dropna(subset="difference")
    sentences = []
    for name in measured["strategy"].unique():
        rows = compared[compared["strategy"] == name].to_dict("records")
        if rows:
            tell = _one_setting if len(rows) == 1 else _many_settings
            sentences.append(f"{capital(name)} {tell(rows, plain(reference), names, plain(metric))}.")
        elif name != reference or compared.empty:
            accuracies = measured.loc[measured["strategy"] == name, "final_accuracy"]
            why = "no other arm" if len(measured["strategy"].unique()) == 1 else "no seed of a comparable cell"
            reached = " to ".join(dict.fromkeys(percent(accuracy) for accuracy in (accuracies.min(), accuracies.max())))
            sentences.append(f"{capital(name)} ends at {reached} {plain(metric)}; there is {why} to compare it with.")
    if not sentences:
        sentences = ["No cell has come to its last round with a measured accuracy, so nothing can be said yet."]
    return " ".join([*sentences, *_left_out(summary)])


def _one_setting(rows: list[Row], reference: str, names: Mapping[str, str], metric: str) -> str:
    (row,) = rows
    which = _which({axis: [row[axis]] for axis in names if not is_empty(row[axis])}, names)
    place = f" {which}" if which else ""
    if is_empty(row["difference_low"]):
        evidence = "one seed, which supports no interval"
    else:
        evidence = f"95 % interval {_interval(row, 'difference')}, {row['pairs']} seeds"
    parts = [f"is {_verdict(row, 'difference')} {reference}{place} in final {metric} ({evidence})"]
    if row["curve_difference"] != row["difference"]:  # there is more than one round
        evidence = "" if is_empty(row["curve_difference_low"]) else f" ({_interval(row, 'curve_difference')})"
        parts.append(f"{_verdict(row, 'curve_difference')} it on average over the rounds{evidence}")
    if not is_empty(row["time_ratio"]):
        low, high = row["time_ratio_low"], row["time_ratio_high"]
        evidence = "" if is_empty(low) else f" ({ratio(low)} to {ratio(high)})"
        parts.append(f"takes {_estimated([row])}{ratio(row['time_ratio'])} times its training time{evidence}")
    return listed(parts)


def _many_settings(rows: list[Row], reference: str, names: Mapping[str, str], metric: str) -> str:
    where: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["difference"]):
        where.setdefault(_kind(row, reference), []).append(row)
    kinds = listed([f"{kind} {_where(some, rows, names)}" for kind, some in where.items()])
    seeds = " to ".join(dict.fromkeys(str(choose(row["pairs"] for row in rows)) for choose in (min, max)))
    ends = [f"{points(row['difference'])} ({setting(row, names)})" for row in _ends(rows, "difference")]
    times = [ratio(row["time_ratio"]) for row in _ends(rows, "time_ratio")]
    time = f"; its training takes {_estimated(rows)}{' to '.join(dict.fromkeys(times))} times as long" if times else ""
    return (
        f"is {kinds} in final {metric} (95 % intervals, seeds: {seeds}, not widened for the number of comparisons); "
        f"the differences go from {' to '.join(ends)} points{time}"
    )


def _estimated(rows: list[Row]) -> str:
    """What stands before a ratio of training times where some of them are estimates."""
    return "an estimated " if any(row["timing"] == "estimated" for row in rows) else ""


def _verdict(row: Row, column: str) -> str:
    difference, low, high = (row[f"{column}{end}"] for end in ("", "_low", "_high"))
    if difference == 0 and (is_empty(low) or low == high):
        return "exactly level with"
    if low <= 0 <= high:
        return "not clearly different from"
    size = points(difference, low, high).partition(" ")[0][1:]
    return f"{size} points {'below' if difference < 0 else 'above'}"


def _kind(row: Row, reference: str) -> str:
    if is_empty(row["difference_low"]):
        return f"compared with {reference} in one seed only, which supports no interval,"
    if row["difference_low"] <= 0 <= row["difference_high"]:
        return f"not clearly different from {reference}"
    return f"{'below' if row['difference'] < 0 else 'above'} {reference}"


def _where(rows: list[Row], of: list[Row], names: Mapping[str, str]) -> str:
    """Which of the settings `of`: all; those at some values of the varied keys; or how many, and what they share."""
    if len(rows) == len(of):
        return f"at all {len(of)} settings"
    shared = {}
    for axis, name in names.items():
        known = dict.fromkeys(row[axis] for row in of if not is_empty(row[axis]))
        here = {row[axis] for row in rows}
        if len(known) > len(here) <= (MOST_VALUES if name else MOST_LABELS):
            shared[axis] = [each for each in (sorted(known) if name else known) if each in here]
    if len(rows) == sum(all(row[axis] in values for axis, values in shared.items()) for row in of):
        return _which(shared, names)
    which = _which(shared, names, "or")
    return f"at {len(rows)} of {len(of)} settings" + (f" (all {which})" if which else "")


def _which(settings: Mapping[str, list[Any]], names: Mapping[str, str], last: str = "and") -> str:
    """Values of varied keys after a verdict, such as "for A to B at λ = 0 and 1"; nothing where there are none."""
    labels = [at("", values, last) for axis, values in settings.items() if not names[axis]]
    numbers = [at(names[axis], values, last) for axis, values in settings.items() if names[axis]]
    return " ".join(f"{word} {', '.join(parts)}" for word, parts in (("for", labels), ("at", numbers)) if parts)


def _ends(rows: list[Row], column: str) -> list[Row]:
    """The rows with the lowest and the highest value."""
    ordered = sorted((row for row in rows if not is_empty(row[column])), key=lambda row: row[column])
    return [ordered[0], ordered[-1]] if ordered else []


def _interval(row: Row, column: str) -> str:
    text = points(*(row[f"{column}{end}"] for end in ("", "_low", "_high")))
    return text.partition("[")[2].rstrip("]").replace(", ", " to ")


def _left_out(summary: pd.DataFrame) -> list[str]:
    """A sentence on the cells that do not count, where there are any."""
    counts = summary.groupby("strategy", sort=False)[["seeds", *STATES]].sum()
    some = [
        f"{row[state]} of {row.sum()} cells of {plain(str(name))} ({word})"
        for name, row in counts.iterrows()
        for state, word in STATES.items()
        if row[state]
    ]
    return [f"Left out: {listed(some)}."] if some else []


def troubles(run: Run) -> list[str]:
    """One line for each cell that failed, stopped short or is not there, and each recorded error."""
    names = axis_names(run)
    table = cells(run.rounds, run.axes, run.metric).astype({"strategy": str})
    short = table[table["state"].isin([*FAILED, "unfinished"])].to_dict("records")
    absent = [{**dict.fromkeys(run.axes), **cell} for cell in missing(run)]
    lines = [f"{_cell(row, names)}: {STATES[row['state']]}, last round {row['last_round']}" for row in short]
    lines += [f"{_cell(row, names)}: not there (not run yet, or failed)" for row in absent]
    return lines + [f"{folder}: {reason}" for folder, reason in run.failures.items()]


def _cell(row: Mapping[Any, Any], names: Mapping[str, str]) -> str:
    return ", ".join(filter(None, [plain(row["strategy"]), setting(row, names), f"seed {row['seed']}"]))
