"""Heatmaps of a grid: final accuracy, the difference from the reference, and train time (Ash & Adams, Figs. 8, 15)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch, Rectangle
from matplotlib.path import Path

from warmstart_sim.report.grids import Grid, runs_of, without_outliers
from warmstart_sim.report.layout import LETTER, in_lines, legend_columns
from warmstart_sim.report.panels import MOST_PANELS, same_data, some
from warmstart_sim.report.style import HEAT, INK, SIGNED, Chart, styled, text_on, time_unit
from warmstart_sim.report.timing import timed_alike, train_time_name
from warmstart_sim.report.wording import (
    TIMING,
    TIMING_IN_FULL,
    axis_names,
    capital,
    listed,
    plain,
    signed,
    value,
)
from warmstart_sim.results.tables import Run

MOST_NUMBERS = 12  # rows, or columns, whose cells have room for a number
MOST_SHAPES = 1500  # cells that are drawn as shapes; more are one image
MOST_TICKS = 12
LEAST_FRAME = 0.025  # of the heatmap's width and height
GREY = "#808080"  # readable on white and on black
HATCHES = {"gave_up": "///", "diverged": "xxx", "unfinished": "..", "missing": ""}
WORDS = {"gave_up": "gave up", "diverged": "diverged", "unfinished": "not finished", "missing": "not run yet"}
PARTLY = "some seeds gave up or diverged"
BEYOND = "values beyond the colours"
LINES: dict[str, Any] = {"random init": "-", "warm start": (0, (1.5, 1))}


@dataclass(frozen=True)
class Quantity:
    """What a heatmap shows.

    Attributes:
        name: Of its file.
        title: A heading.
        column: Of the settings' table.
        scale: What its values are multiplied with.
        label: Of the colour bar.
        words: For the caption.
        colours: From the least to the greatest value; about zero where it is signed.
        signed: Whether zero is the middle.
        digits: After the point; None for three digits in all.
    """

    name: str
    title: str
    column: str
    scale: float
    label: str
    words: str
    colours: tuple[str, ...]
    signed: bool = False
    digits: int | None = 1

    def text(self, number: float) -> str:
        """A value as it stands in a cell."""
        if self.digits is not None:
            return signed(number, self.digits) if self.signed else f"{number:.{self.digits}f}"
        return f"{number:.{max(0, 2 - math.floor(math.log10(number)))}f}" if 0.01 <= number < 100 else f"{number:.0f}"


@styled
def heatmaps(run: Run, grid: Grid, several: bool = False) -> list[Chart]:
    """The heatmaps of one grid that there are numbers for; `several` if a run has more than this grid."""
    return [_chart(run, grid, quantity, several) for quantity in _quantities(run, grid)]


def _quantities(run: Run, grid: Grid) -> list[Quantity]:
    settings, reference = grid.settings, plain(run.reference)
    alike, kind = timed_alike(settings)
    unit, length = time_unit(alike["train_seconds"].max())
    metric, time = plain(run.metric), train_time_name(run)
    every = [
        Quantity(
            "heatmap_accuracy", "Final accuracy of the grid", "final_accuracy", 100, f"final\n{metric} (%)",
            f"Final {metric} in per cent", HEAT,
        ),
        Quantity(
            "heatmap_difference", f"Difference from {reference} in the grid", "difference", 100,
            f"difference from\n{reference} (points)",
            f"Final {metric} less that of {reference} with the same seed, in points", SIGNED, signed=True,
        ),
        Quantity(
            "heatmap_time", "Train time of the grid", "train_seconds", 1 / length,
            f"train time ({unit})\n{TIMING[kind]}", f"{capital(time)} in {unit} ({TIMING_IN_FULL[kind]})",
            HEAT, digits=None,
        ),
    ]  # fmt: skip
    return [quantity for quantity in every if _shown(settings, quantity).any()]


def _shown(settings: pd.DataFrame, quantity: Quantity) -> pd.Series[bool]:
    """Which settings have a value that is drawn: of times, those of one kind."""
    known = settings[quantity.column].notna()
    if quantity.column == "train_seconds":
        known &= settings["timing"] == timed_alike(settings)[1]
    return known


def _chart(run: Run, grid: Grid, quantity: Quantity, several: bool) -> Chart:
    panels = list(grid.panels(run))
    shown, columns = panels[:MOST_PANELS], _across(min(len(panels), MOST_PANELS))
    figure, frames, width = _canvas(grid, len(shown), columns)
    tables = [_table(grid, rows, quantity) for _, _, rows in shown]
    scale = np.concatenate([numbers[np.isfinite(numbers)] for numbers, _, _ in tables])
    alike = same_data(run)
    seen: dict[str, bool] = {}
    for frame, (title, _, _), (numbers, states, partly) in zip(frames, shown, tables, strict=True):
        frame.set_title(in_lines(title), loc="left")
        norm = _norm(scale if alike else numbers[np.isfinite(numbers)], quantity)
        _draw_values(frame, numbers, norm, quantity, width / len(grid.columns))
        _draw_states(frame, states, partly, width / len(grid.columns))
        _frame_corners(frame, grid)
        _label(frame, run, grid, width)
        seen |= {state: True for state in HATCHES if (states == state).any()} | ({PARTLY: True} if partly.any() else {})
        if not alike or frame is frames[-1]:
            mapped = ScalarMappable(norm, ListedColormap(quantity.colours))
            within = scale if alike else numbers[np.isfinite(numbers)]
            beyond = [bool((within < norm.vmin).any()), bool((within > norm.vmax).any())]
            extend = ("both" if all(beyond) else "min" if beyond[0] else "max") if any(beyond) else "neither"
            seen |= {BEYOND: True} if any(beyond) else {}
            bar = figure.colorbar(
                mapped, ax=frames if alike else frame, label=quantity.label, aspect=24, pad=0.02, extend=extend
            )
            bar.ax.grid(visible=False)
    _legend(figure, grid, seen)
    name = "_".join([quantity.name, *([_plain_name(grid)] if several else [])])
    caption = _caption(run, grid, quantity, seen, len(panels))
    # Two heatmaps with numbers are too wide for a phone, where a page scrolls what has three columns or more.
    return Chart(name, quantity.title, caption, figure, max(3, columns) if columns > 1 else 1)


def _plain_name(grid: Grid) -> str:
    return f"{grid.row}_{grid.column}".replace(".", "_")


def _across(count: int) -> int:
    return count if count <= 2 else 2 if count == 4 else 3 if count in (3, 5, 6, 9) else 4


def _canvas(grid: Grid, count: int, columns: int) -> tuple[Figure, list[Axes], float]:
    """A figure, a frame for each panel, and about how wide one is in inches."""
    rows, cells = len(grid.rows), len(grid.columns)
    width = min(6.0, max(3.4, 0.66 * cells)) if columns == 1 else min(4.2, max(3.0, 0.5 * cells))
    height = min(4.6 if columns == 1 else 3.4, max(2.0, 0.44 * rows))
    lines = math.ceil(count / columns)
    figure = Figure(figsize=((width + 0.6) * columns + 1.1, (height + 0.85) * lines + 0.5))
    frames = figure.subplots(lines, columns, squeeze=False)
    for unused in frames.flat[count:]:
        unused.remove()
    return figure, frames.flat[:count].tolist(), width


def _table(grid: Grid, rows: pd.DataFrame, quantity: Quantity) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(values, states, whether some seeds failed), each (rows, columns) as they are drawn."""
    shape = len(grid.rows), len(grid.columns)
    numbers, states, partly = np.full(shape, np.nan), np.full(shape, "missing", object), np.zeros(shape, bool)
    line = rows[grid.row].map({each: index for index, each in enumerate(grid.rows)}).to_numpy()
    place = line, rows[grid.column].map({each: index for index, each in enumerate(grid.columns)}).to_numpy()
    numbers[place] = (rows[quantity.column] * quantity.scale).where(_shown(rows, quantity))
    states[place] = rows["state"]
    partly[place] = (rows["state"] == "complete") & (rows["gave_up"] + rows["diverged"] > 0)
    return numbers, states, partly


