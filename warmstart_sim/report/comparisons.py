"""Figures of final results: accuracy against train time, and paired differences from the reference."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from warmstart_sim.report.curves import with_difference
from warmstart_sim.report.layout import LETTER, MOST_COLUMNS, label_outer, make_subplots, panels_note
from warmstart_sim.report.panels import (
    Line,
    arm_styles,
    bands_name,
    bar_ends,
    half_width,
    has_values,
    is_number,
    plus_minus,
    same_data,
    split_into_panels,
)
from warmstart_sim.report.quantities import accuracy_label
from warmstart_sim.report.style import GREY, INK, ReportFigure, add_hover, styled
from warmstart_sim.report.timing import comparable_times, train_time_name
from warmstart_sim.report.wording import arm_label, axis_names, duration, points, readable, setting_label
from warmstart_sim.results.figure_settings import of_arm
from warmstart_sim.results.statistics import COSTS, FAILED, counted_seconds, over_seeds, paired
from warmstart_sim.results.tables import Run

MOST_DIFFERENCES = 12  # rows that fit on a slide


def complete_cells(run: Run) -> pd.DataFrame:
    """The complete cells: see `statistics.cells`."""
    table = run.cells
    return table[table["state"] == "complete"]


def without_failed(run: Run) -> tuple[Run, str]:
    """The run without its failed cells, and a sentence that counts them."""
    keys = ["strategy", *run.axes, "seed"]
    table = run.cells
    failed = table.loc[table["state"].isin(FAILED), [*keys, "state"]]
    if failed.empty:
        return run, ""
    rounds, epochs = (
        rows.merge(failed, how="left", on=keys).pipe(lambda merged: merged[merged["state"].isna()])
        for rows in (run.rounds, run.epochs)
    )
    counts = failed["state"].map({"diverged": "diverged", "gave_up": "gave up"}).value_counts()
    which = " and ".join(f"{count} that {what}" for what, count in counts.items())
    return replace(run, rounds=rounds, epochs=epochs), f"Left out: {len(failed)} of {len(table)} cells ({which})."


def cell_values(run: Run, table: str | None = None, round_: int | None = None) -> pd.DataFrame:
    """One row for each complete cell, with the columns of rounds.csv; or the table of an analysis.

    Args:
        run: The run.
        table: The name of the analysis; None for the cells.
        round_: The round whose columns are taken; None for those of the last round, with costs summed over all rounds.
    """
    if table is not None:
        return run.analysis(table)
    rounds, complete, keys = counted_seconds(run.rounds), complete_cells(run), ["strategy", *run.axes, "seed"]
    rounds = with_difference(run, rounds, how="left")
    if round_ is not None:
        return rounds[rounds["round"] == round_].merge(complete[keys], on=keys)
    last = rounds.sort_values("round").drop_duplicates(keys, keep="last")
    sums = [*COSTS, "compared_seconds", "timing"]
    return last.drop(columns=sums).merge(complete[[*keys, *sums]], on=keys)


def with_columns_of_arms(run: Run, names: Iterable[str]) -> Run:
    """The run with a further column for each name "COLUMN of ARM".

    It is the arm's value at the end of the cell with the same seed and the same varied values.
    """
    rounds, keys = run.rounds, [*run.common_axes, "seed"]
    for name in names:
        column, arm = of_arm(name)
        cells = cell_values(run) if arm else pd.DataFrame()
        if column in cells:
            compared = "compared_seconds" if column == "train_seconds" else column
            of = cells.loc[cells["strategy"] == arm, [*keys, compared]].set_axis([*keys, name], axis=1)
            rounds = rounds.merge(of, how="left", on=keys)
    return replace(run, rounds=rounds)


def by_number(table: pd.DataFrame, pattern: str, number: str, value: str) -> pd.DataFrame:
    """A row for each column whose name is `pattern` with a number, whose point is an underscore, for its star.

    Args:
        table: The table.
        pattern: Such as "margin_q*".
        number: The column in which the number is put.
        value: The column in which the value is put.

    >>> by_number(pd.DataFrame({"seed": [7], "loss_0_1": [2.0], "loss_5": [3.0]}), "loss_*", "noise", "loss")
       seed  noise  loss
    0     7    0.1   2.0
    1     7    5.0   3.0
    """
    form = re.compile(re.escape(pattern).replace(r"\*", r"(\d+(?:_\d+)?)"))
    numbers = {column: float(found[1].replace("_", ".")) for column in table if (found := form.fullmatch(str(column)))}
    others = [column for column in table if column not in numbers]
    long = table.melt(others, list(numbers), number, value)
    return long.assign(**{number: long[number].map(numbers).astype(float)})


@styled
def tradeoff(run: Run) -> ReportFigure | None:
    """Plots final accuracy against train time: up and to the left is better."""
    times = comparable_times(complete_cells(run))
    if not has_values(times.rows, "final_accuracy"):
        return None
    panels = split_into_panels(run, times.rows)
    numbers = [axis for axis in run.axes if is_number(times.rows, axis) and times.rows[axis].notna().all()]
    if len(panels) > MOST_COLUMNS and numbers:
        return None  # the plots against that number are easier to read
    figure, (axs,) = make_subplots(panels, share_x=same_data(run), share_y=same_data(run))
    for ax, panel in zip(axs, panels, strict=False):
        for line in panel.lines:
            _draw_point(run, ax, line, times.unit_seconds)
        _join_values(ax, panel.lines, times.unit_seconds)
    for ax, right in [(ax, ax.get_xlim()[1]) for ax in axs]:  # read all limits before setting any: axes may be shared
        ax.set_xlim(0, 1.04 * right)
    label_outer(axs, times.axis_label(train_time_name(run)), accuracy_label(run))
    caption = (
        f"Final {readable(run.metric)} against the {train_time_name(run)}, {times.in_full}. Large points: mean "
        f"over seeds; bars, drawn for three seeds or more: "
        f"{bands_name(run)}. Faint points: each seed. Up and to the left is better."
    )
    caption += times.note("cells") + panels_note(run, panels)
    return ReportFigure("tradeoff", "Accuracy and time", caption, figure)


def _draw_point(run: Run, ax: Axes, line: Line, unit_seconds: float) -> None:
    rows, style = line.rows, line.style
    time, accuracy = (over_seeds(rows, ["strategy"], column) for column in ("compared_seconds", "final_accuracy"))
    ax.plot(
        rows["compared_seconds"] / unit_seconds, 100 * rows["final_accuracy"], style.marker, color=style.color,
        alpha=0.35, markersize=4.5, markeredgewidth=0, zorder=2,
    )  # fmt: skip
    x, y = time["mean"] / unit_seconds, 100 * accuracy["mean"]
    x_low, x_high = (end / unit_seconds for end in bar_ends(run, time, "compared_seconds"))
    y_half = 100 * half_width(run, accuracy)
    ax.errorbar(
        x, y, xerr=[x - x_low, x_high - x], yerr=y_half, color=style.color, marker=style.marker, markersize=10,
        elinewidth=1.8, zorder=4,
    )  # fmt: skip
    add_hover(ax, x, y, [f"{line.label}: {plus_minus(y[0], y_half[0])} %, {duration(time['mean'][0])}"])


def _join_values(ax: Axes, lines: list[Line], unit_seconds: float) -> None:
    """Joins the points of an arm at several values of a varied key by a thin line, in the order of the values."""
    for name in dict.fromkeys(line.arm for line in lines):
        means = [line.rows[["compared_seconds", "final_accuracy"]].mean() for line in lines if line.arm == name]
        time, accuracy = ([mean[column] for mean in means] for column in ("compared_seconds", "final_accuracy"))
        ax.plot(np.divide(time, unit_seconds), np.multiply(accuracy, 100), color=GREY, linewidth=1, zorder=1)


@styled
def paired_differences(run: Run) -> ReportFigure | None:
    """Plots the difference of final accuracy from the reference with the same seed, one row for each arm."""
    complete = complete_cells(run)
    keys = ["strategy", *run.axes]
    pairs = paired(complete, run.axes, run.reference)
    table = over_seeds(pairs, keys, "difference").dropna(subset="mean")
    if table.empty or len(table) > MOST_DIFFERENCES:
        return None
    styles = arm_styles(run)
    pairs = pairs.merge(table[keys].assign(row=range(len(table))), on=keys)
    names = _row_names(run, table)
    longest = max(len(line) for name in names for line in name.split("\n"))
    figure = Figure(figsize=(6.4 + LETTER * max(0, longest - 26), 1.1 + 0.55 * len(table)))
    ax = figure.subplots()
    ax.axvline(0, color=INK, linewidth=1.2)
    ax.grid(axis="y", visible=False)
    half = half_width(run, table)
    for row, arm in enumerate(table.assign(low=table["mean"] - half, high=table["mean"] + half).to_dict("records")):
        style = styles[arm["strategy"]]
        seeds = 100 * pairs.loc[pairs["row"] == row, "difference"]
        below = [row + 0.27] * len(seeds)
        ax.plot(seeds, below, style.marker, color=style.color, alpha=0.45, markersize=4.5, markeredgewidth=0)
        ax.errorbar(
            [100 * arm["mean"]], [row], xerr=[100 * (arm["high"] - arm["mean"])], color=style.color,
            marker=style.marker, markersize=9, elinewidth=2.2, zorder=4,
        )  # fmt: skip
        seeds_word = {1: " (one seed)", 2: " (two seeds)"}.get(arm["seeds"], "")
        text = points(arm["mean"], arm["low"], arm["high"]) + seeds_word
        add_hover(ax, [100 * arm["mean"]], [row], [f"{names[row]}: {text}".replace("\n", ", ")])
        ax.text(1.02, row, text, transform=ax.get_yaxis_transform(), va="center", size=10)
    ax.set_yticks(range(len(table)), names)
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    reference = readable(run.reference)
    ax.set_xlabel(f"difference from {reference}\n(points of final {readable(run.metric)})")
    caption = (
        f"Final {readable(run.metric)} minus that of {reference} with the same seed, which has the same data, order "
        f"and fresh weights. Large points: the mean; bars and brackets, for three seeds or more: "
        f"{bands_name(run)}. Faint points: each seed. The line marks zero."
    )
    if len(table) > 1:
        caption += f" The {len(table)} intervals are not corrected for their number."
    return ReportFigure("paired_differences", f"Difference from {reference}", caption, figure)


def _row_names(run: Run, table: pd.DataFrame) -> list[str]:
    names = axis_names(run)
    rows = table.astype({"strategy": str}).to_dict("records")
    labels = [
        f"{readable(row['strategy'])}\n{values}"
        if (values := setting_label(row, names))
        else arm_label(run, row["strategy"])
        for row in rows
    ]
    return [label.replace(" (", "\n(") for label in labels]
