"""Answers the question of a run: which start to use, how accurate it is, at what share of the training time.

Recommended is the quickest arm, or setting of a grid, that is non-inferior to the reference: the one-sided 95 % lower
bound of its difference in accuracy lies above -margin. A wide interval is no evidence, and a setting of which a seed
failed is never recommended.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd

from warmstart_sim.report.grids import Grid, GridPanel, grids_of
from warmstart_sim.report.wording import (
    arm_label,
    axis_names,
    is_empty,
    join_words,
    margin_words,
    percent,
    points,
    readable,
    setting_label,
    share_of_cost,
    signed,
    survivors,
)
from warmstart_sim.results.inference import best_by_other_seeds, seeds_needed
from warmstart_sim.results.statistics import paired
from warmstart_sim.results.tables import Run

MARGIN = 0.01  # of accuracy
MOST_DESCRIBED = 3  # panels of a grid
Row = dict[Any, Any]


def recommend(run: Run, summary: pd.DataFrame, margin: float = MARGIN) -> str:
    """Sentences that answer the question of a run; empty if there is nothing to choose from.

    Args:
        run: The run.
        summary: Its summary.
        margin: The loss of accuracy that does not matter, as a fraction.
    """
    table = run.cells
    pairs = paired(table[table["state"] == "complete"], run.axes, run.reference)
    if pairs.empty:
        return ""
    grids = grids_of(run)
    if grids:
        return " ".join(filter(None, (_recommend_of_grid(run, summary, pairs, grid, margin) for grid in grids)))
    if summary["strategy"].is_unique:
        return _recommend_arm(run, summary, margin)
    return _count_recommended(run, summary, margin)


def _recommend_arm(run: Run, summary: pd.DataFrame, margin: float) -> str:
    rows: list[Row] = summary.astype({"strategy": str}).to_dict("records")
    reference = next(row for row in rows if row["strategy"] == run.reference)
    others = [row for row in rows if not is_empty(row["difference"])]
    if all(row["pairs"] < 2 for row in others):
        return "One seed supports no recommendation."
    row = _quickest(others, margin)
    if row is None:
        return _keep_reference(run, reference, others, margin, "start")
    return f"Use {arm_label(run, row['strategy'])}: {_evidence(run, row, margin)}"


def _count_recommended(run: Run, summary: pd.DataFrame, margin: float) -> str:
    """How often each arm is recommended, over the combinations of the varied values that the reference has."""
    reference = summary[summary["strategy"] == run.reference]
    shared = [axis for axis in run.axes if reference[axis].notna().any()]
    compared = summary[summary["difference"].notna() & (summary["pairs"] > 1)]
    if compared.empty:
        return "One seed supports no recommendation."
    chosen: Counter[str] = Counter()
    groups = compared.groupby(shared, dropna=False, observed=True) if shared else [((), compared)]
    for _, rows in groups:
        best = _quickest(rows.astype({"strategy": str}).to_dict("records"), margin)
        chosen[best["strategy"] if best else run.reference] += 1
    total = chosen.total()
    counts = [f"{arm_label(run, arm)} at {count}" for arm, count in chosen.most_common()]
    return (
        f"The quickest start that is at least as accurate as {readable(run.reference)} to within "
        f"{margin_words(margin)} is {join_words(counts)} of {total} settings."
    )


def _recommend_of_grid(run: Run, summary: pd.DataFrame, pairs: pd.DataFrame, grid: Grid, margin: float) -> str:
    described = [
        f"{panel.title}: {text}" if panel.title else text
        for panel in grid.panels(run)
        if (text := _recommend_setting(run, grid, panel, summary, pairs, margin))
    ]
    if more := len(described[MOST_DESCRIBED:]):
        described[MOST_DESCRIBED:] = [f"summary.csv has the numbers of {more} more combinations of varied values."]
    return " ".join(described)


def _recommend_setting(
    run: Run, grid: Grid, panel: GridPanel, summary: pd.DataFrame, pairs: pd.DataFrame, margin: float
) -> str:
    settings = panel.settings
    keys = ["strategy", *run.axes]
    names = {axis: name for axis, name in axis_names(run).items() if axis in (grid.row, grid.column)}
    sound = settings[_is_sound(settings)]
    if sound.empty:
        return f"None of {len(settings):,} settings trained in every seed." if settings["seeds"].any() else ""
    own = pairs.merge(sound[keys], on=keys)
    best: Row = max(sound.to_dict("records"), key=lambda row: row["final_accuracy"])
    in_all = f" {len(sound):,} of {len(settings):,} settings trained in every seed."
    accuracy = f"{setting_label(best, names)} ({percent(best['final_accuracy'])}"
    if own.empty:
        return f"The most accurate setting is {accuracy} final {readable(run.metric)}).{in_all}"
    most = f" The most accurate is {accuracy}, {_difference(best)}{_cost_after_comma(best, run)})"
    if best["pairs"] < 2:
        return f"One seed supports no recommendation.{most}.{in_all}"
    rows = sound.to_dict("records")
    row = _quickest(rows, margin)
    if row is None:
        (reference, *_) = summary[summary["strategy"] == run.reference].to_dict("records")
        text = _keep_reference(run, reference, rows, margin, "setting")
    else:
        text = f"Use {setting_label(row, names)}: {_evidence(run, row, margin)}"
    others = best_by_other_seeds(own, keys)
    return (
        f"{text}{most}; this is optimistic, because the seeds that measure it have chosen it: chosen by the other "
        f"seeds, the most accurate is {points(others)} in the seed left out.{in_all}"
    )


def _quickest(rows: list[Row], margin: float) -> Row | None:
    """The non-inferior row with the least cost, if that is below the reference's; else one that is clearly better.

    The cost is the training time, if it was measured alone or estimated for all of them, else the number of samples.
    """
    eligible = [row for row in rows if _is_sound(row) and row["difference_bound"] > -margin]
    timed = all(not is_empty(row["time_ratio"]) and row["timing"] in ("isolated", "estimated") for row in eligible)
    cost = "time_ratio" if timed else "samples_ratio"
    cheaper = [row for row in eligible if row[cost] < 1]
    if cheaper:
        return min(cheaper, key=lambda row: row[cost])
    better = [row for row in eligible if row["difference_low_holm"] > 0]
    return max(better, key=lambda row: row["difference"], default=None)


def _is_sound(rows: Any) -> Any:
    """Whether a row, or each row of a summary, has results and no failed seed."""
    return (rows["seeds"] > 0) & (rows["gave_up"] + rows["diverged"] == 0)


def _evidence(run: Run, row: Row, margin: float) -> str:
    reference = readable(run.reference)
    clearly = row["difference_low_holm"] > 0
    verdict = "more accurate than" if clearly else "at least as accurate as"
    within = "" if clearly else f" to within {margin_words(margin)}"
    cost = share_of_cost([row], f"{reference}'s")
    return (
        f"{percent(row['final_accuracy'])} final {readable(run.metric)} in {_trained(row)}, {verdict} {reference}"
        f"{within} ({points(row['difference'])} points, at least {signed(100 * row['difference_bound'], 2)} with 95 % "
        f"confidence), at {cost}.{_seeds_for_one_point(row)}"
    )


def _seeds_for_one_point(row: Row) -> str:
    if is_empty(row["difference_bound_std"]):
        return ""
    needed = seeds_needed(row["difference_bound_std"], MARGIN)
    return f" {needed} seeds would tell this difference to ±1 point." if needed > row["pairs"] else ""


def _keep_reference(run: Run, reference: Row, others: list[Row], margin: float, what: str) -> str:
    name = readable(run.reference)
    text = (
        f"Use {name}: {percent(reference['final_accuracy'])} final {readable(run.metric)} in {_trained(reference)}; no "
        f"other {what} that needs less training is shown to be as accurate to within {margin_words(margin)}."
    )
    near = max(others, key=lambda row: row["difference_bound"], default=None)
    return text + (_seeds_for_one_point(near) if near and near["pairs"] > 1 else "")


def _trained(row: Row) -> str:
    some = survivors(row, row["seeds"])
    return some or {1: "one seed", 2: "both seeds"}.get(row["seeds"], f"all {row['seeds']} seeds")


def _difference(row: Row) -> str:
    return f"{points(row['difference'], row['difference_low'], row['difference_high'])} points"


def _cost_after_comma(row: Row, run: Run) -> str:
    cost = share_of_cost([row], f"{readable(run.reference)}'s")
    return f", at {cost}" if cost else ""
