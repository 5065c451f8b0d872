"""Learning curves of a grid: a panel for each row, a line for each column (Ash & Adams, Figure 16)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter

from warmstart_sim.report.curves import FEWEST_ROUNDS, SAMPLES
from warmstart_sim.report.grids import Grid, GridPanel, without_outliers
from warmstart_sim.report.layout import label_outer, make_subplots, scale_note
from warmstart_sim.report.panels import MOST_LINES, MOST_PANELS, Line, Panel, evenly_spread, has_values, same_data
from warmstart_sim.report.style import GREY, LineStyle, ReportFigure, add_hover, sequential_colors, styled
from warmstart_sim.report.wording import axis_names, axis_values, capitalized, is_empty, readable
from warmstart_sim.results.statistics import FAILED, cells
from warmstart_sim.results.tables import Run

REFERENCE = LineStyle(GREY, "", (0, (3, 1.2)))


@styled
def grid_curves(run: Run, grid: Grid, metric: str = "") -> ReportFigure | None:
    """Plots an accuracy against the training samples so far, for every setting of a grid; by default the metric."""
    metric = metric or run.metric
    own = run.rounds[~run.rounds["shared"].astype(bool)]
    if own["round"].nunique() < FEWEST_ROUNDS or not has_values(own, metric):
        return None
    grid_panels = list(grid.panels(run))
    rows = evenly_spread(grid.rows, max(1, MOST_PANELS // len(grid_panels)))
    columns = evenly_spread(tuple(sorted(grid.columns)), MOST_LINES)
    keys = ["strategy", *run.axes, "seed"]
    rounds = own[own[grid.row].isin(rows) & own[grid.column].isin(columns) | (own["strategy"] == run.reference)]
    rounds = rounds.merge(cells(rounds, run.axes, run.metric)[[*keys, "state"]], on=keys)
    row_name = axis_names(run)[grid.row]
    panels = [
        Panel(
            ", ".join(filter(None, [each.title, axis_values(row_name, [row])])),
            _lines(run, grid, rounds, each, row, columns),
        )
        for each in grid_panels
        for row in rows
    ][:MOST_PANELS]
    figure, (axs,) = make_subplots(panels, share_x=same_data(run), share_y=same_data(run))
    for ax, panel in zip(axs, panels, strict=True):
        for line in panel.lines:
            _draw_line(ax, line, metric)
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    outside = _limit(axs, panels, metric, same_data(run))
    label_outer(axs, SAMPLES, f"{readable(metric)} (%)")
    caption = (
        _caption(run, grid, metric, rounds, len(panels), len(grid_panels) * len(grid.rows), len(columns)) + outside
    )
    name = f"grid_curves{grid.suffix}"
    return ReportFigure(name, "Learning curves of the grid", caption, figure)


def _lines(
    run: Run, grid: Grid, rounds: pd.DataFrame, panel: GridPanel, row: float, columns: tuple[float, ...]
) -> list[Line]:
    """The reference at the same other values, and the settings of the row."""
    for axis, value in panel.other_values.items():
        if not is_empty(value):
            rounds = rounds[rounds[axis].isna() | (rounds[axis] == value)]
    reference = rounds[rounds["strategy"] == run.reference]
    lines = [Line(run.reference, readable(run.reference), REFERENCE, reference)] if panel.arm != run.reference else []
    of_row = rounds[(rounds["strategy"] == panel.arm) & (rounds[grid.row] == row)]
    for column, color in zip(columns, sequential_colors(len(columns)), strict=True):
        label = axis_values(axis_names(run)[grid.column], [column])
        lines.append(Line(panel.arm, label, LineStyle(color, ""), of_row[of_row[grid.column] == column]))
    return lines


def _mean(line: Line, metric: str) -> pd.Series[float]:
    """The mean over complete seeds in per cent, by the training samples."""
    sound = line.rows[~line.rows["state"].isin(FAILED)]
    return 100 * sound.groupby("train_samples")[metric].mean().dropna()


def _limit(axs: list[Axes], panels: list[Panel], metric: str, shared: bool) -> str:
    """Limits the y axes to the settings that trained; returns a caption's sentence on what lies outside."""
    outside: list[float] = []  # the lowest value of each curve that leaves its panel
    means = [[_mean(line, metric) for line in panel.lines] for panel in panels]
    for index, (ax, panel) in enumerate(zip(axs, panels, strict=True)):
        drawn = [mean for of_panel in (means if shared else [means[index]]) for mean in of_panel if len(mean)]
        if drawn and (index == 0 or not shared):
            low, high = without_outliers(np.array([mean.iloc[-1] for mean in drawn]))
            kept = pd.concat([mean for mean in drawn if low <= mean.iloc[-1] <= high])
            margin = 0.05 * (kept.max() - kept.min()) or 1
            ax.set_ylim(kept.min() - margin, kept.max() + margin)
        curves = means[index].copy()
        for line in panel.lines:
            failed = line.rows[line.rows["state"].isin(FAILED)]
            curves += [100 * seed[metric].dropna() for _, seed in failed.groupby("seed")]
        bottom, top = ax.get_ylim()
        outside += [curve.min() for curve in curves if curve.min() < bottom or curve.max() > top]
    if not outside:
        return ""
    return f" Partly outside: {len(outside)} curves of failed cells or of outliers, down to {min(outside):.1f} %."


def _draw_line(ax: Axes, line: Line, metric: str) -> None:
    """Draws the mean over complete seeds, and each failed seed up to its last round, marked by a cross."""
    style = line.style
    failed = line.rows["state"].isin(FAILED)
    mean = _mean(line, metric)
    width = 2.4 if style is REFERENCE else 1.6
    ax.plot(mean.index, mean, color=style.color, linestyle=style.linestyle, linewidth=width, zorder=3)
    add_hover(ax, mean.index[-1:], mean[-1:], [f"{line.label}: {value:.1f} %" for value in mean[-1:]])
    for _, seed in line.rows[failed].dropna(subset=metric).groupby("seed"):
        ax.plot(
            seed["train_samples"], 100 * seed[metric], color=style.color, linewidth=1.1, marker="x", markevery=[-1],
            markersize=7, markeredgewidth=1.8, markeredgecolor=style.color, zorder=2,
        )  # fmt: skip


def _caption(
    run: Run, grid: Grid, metric: str, rounds: pd.DataFrame, panels: int, all_panels: int, columns: int
) -> str:
    names = axis_names(run)
    seeds = rounds["seed"].nunique()
    mean = "one seed" if seeds == 1 else f"means over up to {seeds} seeds; the tables have the intervals"
    text = (
        f"{capitalized(metric)} after each round, against the {SAMPLES}: a panel for each "
        f"{names[grid.row]}, a line for each {names[grid.column]}, {mean}. Grey: {readable(run.reference)}."
    )
    if rounds["state"].isin(FAILED).any():
        text += " A thin line that ends in a cross is a cell that gave up or diverged there."
    if panels < all_panels:
        text += f" {panels} of {all_panels} panels are drawn."
    if columns < len(grid.columns):
        text += f" {columns} of {len(grid.columns)} values of {names[grid.column]} are drawn, evenly spread."
    return text + scale_note(run, panels)
