"""Decides when a round ends, from the accuracies of its epochs; it never sees the model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from warmstart_sim.training.settings import Until

Status = Literal["converged", "finished", "capped", "gave_up", "diverged"]


@dataclass
class StopRule:
    """The rules of one round, with the best values so far and the epochs since.

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
        """The lowest train accuracy that could end the round or count as an improvement; below it, a check may stop."""
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
            train_accuracy: In evaluation mode; None if it is below `threshold`, or no rule needs it.
            validation_accuracy: None if no rule needs it.
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

    def state_dict(self) -> dict[str, float]:
        """The numbers to save in a checkpoint."""
        return {key: value for key, value in asdict(self).items() if key != "until"}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restores what `state_dict` returned."""
        for key, value in state.items():
            setattr(self, key, value)
