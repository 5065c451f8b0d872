"""How a run spreads over panels and lines: one line an arm, a line a value where only some arms have it, else panels.

A varied key that every arm has (a data set, the first fraction) makes panels. One that only some arms have (the lambda
of shrink-perturb) makes lines in the colours of a scale, beside the other arms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from warmstart_sim.report.style import Look, looks, sequence
from warmstart_sim.report.wording import arm, axis_name, is_empty, setting, value
from warmstart_sim.results.tables import Run, over_seeds

MOST_PANELS, MOST_COLUMNS = 12, 4
FEWEST_SEEDS = 3  # of an interval that is drawn: with two it is 12.7 standard errors wide, and hides all else
BAND = 0.16  # the opacity of a band


@dataclass(frozen=True)
class Line:
    """What is drawn in one colour: an arm, or an arm at one value of a varied key."""

    arm: str
    label: str
    look: Look
    rows: pd.DataFrame


@dataclass(frozen=True)
class Panel:
    """One combination of the varied values that make panels; the title is empty where there is one panel only."""

    title: str
    lines: list[Line]


def line_axis(run: Run, beside: tuple[str, ...] = ()) -> str | None:
    """The first varied key that some arms lack; its values become lines."""
    return next((axis for axis in run.axes if axis not in beside and run.rounds[axis].isna().any()), None)


def split(run: Run, frame: pd.DataFrame, beside: tuple[str, ...] = ()) -> list[Panel]:
    """Spreads the rows of `frame` (of rounds, epochs or cells) over panels and lines.

    Args:
        run: Where the rows come from.
        frame: Has the columns strategy and `run.axes`.
        beside: Varied keys that the figure itself draws, so that they make neither panels nor lines.
    """
    by_value = line_axis(run, beside)
    facets = [axis for axis in run.axes if axis not in (by_value, *beside) and frame[axis].notna().any()]
    found = frame[facets].dropna().drop_duplicates().sort_values(facets).to_dict("records") if facets else [{}]
    panels = []
    for combination in found:
        rows = frame
        for axis, wanted in combination.items():
            rows = rows[(rows[axis] == wanted) | rows[axis].isna()]
        panels.append(Panel(setting(combination, facets), list(_lines(run, rows, by_value))))
    return panels


def looks_of_arms(run: Run) -> dict[str, Look]:
    """One look for each arm, the same in every figure."""
    return looks([str(name) for name in run.rounds["strategy"].cat.categories], run.reference)


def _lines(run: Run, rows: pd.DataFrame, by_value: str | None) -> Iterator[Line]:
    arms = run.scenario["strategies"]
    look = looks_of_arms(run)
    scale = sorted(run.rounds[by_value].dropna().unique()) if by_value else []
    colours = dict(zip(scale, sequence(len(scale)), strict=True))
    having = run.rounds.dropna(subset=by_value)["strategy"].nunique() if by_value else 0
    for name, own in rows.groupby("strategy", observed=True):
        label = arm(str(name), arms.get(name) or {}, run.axes)
        if by_value is None or own[by_value].isna().all():
            yield Line(str(name), label, look[str(name)], own)
            continue
        for number, part in own.groupby(by_value):
            varied = f"{axis_name(by_value)} = {value(number)}"
            with_value = varied if having == 1 else f"{label}, {varied}"
            yield Line(str(name), with_value, replace(look[str(name)], colour=colours[number]), part)


def drawn(panels: list[Panel], rows: int = 1) -> int:
    """How many panels a figure shows: at most twelve, or four side by side where each has several rows."""
    return min(len(panels), MOST_PANELS if rows == 1 else MOST_COLUMNS)


def across(panels: list[Panel], rows: int = 1) -> int:
    """How many panels stand side by side."""
    count = drawn(panels, rows)
    return count if rows > 1 else {1: 1, 2: 2, 4: 2}.get(count, 3)


def canvas(panels: list[Panel], rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with one frame for each panel and a legend above them.

    Args:
        panels: What `split` gave.
        rows: Frames below each other for each panel; they are returned row by row.
    """
    count, columns = drawn(panels, rows), across(panels, rows)
    width, height = (6.2, 3.3) if columns == 1 else (3.3 * columns, 2.6)
    lines = math.ceil(count / columns) * rows
    entries = {line.label: line.look for panel in panels for line in panel.lines}
    legend_columns = _columns_that_fit(list(entries), width)
    legend_height = 0.22 * math.ceil(len(entries) / legend_columns)
    figure = Figure(figsize=(width, (height if rows == 1 else 2.4) * lines + 0.25 + legend_height))
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey="row" if rows > 1 else True)
    frames = list(grid.flat)
    for unused in frames[count * rows :]:
        unused.remove()
    frames = frames[: count * rows]
    if count > 1:
        for frame, panel in zip(frames, panels, strict=False):
            frame.set_title(panel.title, loc="left")
            frame.locator_params(axis="x", nbins=4)
    handles = [Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.dash) for look in entries.values()]
    figure.legend(
        handles, list(entries), loc="outside upper left", ncols=legend_columns, columnspacing=1.4, borderaxespad=0.2
    )
    return figure, frames


