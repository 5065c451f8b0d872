"""The Pareto front of a grid: the settings that no other one beats in both accuracy and train time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from warmstart_sim.report.comparisons import complete_cells, label_time_and_accuracy, time_and_accuracy
from warmstart_sim.report.grids import Grid, without_outliers
from warmstart_sim.report.layout import cut_note, make_subplots
from warmstart_sim.report.panels import MOST_PANELS, Line, Panel, arm_styles, has_values, same_data
from warmstart_sim.report.style import GREY, INK, PALETTE, LineStyle, ReportFigure, sequential_colors, styled
from warmstart_sim.report.timing import comparable_times
from warmstart_sim.report.wording import (
    arm_label,
    axis_names,
    axis_values,
    duration,
    format_value,
    percent,
    readable,
    setting_label,
)
from warmstart_sim.results.tables import Run

MOST_COLORS = 8  # in a legend; with more rows the points are grey
MOST_SHAPES = 2000  # points drawn as shapes; more become one image
MOST_RINGS = 12  # with room around their points
MOST_LISTED = 6  # settings of the front in the caption
OTHER_SETTINGS = LineStyle(GREY, "o", "")
FRONT = Line("", "Pareto front", LineStyle(INK, ""), pd.DataFrame(columns=["compared_seconds", "final_accuracy"]))


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
    return settings.iloc[pareto_front(settings["compared_seconds"].to_numpy(), settings["final_accuracy"].to_numpy())]


@styled
def pareto(run: Run, grid: Grid) -> ReportFigure | None:
    """Plots final accuracy against train time of every setting, with the Pareto front."""
    times = comparable_times(complete_cells(run))
    if not has_values(times.rows, "final_accuracy"):
        return None
    keys = ["strategy", *run.axes]
    grouped = times.rows.dropna(subset="final_accuracy").groupby(keys, dropna=False, observed=True)
    settings = grouped[["compared_seconds", "final_accuracy"]].mean().reset_index()
    tables = _tables(run, grid, settings)
    drawn = tables[:MOST_PANELS]
    by_row = len(grid.rows) <= MOST_COLORS and len(settings) <= MOST_SHAPES
    panels = [Panel(title, _lines(run, grid, table, by_row)) for title, table in drawn]
    figure, (axs,) = make_subplots(panels, share_x=same_data(run), share_y=same_data(run))
    figure.set_dpi(200)  # of points drawn as an image
    for ax, panel, (_, table) in zip(axs, panels, drawn, strict=True):
        for line in panel.lines:
            _draw_points(ax, line, times.unit_seconds)
        front = _front(table)
        x, y = front["compared_seconds"] / times.unit_seconds, 100 * front["final_accuracy"]
        ax.plot(x, y, color=INK, linewidth=1.3, zorder=2.5)
        size = 12 if len(front) <= MOST_RINGS else 5
        ax.plot(x, y, "o", markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.2, markersize=size, zorder=5)
    outside = _limit(grid, axs, [table for _, table in drawn], times.unit_seconds, same_data(run))
    label_time_and_accuracy(run, axs, times)
    caption = (
        f"{time_and_accuracy(run, times)} Each point is a setting, mean over its seeds. Joined and ringed: the Pareto "
        "front, the settings that no other one beats in both. Up and to the left is better. The front is chosen by the "
        f"same numbers that it shows, so it lies slightly too high.{_list_front(run, drawn)}{times.note('cells')}"
    )
    if outside:
        caption += f" {outside} {'setting lies' if outside == 1 else 'settings lie'} outside, far from all others."
    caption += cut_note(len(drawn), len(tables))
    return ReportFigure(f"pareto{grid.suffix}", "Accuracy and time of the grid", caption, figure)


def _tables(run: Run, grid: Grid, settings: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(title, settings) for each combination of the facets that all arms have."""
    facets = [axis for axis in grid.facets if axis in (run.scenario.get("vary") or {})]
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


def _draw_points(ax: Axes, line: Line, unit_seconds: float) -> None:
    named = line.style.marker != "D" and line.style is not OTHER_SETTINGS
    as_image = len(line.rows) > MOST_SHAPES
    ax.plot(
        line.rows["compared_seconds"] / unit_seconds, 100 * line.rows["final_accuracy"], marker=line.style.marker,
        color=line.style.color, linestyle="", markersize=9 if named else 2.5 if as_image else 5.5,
        markeredgewidth=0 if as_image else 0.6, alpha=0.6 if line.style is OTHER_SETTINGS else None,
        zorder=4 if named else 3, rasterized=as_image,
    )  # fmt: skip


def _always_shown(grid: Grid, settings: pd.DataFrame) -> pd.DataFrame:
    """The settings that the figure has to show, outliers or not: other arms, the corners, the front."""
    shown = ~settings["strategy"].isin(grid.arms)
    for lam, sigma in grid.corners.values():
        shown |= (settings[grid.row] == lam) & (settings[grid.column] == sigma)
    return pd.concat([settings[shown], _front(settings)])


def _limit(grid: Grid, axs: list[Axes], tables: list[pd.DataFrame], unit_seconds: float, shared: bool) -> int:
    """Limits the axes to a range without outliers, with times from zero; returns how many settings lie outside."""
    outside = 0
    for index, (ax, table) in enumerate(zip(axs, tables, strict=True)):
        in_range = tables if shared else [table]
        settings, needed = pd.concat(in_range), pd.concat([_always_shown(grid, each) for each in in_range])
        right = max(without_outliers(settings["compared_seconds"].to_numpy())[1], needed["compared_seconds"].max())
        low = min(without_outliers(settings["final_accuracy"].to_numpy())[0], needed["final_accuracy"].min())
        high = settings["final_accuracy"].max()
        margin = 0.05 * (high - low) or 0.01
        if index == 0 or not shared:
            ax.set(xlim=(0, 1.06 * right / unit_seconds), ylim=(100 * (low - margin), 100 * (high + margin)))
        outside += int(((table["compared_seconds"] > right) | (table["final_accuracy"] < low)).sum())
    return outside


def _list_front(run: Run, drawn: list[tuple[str, pd.DataFrame]]) -> str:
    """A sentence that lists the settings of the front, if there is one panel and they are few."""
    if len(drawn) != 1:
        return ""
    ((_, table),) = drawn
    front = _front(table)
    if len(front) > MOST_LISTED:
        return f" It has {len(front)} of {len(table)} settings."
    names = axis_names(run)
    settings = [
        readable(str(row["strategy"]))
        + (f" ({values})" if (values := setting_label(row, names)) else "")
        + f": {percent(row['final_accuracy'])} in {duration(row['compared_seconds'])}"
        for row in front.to_dict("records")
    ]
    return f" In the order of time: {'; '.join(settings)}."
