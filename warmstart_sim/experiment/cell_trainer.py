"""What a cell trains with: data on the device, rounds, the model object, and where its rounds start from."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from warmstart_sim import models
from warmstart_sim.acceleration.device_cache import DeviceCache
from warmstart_sim.errors import WarmstartError
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.registry import MODELS, PARTS, STRATEGIES
from warmstart_sim.results.columns import Row
from warmstart_sim.scenario import Cell
from warmstart_sim.scenario.splits import load_component, load_dataset, split_rounds
from warmstart_sim.seeding import scoped_torch_seed, torch_generator
from warmstart_sim.training.batches import Normalization
from warmstart_sim.training.coroutine import TrainingCoroutine
from warmstart_sim.training.evaluation import evaluation
from warmstart_sim.training.loop import RoundData, RoundTraining
from warmstart_sim.training.settings import Training
from warmstart_sim.types import Dataset, Hooks, IntArray, Layout, Round, RoundContext, StateDict


class CellTrainer:
    """All that stays the same over the rounds of a cell: data on the device, rounds, the model object, its layout.

    The model object is made once; a round starts by copying weights into it.

    Args:
        cell: What will be trained.
        execution: Where and how.
        cache: Lends the stepper, with its model and what was recorded, until `close`.
    """

    def __init__(self, cell: Cell, execution: ExecutionSettings, cache: DeviceCache | None = None) -> None:
        started = time.perf_counter()
        self.cell = cell
        self.execution = execution
        self.device = torch.device(execution.device)
        prepare(self.device, cell.arm.training, execution.deterministic)

        self.dataset = load_dataset(cell, execution.data_root)
        splits = split_rounds(cell, self.dataset.train.labels, len(self.dataset.test))
        self.rounds = splits.rounds
        self._tokens = np.issubdtype(self.dataset.train.inputs.dtype, np.signedinteger)
        _check_kind(cell, self.dataset, self._tokens)
        self._cache = cache or DeviceCache(execution.device)
        shape = (self.dataset.input_shape, self.dataset.classes, self.dataset.vocabulary_size)
        self.stepper = self._cache.take((str(cell.model.record()), *shape), cell.arm.training, self._model)
        self.model = self.stepper.model
        self.layout: Layout = models.layout(self.model)

        channels_last = models.takes_channels_last(self.model)
        normalize = self._normalization()
        self.train_samples = self._cache.samples(self.dataset.train, normalize, channels_last)
        self.test_samples = self._cache.samples(self.dataset.test, normalize, channels_last)
        self.validation_indices = self._on_device(splits.validation)
        self.test_indices = self._on_device(splits.test)
        two = torch.zeros(2, dtype=torch.int64, device=self.device)
        self.flops = self._cache.flops(self.stepper, self.train_samples.batch(two, self.train_samples.mean_length)[0])
        self.setup_seconds = time.perf_counter() - started

    def close(self) -> None:
        """Gives the stepper back; the model is another cell's from now on."""
        self._cache.give(self.stepper)

    def _model(self) -> nn.Module:
        """A model on the device, after making sure that it takes the data."""
        model = self._fresh_model(0)
        models.check_output(model, self.dataset.input_shape, self.dataset.classes, tokens=self._tokens)
        if models.takes_channels_last(model):
            model = model.to(memory_format=torch.channels_last)
        return model.to(self.device)

    def _normalization(self) -> Normalization | None:
        """The data set's own, or in a first phase the target's, where both are to have the same."""
        target = self.cell.target
        if target is None or target.normalize is None:
            return self._cache.normalization(self.cell.data_settings.normalize, self.dataset.train)
        train = load_component(target.data, self.cell.seed, self.execution.data_root).train
        return self._cache.normalization(target.normalize, train)

    def fresh_weights(self, round_index: int) -> StateDict:
        """A fresh initialisation on the device: the same for every arm of the seed, another for every round."""
        return {name: tensor.to(self.device) for name, tensor in self._fresh_model(round_index).state_dict().items()}

    def start(self, round_index: int, previous: StateDict | None) -> tuple[StateDict, list[Hooks]]:
        """The weights that a round starts from, and what the arm's parts add to its training."""
        fresh = self.fresh_weights(round_index)
        context = RoundContext(
            round_index, self.layout, lambda purpose: torch_generator(self.cell.seed, purpose, round_index)
        )
        weights = fresh
        if previous is not None:
            weights = self.cell.arm.start.make(STRATEGIES)(previous, fresh, context)
            check_start(weights, fresh, self.cell.arm.start.name)
        hooks = [part.make(PARTS)(previous or fresh, fresh, context) for part in self.cell.arm.parts]
        return weights, hooks

    def training(self, round_: Round, hooks: Sequence[Hooks]) -> RoundTraining:
        """The training of one round, from whatever weights the model holds."""
        data = RoundData(
            self.train_samples, self._on_device(round_.train), self.validation_indices,
            self.test_samples, self.test_indices,
        )  # fmt: skip
        return RoundTraining(
            self.stepper, data, hooks, seed=self.cell.seed, round_index=round_.index,
            measure_each_epoch="accuracy" in self.cell.each_epoch,
        )  # fmt: skip

    def evaluate(self, round_: Round) -> TrainingCoroutine[Row]:
        """Accuracy and loss on the training samples so far, the validation data and the test data."""
        row: Row = {}
        for name, samples, indices in (
            ("train", self.train_samples, self._on_device(round_.train)),
            ("validation", self.train_samples, self.validation_indices),
            ("test", self.test_samples, self.test_indices),
        ):
            measured: tuple[float | None, float | None] = (None, None)
            if len(indices):
                measured = yield from evaluation(self.model, self.stepper.batch_metrics(samples), samples, indices)
            row[f"{name}_accuracy"], row[f"{name}_loss"] = measured
        return row

    def weights(self) -> StateDict:
        """A copy of the model's state."""
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def new_model(self) -> nn.Module:
        """A model on the CPU, whose weights are drawn from torch's default generator."""
        target, options = self.cell.model.bind(MODELS)
        dataset = self.dataset
        return models.build(target, options, dataset.input_shape, dataset.classes, dataset.vocabulary_size)

    def _fresh_model(self, round_index: int) -> nn.Module:
        with scoped_torch_seed(self.cell.seed, "init", round_index):
            return self.new_model()

    def _on_device(self, indices: IntArray) -> torch.Tensor:
        return torch.from_numpy(indices).to(self.device)


