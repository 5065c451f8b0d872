"""Trains the rounds of one cell: its data on the device, its rounds, its model, and the start of each round."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
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
from warmstart_sim.scenario.splits import load_component, load_dataset, prepared_data
from warmstart_sim.seeding import scoped_torch_seed
from warmstart_sim.training.batches import DeviceSamples, Normalization
from warmstart_sim.training.compiling import leave_compiler_out
from warmstart_sim.training.coroutine import TrainingCoroutine
from warmstart_sim.training.evaluation import evaluation_coroutine
from warmstart_sim.training.loop import Carried, RoundData, RoundTraining
from warmstart_sim.training.model_functions import without_gradient
from warmstart_sim.training.round_context import round_context
from warmstart_sim.training.settings import Training
from warmstart_sim.training.starts import never_trained, start_of_round
from warmstart_sim.types import Dataset, IntArray, Layout, Round, RoundContext, Split, StateDict

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class CellTrainer:
    """Everything that stays the same over the rounds of a cell, and what begins and evaluates a round.

    A round starts by copying weights into the model. Later rounds with settings of their own get another model object.

    Args:
        cell: What to train.
        execution: Where and how.
        cache: Lends the stepper, with its model and captured graphs, until `close`.
    """

    def __init__(self, cell: Cell, execution: ExecutionSettings, cache: DeviceCache | None = None) -> None:
        started = time.perf_counter()
        self.cell = cell
        self.execution = execution
        self.device = torch.device(execution.device)
        dataset = load_dataset(cell, execution.data_root)
        self.dataset, splits = prepared_data(cell, dataset)
        self.rounds = splits.rounds
        self._tokens = np.issubdtype(self.dataset.train.inputs.dtype, np.signedinteger)
        _check_inputs(cell, self.dataset, self._tokens)
        self._cache = cache or DeviceCache(execution.device)
        first = 1 if cell.shares_first_round else self.rounds[0].index
        self._borrow_stepper(cell.arm.training.in_round(first))
        self.layout: Layout = models.layout(self.model)

        channels_last = models.takes_channels_last(self.model)
        normalize = self._normalization(dataset)
        self.train_samples = self._cache.samples(self.dataset.train, normalize, channels_last)
        self.test_samples = self._cache.samples(self.dataset.test, normalize, channels_last)
        self.pool = splits.pool
        self._held_out: dict[Split, IntArray] = {"validation": splits.validation, "test": splits.test}
        self.flops()  # counted as setup; later calls look it up
        idle = without_gradient(self.model, self._two_inputs(), self.stepper.trains_by_default)
        self.never_trained = never_trained(self.model, idle)
        self.setup_seconds = time.perf_counter() - started

    def close(self) -> None:
        """Returns the stepper to the cache; from now on another cell may use the model."""
        self._cache.give_back(self.stepper)

    def _borrow_stepper(self, settings: Training) -> None:
        """Takes a stepper, with its model, for rounds with these settings."""
        set_up_torch(self.device, settings, self.execution.deterministic)
        dataset = self.dataset
        shape = (dataset.input_shape, dataset.classes, dataset.vocabulary_size)
        kind = (str(self.cell.model.to_dict()), *shape, self._inserts_normalization)
        self.stepper = self._cache.borrow(kind, settings, self._model)
        self.model = self.stepper.model

    def _model(self) -> nn.Module:
        """A model on the device, checked to take the data."""
        model = self._fresh_model(0)
        dataset = self.dataset
        models.check_output(
            model, dataset.input_shape, dataset.classes, tokens=self._tokens, label_shape=dataset.label_shape
        )
        if models.takes_channels_last(model):
            model = model.to(memory_format=torch.channels_last)
        return model.to(self.device)

    def _normalization(self, dataset: Dataset) -> Normalization | None:
        """The normalisation of a data set without noise, or in a first phase the target's where both use the same."""
        target = self.cell.target
        if target is None or target.normalize is None:
            return self._cache.normalization(self.cell.data_settings.normalize, dataset.train)
        train = load_component(target.data, self.cell.seed, self.execution.data_root).train
        return self._cache.normalization(target.normalize, train)

    def fresh_weights(self, round_index: int) -> StateDict:
        """A fresh initialisation on the device: the same for all arms of a seed, a different one in every round."""
        return {name: tensor.to(self.device) for name, tensor in self._fresh_model(round_index).state_dict().items()}

    def round_context(self, round_: Round, previous: StateDict | None) -> RoundContext:
        """The context of a round, for strategy, parts and probes; `previous` is on the device."""
        tested = {each.index: each.like_new for each in self.rounds if each.like_new is not None}

        def evaluation_set(split: Split | int) -> tuple[DeviceSamples, torch.Tensor]:
            if isinstance(split, int):
                return self.test_samples, self._on_device(tested[split])
            return self.samples_of(split, round_)

        return round_context(
            self.model, self.layout, self.train_samples, round_, seed=self.cell.seed, previous=previous,
            fresh=self.fresh_weights(round_.index), initial=lambda: self.fresh_weights(0),
            arrived=(each.new for each in self.rounds if each.index <= round_.index), evaluation_sets=evaluation_set,
            tested_rounds=tuple(tested),
        )  # fmt: skip

    def begin(
        self, round_: Round, previous: StateDict | None, carried: Carried | None = None
    ) -> tuple[RoundContext, RoundTraining]:
        """Begins a round: the strategy's weights are in the model, and the training has the hooks of the arm's parts.

        Args:
            round_: Which round.
            previous: The weights that the last round ended with; None in the first round.
            carried: What else the last round handed on.

        Returns:
            The round's context, with `start`, and its training.
        """
        arm = self.cell.arm
        settings = arm.training.in_round(round_.index)
        if settings != self.stepper.settings:
            self.close()
            self._borrow_stepper(settings)
        context = self.round_context(round_, previous)
        start = start_of_round(arm.start.make(STRATEGIES), arm.start.name, context, self.never_trained)
        context = replace(context, start=start.weights, trainable=start.trainable)
        hooks = [part.make(PARTS)(previous or context.fresh, context.fresh, context) for part in arm.parts]
        self.model.load_state_dict(start.weights)
        validation = self.samples_of("validation", round_)[1]
        training = RoundTraining(
            self.stepper,
            RoundData(*self.samples_of("train", round_), validation, *self.samples_of("test", round_)),
            hooks,
            seed=self.cell.seed,
            round_index=round_.index,
            measure_each_epoch=self.measures_accuracy,
            trainable=start.trainable,
            carried=carried,
        )
        return context, training

    def flops(self, trainable: Collection[str] | None = None) -> int:
        """FLOPs of training on one sample (texts: of the mean length) in a round that trains these parameters."""
        return self._cache.flops(self.stepper, self._two_inputs(), trainable)

    def _two_inputs(self) -> torch.Tensor:
        two = torch.zeros(2, dtype=torch.int64, device=self.device)
        return self.train_samples.batch(two, self.train_samples.mean_length)[0]

    @property
    def measures_accuracy(self) -> bool:
        """Whether train, validation and test accuracy are measured in full after every epoch."""
        return any(each.by_loop for each in self.cell.measure.each_epoch)

    def evaluate(self, round_: Round) -> TrainingCoroutine[Row]:
        """Accuracy and loss on the training samples so far, the validation data and the test data."""
        row: Row = {}
        for split in SPLITS:
            samples, indices = self.samples_of(split, round_)
            measured: tuple[float | None, float | None] = (None, None)
            if len(indices):
                measured = yield from evaluation_coroutine(self.stepper.batch_metrics(samples), samples, indices)
            row[f"{split}_accuracy"], row[f"{split}_loss"] = measured
        return row

    def samples_of(self, split: Split, round_: Round) -> tuple[DeviceSamples, torch.Tensor]:
        """The samples that hold a split, and its indices into them."""
        if split == "train":
            return self.train_samples, self._on_device(round_.train)
        own = round_.validation if split == "validation" else round_.test
        indices = self._on_device(self._held_out[split] if own is None else own)
        return self.test_samples if split == "test" else self.train_samples, indices

    def weights(self) -> StateDict:
        """A copy of the model's state."""
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def new_model(self) -> nn.Module:
        """A model on the CPU, whose weights are drawn from torch's default generator."""
        target, options = self.cell.model.bind(MODELS)
        dataset = self.dataset
        model = models.build(target, options, dataset.input_shape, dataset.classes, dataset.vocabulary_size)
        if self._inserts_normalization:
            models.insert_normalization(model)
        return model

    @property
    def _inserts_normalization(self) -> bool:
        return STRATEGIES.has_trait(self.cell.arm.start.name, "inserts_normalization")

    def _fresh_model(self, round_index: int) -> nn.Module:
        with scoped_torch_seed(self.cell.seed, "init", round_index):
            return self.new_model()

    def _on_device(self, indices: IntArray) -> torch.Tensor:
        return torch.from_numpy(indices).to(self.device)


