"""The kinds of figures, and which of them a run has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from warmstart_sim.report.along import along_axis
from warmstart_sim.report.comparisons import paired_differences, tradeoff
from warmstart_sim.report.curves import accuracy_by_epoch, epochs_per_round, learning_curves, train_time
from warmstart_sim.report.style import PALETTE, Chart
from warmstart_sim.results.tables import FAILED, Run, cells

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
    kinds = [chart for kind in KINDS if (chart := kind(kept))]
    along = [chart for axis in run.axes for chart in along_axis(kept, axis)]
    found = [*along, *kinds] if run.pretrained else [*kinds, *along]  # of pre-training, the fraction is the question
    charts = [chart.noting(note) if note else chart for chart in found]
    if run.environment.get("rehearsal"):
        for chart in charts:
            chart.figure.supxlabel(REHEARSAL, x=0.01, ha="left", size=11, weight="bold", color=PALETTE[0])
    return charts


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
