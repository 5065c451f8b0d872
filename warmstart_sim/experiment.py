"""The one place where the layers meet: for every round of a cell, start -> train -> measure -> record."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import nn

from warmstart_sim import models
from warmstart_sim.config import Cell
from warmstart_sim.config.dealing import deal, load_component, load_dataset
from warmstart_sim.errors import WarmstartError
from warmstart_sim.models.weights import fitted, read_weights
from warmstart_sim.preemption import requested, stop_if_requested
from warmstart_sim.registry import MODELS, PARTS, STRATEGIES
from warmstart_sim.results.store import EPOCH_COLUMNS, SECONDS, CellFolder, Row, RunFolder
from warmstart_sim.seeding import scoped_torch_seed, torch_generator
from warmstart_sim.training.batches import Normalization, normalization
from warmstart_sim.training.evaluation import evaluation
from warmstart_sim.training.loop import Epoch, RoundData, RoundTraining
from warmstart_sim.training.settings import Training
from warmstart_sim.training.step_time import StepTime
from warmstart_sim.training.stopping import Status
from warmstart_sim.training.turns import Turns, finish
from warmstart_sim.types import Context, Dataset, Hooks, IntArray, Layout, Round, StateDict
from warmstart_sim.workbench import Workbench

Batching = Literal["apart", "streams", "stacked"]


@dataclass(frozen=True)
class Place:
    """Where and how cells run.

    Attributes:
        data_root: The folder that holds the data sets.
        device: Such as "cpu" or "cuda:0".
        timing: "isolated" when a cell has the machine to itself, "shared" when others run beside it.
        checkpoint_seconds: How often a long round is checkpointed, at an epoch's border. Default 600.
        tensorboard: Whether to write TensorBoard logs.
        deterministic: On CUDA, only kernels that give the same bits every time.
        slots: How many cells are trained side by side in one process.
        batching: How: "apart", each step by itself; "streams", likewise, on a GPU in a stream for each slot; "stacked",
            cells whose models are alike as one.
        step_times: What a step costs alone on the idle machine, by `Cell.step_kind`.
        engine: What trains the rounds of a cell in place of our own loop; see `Engine`.
    """

    data_root: Path
    device: str = "cpu"
    timing: str = "isolated"
    checkpoint_seconds: float = 600.0
    tensorboard: bool = False
    deterministic: bool = False
    slots: int = 1
    batching: Batching = "apart"
    step_times: Mapping[str, StepTime] = field(default_factory=dict)
    engine: Engine | None = None


OnEpoch = Callable[[Epoch, bool], None]  # called after each epoch, and told whether it was the round's last


class Trained(Protocol):
    """How a round's training ended.

    Attributes:
        status: Why it ended.
        epochs: How many there were.
        steps: Likewise.
        samples_seen: Likewise, those of all epochs.
        best_state: Weights to report instead of the last, from a rule that looks at validation data.
        recording_seconds: Of its time, what was spent on recording steps.
    """

    @property
    def status(self) -> Status | None: ...  # noqa: D102
    @property
    def epochs(self) -> int: ...  # noqa: D102
    @property
    def steps(self) -> int: ...  # noqa: D102
    @property
    def samples_seen(self) -> int: ...  # noqa: D102
    @property
    def best_state(self) -> dict[str, torch.Tensor] | None: ...  # noqa: D102
    @property
    def recording_seconds(self) -> float: ...  # noqa: D102


class Engine(Protocol):
    """Another training loop: for a cell, what starts and trains a round in the lab's model from the last weights."""

    def __call__(self, lab: Lab, /) -> Callable[[Round, StateDict | None, OnEpoch], Trained]:
        """The function that is called with each round, the last weights (None before the first) and a listener."""
        ...


@dataclass(frozen=True)
class Progress:
    """What a cell tells while it runs, after each epoch."""

    round: int
    rounds: int
    epoch: int
    total_epochs: int  # since the cell's first round
    epoch_row: Row
    done: float  # the share of the cell's samples (summed over rounds) in rounds that are over
    round_row: Row | None = None  # set when the epoch ended its round


Notify = Callable[[Progress], None]


@dataclass
class History:
    """What a cell has done so far; with the weights, it is what a checkpoint holds."""

    weights: StateDict | None = None
    rounds: list[Row] = field(default_factory=list)
    epochs: list[Row] = field(default_factory=list)


