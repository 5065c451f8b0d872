"""How a figure's panels stand on it: their frames, titles, labels and legend."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D

from warmstart_sim.report.panels import MOST_LINES, MOST_PANELS, Panel, line_axis, same_data
from warmstart_sim.report.wording import arm, axis_names, plain
from warmstart_sim.results.tables import Run

MOST_COLUMNS = 4  # of panels side by side
MOST_LETTERS = 34  # of a panel's title in one line
LETTER = 0.077  # the width of one, in inches


def drawn(panels: list[Panel], quantities: int = 1) -> int:
    """How many panels a figure shows: at most twelve, or four where each shows several quantities."""
    return min(len(panels), MOST_PANELS if quantities == 1 else MOST_COLUMNS)


def lies_across(panels: list[Panel], quantities: int) -> bool:
    """Whether a panel's quantities stand side by side, as those of one or two panels do, or below each other."""
    return quantities > 1 and len(panels) <= 2


def across(panels: list[Panel], quantities: int = 1) -> int:
    """How many frames stand side by side."""
    count = drawn(panels, quantities)
    if lies_across(panels, quantities):
        return quantities
    return count if quantities > 1 or count <= 2 else 2 if count == 4 else 3 if count in (3, 5, 6, 9) else 4


def canvas(
    panels: list[Panel], quantities: int = 1, share_x: bool = True, share_y: bool = True
) -> tuple[Figure, list[list[Axes]]]:
    """A figure with a frame for each quantity of each panel, and a legend above them.

    Args:
        panels: What `split` gave.
        quantities: How many frames each panel has.
        share_x: Whether all frames have the same x axis.
        share_y: Whether all frames of a quantity have the same y axis.

    Returns:
        The figure, and for each quantity its frames, panel by panel.
    """
    count, columns = drawn(panels, quantities), across(panels, quantities)
    turned = lies_across(panels, quantities)
    width = 6.2 if columns == 1 else 3.3 * columns
    height = 3.3 if columns == 1 else 2.6 if quantities == 1 or turned else 2.4
    lines = math.ceil(count * quantities / columns)
    entries = {line.label: line.look for panel in panels for line in panel.lines}
    entry_columns = legend_columns(list(entries), width)
    legend_height = 0.22 * math.ceil(len(entries) / entry_columns)
    figure = Figure(figsize=(width, height * lines + 0.25 + legend_height))
    of_quantity: Any = True if quantities == 1 else "col" if turned else "row"
    grid = figure.subplots(lines, columns, squeeze=False, sharex=share_x, sharey=share_y and of_quantity)
    for unused in grid.flat[count * quantities :]:
        unused.remove()
    used = grid.flat[: count * quantities]
    frames = (used.reshape(count, quantities).T if turned else used.reshape(quantities, count)).tolist()
    for frame, panel in zip(frames[0], panels, strict=False):
        frame.set_title(in_lines(panel.title), loc="left")
    if len(used) > 1:
        for frame in used:
            frame.locator_params(axis="x", nbins=4)
    handles = [Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.dash) for look in entries.values()]
    figure.legend(
        handles, list(entries), loc="outside upper left", ncols=entry_columns, columnspacing=1.4, borderaxespad=0.2
    )
    return figure, frames


def in_lines(title: str) -> str:
    r"""A panel's title in as many lines as it needs, each varied value in its own.

    >>> in_lines("λ = 0.6, data = cifar10")
    'λ = 0.6, data = cifar10'
    >>> in_lines("CIFAR-100 to CIFAR-10, target fraction = 0.1")
    'CIFAR-100 to CIFAR-10\ntarget fraction = 0.1'
    """
    if len(title) <= MOST_LETTERS:
        return title
    return "\n".join(textwrap.fill(part, MOST_LETTERS) for part in title.split(", "))


def legend_columns(labels: list[str], width: float) -> int:
    """The most columns in which a legend is not wider than the figure (both in inches); it is filled column by column.

    A handle and the gaps beside it take about 0.63 inches.
    """
    lengths = [len(label) for label in labels]
    for columns in range(len(labels), 1, -1):
        if sum(LETTER * max(part) + 0.63 for part in np.array_split(lengths, columns)) <= width:
            return columns
    return 1


def label_frames(frames: list[Axes], x: str, y: str) -> None:
    """Labels at the outer edge only."""
    label_x(frames, x)
    label_y(frames, y)


def label_x(frames: list[Axes], label: str) -> None:
    """Labels below the lowest frame of each column."""
    lowest = {_place(frame).colspan.start: frame for frame in frames}
    for frame in lowest.values():
        frame.set_xlabel(label)
        frame.tick_params(labelbottom=True)


def label_y(frames: list[Axes], label: str, each: bool = False) -> None:
    """Labels left of the first frame of each row, or of each frame."""
    for frame in frames:
        if each or _place(frame).is_first_col():
            frame.set_ylabel(label)


def _place(frame: Axes) -> SubplotSpec:
    place = frame.get_subplotspec()
    assert place is not None  # `canvas` put it into a grid
    return place


def note(run: Run, panels: list[Panel], quantities: int = 1, beside: tuple[str, ...] = ()) -> str:
    """What a caption adds about panels and lines: whose values the lines are, and that not all panels are drawn."""
    lines = [line for panel in panels for line in panel.lines]
    text = ""
    if by_value := line_axis(run, beside):
        name = axis_names(run)[by_value]
        for each in dict.fromkeys(line.arm for line in lines if line.label.startswith(f"{name} = ")):
            label = arm(each, run.scenario["strategies"].get(each) or {}, run.axes)
            text += f" The lines named by {name} are {label}."
        if (count := run.rounds[by_value].nunique()) > MOST_LINES:
            text += f" {MOST_LINES} of {count} values of {name or plain(by_value)} are drawn, evenly spread."
    shown = drawn(panels, quantities)
    if shown < len(panels):
        text += f" The first {shown} of {len(panels)} combinations of varied values are drawn."
    if shown > 1 and not same_data(run):
        text += " Each panel has a scale of its own, because the data differ."
    return text
