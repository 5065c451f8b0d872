"""TensorBoard logs of a cell: scalars by epoch, and by the number of training samples at the end of each round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from warmstart_sim.preemption import uninterrupted

Row = dict[str, Any]

EPOCH_SCALARS = (
    "running_train_loss",
    "running_train_accuracy",
    "train_accuracy",
    "validation_accuracy",
    "test_accuracy",
)
ROUND_SCALARS = ("train_accuracy", "validation_accuracy", "test_accuracy", "epochs", "train_seconds")


class TensorBoardLog:
    """Writes scalars below `folder`; a resumed cell goes on where it was, and what it repeats replaces the old.

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
        with uninterrupted():  # its writer has a thread, and a queue that both would wait for
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter

                self._writer = SummaryWriter(str(self._folder), purge_step=total_epochs)
            self._add("epoch", EPOCH_SCALARS, epoch_row, total_epochs)
            if round_row is not None:
                self._add("round", ROUND_SCALARS, round_row, round_row["train_samples"])
                self._writer.flush()

    def close(self) -> None:
        """Ends the log."""
        if self._writer is not None:
            with uninterrupted():
                self._writer.close()

    def _add(self, group: str, names: tuple[str, ...], row: Row, step: int) -> None:
        for name in names:
            if row[name] is not None:
                self._writer.add_scalar(f"{group}/{name}", row[name], step)
