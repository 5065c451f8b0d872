"""Counts how often validation accuracy stalls in a round, for the schedule reduce_on_plateau."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass
class PlateauDrops:
    """Drops of the learning rate; torch's ReduceLROnPlateau makes the same with `patience - 1` and no threshold.

    Attributes:
        patience: Epochs without an improvement, since the best one or the last drop, after which the rate drops.
        drops: Their number in this round.
        best: The best validation accuracy so far.
        stalled: Epochs since it, or since the last drop.
    """

    patience: int
    drops: int = 0
    best: float = -1.0
    stalled: int = 0

    def after_epoch(self, validation_accuracy: float) -> None:
        """Takes the accuracy after an epoch."""
        if validation_accuracy > self.best:
            self.best, self.stalled = validation_accuracy, 0
            return
        self.stalled += 1
        if self.stalled >= self.patience:
            self.drops, self.stalled = self.drops + 1, 0

    def state_dict(self) -> dict[str, float]:
        """The numbers to save in a checkpoint."""
        return {name: value for name, value in asdict(self).items() if name != "patience"}
