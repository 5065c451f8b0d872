"""Describes in sentences what a run found, and lists the cells that are missing or failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from warmstart_sim.report.best_settings import describe_best_settings
from warmstart_sim.report.grids import grids_of
from warmstart_sim.report.wording import (
    axis_names,
    axis_values,
    capitalized,
    is_empty,
    join_words,
    percent,
    points,
    readable,
    setting_label,
    share,
)
from warmstart_sim.results.statistics import FAILED, cells
from warmstart_sim.results.tables import Run, missing_cells

STATES = {"diverged": "diverged", "gave_up": "gave up", "unfinished": "not finished yet"}
MOST_VALUES, MOST_LABELS = 6, 3  # of a number and of a bundle, in a sentence
Row = dict[str, Any]


def describe_run(run: Run, summary: pd.DataFrame | None = None) -> str:
    """Describes what a run found: the best settings of its grids, and a sentence for each arm.

    Args:
        run: The run.
        summary: Its summary, if it is known already.
    """
    summary = run.summary() if summary is None else summary
    best = [describe_best_settings(run, grid) for grid in grids_of(run)]
    return " ".join(filter(None, [*best, describe_summary(summary, run.reference, axis_names(run), run.metric)]))


def describe_summary(summary: pd.DataFrame, reference: str, names: Mapping[str, str], metric: str) -> str:
    """Compares each arm of a summary with the reference, in accuracy and in training time.

    An arm is below or above only if the 95 % interval of the paired difference is on one side of zero, and "not
    clearly different" otherwise. One seed supports no interval, and the sentence says so.

    Args:
        summary: From `statistics.summary`.
        reference: The arm that the others are compared with.
        names: The names of the columns of varied values: see `wording.axis_names`.
        metric: "validation_accuracy" or "test_accuracy".
    """
    summary = summary.astype({"strategy": str})
    measured = summary.dropna(subset="final_accuracy")
    compared = measured.dropna(subset="difference")
    sentences = []
    for arm in measured["strategy"].unique():
        rows = compared[compared["strategy"] == arm].to_dict("records")
        if rows:
            describe = _describe_setting if len(rows) == 1 else _describe_settings
            sentences.append(f"{capitalized(arm)} {describe(rows, readable(reference), names, readable(metric))}.")
        elif arm != reference or compared.empty:
            accuracies = measured.loc[measured["strategy"] == arm, "final_accuracy"]
            why = "no other arm" if len(measured["strategy"].unique()) == 1 else "no seed of a comparable cell"
            ends = " to ".join(dict.fromkeys(percent(accuracy) for accuracy in (accuracies.min(), accuracies.max())))
            sentences.append(
                f"{capitalized(arm)} ends at {ends} {readable(metric)}; there is {why} to compare it with."
            )
    if not sentences:
        sentences = ["No cell has reached its last round with a measured accuracy, so there is no result yet."]
    return " ".join([*sentences, *_left_out(summary)])


def _describe_setting(rows: list[Row], reference: str, names: Mapping[str, str], metric: str) -> str:
    (row,) = rows
    which = _format_settings({axis: [row[axis]] for axis in names if not is_empty(row[axis])}, names)
    where = f" {which}" if which else ""
    if is_empty(row["difference_low"]):
        evidence = "one seed, which supports no interval"
    else:
        evidence = f"95 % interval {_interval(row, 'difference')}, {row['pairs']} seeds"
    parts = [f"is {_verdict(row, 'difference')} {reference}{where} in final {metric} ({evidence})"]
    if row["curve_difference"] != row["difference"]:  # there is more than one round
        evidence = "" if is_empty(row["curve_difference_low"]) else f" ({_interval(row, 'curve_difference')})"
        parts.append(f"{_verdict(row, 'curve_difference')} it on average over the rounds{evidence}")
    if not is_empty(row["time_ratio"]):
        low, high = row["time_ratio_low"], row["time_ratio_high"]
        evidence = "" if is_empty(low) else f" ({share(low)} to {share(high)} %)"
        parts.append(f"needs {_estimated([row])}{share(row['time_ratio'])} % of {reference}'s training time{evidence}")
    return join_words(parts)


def _describe_settings(rows: list[Row], reference: str, names: Mapping[str, str], metric: str) -> str:
    by_verdict: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["difference"]):
        by_verdict.setdefault(_verdict_without_size(row, reference), []).append(row)
    verdicts = join_words([f"{verdict} {_where(of, rows, names)}" for verdict, of in by_verdict.items()])
    seeds = " to ".join(dict.fromkeys(str(choose(row["pairs"] for row in rows)) for choose in (min, max)))
    ends = [f"{points(row['difference'])} ({setting_label(row, names)})" for row in _ends(rows, "difference")]
    times = " to ".join(dict.fromkeys(share(row["time_ratio"]) for row in _ends(rows, "time_ratio")))
    time = f"; it needs {_estimated(rows)}{times} % of {reference}'s training time" if times else ""
    return (
        f"is {verdicts} in final {metric} (95 % intervals, seeds: {seeds}, not corrected for the number of "
        f"comparisons); the differences range from {' to '.join(ends)} points{time}"
    )


def _estimated(rows: list[Row]) -> str:
    """The words before a ratio of training times of which some are estimates."""
    return "an estimated " if any(row["timing"] == "estimated" for row in rows) else ""


def _verdict(row: Row, column: str) -> str:
    difference, low, high = (row[f"{column}{end}"] for end in ("", "_low", "_high"))
    if difference == 0 and (is_empty(low) or low == high):
        return "exactly level with"
    if low <= 0 <= high:
        return "not clearly different from"
    size = points(difference, low, high).partition(" ")[0][1:]
    return f"{size} points {'below' if difference < 0 else 'above'}"


def _verdict_without_size(row: Row, reference: str) -> str:
    if is_empty(row["difference_low"]):
        return f"compared with {reference} in one seed only, which supports no interval,"
    if row["difference_low"] <= 0 <= row["difference_high"]:
        return f"not clearly different from {reference}"
    return f"{'below' if row['difference'] < 0 else 'above'} {reference}"


def _where(rows: list[Row], every: list[Row], names: Mapping[str, str]) -> str:
    """Which of the settings: all, those at some values of the varied keys, or how many and the values they share."""
    if len(rows) == len(every):
        return f"at all {len(every)} settings"
    shared = {}
    for axis, name in names.items():
        known = dict.fromkeys(row[axis] for row in every if not is_empty(row[axis]))
        here = {row[axis] for row in rows}
        if len(known) > len(here) <= (MOST_VALUES if name else MOST_LABELS):
            shared[axis] = [value for value in (sorted(known) if name else known) if value in here]
    if len(rows) == sum(all(row[axis] in values for axis, values in shared.items()) for row in every):
        return _format_settings(shared, names)
    which = _format_settings(shared, names, "or")
    return f"at {len(rows)} of {len(every)} settings" + (f" (all {which})" if which else "")


def _format_settings(settings: Mapping[str, list[Any]], names: Mapping[str, str], last: str = "and") -> str:
    """Values of varied keys after a verdict, such as "for A to B at λ = 0 and 1"; empty if there are none."""
    labels = [axis_values("", values, last) for axis, values in settings.items() if not names[axis]]
    numbers = [axis_values(names[axis], values, last) for axis, values in settings.items() if names[axis]]
    return " ".join(f"{word} {', '.join(parts)}" for word, parts in (("for", labels), ("at", numbers)) if parts)


def _ends(rows: list[Row], column: str) -> list[Row]:
    """The rows with the lowest and the highest value."""
    ordered = sorted((row for row in rows if not is_empty(row[column])), key=lambda row: row[column])
    return [ordered[0], ordered[-1]] if ordered else []


def _interval(row: Row, column: str) -> str:
    text = points(*(row[f"{column}{end}"] for end in ("", "_low", "_high")))
    return text.partition("[")[2].rstrip("]").replace(", ", " to ")


def _left_out(summary: pd.DataFrame) -> list[str]:
    """A sentence that counts incomplete cells, if there are any."""
    counts = summary.groupby("strategy", sort=False)[["seeds", *STATES]].sum()
    incomplete = [
        f"{row[state]} of {row.sum()} cells of {readable(str(name))} ({words})"
        for name, row in counts.iterrows()
        for state, words in STATES.items()
        if row[state]
    ]
    return [f"Left out: {join_words(incomplete)}."] if incomplete else []


def missing_or_failed(run: Run) -> list[str]:
    """One line for each cell that failed, is not finished or is missing, and for each recorded error."""
    names = axis_names(run)
    table = cells(run.rounds, run.axes, run.metric).astype({"strategy": str})
    incomplete = table[table["state"].isin([*FAILED, "unfinished"])].to_dict("records")
    absent = [{**dict.fromkeys(run.axes), **cell} for cell in missing_cells(run)]
    lines = [f"{_cell(row, names)}: {STATES[row['state']]}, last round {row['last_round']}" for row in incomplete]
    lines += [f"{_cell(row, names)}: missing (not run yet, or failed)" for row in absent]
    return lines + [f"{folder}: {reason}" for folder, reason in run.failures.items()]


def _cell(row: Mapping[Any, Any], names: Mapping[str, str]) -> str:
    return ", ".join(filter(None, [readable(row["strategy"]), setting_label(row, names), f"seed {row['seed']}"]))
