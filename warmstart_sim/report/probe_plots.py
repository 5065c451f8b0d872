"""Figures of what probes measured: every column that they added, by round and by epoch."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal

from warmstart_sim.report.column_curves import plot_curves
from warmstart_sim.report.curves import has_curve, own_epochs, round_axis
from warmstart_sim.report.panels import has_values, split_into_panels
from warmstart_sim.report.style import ReportFigure
from warmstart_sim.report.wording import capitalized
from warmstart_sim.results.figure_settings import Curves
from warmstart_sim.results.tables import Run

SECTION = "Measured by probes"


def plot_probes(run: Run) -> list[ReportFigure]:
    """Plots the columns of each probe: a panel for each, or if cells make several panels, a figure for each."""
    by_round = Curves(kind="curves", x=round_axis(run) if has_curve(run) else "round")
    return [*_plot(run, "rounds", by_round), *_plot(run, "epochs", Curves(kind="curves", x="epoch"))]


def _plot(run: Run, table_name: Literal["rounds", "epochs"], settings: Curves) -> list[ReportFigure]:
    table = run.rounds if table_name == "rounds" else own_epochs(run)
    groups: dict[str, list[str]] = {}
    for column in run.probe_columns(table_name):
        if has_values(table, column):
            probe = run.column_info(column).get("probe", column)
            groups.setdefault(column if len(split_into_panels(run, table)) > 1 else probe, []).append(column)
    by = table_name.removesuffix("s")
    when = "after epochs" if by == "epoch" else "at the start and at the end of each round"
    figures = []
    for title, columns in groups.items():
        if drawn := plot_curves(run, settings.model_copy(update={"y": tuple(columns)})):
            name = re.sub(r"\W+", "_", f"probe_{title}_by_{by}")
            caption = f"Measured {when}. {drawn.caption}"
            drawn = replace(drawn, name=name, title=f"{capitalized(title)} by {by}", caption=caption, section=SECTION)
            figures.append(drawn)
    return figures
