"""The kinds of figures, and which of them a run has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from warmstart_sim.report.axis_plots import plot_along_axes
from warmstart_sim.report.comparisons import paired_differences, tradeoff
from warmstart_sim.report.curves import accuracy_by_epoch, epochs_per_round, learning_curves, train_time
from warmstart_sim.report.grid_curves import grid_curves
from warmstart_sim.report.grids import Grid, grids_of
from warmstart_sim.report.heatmaps import heatmaps
from warmstart_sim.report.pareto import pareto
from warmstart_sim.report.style import PALETTE, Chart
from warmstart_sim.results.statistics import FAILED, cells
from warmstart_sim.results.tables import Run

MOST_BESIDE = 40  # settings of a grid that figures with a line or a row for each can show
REHEARSAL = "REHEARSAL: synthetic data, reduced size"

KINDS: tuple[Callable[[Run], Chart | None], ...] = (
    learning_curves,
    accuracy_by_epoch,
    paired_differences,
    tradeoff,
    train_time,
    epochs_per_round,
)


def draw(run: Run) -> list[Chart]:
    """All figures that say something about this run, the accuracy first.

    Cells that diverged or gave up are left out, and every caption says so; cells that are not finished are drawn as far
    as they are. In a rehearsal every figure carries the word.
    """
    if run.rounds.empty:
        return []
    kept, note = _without_failed(run)
    grids = grids_of(run)
    kinds = [chart for kind in (_beside_grids(run) if grids else KINDS) if (chart := kind(kept))]
    # Of a grid, the heatmaps say it; of pre-training, the fraction is the question.
    axes = run.axes if not grids else [axis for axis in run.axes if run.pretrained and axis == "stream.fraction"]
    along = [chart for axis in axes for chart in plot_along_axes(kept, axis)]
    kinds = [*_of_grids(kept, grids), *kinds]
    found = [*along, *kinds] if run.pretrained else [*kinds, *along]
    noted = [chart.noting(note) if note else chart for chart in found]
    charts = [*_with_failed(run, grids), *noted]
    if run.environment.get("rehearsal"):
        for chart in charts:
            chart.figure.supxlabel(REHEARSAL, x=0.01, ha="left", size=11, weight="bold", color=PALETTE[0])
    return charts


def _with_failed(run: Run, grids: list[Grid]) -> list[Chart]:
    """The figures of grids in which cells that failed have a place of their own."""
    several = len(grids) > 1
    charts = [chart for grid in grids for chart in heatmaps(run, grid, several)]
    return charts + [chart for grid in grids if (chart := grid_curves(run, grid, several))]


def _of_grids(kept: Run, grids: list[Grid]) -> list[Chart]:
    return [chart for grid in grids if (chart := pareto(kept, grid, len(grids) > 1))]


def _beside_grids(run: Run) -> list[Callable[[Run], Chart | None]]:
    """The kinds of figures that do not grow with a grid beyond what can be looked at."""
    few = len(run.rounds[["strategy", *run.axes]].drop_duplicates()) <= MOST_BESIDE
    return [accuracy_by_epoch, paired_differences] if few else []


def _without_failed(run: Run) -> tuple[Run, str]:
    """The run without its failed cells, and a sentence that says how many there are."""
    keys = ["strategy", *run.axes, "seed"]
    table = cells(run.rounds, run.axes, run.metric)
    failed = table.loc[table["state"].isin(FAILED), [*keys, "state"]]
    if failed.empty:
        return run, ""
    rounds, epochs = (
        frame.merge(failed, how="left", on=keys).pipe(lambda merged: merged[merged["state"].isna()])
        for frame in (run.rounds, run.epochs)
    )
    counts = failed["state"].map({"diverged": "diverged", "gave_up": "gave up"}).value_counts()
    which = " and ".join(f"{count} that {what}" for what, count in counts.items())
    return replace(run, rounds=rounds, epochs=epochs), f"Left out: {len(failed)} of {len(table)} cells ({which})."
