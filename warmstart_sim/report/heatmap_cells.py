"""Draws the cells of a heatmap: colours and numbers of values, hatches of states, as few shapes as possible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from warmstart_sim.report.quantities import Quantity
from warmstart_sim.report.style import COST, DIVERGING, GREY, INK, PAPER, SEQUENTIAL, text_color
from warmstart_sim.report.wording import signed

MOST_NUMBERS = 12  # rows, or columns, with room for a number in each cell
MOST_SHAPES = 1500  # cells drawn as shapes; more become one image
HATCHES = {"gave_up": "///", "diverged": "xxx", "unfinished": "..", "missing": ""}
STATE_NAMES = {"gave_up": "gave up", "diverged": "diverged", "unfinished": "not finished", "missing": "not run yet"}
SOME_FAILED = "some seeds gave up or diverged"


def draw_values(ax: Axes, numbers: np.ndarray, norm: Normalize, quantity: Quantity, cell_width: float) -> None:
    """Draws colours, and numbers if they fit into cells `cell_width` inches wide."""
    colors = colors_of(quantity)
    rows, columns = numbers.shape
    ax.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    if numbers.size > MOST_SHAPES:
        colormap = ListedColormap(colors)
        ax.imshow(np.ma.masked_invalid(numbers), cmap=colormap, norm=norm, interpolation="none", aspect="auto")
        return
    levels = _levels(numbers, norm, len(colors))
    gap = 0.04 if max(rows, columns) <= 2 * MOST_NUMBERS else 0.0
    for level in np.unique(levels[levels >= 0]).tolist():
        color = colors[level]
        shape = _boxes([(row, column, 1) for row, column in np.argwhere(levels == level)], gap)
        ax.add_patch(PathPatch(shape, facecolor=color, edgecolor=color, linewidth=0 if gap else 0.3))
    texts = {cell: value_text(number, quantity) for cell, number in np.ndenumerate(numbers) if not np.isnan(number)}
    size = _font_size(max(map(len, texts.values()), default=1), cell_width)
    if max(rows, columns) <= MOST_NUMBERS and size:
        for (row, column), text in texts.items():
            color = text_color(colors[int(levels[row, column])])
            ax.text(column, row, text, ha="center", va="center", size=size, color=color)


def value_text(number: float, quantity: Quantity) -> str:
    """A value in a cell: accuracies and differences with one decimal, anything else with three digits."""
    if quantity.kind == "difference":
        return signed(number, 1)
    if quantity.kind == "accuracy":
        return f"{number:.1f}"
    if quantity.kind == "other":
        return f"{number:.3g}"
    return f"{number:.{max(0, 2 - math.floor(math.log10(number)))}f}" if 0.01 <= number < 100 else f"{number:,.0f}"


def colors_of(quantity: Quantity) -> tuple[str, ...]:
    """The colour map of a quantity, from its lowest to its highest value."""
    return {"cost": COST, "difference": DIVERGING}.get(quantity.kind, SEQUENTIAL)


def _levels(numbers: np.ndarray, norm: Normalize, count: int) -> np.ndarray:
    """The index of each number's colour among `count`; -1 where there is no number."""
    share = np.asarray(norm(np.nan_to_num(numbers)))
    return np.where(np.isnan(numbers), -1, np.clip((share * count).astype(int), 0, count - 1))


def _font_size(letters: int, cell_width: float) -> float | None:
    """The size in points of text that fits into a cell `cell_width` inches wide; None if it is too small to read."""
    size = min(10.5, 72 * 0.86 * cell_width / (0.62 * letters))
    return size if size >= 6.5 else None


def draw_states(ax: Axes, states: np.ndarray, some_failed: np.ndarray, cell_width: float) -> None:
    """Hatches cells without a value, with their state if it fits, and thinly those in which some seeds failed."""
    small = max(states.shape) <= MOST_NUMBERS
    for state in HATCHES:
        where = states == state
        if not where.any():
            continue
        shape = _boxes([(row, column, 1) for row, column in np.argwhere(where)] if small else _stretches(where), 0.06)
        ax.add_patch(PathPatch(shape, **hatch_style(state, 0.8 if small else 0)))
        words = STATE_NAMES[state].replace(" ", "\n")
        size = _font_size(max(map(len, words.split("\n"))), cell_width)
        if small and size:
            box = {"boxstyle": "round,pad=0.12", "facecolor": PAPER, "edgecolor": "none"}
            for row, column in np.argwhere(where):
                ax.text(
                    column, row, words, ha="center", va="center", size=min(size, 8.5), color=INK, bbox=box,
                    linespacing=0.95,
                )  # fmt: skip
    if some_failed.any():
        ax.add_patch(PathPatch(_boxes(_stretches(some_failed), 0.06), **hatch_style(SOME_FAILED, 0)))


def hatch_style(state: str, linewidth: float) -> dict[str, Any]:
    """The appearance of cells in this state, and of their entry in the legend."""
    dashes = (0, (2, 2)) if state == "missing" else "-"
    hatch = HATCHES.get(state, "//") or None
    return {"facecolor": "none", "edgecolor": GREY, "hatch": hatch, "linestyle": dashes, "linewidth": linewidth}


def _stretches(flags: np.ndarray) -> list[tuple[int, int, int]]:
    """(row, first column, columns) of each horizontal stretch of true cells.

    >>> _stretches(np.array([[True, True, False, True]]))
    [(0, 0, 2), (0, 3, 1)]
    """
    found = []
    for row, line in enumerate(flags):
        start = 0
        for flag, group in groupby(line.tolist()):
            length = len(list(group))
            if flag:
                found.append((row, start, length))
            start += length
    return found


def _boxes(stretches: Sequence[tuple[int, int, int]], gap: float) -> Path:
    """One path with a box for each (row, first column, columns), inset by `gap` of a cell."""
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)], float)
    shapes = []
    for row, column, length in stretches:
        size = np.array([length - 2 * gap, 1 - 2 * gap])
        shapes.append(corners * size + (column - 0.5 + gap, row - 0.5 + gap))
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(shapes)
    return Path(np.concatenate(shapes), codes)
