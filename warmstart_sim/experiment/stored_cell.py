"""A complete cell, as analyses see it: its data, its model, and its stored weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from warmstart_sim.acceleration.device_cache import DeviceCache
from warmstart_sim.errors import WarmstartError
from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.run_cell import initial_history
from warmstart_sim.registry import STRATEGIES
from warmstart_sim.results.cell_folder import CellFolder
from warmstart_sim.results.columns import Row, column_of
from warmstart_sim.results.store import RunFolder
from warmstart_sim.seeding import torch_generator
from warmstart_sim.training.batches import batch_sizes
from warmstart_sim.training.coroutine import run_to_end
from warmstart_sim.training.starts import start_of_round
from warmstart_sim.types import Layout, Split, StateDict

HOW_TO_KEEP = (
    "a run keeps the last weights of its cells in `cells/` and those of first phases in `first_phases/`, which a copy "
    "of the tables alone lacks: copy both folders too, or run the scenario again"
)


@dataclass
class StoredCell:
    """A complete cell.

    Attributes:
        run: The run's folder.
        trainer: Its data and rounds, and a model on the device whose weights may be changed.
        row: Its last row of rounds.csv.
    """

    run: RunFolder
    trainer: CellTrainer
    row: Row

    @property
    def identity(self) -> Row:
        """The columns that say which cell it is: strategy, varied values and seed."""
        cell = self.trainer.cell
        varied = {column_of(key): value for key, value in cell.varied.items()}
        return {"strategy": cell.arm.label, **varied, "seed": cell.seed}

    @property
    def layout(self) -> Layout:
        """Names of the model's parameters, blocks and head."""
        return self.trainer.layout

    @cached_property
    def weights(self) -> StateDict:
        """The weights with which the cell ended, on the device.

        Raises:
            WarmstartError: They were not kept.
        """
        return self._on_device(_kept(self.trainer.cell.folder(self.run)))

    def model(self) -> nn.Module:
        """The cell's model with its last weights, in evaluation mode."""
        self.trainer.model.load_state_dict(self.weights)
        return self.trainer.model.eval()

    def batches(self, split: Split) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Normalised inputs and labels of the last round, in batches of the training's size and in random order."""
        trainer = self.trainer
        samples, indices = trainer.samples_of(split, trainer.rounds[-1])
        generator = torch_generator(trainer.cell.seed, "analysis", trainer.rounds[-1].index)
        order = torch.randperm(len(indices), generator=generator).to(indices.device)
        for index in indices[order].split(batch_sizes(len(indices), trainer.cell.arm.training.batch_size)):
            yield samples.batch(index)

    def start(self) -> StateDict:
        """The weights that the last round started from, made anew from the seed and from what is stored.

        Raises:
            WarmstartError: They depend on the weights of a round that were not kept.
        """
        trainer, arm = self.trainer, self.trainer.cell.arm
        context = trainer.round_context(trainer.rounds[-1], self._previous())
        return start_of_round(arm.start.make(STRATEGIES), arm.start.name, context, trainer.never_trained).weights

    def _previous(self) -> StateDict | None:
        """The weights that the last round's strategy was given; None in a first round."""
        cell, last = self.trainer.cell, self.trainer.rounds[-1]
        if cell.arm.start.name == "random_init":
            return self.weights  # it takes only what never trains, which is the same in every round
        if len(self.trainer.rounds) - cell.shares_first_round > 1:
            raise WarmstartError(
                f"{cell.id}: the weights that round {last.index} started from were not kept, only those at the end of "
                "the last round and of a first phase; use a stream with one round after the first phase, such as "
                "split, or measure while it trains: `measure: {each_round: [distance_from_start]}`"
            )
        if cell.first_phase:
            _kept(cell.first_phase.folder(self.run))
        before = run_to_end(initial_history(self.trainer, self.run, DeviceCache(self.trainer.execution.device)))
        return before.weights and self._on_device(before.weights)

    def _on_device(self, weights: StateDict) -> StateDict:
        return {name: tensor.to(self.trainer.device) for name, tensor in weights.items()}


def _kept(folder: CellFolder) -> StateDict:
    weights = folder.weights() if folder.complete else None
    if weights is None:
        raise WarmstartError(f"{folder.path} lacks weights that can be read; {HOW_TO_KEEP}")
    return weights
