"""Results of cells that are not trained, because another cell of the run has the same rounds; never imports torch."""

from __future__ import annotations

from collections.abc import Iterable

from warmstart_sim.results.cell_folder import CellFolder
from warmstart_sim.results.columns import Row
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario import Cell


def first_phase_rows(phase: CellFolder) -> tuple[list[Row], list[Row]]:
    """The rows of rounds.csv and of epochs.csv of a complete first phase, as the cells that share it have them."""
    result = phase.result()
    assert result is not None
    rounds, epochs = ([{**row, "shared": True} for row in result[table]] for table in ("rounds", "epochs"))
    return rounds, epochs


def copy_results(cells: Iterable[Cell], run: RunFolder) -> None:
    """Completes the cells with `copy_of`: the rows of their own first phase, then those of the cell that was trained.

    Args:
        cells: All cells of the run; those that cannot be completed yet stay as they are.
        run: The run's folder.
    """
    for cell in cells:
        folder = cell.folder(run)
        if cell.copy_of is None or folder.complete:
            continue
        trained, phase = cell.copy_of.folder(run), cell.first_phase and cell.first_phase.folder(run)
        if not trained.complete or (phase and not phase.complete):
            continue
        result = trained.result()
        assert result is not None
        rounds, epochs = first_phase_rows(phase) if phase else ([], [])
        for row in result["rounds"]:
            if not row["shared"]:
                # In a split, the second round's samples are new unless this cell's first phase had them.
                seen = rounds[0]["train_samples"] if cell.shares_first_round else 0
                new = row["train_samples"] - seen if row["round"] == 1 else row["new_samples"]
                rounds.append({**row, "new_samples": new, "copied_from": trained.path.name})
        epochs += [row for row in result["epochs"] if not row["shared"]]
        folder.copy_result(trained, rounds, epochs, result.get("columns"))
