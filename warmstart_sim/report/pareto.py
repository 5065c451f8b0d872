"""The Pareto front of a grid: which settings no other one beats in both accuracy and train time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from warmstart_sim.report.comparisons import complete_cells, final
from warmstart_sim.report.grids import Grid, without_outliers
from warmstart_sim.report.layout import across, canvas, label_frames
from warmstart_sim.report.panels import MOST_PANELS, Line, Panel, has_values, looks_of_arms, same_data
from warmstart_sim.report.style import INK, PALETTE, Chart, Look, sequence, styled, time_unit
from warmstart_sim.report.timing import left_out, timed_alike, train_time_name
from warmstart_sim.report.wording import (
    TIMING,
    TIMING_IN_FULL,
    arm,
    at,
    axis_names,
    duration,
    is_empty,
    percent,
    plain,
    setting,
    value,
)  # fmt: skip
from warmstart_sim.results.tables import Run

MOST_COLOURS = 8  # of a legend; with more rows the points are grey
MOST_SHAPES = 2000  # points that are drawn as shapes; more are one image
MOST_RINGS = 12  # that have room around their points
MOST_SAID = 6  # points of the front that the caption lists
CLOUD = Look("#808080", "o", "")
FRONT = Line("", "Pareto front", Look(INK, ""), pd.DataFrame(columns=["train_seconds", "final_accuracy"]))


def front(times: np.ndarray, accuracies: np.ndarray) -> np.ndarray:
    """The indices of the points that no other beats: none is at least as quick and as accurate, and better in one.

    Args:
        times: Of n points; less is better.
        accuracies: Of the same points; more is better.

    Returns:
        Indices, by time.

    >>> front(np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.4, 0.6])).tolist()
    [0, 2]
    """
    found: list[int] = []
    for index in np.lexsort((-accuracies, times)):
        last = found[-1] if found else None
        better = last is None or accuracies[index] > accuracies[last]
        if better or (times[index], accuracies[index]) == (times[last], accuracies[last]):
            found.append(int(index))
    return np.array(found, int)


@dataclass(frozen=True)
class Points:
    """A panel's settings: one row each, with the mean of their cells."""

    title: str
    table: pd.DataFrame


@styled
def pareto(run: Run, grid: Grid, several: bool = False) -> Chart | None:
    """Final accuracy against train time of every setting, with the front of the best trade-offs."""
    complete = complete_cells(run)
    alike, kind = timed_alike(complete)
    if alike.empty or not has_values(alike, "final_accuracy"):
        return None
    keys = ["strategy", *run.axes]
    grouped = alike.dropna(subset="final_accuracy").groupby(keys, dropna=False, observed=True)
    table = grouped[["train_seconds", "final_accuracy"]].mean().reset_index()
    unit, length = time_unit(table["train_seconds"].max())
    found = _panels(run, grid, table)
    drawn = found[:MOST_PANELS]
    coloured = len(grid.rows) <= MOST_COLOURS and len(table) <= MOST_SHAPES
    panels = [Panel(points.title, _lines(run, grid, points.table, coloured)) for points in drawn]
    figure, (frames,) = canvas(panels, share_x=same_data(run), share_y=same_data(run))
    figure.set_dpi(200)  # of what is an image
    for frame, panel, points in zip(frames, panels, drawn, strict=True):
        for line in panel.lines:
            _draw(frame, line, length)
        best = points.table.iloc[
            front(*(points.table[name].to_numpy() for name in ("train_seconds", "final_accuracy")))
        ]
        x, y = best["train_seconds"] / length, 100 * best["final_accuracy"]
        frame.plot(x, y, color=INK, linewidth=1.3, zorder=2.5)
        size = 12 if len(best) <= MOST_RINGS else 5
        frame.plot(
            x, y, "o", markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.2, markersize=size, zorder=5
        )
    outside = _limit(frames, [_named(grid, points.table) for points in drawn], length, together=same_data(run))
    label_frames(frames, f"{train_time_name(run)} ({unit})\n{TIMING[kind]}", final(run.metric))
    caption = (
        f"Final {plain(run.metric)} against the {train_time_name(run)}, {TIMING_IN_FULL[kind]}; a point is a setting, "
        "mean over its seeds. Joined and ringed: the Pareto front, the settings that no other one beats in both; up "
        "and to the left is better. It is drawn through the same numbers that choose it, so it lies a little too high."
        + _said(run, drawn)
    )
    caption += left_out(complete, alike, "cells")
    if outside:
        caption += f" {outside} {'setting lies' if outside == 1 else 'settings lie'} outside, far from all others."
    if len(found) > len(drawn):
        caption += f" The first {len(drawn)} of {len(found)} combinations of other varied values are drawn."
    name = f"pareto_{grid.row}_{grid.column}".replace(".", "_") if several else "pareto"
    return Chart(name, "Accuracy and time of the grid", caption, figure, across(panels))


