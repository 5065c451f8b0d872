"""Generic figures of what probes measured: any numeric column, by round and by epoch."""

from __future__ import annotations

import re

import pandas as pd
from matplotlib.axes import Axes

from warmstart_sim.report.curves import (
    SAMPLES,
    draw_by_epoch,
    draw_by_round,
    epochs_note,
    has_curve,
    own_epochs,
    panels_by_epoch,
)
from warmstart_sim.report.layout import label_outer, make_subplots, panels_note
from warmstart_sim.report.panels import (
    MOST_PANELS,
    Panel,
    evenly_spread,
    half_width,
    has_values,
    plus_minus,
    same_data,
    seeds_note,
    split_into_panels,
)
from warmstart_sim.report.style import ReportFigure, add_hover, styled
from warmstart_sim.report.wording import capitalized, readable
from warmstart_sim.results.statistics import over_seeds
from warmstart_sim.results.tables import Run

SECTION = "Measured by probes"
MOST_ROUNDS = 3  # in a figure by epoch


@styled
def plot_probes(run: Run) -> list[ReportFigure]:
    """Plots the columns of each probe: a panel for each, or if cells make several panels, a figure for each."""
    figures = []
    for table_name in ("rounds", "epochs"):
        table = run.rounds if table_name == "rounds" else own_epochs(run)
        rounds = evenly_spread(tuple(sorted(table["round"].unique())), MOST_ROUNDS)
        if table_name == "epochs":
            table = table[table["round"].isin(rounds)]
        groups: dict[str, list[str]] = {}
        for column in run.probe_columns(table_name):
            if has_values(table, column):
                groups.setdefault(run.column_info(column).get("probe", column), []).append(column)
        for probe, columns in groups.items():
            figures += _plot_probe(run, table_name, table, probe, columns)
    return figures


def _plot_probe(run: Run, table_name: str, table: pd.DataFrame, probe: str, columns: list[str]) -> list[ReportFigure]:
    panels = split_into_panels(run, table) if table_name == "rounds" else panels_by_epoch(run, table)
    if len(panels) > 1:
        return [_plot(run, table_name, table, column, [(panel, column) for panel in panels]) for column in columns]
    (panel,) = panels
    titled = [(Panel(_label(run, column) if len(columns) > 1 else "", panel.lines), column) for column in columns]
    return [_plot(run, table_name, table, probe, titled)]


def _plot(run: Run, table_name: str, table: pd.DataFrame, title: str, panels: list[tuple[Panel, str]]) -> ReportFigure:
    """One figure with a panel for each (panel, column)."""
    only_panels = [panel for panel, _ in panels]
    one_column = len({column for _, column in panels}) == 1
    figure, (axs,) = make_subplots(only_panels, share_x=same_data(run), share_y=one_column and same_data(run))
    for ax, (panel, column) in zip(axs, panels, strict=False):
        if table_name == "epochs":
            draw_by_epoch(run, ax, panel, column)
        elif has_curve(run):
            draw_by_round(run, ax, panel, column)
        else:
            _draw_few_rounds(run, ax, panel, column)
    by = "epoch" if table_name == "epochs" else "round"
    x_label = SAMPLES if by == "round" and has_curve(run) else by
    label_outer(axs, x_label, _label(run, panels[0][1]) if one_column else "")
    when = "after epochs" if by == "epoch" else "at the start and at the end of each round"
    caption = f"{capitalized(title)}, measured {when}. {seeds_note(run)}"
    if by == "epoch":
        caption += f" {epochs_note(run, table, only_panels)}"
        if (rounds := run.epochs["round"].nunique()) > MOST_ROUNDS:
            caption += f" {MOST_ROUNDS} of {rounds} rounds are drawn, evenly spread."
    if one_column:
        caption += panels_note(run, only_panels)
    elif len(panels) > MOST_PANELS:
        caption += f" The first {MOST_PANELS} of {len(panels)} columns are drawn."
    name = re.sub(r"\W+", "_", f"probe_{title}_by_{by}")
    return ReportFigure(name, f"{capitalized(title)} by {by}", caption, figure, SECTION)


def _label(run: Run, column: str) -> str:
    unit = run.column_info(column).get("unit")
    return f"{readable(column)} ({unit})" if unit else readable(column)


def _draw_few_rounds(run: Run, ax: Axes, panel: Panel, column: str) -> None:
    """Draws the means of one or two rounds as points with error bars, the lines side by side."""
    step = 0.6 / max(1, len(panel.lines))
    for index, line in enumerate(panel.lines):
        table = over_seeds(line.rows.dropna(subset=column), ["round"], column)
        x = table["round"] + step * (index - (len(panel.lines) - 1) / 2)
        half = half_width(run, table)
        texts = [f"{line.label}: {plus_minus(*each)}" for each in zip(table["mean"], half, strict=True)]
        add_hover(ax, x, table["mean"], texts)
        ax.errorbar(
            x, table["mean"], yerr=half, color=line.style.color, marker=line.style.marker, markersize=9,
            linestyle="", elinewidth=1.8,
        )  # fmt: skip
    rounds = sorted({each for line in panel.lines for each in line.rows["round"].unique()})
    ax.set_xticks(rounds, [f"{each:g}" for each in rounds])
    ax.set_xlim(min(rounds, default=0) - 0.5, max(rounds, default=0) + 0.5)
