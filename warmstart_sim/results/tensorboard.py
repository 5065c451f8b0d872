"""TensorBoard logs of a cell: scalars by epoch, and by the number of training samples at the end of each round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from warmstart_sim.preemption import uninterrupted
from warmstart_sim.results.columns import Row

# Columns that number or name a row, rather than measure something.
NOT_MEASURED = {"round", "epoch", "shared", "converged", "threads"}


class TensorBoardLog:
    """Writes every numeric column as a scalar; after a resume, epochs that are trained again replace the old ones.

    Args:
        folder: One for each cell.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def write(self, total_epochs: int, epoch_row: Row, round_row: Row | None) -> None:
        """Adds one epoch, and the round if that epoch ended it.

        Args:
            total_epochs: Epochs since the cell's first round, this one included.
            epoch_row: As in epochs.csv.
            round_row: As in rounds.csv, or None.
        """
        with uninterrupted():  # an interrupt between an item of the writer's queue and its count would hang the thread
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter

                self._writer = SummaryWriter(str(self._folder), purge_step=total_epochs)
            self._add("epoch", epoch_row, total_epochs)
            if round_row is not None:
                self._add("round", round_row, round_row["train_samples"])
                self._writer.flush()

    def close(self) -> None:
        """Ends the log."""
        if self._writer is not None:
            with uninterrupted():
                self._writer.close()

    def _add(self, group: str, row: Row, step: int) -> None:
        for name, value in row.items():
            if isinstance(value, (int, float)) and name not in NOT_MEASURED:
                self._writer.add_scalar(f"{group}/{name}", value, step)
