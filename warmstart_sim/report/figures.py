"""Chooses the figures of a run and draws them."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from warmstart_sim.report.axis_plots import plot_against_axis
from warmstart_sim.report.comparisons import paired_differences, tradeoff, without_failed
from warmstart_sim.report.curves import (
    accuracy_by_epoch,
    difference_by_round,
    epochs_per_round,
    learning_curves,
    train_time,
)
from warmstart_sim.report.decision_tree import decision_tree_figure
from warmstart_sim.report.grid_curves import grid_curves
from warmstart_sim.report.grids import grids_of
from warmstart_sim.report.heatmaps import heatmaps
from warmstart_sim.report.pareto import pareto
from warmstart_sim.report.probe_plots import plot_probes
from warmstart_sim.report.ranking_plot import ranking_figures
from warmstart_sim.report.scenario_figures import analysis_figures, scenario_figures
from warmstart_sim.report.style import PALETTE, ReportFigure
from warmstart_sim.results.tables import Run

MOST_SETTINGS = 40  # of a grid, for figures with a line or a row for each
REHEARSAL = "REHEARSAL: synthetic data, reduced size"

# Figures of a run without a grid, after its learning curves, in their order.
FIGURES: tuple[Callable[[Run], ReportFigure | None], ...] = (
    accuracy_by_epoch,
    difference_by_round,
    paired_differences,
    tradeoff,
    train_time,
    epochs_per_round,
)


def draw_figures(run: Run, published: pd.DataFrame | None = None) -> list[ReportFigure]:
    """Draws the figures that the scenario asks for, then the standard ones: accuracy first and probes last.

    Cells that diverged or gave up are left out, and every caption says so, but for the figures of grids that show
    them. Unfinished cells are drawn up to their last round. In a rehearsal every figure is marked as one.

    Args:
        run: The run.
        published: The numbers of a paper, drawn as hollow markers: see `published_points`.
    """
    if (run.every or run).rounds.empty:
        return []
    figures = scenario_figures(run, published)
    if run.scenario.get("standard_figures", True) and not run.rounds.empty:
        figures += _standard_figures(run, published)
    if tree := decision_tree_figure(run):
        figures.append(tree)
    figures += ranking_figures(run)
    if run.environment.get("rehearsal"):
        for figure in figures:
            figure.figure.supxlabel(REHEARSAL, x=0.01, ha="left", size=11, weight="bold", color=PALETTE[0])
    return figures


def _standard_figures(run: Run, published: pd.DataFrame | None) -> list[ReportFigure]:
    """Every figure for which the run has data."""
    kept, note = without_failed(run)
    grids = grids_of(run)
    with_failed = [figure for grid in grids for figure in (*heatmaps(run, grid), grid_curves(run, grid))]
    fronts = [figure for grid in grids for figure in pareto(kept, grid)]
    by_samples = [] if grids else [learning_curves(kept, published)]
    plain = [*fronts, *by_samples, *(draw(kept) for draw in (_beside_grids(run) if grids else FIGURES))]
    # The heatmaps of a grid replace plots against its axes, except for the fraction that pre-training is about.
    axes = run.axes if not grids else [axis for axis in run.axes if run.pretrained and axis == "stream_fraction"]
    by_axis = [figure for axis in axes for figure in plot_against_axis(kept, axis, published)]
    ordered = [*by_axis, *plain] if run.pretrained else [*plain, *by_axis]
    noted = [figure.with_note(note) if note else figure for figure in (*ordered, *plot_probes(kept)) if figure]
    return [*filter(None, with_failed), *noted, *analysis_figures(run)]


def _beside_grids(run: Run) -> list[Callable[[Run], ReportFigure | None]]:
    """The figures beside those of grids that stay readable with all settings."""
    few = len(run.rounds[["strategy", *run.axes]].drop_duplicates()) <= MOST_SETTINGS
    return [accuracy_by_epoch, paired_differences] if few else []
