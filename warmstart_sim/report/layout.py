"""Lays out the panels of a figure: subplots, titles, axis labels, tick labels and the legend."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from warmstart_sim.report.panels import MOST_LINES, MOST_PANELS, Panel, line_axis, same_data
from warmstart_sim.report.style import GREY
from warmstart_sim.report.wording import arm_label, axis_names, format_value, readable
from warmstart_sim.results.tables import Run

MOST_COLUMNS = 4  # panels side by side
MOST_LETTERS = 34  # of a panel's title in one line
LETTER = 0.077  # the width of a letter, in inches
LEGEND_HANDLE = 0.63  # the width of a legend's handle and of the gaps beside it, in inches


def panel_count(panels: list[Panel], quantities: int = 1) -> int:
    """How many panels a figure shows: at most twelve, or four if each shows several quantities."""
    return min(len(panels), MOST_PANELS if quantities == 1 else MOST_COLUMNS)


def side_by_side(panels: list[Panel], quantities: int) -> bool:
    """Whether the quantities of a panel are side by side, as with one or two panels, or one below the other."""
    return quantities > 1 and len(panels) <= 2


def columns_for(count: int) -> int:
    """The number of columns of a grid with this many subplots."""
    return count if count <= 2 else 2 if count == 4 else 3 if count in (3, 5, 6, 9) else 4


def make_subplots(
    panels: list[Panel], quantities: int = 1, share_x: bool = True, share_y: bool = True
) -> tuple[Figure, list[list[Axes]]]:
    """Makes a figure with a subplot for each quantity of each panel, and a legend above them.

    Args:
        panels: From `split_into_panels`.
        quantities: The number of subplots for each panel.
        share_x: Whether all subplots have the same x axis.
        share_y: Whether all subplots of a quantity have the same y axis.

    Returns:
        The figure, and for each quantity its subplots, panel by panel.
    """
    count = panel_count(panels, quantities)
    transposed = side_by_side(panels, quantities)
    columns = quantities if transposed else count if quantities > 1 else columns_for(count)
    width = 6.2 if columns == 1 else 3.3 * columns
    height = 3.3 if columns == 1 else 2.6 if quantities == 1 or transposed else 2.4
    rows = math.ceil(count * quantities / columns)
    styles = {line.label: line.style for panel in panels for line in panel.lines}
    legend_rows = math.ceil(len(styles) / legend_columns(list(styles), width))
    figure = Figure(figsize=(width, height * rows + 0.25 + 0.22 * legend_rows))
    shared_y: Any = True if quantities == 1 else "col" if transposed else "row"
    grid = figure.subplots(rows, columns, squeeze=False, sharex=share_x, sharey=share_y and shared_y)
    for unused in grid.flat[count * quantities :]:
        unused.remove()
    used = grid.flat[: count * quantities]
    by_quantity = (used.reshape(count, quantities).T if transposed else used.reshape(quantities, count)).tolist()
    for ax, panel in zip(by_quantity[0], panels, strict=False):
        ax.set_title(wrap_title(panel.title), loc="left")
    if len(used) > 1:
        for ax in used:
            ax.locator_params(axis="x", nbins=4)
    add_legend(
        figure,
        {
            label: Line2D([], [], color=style.color, marker=style.marker, linestyle=style.linestyle)
            for label, style in styles.items()
        },
    )
    return figure, by_quantity


def wrap_title(title: str) -> str:
    r"""Breaks a panel's title that is too long for one line: one line or more for each varied value.

    >>> wrap_title("λ = 0.6, data = cifar10")
    'λ = 0.6, data = cifar10'
    >>> wrap_title("CIFAR-100 to CIFAR-10, target fraction = 0.1")
    'CIFAR-100 to CIFAR-10\ntarget fraction = 0.1'
    """
    if len(title) <= MOST_LETTERS:
        return title
    return "\n".join(textwrap.fill(part, MOST_LETTERS) for part in title.split(", "))


def add_legend(figure: Figure, handles: Mapping[str, Artist]) -> None:
    """Adds a legend above the subplots, by label, in as many columns as fit."""
    if handles:
        figure.legend(
            list(handles.values()), list(handles), loc="outside upper left", columnspacing=1.4, borderaxespad=0.2,
            ncols=legend_columns(list(handles), figure.get_figwidth()),
        )  # fmt: skip


def legend_columns(labels: list[str], width: float) -> int:
    """The most columns with which a legend, filled column by column, fits into a figure `width` inches wide."""
    lengths = [len(label) for label in labels]
    for columns in range(len(labels), 1, -1):
        if sum(LETTER * max(part) + LEGEND_HANDLE for part in np.array_split(lengths, columns)) <= width:
            return columns
    return 1


def subplot_width(figure: Figure, ax: Axes) -> float:
    """The approximate width in inches of a subplot of `make_subplots`, without its labels."""
    return float(figure.get_figwidth()) / _position(ax).get_gridspec().ncols - 0.8


def set_x_ticks(ax: Axes, values: Sequence[float], width: float, positions: Sequence[float] | None = None) -> None:
    """Labels ticks by these values, at other positions if given; labels too long for `width` inches are turned."""
    labels = [format_value(value) for value in values]
    ax.set_xticks(values if positions is None else positions, labels)
    if LETTER * (max(map(len, labels)) + 0.5) > width / len(labels):
        for label in ax.get_xticklabels():
            label.set(rotation=45, ha="right", rotation_mode="anchor")


def set_log(ax: Axes, axes: Sequence[str]) -> None:
    """Makes these axes, "x" or "y", logarithmic, with plain numbers at their ticks; the data are drawn already."""
    for name in axes:
        axis = ax.xaxis if name == "x" else ax.yaxis
        ax.set_xscale("log") if name == "x" else ax.set_yscale("log")
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator() if high > 30 * low else MaxNLocator(5, steps=[1, 2, 5, 10]))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(StrMethodFormatter("{x:,g}"))


def label_outer(axs: list[Axes], x: str, y: str) -> None:
    """Labels the axes at the outer edge of the figure only."""
    label_x(axs, x)
    label_y(axs, y)


def label_x(axs: list[Axes], label: str) -> None:
    """Labels the x axis of the lowest subplot in each column."""
    lowest = {_position(ax).colspan.start: ax for ax in axs}
    for ax in lowest.values():
        ax.set_xlabel(label)
        ax.tick_params(labelbottom=True)


def label_y(axs: list[Axes], label: str, each: bool = False) -> None:
    """Labels the y axis of the first subplot in each row, or of each subplot."""
    for ax in axs:
        if each or _position(ax).is_first_col():
            ax.set_ylabel(label)


def _position(ax: Axes) -> SubplotSpec:
    position = ax.get_subplotspec()
    assert position is not None  # `make_subplots` puts every subplot into a grid
    return position


def label_points(ax: Axes, points: np.ndarray, texts: Sequence[str], others: np.ndarray, corners: np.ndarray) -> None:
    """Writes a text beside each point, if there is a place where it covers no point, line or other text.

    Args:
        ax: Its limits and labels are final.
        points: In data coordinates, shape (n, 2), joined by a line through `corners`.
        texts: One for each point.
        others: Further points to keep free.
        corners: The corners of the line, of which every other one is a point.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # lays it out
    unit = 72 / figure.dpi  # from pixels to points
    line = np.linspace(corners[:-1], corners[1:], 40).reshape(-1, 2)
    kept_free = unit * ax.transData.transform(np.concatenate([others, line]))
    taken = np.hstack([kept_free - 4, kept_free + 4])
    low, high = unit * np.array(ax.bbox.extents).reshape(2, 2)
    turns = np.pi * np.array([0.75, 0.5, 0.25, 1, 0, 1.25, 1.5, 1.75])  # up and to the left first
    for text, point in zip(texts, points, strict=True):
        place = unit * ax.transData.transform(point)
        half = np.array([72 * LETTER * len(text) * 0.88, 13]) / 2
        for distance, turn in itertools.product((0, 10, 22, 36), turns):
            offset = np.array([np.cos(turn), np.sin(turn)]) * (half + 9 + distance)
            box = np.concatenate([place + offset - half, place + offset + half])
            lead = place + np.outer(np.linspace(0.4, 1, 10), offset)
            inside = (box[:2] >= low).all() and (box[2:] <= high).all()
            if inside and not any(_overlaps(each, taken) for each in (box, *np.hstack([lead, lead]))):
                taken = np.vstack([taken, box])
                arrow = {"arrowstyle": "-", "color": GREY, "linewidth": 0.8, "shrinkA": 1, "shrinkB": 6}
                ax.annotate(
                    text, tuple(point), tuple(offset), textcoords="offset points", ha="center", va="center", size=9,
                    arrowprops=arrow if distance else None,
                )  # fmt: skip
                break