def _norm(numbers: np.ndarray, quantity: Quantity) -> Normalize:
    low, high = without_outliers(numbers) if len(numbers) else (0.0, 1.0)
    if quantity.signed:
        high = max(abs(low), abs(high), 0.1)
        low = -high
    if low == high:
        low, high = low - 0.5, high + 0.5
    return Normalize(low, high)


def _draw_values(frame: Axes, numbers: np.ndarray, norm: Normalize, quantity: Quantity, cell: float) -> None:
    """Colours, and numbers where they fit into cells `cell` inches wide."""
    rows, columns = numbers.shape
    frame.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    if numbers.size > MOST_SHAPES:
        colours = ListedColormap(quantity.colours)
        frame.imshow(np.ma.masked_invalid(numbers), cmap=colours, norm=norm, interpolation="none", aspect="auto")
        return
    levels = _levels(numbers, norm, len(quantity.colours))
    gap = 0.04 if max(rows, columns) <= 2 * MOST_NUMBERS else 0.0
    for level in np.unique(levels[levels >= 0]):
        colour = quantity.colours[level]
        shape = _boxes([(row, column, 1) for row, column in np.argwhere(levels == level)], gap)
        frame.add_patch(PathPatch(shape, facecolor=colour, edgecolor=colour, linewidth=0 if gap else 0.3))
    texts = {place: quantity.text(number) for place, number in np.ndenumerate(numbers) if not np.isnan(number)}
    size = _size(max(map(len, texts.values()), default=1), cell)
    if max(rows, columns) <= MOST_NUMBERS and size:
        for (row, column), text in texts.items():
            colour = text_on(quantity.colours[levels[row, column]])
            frame.text(column, row, text, ha="center", va="center", size=size, color=colour)


