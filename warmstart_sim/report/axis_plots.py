"""Figures along a varied number: final accuracy, the difference from the reference, and train time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.ticker import NullLocator

from warmstart_sim.report.comparisons import complete_cells, final
from warmstart_sim.report.layout import LETTER, MOST_COLUMNS, across, canvas, label_x, label_y, lies_across, note
from warmstart_sim.report.panels import BAND, Line, Panel, half_width, has_values, is_number, same_data, split
from warmstart_sim.report.style import INK, Chart, styled, time_unit
from warmstart_sim.report.timing import left_out, timed_alike, train_time_name
from warmstart_sim.report.wording import (
    TARGET_FRACTION,
    TIMING,
    TIMING_IN_FULL,
    axis_names,
    capital,
    listed,
    plain,
    value,
)  # fmt: skip
from warmstart_sim.results.statistics import over_seeds, paired
from warmstart_sim.results.tables import Run

LABELS = {TARGET_FRACTION: "fraction p of the target data"}  # what an axis has room for, beside the key's short name


@dataclass(frozen=True)
class Quantity:
    """What is drawn against the varied number.

    Attributes:
        name: Of a figure of its own.
        rows: The cells.
        column: Their values.
        scale: What these are multiplied with.
        label: Of the axis.
        words: For the caption.
        left_out: A sentence for the caption, or nothing.
    """

    name: str
    rows: pd.DataFrame
    column: str
    scale: float
    label: str
    words: str
    left_out: str = ""


@styled
def plot_along_axes(run: Run, axis: str) -> list[Chart]:
    """Final accuracy, the gap to the reference and train time along one varied number (Ash & Adams, Figures 9 and 10).

    Up to four panels share one figure; with more, each quantity has its own.
    """
    complete = complete_cells(run)
    if not is_number(complete, axis) or not has_values(complete, "final_accuracy"):
        return []
    quantities = [quantity for quantity in _quantities(run, complete) if has_values(quantity.rows, axis)]
    if len(split(run, complete, beside=(axis,))) <= MOST_COLUMNS:
        return [_chart(run, axis, quantities)]
    return [_chart(run, axis, [quantity], quantity.name) for quantity in quantities]


def _quantities(run: Run, complete: pd.DataFrame) -> list[Quantity]:
    """Accuracy, the difference from the reference, and time: what there is of them."""
    accuracy, reference = f"final {plain(run.metric)}", plain(run.reference)
    pairs = paired(complete, run.axes, run.reference)
    alike, kind = timed_alike(complete)
    unit, length = time_unit(alike["train_seconds"].max())
    gap = f"difference from\n{reference} (points)", f"difference in {accuracy} from {reference} with the same seed"
    words = f"{train_time_name(run)} ({TIMING_IN_FULL[kind]})"
    time = f"train time ({unit})\n{TIMING[kind]}", words, left_out(complete, alike, "cells")
    return [
        Quantity("accuracy", complete, "final_accuracy", 100, final(run.metric), accuracy),
        Quantity("difference", pairs, "difference", 100, *gap),
        Quantity("train time", alike, "train_seconds", 1 / length, *time),
    ]


def _chart(run: Run, axis: str, quantities: Sequence[Quantity], of: str = "") -> Chart:
    """One figure of several quantities, or `of` a single one."""
    count = len(quantities)
    panels = split(run, quantities[0].rows, beside=(axis,))
    figure, frames = canvas(panels, count, share_y=same_data(run))
    ticks = pd.concat([line.rows[axis] for panel in panels for line in panel.lines]).dropna().unique()
    for row, quantity in zip(frames, quantities, strict=True):
        placed = dict(zip([panel.title for panel in panels], row, strict=False))
        for panel in split(run, quantity.rows, beside=(axis,)):
            for line in panel.lines if panel.title in placed else ():
                _draw_along(placed[panel.title], line, axis, quantity)
        for frame in row:
            _scale_x(frame, ticks, figure.get_figwidth() / across(panels, count) - 0.8)
            if quantity.column == "difference":
                frame.axhline(0, color=INK, linewidth=1)
            if quantity.column == "train_seconds":
                frame.set_ylim(bottom=0)
        label_y(row, quantity.label, each=lies_across(panels, count))
    label = _label(run, axis)
    label_x([frame for row in frames for frame in row], label)
    caption = _caption(run, axis, quantities, panels) + note(run, panels, count, (axis,))
    name = f"along {axis.replace('.', ' ')} {of}".strip().replace(" ", "_")
    return Chart(name, capital(f"{of} along {label}"), caption, figure, across(panels, count))


def _label(run: Run, axis: str) -> str:
    name = axis_names(run)[axis]
    return LABELS.get(name, name)


def _caption(run: Run, axis: str, quantities: Sequence[Quantity], panels: list[Panel]) -> str:
    what = capital(listed([quantity.words for quantity in quantities]))
    text = f"{what} against {_label(run, axis)}. Mean over seeds; the bars are 95 % intervals, from three seeds on."
    if any(line.rows[axis].isna().all() for panel in panels for line in panel.lines):
        text += f" An arm that has no {axis_names(run)[axis]} is a level line."
    return text + "".join(quantity.left_out for quantity in quantities)


def _draw_along(frame: Axes, line: Line, axis: str, quantity: Quantity) -> None:
    look = line.look
    level = bool(line.rows[axis].isna().all())
    table = over_seeds(line.rows, ["strategy" if level else axis], quantity.column)
    mean, half = quantity.scale * table["mean"], quantity.scale * half_width(table)
    if not level:
        frame.errorbar(
            table[axis], mean, yerr=half, color=look.colour, marker=look.marker, linestyle=look.dash, elinewidth=2.4,
            ecolor=to_rgba(look.colour, 0.45),
        )  # fmt: skip
        return
    frame.axhline(mean[0], color=look.colour, linestyle=look.dash)
    if half.notna()[0]:
        frame.axhspan(mean[0] - half[0], mean[0] + half[0], color=look.colour, alpha=BAND, linewidth=0)


def _scale_x(frame: Axes, values: Sequence[float], width: float) -> None:
    """Ticks at the values; a logarithmic axis (straight below the smallest, where zero is one) for wide ranges.

    Labels that would not fit side by side into a frame of `width` inches are turned.
    """
    ticks = sorted(values)
    positive = [tick for tick in ticks if tick > 0]
    if ticks[0] >= 0 and positive and positive[-1] / positive[0] > 30:
        if ticks[0] > 0:
            frame.set_xscale("log")
        else:
            frame.set_xscale("symlog", linthresh=positive[0])
            frame.set_xlim(-positive[0] / 3, 1.5 * positive[-1])
    labels = [value(tick) for tick in ticks]
    crowded = LETTER * (max(map(len, labels)) + 0.5) > width / len(labels)
    frame.set_xticks(ticks, labels)
    if crowded:
        for label in frame.get_xticklabels():
            label.set(rotation=45, ha="right", rotation_mode="anchor")
    frame.xaxis.set_minor_locator(NullLocator())