def _overlaps(box: np.ndarray, taken: np.ndarray) -> bool:
    """Whether a box (left, bottom, right, top) overlaps any of the others, shape (n, 4)."""
    return bool(((box[:2] < taken[:, 2:]) & (box[2:] > taken[:, :2])).all(axis=1).any())


def panels_note(run: Run, panels: list[Panel], quantities: int = 1, drawn_axes: tuple[str, ...] = ()) -> str:
    """A caption's sentences on panels and lines: whose values the lines show, and which panels are not drawn."""
    lines = [line for panel in panels for line in panel.lines]
    text = ""
    if by_value := line_axis(run, drawn_axes):
        name = axis_names(run)[by_value]
        for arm in dict.fromkeys(line.arm for line in lines if line.label.startswith(f"{name} = ")):
            text += f" The lines labelled by {name} are {arm_label(run, arm)}."
        if (count := run.rounds[by_value].nunique()) > MOST_LINES:
            text += f" {MOST_LINES} of {count} values of {name or readable(by_value)} are drawn, evenly spread."
    shown = panel_count(panels, quantities)
    return text + cut_note(shown, len(panels)) + scale_note(run, shown)


def cut_note(shown: int, panels: int) -> str:
    """A caption's sentence on panels that are not drawn, or nothing."""
    return f" The first {shown} of {panels} combinations of varied values are drawn." if shown < panels else ""


def scale_note(run: Run, panels: int) -> str:
    """A caption's sentence on panels that do not share their scales, or nothing."""
    return " Each panel has its own scale, because the data differ." if panels > 1 and not same_data(run) else ""
