"""Describes in sentences what a run found, and lists the cells that are missing or failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from warmstart_sim.report.recommendation import MARGIN, recommend
from warmstart_sim.report.wording import (
    axis_names,
    axis_values,
    capitalized,
    is_empty,
    join_words,
    margin_words,
    percent,
    points,
    readable,
    setting_label,
    share_of_cost,
    survivors,
)
from warmstart_sim.results.statistics import FAILED, MOST_IMPOSSIBLE, count_impossible_estimates
from warmstart_sim.results.tables import Run, missing_cells

STATES = {"diverged": "diverged", "gave_up": "gave up", "unfinished": "not finished yet"}
MOST_MACHINES = 4  # named in a sentence
MOST_VALUES, MOST_LABELS = 6, 3  # of a number and of a bundle, in a sentence
MOST_ARMS = 12  # that get a sentence each
Row = dict[str, Any]


def describe_run(run: Run, summary: pd.DataFrame | None = None, margin: float = MARGIN) -> tuple[str, str]:
    """Says what a run found: which start to use (empty if nothing can be compared), and each arm beside the reference.

    Args:
        run: The run.
        summary: Its summary, if it is known already.
        margin: The loss of accuracy that does not matter, as a fraction.
    """
    summary = run.summary() if summary is None else summary
    each = describe_summary(summary, run.reference, axis_names(run), run.metric, margin)
    return recommend(run, summary, margin), " ".join(filter(None, [each, estimates_note(run), machines_note(run)]))


def describe_summary(
    summary: pd.DataFrame, reference: str, names: Mapping[str, str], metric: str, margin: float = MARGIN
) -> str:
    """Compares each arm of a summary with the reference, in accuracy and in training time; many arms in accuracy only.

    An arm is below or above if the 95 % interval of the paired difference, adjusted for the number of comparisons, is
    on one side of zero; "at least as accurate as" the reference if the one-sided 95 % lower bound lies above -margin;
    and "not clearly different" otherwise. One seed supports no interval, nor does the same difference in every seed,
    and the sentence says so.

    Args:
        summary: From `statistics.summary`.
        reference: The arm that the others are compared with.
        names: The names of the columns of varied values: see `wording.axis_names`.
        metric: "validation_accuracy" or "test_accuracy".
        margin: The loss of accuracy that does not matter, as a fraction.
    """
    summary = summary.astype({"strategy": str})
    measured = summary.dropna(subset="final_accuracy")
    compared = measured.dropna(subset="difference")
    sentences = []
    arms = measured["strategy"].unique()
    if len(compared) == compared["strategy"].nunique() > MOST_ARMS:
        every: list[dict[Any, Any]] = compared.to_dict("records")
        sentences.append(_describe_arms(every, readable(reference), readable(metric), margin))
        arms = arms[:0]
    for arm in arms:
        rows = compared[compared["strategy"] == arm].to_dict("records")
        if rows:
            describe = _describe_setting if len(rows) == 1 else _describe_settings
            text = describe(rows, readable(reference), names, readable(metric), margin)
            sentences.append(f"{capitalized(arm)} {text}.")
        elif arm != reference or compared.empty:
            accuracies = measured.loc[measured["strategy"] == arm, "final_accuracy"]
            why = "no other arm" if len(measured["strategy"].unique()) == 1 else "no seed of a comparable cell"
            ends = " to ".join(dict.fromkeys(percent(accuracy) for accuracy in (accuracies.min(), accuracies.max())))
            sentences.append(
                f"{capitalized(arm)} ends at {ends} {readable(metric)}; there is {why} to compare it with."
            )
    if not sentences:
        sentences = ["No cell has reached its last round with a measured accuracy, so there is no result yet."]
    if (tested := int(compared["difference_p"].notna().sum())) > 1:
        sentences.append(
            f"Intervals of final {readable(metric)} are adjusted for {tested} comparisons (Holm's method)."
        )
    return " ".join([*sentences, *_left_out(summary)])


def estimates_note(run: Run) -> str:
    """A sentence on estimates of isolated seconds that cannot be right, or nothing."""
    impossible, known = count_impossible_estimates(run.rounds)
    if not impossible:
        return ""
    which = "All" if impossible > MOST_IMPOSSIBLE * known else "Some"
    return (
        f"{which} estimates of isolated seconds are left aside: those of {impossible} of {known} cells exceed what was "
        "measured beside other cells."
    )


def machines_note(run: Run) -> str:
    """A sentence on rounds that were trained on several machines, because their seconds differ by that; or nothing."""
    machines = run.rounds[["host", "device_name"]].dropna().value_counts(sort=False).reset_index()
    if len(machines) < 2:
        return ""
    several = machines["device_name"].nunique() > 1
    which = [f"{host}: {device}, {count} rounds" for host, device, count in machines.itertuples(index=False)]
    more = [f"and {len(which) - MOST_MACHINES} more"] if len(which) > MOST_MACHINES else []
    return (
        f"Mean seconds mix {len(which)} machines ({'; '.join([*which[:MOST_MACHINES], *more])}); ratios of seconds are "
        f"within a seed{', and only between cells on the same kind of device' if several else ''}."
    )


def _describe_setting(rows: list[Row], reference: str, names: Mapping[str, str], metric: str, margin: float) -> str:
    (row,) = rows
    which = _format_settings({axis: [row[axis]] for axis in names if not is_empty(row[axis])}, names)
    where = f" {which}" if which else ""
    verdict = _verdict(row, "difference", row["difference_bound"], margin).format(f"{reference}{where}")
    parts = [f"is {verdict} in final {metric} ({_evidence(row)})"]
    if row["curve_difference"] != row["difference"]:  # there is more than one round
        known = not is_empty(row["curve_difference_low"])
        verdict = _verdict(row, "curve_difference", row["curve_difference_low"], margin).format("it")
        evidence = f" ({_interval(row, 'curve_difference')})" if known else ""
        parts.append(f"{verdict} on average over the rounds{evidence}")
    if cost := share_of_cost(rows, f"{reference}'s"):
        parts.append(f"needs {cost}")
    return join_words(parts)


def _evidence(row: Row) -> str:
    if row["pairs"] == 1:
        failed = row["gave_up"] + row["diverged"]
        only = f" of {1 + failed}, the only one that trained" if failed else ""
        return f"one seed{only}, which supports no interval"
    seeds = survivors(row, row["pairs"]) or f"{row['pairs']} seeds"
    if is_empty(row["difference_low"]):
        return f"the same difference in every seed, which supports no interval, {seeds}"
    return f"95 % interval {_interval(row, 'difference', '_holm')}, {seeds}"


def _describe_arms(rows: list[Row], reference: str, metric: str, margin: float) -> str:
    """Arms with the same verdict together, the least accurate first."""
    by_verdict: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: row["difference"]):
        by_verdict.setdefault(_verdict_without_size(row, margin).format(reference), []).append(
            readable(row["strategy"])
        )
    groups = [
        f"{join_words(arms)} {'is' if len(arms) == 1 else 'are'} {verdict}" for verdict, arms in by_verdict.items()
    ]
    return f"In final {metric}, {'; '.join(group.rstrip(',') for group in groups)}."


def _describe_settings(rows: list[Row], reference: str, names: Mapping[str, str], metric: str, margin: float) -> str:
    by_verdict: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["difference"]):
        by_verdict.setdefault(_verdict_without_size(row, margin).format(reference), []).append(row)
    verdicts = join_words([f"{verdict} {_where(of, rows, names)}" for verdict, of in by_verdict.items()])
    seeds = " to ".join(dict.fromkeys(str(choose(row["pairs"] for row in rows)) for choose in (min, max)))
    ends = [f"{points(row['difference'])} ({setting_label(row, names)})" for row in _ends(rows, "difference")]
    cost = share_of_cost(rows, f"{reference}'s")
    return (
        f"is {verdicts} in final {metric} (95 % intervals, seeds: {seeds}); the differences range from "
        f"{' to '.join(ends)} points{f'; it needs {cost}' if cost else ''}"
    )


def _verdict(row: Row, column: str, bound: float, margin: float) -> str:
    """The verdict on a difference, with {} for what it is compared with; that on final accuracy is adjusted."""
    difference = row[column]
    low, high = (row[f"{column}_{end}{'_holm' if column == 'difference' else ''}"] for end in ("low", "high"))
    if difference == 0 and (is_empty(low) or low == high):
        return "exactly level with {}"
    if not is_empty(low) and low <= 0 <= high:
        return _without_clear_difference(bound, margin)
    size = points(difference, low, high).partition(" ")[0][1:]
    return f"{size} points {'below' if difference < 0 else 'above'} {{}}"


def _without_clear_difference(bound: float, margin: float) -> str:
    return (
        f"at least as accurate as {{}} to within {margin_words(margin)}"
        if bound > -margin
        else "not clearly different from {}"
    )


def _verdict_without_size(row: Row, margin: float) -> str:
    if row["pairs"] == 1:
        return "compared with {} in one seed only, which supports no interval,"
    if is_empty(row["difference_low"]):
        return "different from {} by the same amount in every seed, which supports no interval,"
    if row["difference_low_holm"] <= 0 <= row["difference_high_holm"]:
        return _without_clear_difference(row["difference_bound"], margin)
    return f"{'below' if row['difference'] < 0 else 'above'} {{}}"


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


def _interval(row: Row, column: str, adjusted: str = "") -> str:
    text = points(row[column], *(row[f"{column}_{end}{adjusted}"] for end in ("low", "high")))
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
    run = run.every or run
    names = axis_names(run)
    table = run.cells.astype({"strategy": str})
    incomplete = table[table["state"].isin([*FAILED, "unfinished"])].to_dict("records")
    absent = [{**dict.fromkeys(run.axes), **cell} for cell in missing_cells(run)]
    lines = [f"{_cell(row, names)}: {STATES[row['state']]}, last round {row['last_round']}" for row in incomplete]
    lines += [f"{_cell(row, names)}: missing (not run yet, or failed)" for row in absent]
    return lines + [f"{folder}: {reason}" for folder, reason in run.failures.items()]


def _cell(row: Mapping[Any, Any], names: Mapping[str, str]) -> str:
    return ", ".join(filter(None, [readable(row["strategy"]), setting_label(row, names), f"seed {row['seed']}"]))