@dataclass(frozen=True)
class TorchFlags:
    """Thread count and precision, which belong to the process; each cell has its own.

    Attributes:
        threads: The number of CPU threads.
        precisions: Of matrix products, convolutions and recurrent layers on CUDA.
    """

    threads: int
    precisions: tuple[str, ...]

    @classmethod
    def now(cls) -> TorchFlags:
        """Those that are set."""
        return cls(torch.get_num_threads(), tuple(library.fp32_precision for library in _libraries()))

    def set(self) -> None:
        """Sets them."""
        if torch.get_num_threads() != self.threads:  # setting it makes oneDNN forget its kernels
            torch.set_num_threads(self.threads)
        for library, precision in zip(_libraries(), self.precisions, strict=True):
            library.fp32_precision = precision


def _libraries() -> tuple[Any, ...]:
    backends: Any = torch.backends
    return backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn


def set_up_torch(device: torch.device, settings: Training, deterministic: bool = False) -> None:
    """Sets this process's thread count and, on CUDA, the precision of its matrix products and convolutions."""
    torch.set_num_threads(settings.threads)
    if not settings.compile:
        leave_compiler_out()
    if device.type == "cuda":
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
        torch.use_deterministic_algorithms(deterministic)
        # Nothing here reads memory before it writes it, and filling it would cost a kernel for each empty tensor.
        filling: Any = torch.utils.deterministic
        filling.fill_uninitialized_memory = False
        precision = "tf32" if settings.precision == "tf32" else "ieee"
        torch.backends.cudnn.benchmark = False  # a stepper turns it on for shapes that come often
        for library in _libraries():
            library.fp32_precision = precision


def _check_inputs(cell: Cell, dataset: Dataset, tokens: bool) -> None:
    """Makes sure that texts meet a model for texts; a user's own model may take anything."""
    if cell.model.is_user_defined or not tokens:
        return
    next_tokens = bool(dataset.label_shape)
    fitting = [
        name
        for name in MODELS.names()
        if MODELS.has_trait(name, "tokens") and MODELS.has_trait(name, "next_token") == next_tokens
    ]
    if cell.model.name not in fitting:
        what = "predicts no next tokens" if next_tokens else "predicts no class of a text"
        what = what if MODELS.has_trait(cell.model.name, "tokens") else "takes no texts"
        raise WarmstartError(
            f"model.name: '{cell.model.name}' {what}, as {dataset.name} has; choose {', '.join(fitting)}"
        )
