"""The Pareto front of a grid: the settings that no other one beats in both accuracy and cost."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from warmstart_sim.report.grids import Grid, without_outliers
from warmstart_sim.report.layout import cut_note, label_outer, label_points, make_subplots
from warmstart_sim.report.panels import MOST_PANELS, Line, Panel, arm_styles, has_values, same_data
from warmstart_sim.report.quantities import Quantity, accuracy_label, costs
from warmstart_sim.report.style import GREY, INK, PALETTE, LineStyle, ReportFigure, add_hover, sequential_colors, styled
from warmstart_sim.report.wording import (
    arm_label,
    axis_names,
    axis_values,
    format_value,
    is_empty,
    readable,
    setting_label,
)
from warmstart_sim.results.tables import Run

MOST_COLORS = 8  # in a legend; with more rows the points are grey
MOST_SHAPES = 2000  # points drawn as shapes; more become one image
MOST_RINGS = 12  # with room around their points
MOST_LISTED = 6  # settings of the front in the caption
OTHER_SETTINGS = LineStyle(GREY, "o", "")
FRONT = Line("", "Pareto front", LineStyle(INK, ""), pd.DataFrame(columns=["cost", "accuracy", "failed"]))


def pareto_front(times: np.ndarray, accuracies: np.ndarray) -> np.ndarray:
    """The indices of the points that no other beats: none is at least as quick and as accurate, and better in one.

    Args:
        times: Of n points; less is better.
        accuracies: Of the same points; more is better.

    Returns:
        Indices, in the order of the times.

    >>> pareto_front(np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.4, 0.6])).tolist()
    [0, 2]
    """
    front: list[int] = []
    for index in np.lexsort((-accuracies, times)):
        last = front[-1] if front else None
        better = last is None or accuracies[index] > accuracies[last]
        if better or (times[index], accuracies[index]) == (times[last], accuracies[last]):
            front.append(int(index))
    return np.array(front, int)


def _front(settings: pd.DataFrame) -> pd.DataFrame:
    """The settings of the front; one of which seeds failed is none of them, for its mean leaves those seeds out."""
    sound = settings[settings["failed"] == 0]
    return sound.iloc[pareto_front(sound["cost"].to_numpy(), sound["accuracy"].to_numpy())]


@styled
def pareto(run: Run, grid: Grid) -> list[ReportFigure]:
    """Plots final accuracy against train time of every setting, with the Pareto front; and against FLOPs or epochs."""
    times, epochs, flops = costs(run, grid.summary, "settings")
    second = flops if has_values(flops.rows, flops.column) else epochs
    return [_plot(run, grid, each) for each in (times, second) if has_values(each.rows, "final_accuracy")]


def _plot(run: Run, grid: Grid, cost: Quantity) -> ReportFigure:
    settings = cost.rows.dropna(subset="final_accuracy")
    settings = settings.assign(
        cost=settings[cost.column] * cost.scale,
        accuracy=100 * settings["final_accuracy"],
        failed=settings["gave_up"] + settings["diverged"],
    )
    tables = _tables(run, grid, settings)
    drawn = tables[:MOST_PANELS]
    by_row = len(grid.rows) <= MOST_COLORS and len(settings) <= MOST_SHAPES
    panels = [Panel(title, _lines(run, grid, table, by_row)) for title, table in drawn]
    figure, (axs,) = make_subplots(panels, share_x=same_data(run), share_y=same_data(run))
    figure.set_dpi(200)  # of points drawn as an image
    for ax, panel, (_, table) in zip(axs, panels, drawn, strict=True):
        for line in panel.lines:
            _draw_points(ax, line)
        front = _front(table)
        ax.plot(front["cost"], front["accuracy"], color=INK, linewidth=1.3, zorder=2.5, drawstyle="steps-post")
        size = 12 if len(front) <= MOST_RINGS else 5
        ax.plot(
            front["cost"], front["accuracy"], "o", markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.2,
            markersize=size, zorder=5,
        )  # fmt: skip
        add_hover(ax, table["cost"], table["accuracy"], _described(run, table, cost))
    outside = _limit(grid, axs, [table for _, table in drawn], same_data(run))
    label_outer(axs, cost.label, accuracy_label(run))
    caption = (
        f"Final {readable(run.metric)} against the {cost.description}. Each point is a setting, mean over its seeds. "
        "Ringed, and joined in steps: the Pareto front, the settings that no other one beats in both. Up and to the "
        "left is better. The front is chosen by the same numbers that it shows, so it lies slightly too high."
        f"{_label_front(run, grid, axs, drawn)}{_list_front(run, cost, drawn)}{cost.note}"
    )
    if settings["failed"].any():
        caption += " Hollow, and never on the front: settings of which some seeds gave up or diverged."
    if outside:
        caption += f" {outside} {'setting lies' if outside == 1 else 'settings lie'} outside, far from all others."
    caption += cut_note(len(drawn), len(tables))
    name = "pareto" if cost.name == "train_time" else f"pareto_{cost.name}"
    return ReportFigure(f"{name}{grid.suffix}", f"Accuracy and {cost.title} of the grid", caption, figure)


def _rows(settings: pd.DataFrame) -> list[dict[Any, Any]]:
    return settings.astype({"strategy": str}).to_dict("records")


def _described(run: Run, settings: pd.DataFrame, cost: Quantity) -> list[str]:
    """Each setting with its accuracy and its cost."""
    names = axis_names(run)
    return [
        readable(row["strategy"])
        + (f" ({values})" if (values := setting_label(row, names)) else "")
        + f": {row['accuracy']:.1f} % at {row['cost']:.3g} {cost.unit}"
        for row in _rows(settings)
    ]


def _label_front(run: Run, grid: Grid, axs: list[Axes], drawn: list[tuple[str, pd.DataFrame]]) -> str:
    """Labels the points of the fronts by their two values; returns a sentence of the caption on the labels."""
    for ax, (_, table) in zip(axs, drawn, strict=True):
        front = _front(table)
        steps = front[["cost", "accuracy"]].to_numpy().repeat(2, axis=0)
        corners = np.column_stack([steps[1:, 0], steps[:-1, 1]])
        front = front.iloc[:: math.ceil(len(front) / MOST_RINGS) or 1]
        texts = [
            readable(row["strategy"])
            if is_empty(row[grid.row])
            else f"({format_value(row[grid.row])}, {format_value(row[grid.column])})"
            for row in _rows(front)
        ]
        label_points(ax, front[["cost", "accuracy"]].to_numpy(), texts, table[["cost", "accuracy"]].to_numpy(), corners)
    names = axis_names(run)
    return f" Labels: ({names[grid.row]}, {names[grid.column]}), where there is room."


def _tables(run: Run, grid: Grid, settings: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(title, settings) for each combination of the facets that all arms have."""
    facets = [axis for axis in grid.facets if axis in run.common_axes]
    if not facets:
        return [("", settings)]
    names = {axis: name for axis, name in axis_names(run).items() if axis in facets}
    combinations = settings[facets].dropna().drop_duplicates().sort_values(facets).to_dict("records")
    return [
        (
            setting_label(each, names),
            settings[
                np.logical_and.reduce([settings[axis].isna() | (settings[axis] == each[axis]) for axis in facets])
            ],
        )
        for each in combinations
    ]