def _levels(numbers: np.ndarray, norm: Normalize, count: int) -> np.ndarray:
    """The step of the colours that each number has; -1 where there is none."""
    share = np.asarray(norm(np.nan_to_num(numbers)))
    return np.where(np.isnan(numbers), -1, np.clip((share * count).astype(int), 0, count - 1))


def _size(letters: int, cell: float) -> float | None:
    """The size of text in points that fits into a cell, in inches; None if it would be too small to read."""
    size = min(10.5, 72 * 0.86 * cell / (0.62 * letters))
    return size if size >= 6.5 else None


def _draw_states(frame: Axes, states: np.ndarray, partly: np.ndarray, cell: float) -> None:
    """Cells without a value: hatched, with a word where it fits; those of which some seeds failed have a thin hatch."""
    small = max(states.shape) <= MOST_NUMBERS
    for state, hatch in HATCHES.items():
        where = states == state
        if not where.any():
            continue
        shape = _boxes([(row, column, 1) for row, column in np.argwhere(where)] if small else runs_of(where), 0.06)
        dashes = (0, (2, 2)) if state == "missing" else "-"
        look: dict[str, Any] = {"edgecolor": GREY, "linewidth": 0.8 if small else 0, "linestyle": dashes}
        frame.add_patch(PathPatch(shape, facecolor="none", hatch=hatch or None, **look))
        words = WORDS[state].replace(" ", "\n")
        size = _size(max(map(len, words.split("\n"))), cell)
        if small and size:
            box = {"boxstyle": "round,pad=0.12", "facecolor": "#ffffff", "edgecolor": "none"}
            for row, column in np.argwhere(where):
                frame.text(
                    column, row, words, ha="center", va="center", size=min(size, 8.5), color=INK, bbox=box,
                    linespacing=0.95,
                )  # fmt: skip
    if partly.any():
        shape = _boxes(runs_of(partly), 0.06)
        frame.add_patch(PathPatch(shape, facecolor="none", edgecolor=GREY, linewidth=0, hatch="//"))


def _boxes(places: Sequence[tuple[int, int, int]], gap: float) -> Path:
    """One shape of a box for each (row, first column, columns), `gap` of a cell apart."""
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)], float)
    shapes = []
    for row, column, length in places:
        size = np.array([length - 2 * gap, 1 - 2 * gap])
        shapes.append(corners * size + (column - 0.5 + gap, row - 0.5 + gap))
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(shapes)
    return Path(np.concatenate(shapes), codes)


