"""Splits a run's rows into the panels and lines of a figure, and draws lines as means over seeds.

A varied key that every arm has (a data set, the first fraction) makes panels. One that only some arms have (the lambda
of shrink-perturb) makes lines in sequential colours, beside those of the other arms. Panels share their axes, unless
their data differ, because accuracies on different data may lie far apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from warmstart_sim.report.style import DASHES, INK, MARKERS, PALETTE, LineStyle, add_hover, sequential_colors
from warmstart_sim.report.wording import arm_label, is_empty, key_name, setting_label
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


def split_into_panels(
    run: Run,
    table: pd.DataFrame,
    drawn_axes: tuple[str, ...] = (),
    panels: Sequence[str] | None = None,
    more: Sequence[str] = (),
) -> list[Panel]:
    """Splits a table (of rounds, epochs or cells) into panels and lines.

    Args:
        run: The run of the table.
        table: Has the columns strategy and `run.axes`.
        drawn_axes: Varied keys along an axis of the figure; they make neither panels nor lines.
        panels: The keys that make panels, such as "strategy"; all others make lines. None: as the module says.
        more: Columns beside the varied keys; they make lines, unless they are among `panels`.

    Returns:
        A panel for each combination; those beyond `MOST_PANELS` have no lines.
    """
    keys = [key for key in (*run.axes, *more) if key not in drawn_axes and table[key].notna().any()]
    if panels is None:
        by_value = line_axis(run, drawn_axes)
        panels = [key for key in keys if key != by_value and key not in more]
    else:
        keys = [key for key in keys if table[key].nunique() > 1]  # one value says nothing
    facets = [key for key in panels if key not in drawn_axes and table[key].notna().any()]
    line_keys = [key for key in keys if key not in facets]
    found = split_by(run, table, facets)
    by_arm = "strategy" not in facets
    panels_with_lines = [
        Panel(title, list(_lines(run, table, rows, line_keys, by_arm))) for title, rows in found[:MOST_PANELS]
    ]
    return panels_with_lines + [Panel(title, []) for title, _ in found[MOST_PANELS:]]


def split_by(run: Run, table: pd.DataFrame, keys: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    """(title, rows) for each combination of values of the keys; rows without a value of a key are in all of them."""
    if not keys:
        return [("", table)]
    found = []
    for values in table[keys].dropna().drop_duplicates().sort_values(list(keys)).to_dict("records"):
        rows = table
        for key, value in values.items():
            rows = rows[(rows[key] == value) | rows[key].isna()]
        arm = {"strategy": arm_label(run, values["strategy"])} if "strategy" in values else {}
        found.append((setting_label({**values, **arm}, {str(key): key_name(run, str(key)) for key in values}), rows))
    return found


def _lines(run: Run, table: pd.DataFrame, rows: pd.DataFrame, keys: Sequence[str], by_arm: bool) -> Iterator[Line]:
    """A line for each arm, and for each combination of values of those keys that the arm has.

    The arm has a colour of its own; the values of a number have sequential colours instead, and words have dashes. If
    arms are panels, not `by_arm`, or if there is one only, words have colours too: equal ones are equal in all panels.
    """
    styles = arm_styles(run)
    values = {key: _values(run, table, key) for key in keys}
    several_arms = any(_source(run, table, key).dropna(subset=key)["strategy"].nunique() > 1 for key in keys)
    for arm, own in rows.groupby("strategy", observed=True):
        label, style = arm_label(run, str(arm)), styles[str(arm)]
        own_keys = [key for key in keys if own[key].notna().any()]
        if not own_keys:
            yield Line(str(arm), label, style, own)
            continue
        names = {key: key_name(run, key) for key in own_keys}
        numbers = [key for key in own_keys if is_number(table, key)][:1]
        words = [key for key in own_keys if key not in numbers]
        dashes = list(itertools.product(*(values[key] for key in words)))
        for combination in itertools.product(*(values[key] for key in own_keys)):
            at = dict(zip(own_keys, combination, strict=True))
            part = own[np.logical_and.reduce([own[key] == value for key, value in at.items()])]
            index = dashes.index(tuple(at[key] for key in words))
            line_style = replace(style, linestyle=DASHES[index % len(DASHES)]) if words else style
            if not by_arm or len(styles) == 1:
                marker = MARKERS[index % len(MARKERS)]
                line_style = LineStyle(PALETTE[index % len(PALETTE)], marker, line_style.linestyle)
            for key in numbers:
                color = sequential_colors(len(values[key]))[values[key].index(at[key])]
                line_style = replace(line_style, color=color)
            if len(part):
                value_label = setting_label(at, names)
                yield Line(
                    str(arm), f"{label}, {value_label}" if several_arms and by_arm else value_label, line_style, part
                )


def _source(run: Run, table: pd.DataFrame, key: str) -> pd.DataFrame:
    """The rounds, so that values look the same in every figure of a run; else the table that has the key."""
    return run.rounds if key in run.rounds else table


def _values(run: Run, table: pd.DataFrame, key: str) -> tuple[Any, ...]:
    values = _source(run, table, key)[key].dropna().drop_duplicates().sort_values()
    return evenly_spread(tuple(values.tolist()), MOST_LINES)


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