def run_cell(cell: Cell, run: RunFolder, place: Place, notify: Notify = lambda progress: None) -> None:
    """Runs a cell to its end, alone, from its last checkpoint if there is one, and stores the result.

    Args:
        cell: What to train.
        run: Where results go.
        place: Where and how it runs.
        notify: Called after every epoch.

    Raises:
        WarmstartError: The data, the model or the stream cannot be had as the scenario says.
    """
    finish(cell_in_turns(cell, run, Workbench(place.device), place, notify))


def cell_in_turns(cell: Cell, run: RunFolder, bench: Workbench, place: Place, notify: Notify) -> Turns[None]:
    """What `run_cell` does, in turns: it yields its minibatches, which the caller has to step.

    Args:
        cell: What to train.
        run: Where results go.
        bench: What outlives the cell in this process.
        place: Where and how it runs.
        notify: Called after every epoch.
    """
    folder = run.cell(cell.id)
    if folder.complete:
        return
    lab = Lab(cell, place, bench)
    history = yield from _before(cell, lab, run, bench, place, notify)
    yield from _run_rounds(lab, folder, history, notify)
    lab.close()


def first_phase_in_turns(phase: Cell, run: RunFolder, bench: Workbench, place: Place, notify: Notify) -> Turns[None]:
    """Runs a cell that is the first phase of others, and stores it where they look for it."""
    folder = run.first_phase(phase.id)
    if not folder.complete or folder.weights() is None:
        folder.describe(phase.settings)
        lab = Lab(phase, place, bench)
        yield from _run_rounds(lab, folder, History(), notify)
        lab.close()


def _before(cell: Cell, lab: Lab, run: RunFolder, bench: Workbench, place: Place, notify: Notify) -> Turns[History]:
    """What a cell starts from: nothing, a first phase (trained now if it is not there yet), or a checkpoint."""
    history = History()
    if cell.first_phase:
        yield from first_phase_in_turns(cell.first_phase, run, bench, place, notify)
        folder = run.first_phase(cell.first_phase.id)
        history.weights, result = folder.weights(), folder.result()
        assert result is not None
        history.rounds, history.epochs = ([{**row, "shared": True} for row in result[name]] for name in result)
    if cell.pretraining:
        if cell.pretraining.checkpoint:
            history.weights = read_weights(cell.pretraining.checkpoint)
        assert history.weights is not None
        fresh = lab.fresh_weights(lab.rounds[0].index)
        history.weights = fitted(history.weights, fresh, lab.layout, cell.pretraining.head)
    return history


