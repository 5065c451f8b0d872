"""How a run spreads over panels and lines: one line an arm, a line a value where only some arms have it, else panels.

A varied key that every arm has (a data set, the first fraction) makes panels. One that only some arms have (the lambda
of shrink-perturb) makes lines in the colours of a scale, beside the other arms. Panels share their axes, unless they
are of different data, whose accuracies may lie far apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from warmstart_sim.report.style import Look, looks, sequence
from warmstart_sim.report.wording import arm, at, axis_names, is_empty, setting
from warmstart_sim.results.statistics import over_seeds
from warmstart_sim.results.tables import Run

FEWEST_SEEDS = 3  # of an interval that is drawn: with two it is 12.7 standard errors wide, and hides all else
MOST_PANELS = 12  # of a figure
MOST_LINES = 12  # of a panel, for the values of one varied key; more cannot be followed
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
    """One combination of the varied values that make panels; the title is empty where there are none."""

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

    Returns:
        A panel for each combination; those that no figure has room for are there without lines.
    """
    by_value = line_axis(run, beside)
    facets = [axis for axis in run.axes if axis not in (by_value, *beside) and frame[axis].notna().any()]
    names = {axis: name for axis, name in axis_names(run).items() if axis in facets}
    found = frame[facets].dropna().drop_duplicates().sort_values(facets).to_dict("records") if facets else [{}]
    panels = []
    for combination in found[:MOST_PANELS]:
        rows = frame
        for axis, wanted in combination.items():
            rows = rows[(rows[axis] == wanted) | rows[axis].isna()]
        panels.append(Panel(setting(combination, names), list(_lines(run, rows, by_value))))
    return panels + [Panel(setting(each, names), []) for each in found[MOST_PANELS:]]


def same_data(run: Run) -> bool:
    """Whether all cells end on the same data, so that their accuracies and times can share an axis."""
    vary = run.scenario.get("vary") or {}
    bundled = [settings for labels in vary.values() if isinstance(labels, Mapping) for settings in labels.values()]
    targets = {repr([(key, each) for key, each in settings.items() if key.startswith("data.")]) for settings in bundled}
    own = run.rounds[~run.rounds["shared"].astype(bool)]
    return len(targets) <= 1 and ("dataset" not in own or own["dataset"].nunique() <= 1)


def is_number(frame: pd.DataFrame, axis: str) -> bool:
    """Whether the values of a varied key are numbers, with something in between."""
    return is_numeric_dtype(frame[axis]) and not is_bool_dtype(frame[axis]) and has_values(frame, axis)


def looks_of_arms(run: Run) -> dict[str, Look]:
    """One look for each arm, the same in every figure."""
    return looks([str(name) for name in run.rounds["strategy"].cat.categories], run.reference)


def some(values: tuple[Any, ...], most: int) -> tuple[Any, ...]:
    """At most so many of the values, evenly spread, both ends among them.

    >>> some((0.0, 0.1, 0.2, 0.3, 0.4, 0.5), 3)
    (0.0, 0.2, 0.5)
    """
    if len(values) <= most:
        return values
    return tuple(values[index] for index in np.linspace(0, len(values) - 1, most).round().astype(int))


def _lines(run: Run, rows: pd.DataFrame, by_value: str | None) -> Iterator[Line]:
    arms = run.scenario["strategies"]
    look = looks_of_arms(run)
    scale = some(tuple(sorted(run.rounds[by_value].dropna().unique())), MOST_LINES) if by_value else ()
    colours = dict(zip(scale, sequence(len(scale)), strict=True))
    having = run.rounds.dropna(subset=by_value)["strategy"].nunique() if by_value else 0
    for name, own in rows.groupby("strategy", observed=True):
        label = arm(str(name), arms.get(name) or {}, run.axes)
        if by_value is None or own[by_value].isna().all():
            yield Line(str(name), label, look[str(name)], own)
            continue
        for number, part in own[own[by_value].isin(scale)].groupby(by_value):
            varied = at(axis_names(run)[by_value], [number])
            with_value = varied if having == 1 else f"{label}, {varied}"
            yield Line(str(name), with_value, replace(look[str(name)], colour=colours[number]), part)


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


def has_values(frame: pd.DataFrame, column: str) -> bool:
    """Whether anything was measured in this column."""
    return column in frame and not frame[column].map(is_empty).all()
