"""What another training loop has to provide to train a cell's rounds, such as Avalanche's."""

from __future__ import annotations

from typing import Protocol

from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.training.loop import EpochRow, TrainingOutcome
from warmstart_sim.types import Round, RoundContext, StateDict


class RoundListener(Protocol):
    """Receives the start of a round and its epochs."""

    def started(self, context: RoundContext) -> None:
        """The model holds the weights to start from, `context.start`."""

    def epoch_ended(self, row: EpochRow, last: bool) -> None:
        """An epoch has ended; `last` says whether it ended the round.

        Raises:
            Preempted: The training is asked to stop.
        """


class RoundTrainer(Protocol):
    """Trains one round in the trainer's model."""

    def __call__(self, round_: Round, previous: StateDict | None, listener: RoundListener, /) -> TrainingOutcome:
        """Starts from `previous` (None in the first round), and trains until the stop rule ends the round."""
        ...


class Engine(Protocol):
    """Makes what trains the rounds of a cell, one after another."""

    def __call__(self, trainer: CellTrainer, /) -> RoundTrainer:
        """A `RoundTrainer` for the trainer's cell."""
        ...
