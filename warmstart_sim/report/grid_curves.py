"""Learning curves of a grid: a panel for each row, a line for each column (Ash & Adams, Figure 16)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter

from warmstart_sim.report.curves import FEWEST_ROUNDS
from warmstart_sim.report.grids import Grid
from warmstart_sim.report.layout import across, canvas, label_frames
from warmstart_sim.report.panels import MOST_LINES, MOST_PANELS, Line, Panel, has_values, same_data, some
from warmstart_sim.report.style import Chart, Look, sequence, styled
from warmstart_sim.report.wording import at, axis_names, capital, is_empty, plain
from warmstart_sim.results.statistics import FAILED, cells
from warmstart_sim.results.tables import Run

REFERENCE = Look("#808080", "", (0, (3, 1.2)))


@styled
def grid_curves(run: Run, grid: Grid, several: bool = False) -> Chart | None:
    """Accuracy against the number of training samples, for every setting of a grid."""
    own = run.rounds[~run.rounds["shared"].astype(bool)]
    if own["round"].nunique() < FEWEST_ROUNDS or not has_values(own, run.metric):
        return None
    places = list(grid.panels(run))
    most_rows = max(1, MOST_PANELS // len(places))
    rows, columns = some(grid.rows, most_rows), some(tuple(sorted(grid.columns)), MOST_LINES)
    keys = ["strategy", *run.axes, "seed"]
    drawn = own[own[grid.row].isin(rows) & own[grid.column].isin(columns) | (own["strategy"] == run.reference)]
    drawn = drawn.merge(cells(drawn, run.axes, run.metric)[[*keys, "state"]], on=keys)
    panels = [
        Panel(
            ", ".join(filter(None, [title, at(axis_names(run)[grid.row], [row])])),
            _lines(run, grid, drawn, place, row, columns),
        )
        for title, place, _ in places
        for row in rows
    ][:MOST_PANELS]
    figure, (frames,) = canvas(panels, share_x=same_data(run), share_y=same_data(run))
    for frame, panel in zip(frames, panels, strict=True):
        for line in panel.lines:
            _draw(frame, line, run.metric)
        frame.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    label_frames(frames, "training samples so far", f"{plain(run.metric)} (%)")
    name = f"grid_curves_{grid.row}_{grid.column}".replace(".", "_") if several else "grid_curves"
    caption = _caption(run, grid, drawn, len(panels), len(places) * len(grid.rows), len(columns))
    return Chart(name, "Learning curves of the grid", caption, figure, across(panels))


def _lines(
    run: Run, grid: Grid, drawn: pd.DataFrame, place: Mapping[str, Any], row: float, columns: tuple[float, ...]
) -> list[Line]:
    """Random init (or what the reference is) at the same other values, and the row's settings."""
    same = drawn
    for axis in grid.facets:
        value = place[axis]
        same = same[same[axis].isna() | ((same[axis] == value) if not is_empty(value) else True)]
    reference = same[same["strategy"] == run.reference]
    arm = str(place["strategy"])
    inside = same[(same["strategy"] == arm) & (same[grid.row] == row)]
    lines = [Line(run.reference, plain(run.reference), REFERENCE, reference)] if arm != run.reference else []
    for column, colour in zip(columns, sequence(len(columns)), strict=True):
        part = inside[inside[grid.column] == column]
        lines.append(Line(arm, at(axis_names(run)[grid.column], [column]), Look(colour, ""), part))
    return lines


def _draw(frame: Axes, line: Line, metric: str) -> None:
    """The mean over the seeds that count; every seed that failed by itself, as far as it came, with a cross there."""
    look = line.look
    failed = line.rows["state"].isin(FAILED)
    mean = line.rows[~failed].groupby("train_samples")[metric].mean()
    width = 2.4 if look is REFERENCE else 1.6
    frame.plot(mean.index, 100 * mean, color=look.colour, linestyle=look.dash, linewidth=width, zorder=3)
    for _, one in line.rows[failed].dropna(subset=metric).groupby("seed"):
        frame.plot(
            one["train_samples"], 100 * one[metric], color=look.colour, linewidth=1.1, marker="x", markevery=[-1],
            markersize=7, markeredgewidth=1.8, markeredgecolor=look.colour, zorder=2,
        )  # fmt: skip


def _caption(run: Run, grid: Grid, drawn: pd.DataFrame, panels: int, of_panels: int, columns: int) -> str:
    names = axis_names(run)
    seeds = drawn["seed"].nunique()
    mean = "one seed" if seeds == 1 else f"means over the seeds, at most {seeds}; the tables have the intervals"
    text = (
        f"{capital(run.metric)} after each round, against the training samples so far: a panel for each "
        f"{names[grid.row]}, a line for each {names[grid.column]}, {mean}. Grey: {plain(run.reference)}."
    )
    if drawn["state"].isin(FAILED).any():
        text += " A thin line with a cross: a cell that gave up or diverged, as far as it came."
    if panels < of_panels:
        text += f" {panels} of {of_panels} panels are drawn."
    if columns < len(grid.columns):
        text += f" {columns} of {len(grid.columns)} values of {names[grid.column]} are drawn, evenly spread."
    if not same_data(run):
        text += " Each panel has a scale of its own, because the data differ."
    return text