def _frame_corners(frame: Axes, grid: Grid) -> None:
    for name, (lam, sigma) in grid.corners.items():
        row, column = grid.rows.index(lam), grid.columns.index(sigma)
        # In a large grid wider than its cell, so that it is seen.
        width, height = (max(1.0, LEAST_FRAME * len(each)) for each in (grid.columns, grid.rows))
        corner = Rectangle(
            (column - width / 2, row - height / 2), width, height, fill=False, edgecolor=INK, linewidth=2.4,
            linestyle=LINES[name], clip_on=False, zorder=5, label=name,
        )  # fmt: skip
        frame.add_patch(corner)


def _label(frame: Axes, run: Run, grid: Grid, width: float) -> None:
    """Ticks at the values, evenly spaced whatever they are."""
    names = axis_names(run)
    frame.grid(visible=False)
    frame.tick_params(length=0)
    for side in ("left", "bottom"):
        frame.spines[side].set_visible(False)
    down, along = some(grid.rows, MOST_TICKS), some(grid.columns, MOST_TICKS)
    frame.set_yticks([grid.rows.index(each) for each in down], [value(each) for each in down])
    labels = [value(each) for each in along]
    frame.set_xticks([grid.columns.index(each) for each in along], labels)
    if LETTER * (max(map(len, labels)) + 0.8) > width / len(labels):
        for label in frame.get_xticklabels():
            label.set(rotation=45, ha="right", rotation_mode="anchor")
    turned: dict[str, Any] = (
        {"rotation": 0, "ha": "right", "va": "center", "labelpad": 8} if len(names[grid.row]) == 1 else {}
    )
    frame.set_ylabel(names[grid.row], **turned)
    frame.set_xlabel(names[grid.column])


def _legend(figure: Figure, grid: Grid, seen: dict[str, bool]) -> None:
    handles = {
        f"{name} (λ = {value(lam)}, σ = {value(sigma)})": Patch(
            facecolor="none", edgecolor=INK, linewidth=2, linestyle=LINES[name]
        )
        for name, (lam, sigma) in grid.corners.items()
    }
    for state in (each for each in seen if each != BEYOND):
        dashes: Any = (0, (2, 2)) if state == "missing" else "-"
        hatch = HATCHES.get(state, "//")
        handles[WORDS.get(state, state)] = Patch(
            facecolor="none", edgecolor=GREY, hatch=hatch or None, linestyle=dashes
        )
    if handles:
        columns = legend_columns(list(handles), figure.get_figwidth())
        figure.legend(
            list(handles.values()), list(handles), loc="outside upper left", ncols=columns, columnspacing=1.4,
            borderaxespad=0.2,
        )  # fmt: skip


def _caption(run: Run, grid: Grid, quantity: Quantity, seen: dict[str, bool], panels: int) -> str:
    names = axis_names(run)
    settings = grid.settings
    most = int(settings["seeds"].max())
    mean = "one seed" if most == 1 else f"mean over the seeds that came to the last round, at most {most}"
    text = f"{quantity.words}, for each {names[grid.row]} (rows) and {names[grid.column]} (columns): {mean}."
    corners = [
        f"{name} (λ = {value(lam)}, σ = {value(sigma)}; {'full' if name == 'random init' else 'dashed'} line)"
        for name, (lam, sigma) in grid.corners.items()
    ]
    if corners:
        text += f" Framed: {listed(corners)}."
    counts = settings["state"].value_counts()
    without = [f"{counts[state]} {WORDS[state]}" for state in ("gave_up", "diverged", "unfinished") if state in counts]
    if without:
        text += f" Hatched, without a number: settings of which no seed came to the end ({listed(without)})."
    if "missing" in seen:
        text += " Dashed and empty: not run yet, or failed with an error."
    if PARTLY in seen:
        text += " A thin hatch over the colour: some seeds gave up or diverged; the number is of the others."
    if BEYOND in seen:
        text += " The colours leave outliers out: values beyond the bar's ends have the colour of that end."
    other = int((settings[quantity.column].notna() & ~_shown(settings, quantity)).sum())
    if other:
        text += f" {other} settings that were timed otherwise are left empty."
    if max(len(grid.rows), len(grid.columns)) > MOST_NUMBERS:
        text += " The numbers are in summary.csv."
    if panels > MOST_PANELS:
        text += f" The first {MOST_PANELS} of {panels} combinations of other varied values are drawn."
    if panels > 1 and not same_data(run):
        text += " Each panel has a scale of its own, because the data differ."
    return text
