"""Figures of where the arms end: the trade-off, the paired differences, and the course along a varied key."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from warmstart_sim.report.panels import (
    BAND,
    Line,
    across,
    canvas,
    half_width,
    has_values,
    label_frames,
    looks_of_arms,
    note,
    split,
)  # fmt: skip
from warmstart_sim.report.style import INK, Chart, styled, time_unit
from warmstart_sim.report.wording import TIMING, arm, axis_name, plain, points, setting, value
from warmstart_sim.results.tables import Run, cells, over_seeds, paired

MOST_DIFFERENCES = 24  # rows that a slide can hold


def complete_cells(run: Run) -> pd.DataFrame:
    """The cells that count: see `tables.cells`."""
    table = cells(run.rounds, run.axes, run.metric)
    return table[table["state"] == "complete"]


def timed_alike(complete: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The cells of the more common kind of timing, and how they were timed; none where all cells are mixed."""
    kinds = complete.loc[complete["timing"] != "mixed", "timing"].mode()
    kind = kinds.iloc[0] if len(kinds) else ""
    return complete[complete["timing"] == kind], TIMING.get(kind, "")


def left_out(complete: pd.DataFrame, alike: pd.DataFrame) -> str:
    """A caption's note on the cells that `timed_alike` leaves out, or nothing."""
    count = len(complete) - len(alike)
    return f" {count} cells that were timed otherwise are left out." if count else ""


@styled
def tradeoff(run: Run) -> Chart | None:
    """Final accuracy against the train time it took: up and to the left is better."""
    complete = complete_cells(run)
    alike, timing = timed_alike(complete)
    if alike.empty or not has_values(alike, "final_accuracy"):
        return None
    unit, length = time_unit(alike["train_seconds"].max())
    panels = split(run, alike)
    figure, frames = canvas(panels)
    for frame, panel in zip(frames, panels, strict=False):
        for line in panel.lines:
            _draw_point(frame, line, length)
        _join_values(frame, panel.lines, length)
    frames[0].set_xlim(0, 1.04 * frames[0].get_xlim()[1])  # the frames share their axes
    label_frames(frames, f"train time of all rounds ({unit})\n{timing}", _final(run.metric))
    caption = (
        f"Final {plain(run.metric)} against the train time of all of an arm's own rounds, {timing}. Large: the mean "
        "over seeds, with 95 % intervals both ways from three seeds on; faint: each seed. Up and to the left is better."
    )
    caption += left_out(complete, alike) + note(run, panels)
    return Chart("tradeoff", "Accuracy and time", caption, figure, across(panels))


def _final(metric: str) -> str:
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
    figure = Figure(figsize=(6.4, 1.1 + 0.55 * len(table)))
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
    frame.set_yticks(range(len(table)), _row_names(run, table))
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
    names = [(row["strategy"], setting(row, run.axes)) for row in rows]
    full = [f"{plain(name)}\n{varied}" if varied else arm(name, arms.get(name) or {}) for name, varied in names]
    return [name.replace(" (", "\n(") for name in full]


@styled
def along_axis(run: Run, axis: str) -> Chart | None:
    """Final accuracy, the gap to the reference and train time along one varied number (Ash & Adams, Figure 10)."""
    complete = complete_cells(run)
    a_number = is_numeric_dtype(complete[axis]) and not is_bool_dtype(complete[axis]) and has_values(complete, axis)
    if not a_number or not has_values(complete, "final_accuracy"):
        return None
    pairs = paired(complete, run.axes, run.reference)
    alike, timing = timed_alike(complete)
    unit, length = time_unit(alike["train_seconds"].max())
    name = plain(run.reference)
    drawings = [
        (complete, "final_accuracy", 100, _final(run.metric)),
        (pairs, "difference", 100, f"difference from\n{name} (points)"),
        (alike, "train_seconds", 1 / length, f"train time ({unit})\n{timing}"),
    ]
    drawings = [each for each in drawings if not each[0].empty]
    panels = split(run, complete, beside=(axis,))
    figure, frames = canvas(panels, rows=len(drawings))
    columns = across(panels, len(drawings))
    titles = [panel.title for panel in panels]
    for first, (rows, quantity, scale, label) in zip(range(0, len(frames), columns), drawings, strict=True):
        row = frames[first : first + columns]
        placed = dict(zip(titles, row, strict=False))
        for panel in split(run, rows, beside=(axis,)):
            for line in panel.lines if panel.title in placed else ():
                _draw_along(placed[panel.title], line, axis, quantity, scale)
        row[0].set_ylabel(label)
        if quantity == "difference":
            for frame in row:
                frame.axhline(0, color=INK, linewidth=1)
        if quantity == "train_seconds":
            row[0].set_ylim(bottom=0)
    for frame in frames[-columns:]:
        frame.set_xlabel(axis_name(axis))
    _scale_x(frames[0], complete[axis])
    times = f" and the train time of all rounds, {timing}," if len(alike) else ""
    caption = (
        f"Final {plain(run.metric)}, its difference from {name} with the same seed,{times} against {axis_name(axis)}. "
        f"Mean over seeds; the bars are 95 % intervals, from three seeds on. An arm that has no {axis_name(axis)} is a "
        "level line."
    )
    caption += left_out(complete, alike) + note(run, panels, len(drawings), (axis,))
    return Chart(f"along_{axis.replace('.', '_')}", f"Along {axis_name(axis)}", caption, figure, columns)


def _draw_along(frame: Axes, line: Line, axis: str, quantity: str, scale: float) -> None:
    look = line.look
    level = bool(line.rows[axis].isna().all())
    table = over_seeds(line.rows, ["strategy" if level else axis], quantity)
    mean, half = scale * table["mean"], scale * half_width(table)
    if not level:
        frame.errorbar(
            table[axis], mean, yerr=half, color=look.colour, marker=look.marker, linestyle=look.dash, elinewidth=1.6
        )
        return
    frame.axhline(mean[0], color=look.colour, linestyle=look.dash)
    if half.notna()[0]:
        frame.axhspan(mean[0] - half[0], mean[0] + half[0], color=look.colour, alpha=BAND, linewidth=0)


def _scale_x(frame: Axes, values: pd.Series) -> None:
    """Ticks at the values; a logarithmic axis (straight below the smallest, where zero is one) for wide ranges."""
    ticks = sorted(values.dropna().unique())
    positive = [tick for tick in ticks if tick > 0]
    if ticks[0] >= 0 and positive and positive[-1] / positive[0] > 30:
        if ticks[0] > 0:
            frame.set_xscale("log")
        else:
            frame.set_xscale("symlog", linthresh=positive[0])
            frame.set_xlim(-positive[0] / 3, 1.5 * positive[-1])
    frame.set_xticks(ticks, [value(tick) for tick in ticks])
    frame.xaxis.set_minor_locator(NullLocator())
