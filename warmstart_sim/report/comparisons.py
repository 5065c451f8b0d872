"""Figures of where the arms end: the trade-off, and the paired differences."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from warmstart_sim.report.layout import LETTER, MOST_COLUMNS, across, canvas, label_frames, note
from warmstart_sim.report.panels import Line, half_width, has_values, is_number, looks_of_arms, same_data, split
from warmstart_sim.report.style import INK, Chart, styled, time_unit
from warmstart_sim.report.timing import left_out, timed_alike, train_time_name
from warmstart_sim.report.wording import TIMING, TIMING_IN_FULL, arm, axis_names, plain, points, setting
from warmstart_sim.results.statistics import cells, over_seeds, paired
from warmstart_sim.results.tables import Run

MOST_DIFFERENCES = 12  # rows that a slide can hold


def complete_cells(run: Run) -> pd.DataFrame:
    """The cells that count: see `statistics.cells`."""
    table = cells(run.rounds, run.axes, run.metric)
    return table[table["state"] == "complete"]


@styled
def tradeoff(run: Run) -> Chart | None:
    """Final accuracy against the train time it took: up and to the left is better."""
    complete = complete_cells(run)
    alike, kind = timed_alike(complete)
    if alike.empty or not has_values(alike, "final_accuracy"):
        return None
    unit, length = time_unit(alike["train_seconds"].max())
    panels = split(run, alike)
    if len(panels) > MOST_COLUMNS and any(is_number(alike, axis) and alike[axis].notna().all() for axis in run.axes):
        return None  # the figures along that number say it better
    figure, (frames,) = canvas(panels, share_x=same_data(run), share_y=same_data(run))
    for frame, panel in zip(frames, panels, strict=False):
        for line in panel.lines:
            _draw_point(frame, line, length)
        _join_values(frame, panel.lines, length)
    for frame, right in [(frame, frame.get_xlim()[1]) for frame in frames]:  # all before any: they may share an axis
        frame.set_xlim(0, 1.04 * right)
    label_frames(frames, f"{train_time_name(run)} ({unit})\n{TIMING[kind]}", final(run.metric))
    caption = (
        f"Final {plain(run.metric)} against the {train_time_name(run)}, {TIMING_IN_FULL[kind]}. "
        "Large: the mean over seeds, with 95 % intervals both ways from three seeds on; faint: each seed. "
        "Up and to the left is better."
    )
    caption += left_out(complete, alike, "cells") + note(run, panels)
    return Chart("tradeoff", "Accuracy and time", caption, figure, across(panels))


def final(metric: str) -> str:
    """The label of an axis of final accuracies."""
    return f"final {plain(metric)} (%)".replace(" accuracy", "\naccuracy")


def _draw_point(frame: Axes, line: Line, length: float) -> None:
    rows, look = line.rows, line.look
    time, accuracy = (over_seeds(rows, ["strategy"], column) for column in ("train_seconds", "final_accuracy"))
    frame.plot(
        rows["train_seconds"] / length, 100 * rows["final_accuracy"], look.marker, color=look.colour, alpha=0.35,
        markersize=4.5, markeredgewidth=0, zorder=2,
    )  # fmt: skip
    frame.errorbar(
        time["mean"] / length, 100 * accuracy["mean"], xerr=half_width(time) / length, yerr=100 * half_width(accuracy),
        color=look.colour, marker=look.marker, markersize=10, elinewidth=1.8, zorder=4,
    )  # fmt: skip


def _join_values(frame: Axes, lines: list[Line], length: float) -> None:
    """Joins the points of one arm at several values of a varied key by a thin line, in the order of the values."""
    for name in dict.fromkeys(line.arm for line in lines):
        means = [line.rows[["train_seconds", "final_accuracy"]].mean() for line in lines if line.arm == name]
        time, accuracy = ([mean[column] for mean in means] for column in ("train_seconds", "final_accuracy"))
        frame.plot(np.divide(time, length), np.multiply(accuracy, 100), color="#808080", linewidth=1, zorder=1)


@styled
def paired_differences(run: Run) -> Chart | None:
    """Final accuracy less the reference's with the same seed: one row an arm, with its 95 % interval."""
    complete = complete_cells(run)
    keys = ["strategy", *run.axes]
    pairs = paired(complete, run.axes, run.reference)
    table = over_seeds(pairs, keys, "difference").dropna(subset="mean")
    if table.empty or len(table) > MOST_DIFFERENCES:
        return None
    look = looks_of_arms(run)
    pairs = pairs.merge(table[keys].assign(row=range(len(table))), on=keys)
    names = _row_names(run, table)
    longest = max(len(line) for name in names for line in name.split("\n"))
    figure = Figure(figsize=(6.4 + LETTER * max(0, longest - 26), 1.1 + 0.55 * len(table)))
    frame = figure.subplots()
    frame.axvline(0, color=INK, linewidth=1.2)
    frame.grid(axis="y", visible=False)
    for row, each in enumerate(table.to_dict("records")):
        style = look[each["strategy"]]
        seeds = 100 * pairs.loc[pairs["row"] == row, "difference"]
        below = [row + 0.27] * len(seeds)
        frame.plot(seeds, below, style.marker, color=style.colour, alpha=0.45, markersize=4.5, markeredgewidth=0)
        frame.errorbar(
            [100 * each["mean"]], [row], xerr=[100 * (each["high"] - each["mean"])], color=style.colour,
            marker=style.marker, markersize=9, elinewidth=2.2, zorder=4,
        )  # fmt: skip
        text = points(each["mean"], each["low"], each["high"]) + (" (one seed)" if each["seeds"] == 1 else "")
        frame.text(1.02, row, text, transform=frame.get_yaxis_transform(), va="center", size=10)
    frame.set_yticks(range(len(table)), names)
    frame.set_ylim(len(table) - 0.5, -0.5)
    frame.tick_params(axis="y", length=0)
    frame.spines["left"].set_visible(False)
    frame.set_xlabel(f"difference from {plain(run.reference)}\n(points of final {plain(run.metric)})")
    caption = (
        f"Final {plain(run.metric)} less that of {plain(run.reference)} with the same seed, so with the same data, "
        "order and fresh weights. Large: the mean, with the 95 % t-interval of the paired differences; faint: each "
        "seed. The line at zero is no difference."
    )
    if len(table) > 1:
        caption += f" The {len(table)} intervals are not widened for their number."
    return Chart("paired_differences", f"Difference from {plain(run.reference)}", caption, figure)


def _row_names(run: Run, table: pd.DataFrame) -> list[str]:
    arms = run.scenario["strategies"]
    rows = table.astype({"strategy": str}).to_dict("records")
    names = [(row["strategy"], setting(row, axis_names(run))) for row in rows]
    full = [f"{plain(name)}\n{varied}" if varied else arm(name, arms.get(name) or {}) for name, varied in names]
    return [name.replace(" (", "\n(") for name in full]
