"""When a round ends. A pure account of numbers: it sees each epoch's accuracies and says stop or go on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from warmstart_sim.training.settings import Until

Status = Literal["converged", "finished", "capped", "gave_up", "diverged"]


@dataclass
class StopRule:
    """The rules of one round, and what they have to remember from epoch to epoch.

    Args:
        until: The rules.
    """

    until: Until
    best_train: float = 0.0
    epochs_without_train_improvement: int = 0
    best_validation: float = -1.0
    epochs_without_validation_improvement: int = 0

    @property
    def needs_train_accuracy(self) -> bool:
        """Whether a rule asks for the train accuracy after each epoch."""
        return self.until.train_accuracy is not None or self.until.plateau is not None

    @property
    def needs_validation_accuracy(self) -> bool:
        """Whether a rule asks for the validation accuracy after each epoch."""
        return self.until.validation_patience is not None

    @property
    def threshold(self) -> float:
        """The lowest train accuracy that could matter now: a check below it may stop early."""
        values = []
        if self.until.train_accuracy is not None:
            values.append(self.until.train_accuracy)
        if self.until.plateau is not None:
            values.append(self.best_train + self.until.plateau.min_delta)
        return min(values)

    def after_epoch(
        self,
        epoch: int,
        steps: int,
        running_accuracy: float,
        train_accuracy: float | None = None,
        validation_accuracy: float | None = None,
    ) -> Status | None:
        """The status with which the round ends after this epoch, or None to go on.

        Args:
            epoch: 1 for the first.
            steps: Steps taken in this round so far.
            running_accuracy: Accuracy on the batches of this epoch.
            train_accuracy: The criterion's value; None when it is below `threshold`, or no rule needs it.
            validation_accuracy: Where a rule needs it.
        """
        until = self.until
        met = until.train_accuracy is not None and train_accuracy is not None and train_accuracy >= until.train_accuracy
        met |= until.running_accuracy is not None and running_accuracy >= until.running_accuracy
        met |= self._plateaued(train_accuracy)
        met |= self._validation_stalled(validation_accuracy)
        if met:
            return "converged"
        if (until.epochs is not None and epoch >= until.epochs) or (until.steps is not None and steps >= until.steps):
            return "finished"
        if until.give_up is not None and epoch >= until.give_up.epochs and running_accuracy < until.give_up.below:
            return "gave_up"
        return "capped" if epoch >= until.cap else None

    def _plateaued(self, train_accuracy: float | None) -> bool:
        if self.until.plateau is None:
            return False
        if train_accuracy is not None and train_accuracy >= self.best_train + self.until.plateau.min_delta:
            self.best_train = train_accuracy
            self.epochs_without_train_improvement = 0
        else:
            self.epochs_without_train_improvement += 1
        return self.epochs_without_train_improvement >= self.until.plateau.patience

    def _validation_stalled(self, validation_accuracy: float | None) -> bool:
        if self.until.validation_patience is None:
            return False
        assert validation_accuracy is not None
        if validation_accuracy > self.best_validation:
            self.best_validation = validation_accuracy
            self.epochs_without_validation_improvement = 0
        else:
            self.epochs_without_validation_improvement += 1
        return self.epochs_without_validation_improvement >= self.until.validation_patience

    def memory(self) -> dict[str, float]:
        """What a checkpoint has to keep."""
        return {key: value for key, value in asdict(self).items() if key != "until"}

    def restore(self, memory: dict[str, float]) -> None:
        """Puts back what `memory` gave."""
        for key, value in memory.items():
            setattr(self, key, value)