def _panels(run: Run, grid: Grid, table: pd.DataFrame) -> list[Points]:
    """The settings of each combination of facets that all arms have, with the arms that have none of them."""
    facets = [axis for axis in grid.facets if axis in (run.scenario.get("vary") or {})]
    if not facets:
        return [Points("", table)]
    names = {axis: name for axis, name in axis_names(run).items() if axis in facets}
    combinations = table[facets].dropna().drop_duplicates().sort_values(facets).to_dict("records")
    return [
        Points(
            setting(each, names),
            table[np.logical_and.reduce([table[axis].isna() | (table[axis] == each[axis]) for axis in facets])],
        )
        for each in combinations[: MOST_PANELS + 1]
    ] + [Points("", table[:0])] * max(0, len(combinations) - MOST_PANELS - 1)


def _lines(run: Run, grid: Grid, table: pd.DataFrame, coloured: bool) -> list[Line]:
    """The other arms, random init among them; the grid's points, by row where there are few; the warm start corner."""
    looks = looks_of_arms(run)
    arms = run.scenario["strategies"]
    inside = table["strategy"].isin(grid.arms) & table[grid.row].notna()
    lines = [
        Line(str(name), arm(str(name), arms.get(name) or {}, run.axes), replace(looks[str(name)], dash=""), rows)
        for name, rows in table[~inside].groupby("strategy", observed=True)
    ]
    own = table[inside]
    if "warm start" in grid.corners:
        lam, sigma = grid.corners["warm start"]
        corner = (own[grid.row] == lam) & (own[grid.column] == sigma)
        label = f"warm start (λ = {value(lam)}, σ = {value(sigma)})"
        lines.append(Line("", label, Look(PALETTE[0], "s", ""), own[corner]))
        own = own[~corner]
    if not coloured:
        return [*lines, Line("", "other settings of the grid", CLOUD, own), FRONT]
    values = sorted(grid.rows)
    for number, colour in zip(values, sequence(len(values)), strict=True):
        lines.append(
            Line("", at(axis_names(run)[grid.row], [number]), Look(colour, "D", ""), own[own[grid.row] == number])
        )
    return [*lines, FRONT]


def _draw(frame: Axes, line: Line, length: float) -> None:
    named = line.look.marker != "D" and line.look is not CLOUD
    cloud = len(line.rows) > MOST_SHAPES
    x, y = line.rows["train_seconds"] / length, 100 * line.rows["final_accuracy"]
    frame.plot(
        x, y, marker=line.look.marker, color=line.look.colour,
        linestyle="", markersize=9 if named else 2.5 if cloud else 5.5, markeredgewidth=0 if cloud else 0.6,
        alpha=0.6 if line.look is CLOUD else None, zorder=4 if named else 3, rasterized=cloud,
    )  # fmt: skip


def _named(grid: Grid, table: pd.DataFrame) -> pd.DataFrame:
    """The settings, with `named` for those that a figure has to show: other arms, the corners, the front."""
    named = ~table["strategy"].isin(grid.arms)
    for lam, sigma in grid.corners.values():
        named |= (table[grid.row] == lam) & (table[grid.column] == sigma)
    named.iloc[front(*(table[name].to_numpy() for name in ("train_seconds", "final_accuracy")))] = True
    return table.assign(named=named)


def _limit(frames: list[Axes], tables: list[pd.DataFrame], length: float, together: bool) -> int:
    """Sets the axes to what can be compared: from no time at all, without outliers; how many settings lie outside."""
    outside = 0
    for index, (frame, table) in enumerate(zip(frames, tables, strict=True)):
        shared = pd.concat(tables) if together else table
        times, accuracies = (shared[name].to_numpy() for name in ("train_seconds", "final_accuracy"))
        right = max(without_outliers(times)[1], times[shared["named"]].max())
        low = min(without_outliers(accuracies)[0], accuracies[shared["named"]].min())
        margin = 0.05 * (accuracies.max() - low) or 0.01
        if index == 0 or not together:
            frame.set(
                xlim=(0, 1.06 * right / length), ylim=(100 * (low - margin), 100 * (accuracies.max() + margin))
            )  # fmt: skip
        outside += int(((table["train_seconds"] > right) | (table["final_accuracy"] < low)).sum())
    return outside


def _said(run: Run, panels: list[Points]) -> str:
    """The front in words, where there is one panel and it is short."""
    if len(panels) != 1:
        return ""
    table = panels[0].table
    best = table.iloc[front(*(table[name].to_numpy() for name in ("train_seconds", "final_accuracy")))]
    if len(best) > MOST_SAID:
        return f" It has {len(best)} of {len(table)} settings."
    names = axis_names(run)
    said = [
        f"{plain(str(row['strategy']))}{_in_brackets(setting(row, names))}: {percent(row['final_accuracy'])} in "
        f"{duration(row['train_seconds'])}"
        for row in best.to_dict("records")
    ]
    return f" By time: {'; '.join(said)}."


def _in_brackets(text: str) -> str:
    return "" if is_empty(text) or not text else f" ({text})"