class Lab:
    """All that stays the same over the rounds of a cell: data on the device, rounds, the model object, its layout.

    The model object is made once; a round starts by copying weights into it.

    Args:
        cell: What will be trained.
        place: Where and how.
        bench: Lends the stepper, with its model and what was recorded, until `close`.
    """

    def __init__(self, cell: Cell, place: Place, bench: Workbench | None = None) -> None:
        started = time.perf_counter()
        self.cell = cell
        self.place = place
        self.device = torch.device(place.device)
        prepare(self.device, cell.arm.training, place.deterministic)

        self.dataset = load_dataset(cell, place.data_root)
        dealt = deal(cell, self.dataset.train.labels, len(self.dataset.test))
        self.rounds = dealt.rounds
        self._tokens = np.issubdtype(self.dataset.train.inputs.dtype, np.signedinteger)
        _check_kind(cell, self.dataset, self._tokens)
        self._bench = bench or Workbench(place.device)
        shape = (self.dataset.input_shape, self.dataset.classes, self.dataset.vocabulary_size)
        self.stepper = self._bench.take((str(cell.model.record()), *shape), cell.arm.training, self._model)
        self.model = self.stepper.model
        self.layout: Layout = models.layout(self.model)

        channels_last = models.takes_channels_last(self.model)
        normalize = self._normalization()
        self.train_samples = self._bench.samples(self.dataset.train, normalize, channels_last)
        self.test_samples = self._bench.samples(self.dataset.test, normalize, channels_last)
        self.validation_indices = self._on_device(dealt.validation)
        self.test_indices = self._on_device(dealt.test)
        two = torch.zeros(2, dtype=torch.int64, device=self.device)
        self.flops = self._bench.flops(self.stepper, self.train_samples.batch(two, self.train_samples.mean_length)[0])
        self.setup_seconds = time.perf_counter() - started

    def close(self) -> None:
        """Gives the stepper back; the model is another cell's from now on."""
        self._bench.give(self.stepper)

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
            return normalization(self.cell.data_settings.normalize, self.dataset.train.inputs)
        inputs = load_component(target.data, self.cell.seed, self.place.data_root).train.inputs
        return normalization(target.normalize, inputs)

    def fresh_weights(self, round_index: int) -> StateDict:
        """A fresh initialisation on the device: the same for every arm of the seed, another for every round."""
        return {name: tensor.to(self.device) for name, tensor in self._fresh_model(round_index).state_dict().items()}

    def start(self, round_index: int, previous: StateDict | None) -> tuple[StateDict, list[Hooks]]:
        """The weights that a round starts from, and what the arm's parts add to its training."""
        fresh = self.fresh_weights(round_index)
        context = Context(
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

    def evaluate(self, round_: Round) -> Turns[Row]:
        """Accuracy and loss on the training samples so far, the validation data and the test data."""
        row: Row = {}
        for name, samples, indices in (
            ("train", self.train_samples, self._on_device(round_.train)),
            ("validation", self.train_samples, self.validation_indices),
            ("test", self.test_samples, self.test_indices),
        ):
            measured: tuple[float | None, float | None] = (None, None)
            if len(indices):
                measured = yield from evaluation(self.model, self.stepper.tally(samples), samples, indices)
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


def _check_kind(cell: Cell, dataset: Dataset, tokens: bool) -> None:
    """Makes sure that texts meet a model for texts; a model of the user's own may take anything."""
    if tokens and not cell.model.is_own and not MODELS.has_trait(cell.model.name, "tokens"):
        fitting = ", ".join(name for name in MODELS.names() if MODELS.has_trait(name, "tokens"))
        raise WarmstartError(f"model.name: '{cell.model.name}' takes no texts, as {dataset.name} has; choose {fitting}")


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


def _run_rounds(lab: Lab, folder: CellFolder, history: History, notify: Notify) -> Turns[None]:
    """Adds to `history` the rounds that are not in it yet, from the folder's checkpoint on, and stores the result."""
    checkpoint = folder.checkpoint()
    inside = None
    if checkpoint is not None:
        history.weights, history.rounds, history.epochs = (checkpoint[key] for key in ("weights", "rounds", "epochs"))
        inside = checkpoint["training"]
    over = {row["round"] for row in history.rounds}
    started = time.perf_counter()
    elsewhere = lab.place.engine and lab.place.engine(lab)
    lab.setup_seconds += time.perf_counter() - started
    for round_ in lab.rounds:
        if round_.index not in over:
            stop_if_requested()
            log = _RoundLog(lab, round_, history, notify)
            if elsewhere:
                training = log.of(elsewhere)
            else:
                training = yield from _train_here(log, folder, inside)
            row, history.weights = yield from _finish_round(lab, round_, training, log.seconds)
            log.close(row)
            if round_ is not lab.rounds[-1]:
                _save(folder, history, None)
            log.tell(row)
            inside = None
    assert history.weights is not None
    folder.finish(history.weights, history.rounds, history.epochs)


class _RoundLog:
    """What a round under way leaves: rows of its epochs, seconds, and what those who wait are told.

    Args:
        lab: The cell's.
        round_: Which round.
        history: What came before it.
        notify: Who waits.
    """

    def __init__(self, lab: Lab, round_: Round, history: History, notify: Notify) -> None:
        self.lab, self.round, self.history = lab, round_, history
        self.seconds = dict.fromkeys(SECONDS, 0.0)
        self.epochs: list[Row] = []
        self._notify = notify
        self._sizes = {each.index: len(each.train) for each in lab.rounds}
        self._started = time.perf_counter()

    @property
    def previous(self) -> StateDict | None:
        """The weights that the last round ended with, on the device."""
        weights = self.history.weights
        return weights and {name: tensor.to(self.lab.device) for name, tensor in weights.items()}

    def started(self) -> None:
        """The seconds since it was made, and in the first round that it runs the lab's own, are those of setting up."""
        self.seconds["setup_seconds"] += time.perf_counter() - self._started + self.lab.setup_seconds
        self.lab.setup_seconds = 0.0

    def add(self, epoch: Epoch, last: bool) -> None:
        """Takes down an epoch, and tells of it unless it is the round's last: then its row is told of too."""
        self.epochs.append({"round": self.round.index, "shared": False, **_epoch_row(epoch)})
        for name in ("train_seconds", "criterion_seconds", "evaluation_seconds"):
            self.seconds[name] += getattr(epoch, name)
        if not last:
            self.tell()

    def close(self, row: Row) -> None:
        """Adds the round to the history."""
        self.epochs[-1]["train_accuracy"] = row["train_accuracy"]  # the last check of a round is always full
        self.history.rounds.append(row)
        self.history.epochs.extend(self.epochs)

    def tell(self, row: Row | None = None) -> None:
        """Tells of the last epoch, and of the round's row once there is one."""
        before = sum(size for index, size in self._sizes.items() if index < self.round.index + (row is not None))
        epochs_before = len(self.history.epochs) - (len(self.epochs) if row is not None else 0)
        epoch = self.epochs[-1]
        self._notify(
            Progress(
                self.round.index, max(self._sizes) + 1, epoch["epoch"], epochs_before + epoch["epoch"], epoch,
                before / sum(self._sizes.values()), row,
            )
        )  # fmt: skip

    def of(self, elsewhere: Callable[[Round, StateDict | None, OnEpoch], Trained]) -> Trained:
        """Lets another engine train the round; asked to stop, it does so, and the round will begin again."""

        def listen(epoch: Epoch, last: bool) -> None:
            self.add(epoch, last)
            if not last:
                stop_if_requested()

        self.started()
        return elsewhere(self.round, self.previous, listen)


def _train_here(log: _RoundLog, folder: CellFolder, inside: dict[str, Any] | None) -> Turns[RoundTraining]:
    """Trains a round, from the middle of it if `inside` is its checkpoint."""
    lab, round_ = log.lab, log.round
    weights, hooks = lab.start(round_.index, log.previous)
    lab.model.load_state_dict(weights)
    training = lab.training(round_, hooks)
    if inside is not None:
        training.load_state_dict(inside["state"])
        log.seconds, log.epochs = inside["seconds"], inside["epochs"]
    log.started()
    saved = time.perf_counter()
    while training.status is None:
        epoch = yield from training.epoch()
        log.add(epoch, last=training.status is not None)
        due = requested() or time.perf_counter() - saved > lab.place.checkpoint_seconds
        if training.status is None and due:
            inside = {"state": training.state_dict(), "seconds": log.seconds, "epochs": log.epochs}
            _save(folder, log.history, inside)
            stop_if_requested()
            saved = time.perf_counter()
    return training


def _finish_round(
    lab: Lab, round_: Round, training: Trained, seconds: dict[str, float]
) -> Turns[tuple[Row, StateDict]]:
    """The round's row, and the weights that the next round calls `previous`."""
    started, recorded = time.perf_counter(), training.recording_seconds
    last = lab.weights()
    if training.best_state is not None:  # early stopping reports its best weights; the next round starts from the last
        lab.model.load_state_dict(training.best_state)
    accuracies = yield from lab.evaluate(round_)
    seconds["evaluation_seconds"] += time.perf_counter() - started - (training.recording_seconds - recorded)
    seconds["setup_seconds"] += training.recording_seconds
    alone = None if lab.place.timing == "isolated" else lab.place.step_times.get(lab.cell.step_kind)
    row = {
        "round": round_.index,
        "shared": False,
        "dataset": lab.dataset.name,
        "train_samples": len(round_.train),
        "new_samples": len(round_.new),
        "epochs": training.epochs,
        "steps": training.steps,
        "samples_seen": training.samples_seen,
        "flops": training.samples_seen * lab.flops,
        "converged": training.status in ("converged", "finished"),
        "status": training.status,
        **accuracies,
        **seconds,
        "estimated_isolated_seconds": alone and alone.seconds(training.steps, training.samples_seen),
        "timing": lab.place.timing,
        "threads": lab.cell.arm.training.threads,
        "device": lab.place.device,
    }
    return row, last


def _epoch_row(epoch: Epoch) -> Row:
    return {name: getattr(epoch, name) for name in EPOCH_COLUMNS if name not in ("round", "shared")}


def _save(folder: CellFolder, history: History, inside: dict[str, Any] | None) -> None:
    folder.save_checkpoint(
        {"weights": history.weights, "rounds": history.rounds, "epochs": history.epochs, "training": inside}
    )