def _columns_that_fit(labels: list[str], width: float) -> int:
    """The most columns in which a legend is not wider than the figure (both in inches); it is filled column by column.

    A letter takes about 0.077 inches at this size, a handle and the gaps beside it 0.63.
    """
    lengths = [len(label) for label in labels]
    for columns in range(len(labels), 1, -1):
        if sum(0.077 * max(part) + 0.63 for part in np.array_split(lengths, columns)) <= width:
            return columns
    return 1


def label_frames(frames: list[Axes], x: str, y: str) -> None:
    """Labels at the outer edge only: below the lowest frame of each column, left of the first frame of each row."""
    lowest = {}
    for frame in frames:
        place = frame.get_subplotspec()
        assert place is not None  # `canvas` put it into a grid
        lowest[place.colspan.start] = frame
        if place.is_first_col():
            frame.set_ylabel(y)
    for frame in lowest.values():
        frame.set_xlabel(x)
        frame.tick_params(labelbottom=True)


def draw_mean(frame: Axes, line: Line, x: str, y: str, scale: float = 1.0) -> None:
    """The mean over seeds, with a band for its 95 % interval; with fewer than three seeds, each seed as a thin line."""
    table = over_seeds(line.rows, [x], y)
    often = max(1, len(table) // 8)  # a marker at every point hides a long line
    frame.plot(
        table[x], table["mean"] * scale, color=line.look.colour, marker=line.look.marker, linestyle=line.look.dash,
        markevery=often, zorder=3,
    )  # fmt: skip
    if table["seeds"].max() < FEWEST_SEEDS:
        for _, one in line.rows.groupby("seed"):
            frame.plot(one[x], one[y] * scale, color=line.look.colour, linewidth=0.8, alpha=0.5, zorder=2)
    else:
        frame.fill_between(
            table[x], table["low"] * scale, table["high"] * scale, color=line.look.colour, alpha=BAND, linewidth=0
        )


def spread(run: Run) -> str:
    """What the lines and bands of `draw_mean` are, for a caption."""
    counts = run.rounds.groupby(["strategy", *run.axes], observed=True, dropna=False)["seed"].nunique()
    fewest, most = counts.min(), counts.max()
    if most == 1:
        return "One seed: a line says nothing about how far another seed would be from it."
    mean = f"Mean over {most} seeds" if fewest == most else f"Mean over {fewest} to {most} seeds"
    if most < FEWEST_SEEDS:
        return f"{mean}; each seed as a thin line (too few for an interval worth drawing)."
    return f"{mean}; the band is the 95 % interval of the mean" + (
        "." if fewest >= FEWEST_SEEDS else f", drawn from {FEWEST_SEEDS} seeds on."
    )


def half_width(table: pd.DataFrame) -> pd.Series[float]:
    """Half of each interval of a table from `over_seeds`, for an error bar; empty with too few seeds."""
    return (table["high"] - table["mean"]).where(table["seeds"] >= FEWEST_SEEDS)


def note(run: Run, panels: list[Panel], rows: int = 1, beside: tuple[str, ...] = ()) -> str:
    """What a caption adds about panels and lines: whose values the lines are, and that not all panels are drawn."""
    value_name = axis_name(line_axis(run, beside) or "")
    lines = [line for panel in panels for line in panel.lines]
    text = ""
    for name in dict.fromkeys(line.arm for line in lines if line.label.startswith(f"{value_name} = ")):
        label = arm(name, run.scenario["strategies"].get(name) or {}, run.axes)
        text += f" The lines named by {value_name} are {label}."
    if drawn(panels, rows) < len(panels):
        text += f" The first {drawn(panels, rows)} of {len(panels)} combinations of varied values are drawn."
    return text


def has_values(frame: pd.DataFrame, column: str) -> bool:
    """Whether anything was measured in this column."""
    return column in frame and not frame[column].map(is_empty).all()
