"""Splits a run's rows into the panels and lines of a figure, and draws lines as means over seeds.

A varied key that every arm has (a data set, the first fraction) makes panels. One that only some arms have (the lambda
of shrink-perturb) makes lines in sequential colours, beside those of the other arms. Panels share their axes, unless
their data differ, because accuracies on different data may lie far apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from warmstart_sim.report.style import DASHES, INK, MARKERS, PALETTE, LineStyle, add_hover, sequential_colors
from warmstart_sim.report.wording import arm_label, axis_names, axis_values, is_empty, setting_label
from warmstart_sim.results.statistics import over_seeds
from warmstart_sim.results.tables import Run

FEWEST_SEEDS = 3  # for an interval; with two seeds it is 12.7 standard errors wide and would hide everything else
MOST_PANELS = 12  # in a figure
MOST_HOVER_ROUNDS = 50  # points of a line with hover texts
MOST_LINES = 12  # in a panel, for the values of one varied key; a reader cannot follow more
BAND = 0.16  # the opacity of a band


@dataclass(frozen=True)
class Line:
    """The rows drawn in one style: those of an arm, or of an arm at one value of a varied key."""

    arm: str
    label: str
    style: LineStyle
    rows: pd.DataFrame


@dataclass(frozen=True)
class Panel:
    """One combination of the varied values that make panels; the title is empty if no key makes panels."""

    title: str
    lines: list[Line]


def line_axis(run: Run, drawn_axes: tuple[str, ...] = ()) -> str | None:
    """The varied key whose values become lines: the first one that some arms lack."""
    return next((axis for axis in run.axes if axis not in drawn_axes and run.rounds[axis].isna().any()), None)


def split_into_panels(run: Run, table: pd.DataFrame, drawn_axes: tuple[str, ...] = ()) -> list[Panel]:
    """Splits a table (of rounds, epochs or cells) into panels and lines.

    Args:
        run: The run of the table.
        table: Has the columns strategy and `run.axes`.
        drawn_axes: Varied keys along an axis of the figure; they make neither panels nor lines.

    Returns:
        A panel for each combination; those beyond `MOST_PANELS` have no lines.
    """
    by_value = line_axis(run, drawn_axes)
    facets = [axis for axis in run.axes if axis not in (by_value, *drawn_axes) and table[axis].notna().any()]
    names = {axis: name for axis, name in axis_names(run).items() if axis in facets}
    combinations = table[facets].dropna().drop_duplicates().sort_values(facets).to_dict("records") if facets else [{}]
    panels = []
    for combination in combinations[:MOST_PANELS]:
        rows = table
        for axis, value in combination.items():
            rows = rows[(rows[axis] == value) | rows[axis].isna()]
        panels.append(Panel(setting_label(combination, names), list(_lines(run, rows, by_value))))
    return panels + [Panel(setting_label(each, names), []) for each in combinations[MOST_PANELS:]]


def _lines(run: Run, rows: pd.DataFrame, by_value: str | None) -> Iterator[Line]:
    styles = arm_styles(run)
    values = evenly_spread(tuple(sorted(run.rounds[by_value].dropna().unique())), MOST_LINES) if by_value else ()
    colors = dict(zip(values, sequential_colors(len(values)), strict=True))
    arms_with_values = run.rounds.dropna(subset=by_value)["strategy"].nunique() if by_value else 0
    for arm, own in rows.groupby("strategy", observed=True):
        label, style = arm_label(run, str(arm)), styles[str(arm)]
        if by_value is None or own[by_value].isna().all():
            yield Line(str(arm), label, style, own)
            continue
        for value, part in own[own[by_value].isin(values)].groupby(by_value):
            value_label = axis_values(axis_names(run)[by_value], [value])
            if arms_with_values > 1:
                value_label = f"{label}, {value_label}"
            yield Line(str(arm), value_label, replace(style, color=colors[value]), part)


def arm_styles(run: Run) -> dict[str, LineStyle]:
    """One style for each arm, the same in every figure: the reference in ink, the others in colours."""
    others = [str(arm) for arm in run.rounds["strategy"].cat.categories if arm != run.reference]
    cycle = len(PALETTE)
    styles = {
        arm: LineStyle(PALETTE[i % cycle], MARKERS[i % len(MARKERS)], DASHES[i // cycle % len(DASHES)])
        for i, arm in enumerate(others)
    }
    return styles | {run.reference: LineStyle(INK, "o")}


def same_data(run: Run) -> bool:
    """Whether all cells end on the same data, so that their accuracies and times can share an axis."""
    vary = run.scenario.get("vary") or {}
    bundled = [settings for labels in vary.values() if isinstance(labels, Mapping) for settings in labels.values()]
    targets = {repr([(key, each) for key, each in settings.items() if key.startswith("data.")]) for settings in bundled}
    own = run.rounds[~run.rounds["shared"].astype(bool)]
    return len(targets) <= 1 and ("dataset" not in own or own["dataset"].nunique() <= 1)


def is_number(table: pd.DataFrame, axis: str) -> bool:
    """Whether the values of a varied key are numbers on a scale, not names or switches."""
    return is_numeric_dtype(table[axis]) and not is_bool_dtype(table[axis]) and has_values(table, axis)


def has_values(table: pd.DataFrame, column: str) -> bool:
    """Whether the table has this column and a value in it."""
    return column in table and not table[column].map(is_empty).all()


def evenly_spread(values: tuple[Any, ...], most: int) -> tuple[Any, ...]:
    """At most this many of the values, evenly spread, with the first and the last.

    >>> evenly_spread((0.0, 0.1, 0.2, 0.3, 0.4, 0.5), 3)
    (0.0, 0.2, 0.5)
    """
    if len(values) <= most:
        return values
    return tuple(values[index] for index in np.linspace(0, len(values) - 1, most).round().astype(int))


def draw_mean(run: Run, ax: Axes, line: Line, x: str, y: str, scale: float = 1.0, mark_every: Any = None) -> None:
    """Draws the mean over seeds with a band of `half_width`, or with fewer than three seeds each seed thinly."""
    rows = line.rows.dropna(subset=y)
    table = over_seeds(rows, [x], y)
    mean, half = scale * table["mean"], scale * half_width(run, table)
    if mark_every is None:
        mark_every = max(1, len(table) // 8)  # a marker at every point would hide a long line
    style = line.style
    ax.plot(
        table[x], mean, color=style.color, marker=style.marker, linestyle=style.linestyle, markevery=mark_every,
        zorder=3,
    )  # fmt: skip
    if len(table) <= MOST_HOVER_ROUNDS:
        where = [f"{at:,.0f} samples" if x == "train_samples" else f"{x} {at}" for at in table[x]]
        values = zip(where, mean, half, strict=True)
        add_hover(ax, table[x], mean, [f"{line.label}, {at}: {plus_minus(*each)}" for at, *each in values])
    if table["seeds"].max() >= FEWEST_SEEDS:
        low, high = bar_ends(run, table, y)
        ax.fill_between(table[x], scale * low, scale * high, color=style.color, alpha=BAND, lw=0)
        return
    for _, seed in rows.groupby("seed"):
        ax.plot(seed[x], seed[y] * scale, color=style.color, linewidth=0.8, alpha=0.5, zorder=2)


def half_width(run: Run, table: pd.DataFrame) -> pd.Series[float]:
    """Half of the bar or band around each mean of a table from `over_seeds`; empty with fewer than three seeds."""
    half = table["std"] if run.bands == "std" else table["high"] - table["mean"]
    return half.where(table["seeds"] >= FEWEST_SEEDS)


def bar_ends(run: Run, table: pd.DataFrame, column: str) -> tuple[pd.Series[float], pd.Series[float]]:
    """The ends of the bar or band around each mean; those of intervals of seconds are above zero, by the log scale."""
    mean, half = table["mean"], half_width(run, table)
    if column == "compared_seconds" and run.bands == "ci":
        factor = np.exp(half / mean.where(mean > 0))
        return mean / factor, mean * factor
    return mean - half, mean + half


def bands_name(run: Run) -> str:
    """The words of a caption for what `half_width` gives."""
    if run.bands == "std":
        return "one standard deviation over seeds to each side, as in Ash & Adams"
    return "the 95 % confidence interval of the mean (Ash & Adams show standard deviations)"


def plus_minus(mean: float, half: float) -> str:
    """A mean with its bar or band, for hover texts.

    >>> plus_minus(61.234, 0.52), plus_minus(2.281, float("nan"))
    ('61.23 ± 0.52', '2.281')
    """
    return f"{mean:.4g}" if is_empty(half) else f"{mean:.4g} ± {half:.2g}"


def seeds_note(run: Run) -> str:
    """A caption's sentence on the lines and bands of `draw_mean`."""
    counts = run.rounds.groupby(["strategy", *run.axes], observed=True, dropna=False)["seed"].nunique()
    fewest, most = counts.min(), counts.max()
    if most == 1:
        return "One seed: a line does not show how far another seed would be from it."
    mean = f"Mean over {most} seeds" if fewest == most else f"Mean over {fewest} to {most} seeds"
    if most < FEWEST_SEEDS:
        return f"{mean}; thin lines show each seed (too few for a useful interval)."
    return f"{mean}; the band is {bands_name(run)}" + (
        "." if fewest >= FEWEST_SEEDS else f", drawn for {FEWEST_SEEDS} seeds or more."
    )