def prepare(device: torch.device, settings: Training, deterministic: bool = False) -> None:
    """Sets this process's thread count and, on CUDA, the precision of its matrix products and convolutions."""
    torch.set_num_threads(settings.threads)
    if device.type == "cuda":
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
        torch.use_deterministic_algorithms(deterministic)
        precision = "tf32" if settings.precision == "tf32" else "ieee"
        backends: Any = torch.backends
        backends.cudnn.benchmark = not deterministic  # recorded steps keep the kernels that were quickest
        for library in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn):
            library.fp32_precision = precision


def check_start(weights: Any, fresh: StateDict, name: str) -> None:
    """Makes sure that a strategy, which may be a user's, gave a complete state dict.

    Raises:
        WarmstartError: It did not.
    """
    if not isinstance(weights, Mapping) or weights.keys() != fresh.keys():
        raise WarmstartError(f"strategy '{name}' must return a state dict with the keys of `fresh`")
    for key, tensor in fresh.items():
        if not isinstance(weights[key], torch.Tensor) or weights[key].shape != tensor.shape:
            raise WarmstartError(f"strategy '{name}': entry '{key}' must be a tensor of shape {tuple(tensor.shape)}")


def _check_kind(cell: Cell, dataset: Dataset, tokens: bool) -> None:
    """Makes sure that texts meet a model for texts; a model of the user's own may take anything."""
    if tokens and not cell.model.is_own and not MODELS.has_trait(cell.model.name, "tokens"):
        fitting = ", ".join(name for name in MODELS.names() if MODELS.has_trait(name, "tokens"))
        raise WarmstartError(f"model.name: '{cell.model.name}' takes no texts, as {dataset.name} has; choose {fitting}")