def _lines(run: Run, grid: Grid, settings: pd.DataFrame, by_row: bool) -> list[Line]:
    """The other arms, the grid's corner that equals the warm start, and its other settings, by row if `by_row`."""
    styles = arm_styles(run)
    in_grid = settings["strategy"].isin(grid.arms) & settings[grid.row].notna()
    lines = [
        Line(str(arm), arm_label(run, str(arm)), replace(styles[str(arm)], linestyle=""), rows)
        for arm, rows in settings[~in_grid].groupby("strategy", observed=True)
    ]
    own = settings[in_grid]
    if "warm start" in grid.corners:
        lam, sigma = grid.corners["warm start"]
        corner = (own[grid.row] == lam) & (own[grid.column] == sigma)
        label = f"warm start (λ = {format_value(lam)}, σ = {format_value(sigma)})"
        lines.append(Line("", label, LineStyle(PALETTE[0], "s", ""), own[corner]))
        own = own[~corner]
    if not by_row:
        return [*lines, Line("", "other settings of the grid", OTHER_SETTINGS, own), FRONT]
    values = sorted(grid.rows)
    for value, color in zip(values, sequential_colors(len(values)), strict=True):
        label = axis_values(axis_names(run)[grid.row], [value])
        lines.append(Line("", label, LineStyle(color, "D", ""), own[own[grid.row] == value]))
    return [*lines, FRONT]


def _draw_points(ax: Axes, line: Line) -> None:
    named = line.style.marker != "D" and line.style is not OTHER_SETTINGS
    as_image = len(line.rows) > MOST_SHAPES
    failed = line.rows["failed"] > 0
    for rows, hollow in ((line.rows[~failed], False), (line.rows[failed], True)):
        ax.plot(
            rows["cost"], rows["accuracy"], marker=line.style.marker, color=line.style.color, linestyle="",
            markersize=9 if named else 2.5 if as_image else 5.5,
            markerfacecolor="none" if hollow else None, markeredgecolor=line.style.color if hollow else None,
            markeredgewidth=1.2 if hollow else 0 if as_image else 0.6, zorder=4 if named else 3, rasterized=as_image,
            alpha=0.6 if line.style is OTHER_SETTINGS else None,
        )  # fmt: skip


def _always_shown(grid: Grid, settings: pd.DataFrame) -> pd.DataFrame:
    """The settings that the figure has to show, outliers or not: other arms, the corners, the front."""
    shown = ~settings["strategy"].isin(grid.arms)
    for lam, sigma in grid.corners.values():
        shown |= (settings[grid.row] == lam) & (settings[grid.column] == sigma)
    return pd.concat([settings[shown], _front(settings)])


def _limit(grid: Grid, axs: list[Axes], tables: list[pd.DataFrame], shared: bool) -> int:
    """Limits the axes to a range without outliers, with costs from zero; returns how many settings lie outside."""
    outside = 0
    for index, (ax, table) in enumerate(zip(axs, tables, strict=True)):
        in_range = tables if shared else [table]
        settings, needed = pd.concat(in_range), pd.concat([_always_shown(grid, each) for each in in_range])
        right = max(without_outliers(settings["cost"].to_numpy())[1], needed["cost"].max())
        low = min(without_outliers(settings["accuracy"].to_numpy())[0], needed["accuracy"].min())
        high = settings["accuracy"].max()
        margin = 0.08 * (high - low) or 1
        if index == 0 or not shared:
            ax.set(xlim=(0, 1.06 * right), ylim=(low - margin, high + margin))
        outside += int(((table["cost"] > right) | (table["accuracy"] < low)).sum())
    return outside


def _list_front(run: Run, cost: Quantity, drawn: list[tuple[str, pd.DataFrame]]) -> str:
    """A sentence that lists the settings of the front, if there is one panel and they are few."""
    if len(drawn) != 1:
        return ""
    ((_, table),) = drawn
    front = _front(table)
    if len(front) > MOST_LISTED:
        return f" It has {len(front)} of {len(table)} settings."
    return f" From left to right: {'; '.join(_described(run, front, cost))}."
