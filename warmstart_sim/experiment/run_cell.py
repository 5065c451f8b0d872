"""The one place where the layers meet: for every round of a cell, start -> train -> measure -> record."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from warmstart_sim.acceleration.device_cache import DeviceCache
from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.settings import ExecutionSettings, OnEpoch, TrainingOutcome
from warmstart_sim.models.weights import read_weights, transfer_weights
from warmstart_sim.preemption import requested, stop_if_requested
from warmstart_sim.results.cell_folder import CellFolder
from warmstart_sim.results.columns import EPOCH_COLUMNS, SECONDS, Row
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario import Cell
from warmstart_sim.training.coroutine import TrainingCoroutine, run_to_end
from warmstart_sim.training.loop import Epoch, RoundTraining
from warmstart_sim.types import Round, StateDict


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
class CellHistory:
    """What a cell has done so far; with the weights, it is what a checkpoint holds."""

    weights: StateDict | None = None
    rounds: list[Row] = field(default_factory=list)
    epochs: list[Row] = field(default_factory=list)


def run_cell(cell: Cell, run: RunFolder, execution: ExecutionSettings, notify: Notify = lambda progress: None) -> None:
    """Runs a cell to its end, alone, from its last checkpoint if there is one, and stores the result.

    Args:
        cell: What to train.
        run: Where results go.
        execution: Where and how it runs.
        notify: Called after every epoch.

    Raises:
        WarmstartError: The data, the model or the stream cannot be had as the scenario says.
    """
    run_to_end(cell_coroutine(cell, run, DeviceCache(execution.device), execution, notify))


def cell_coroutine(
    cell: Cell, run: RunFolder, cache: DeviceCache, execution: ExecutionSettings, notify: Notify
) -> TrainingCoroutine[None]:
    """What `run_cell` does, in turns: it yields its minibatches, which the caller has to step.

    Args:
        cell: What to train.
        run: Where results go.
        cache: What outlives the cell in this process.
        execution: Where and how it runs.
        notify: Called after every epoch.
    """
    folder = run.cell(cell.id)
    if folder.complete:
        return
    trainer = CellTrainer(cell, execution, cache)
    history = yield from _before(cell, trainer, run, cache, execution, notify)
    yield from _run_rounds(trainer, folder, history, notify)
    trainer.close()


def first_phase_coroutine(
    phase: Cell, run: RunFolder, cache: DeviceCache, execution: ExecutionSettings, notify: Notify
) -> TrainingCoroutine[None]:
    """Runs a cell that is the first phase of others, and stores it where they look for it."""
    folder = run.first_phase(phase.id)
    if not folder.complete or folder.weights() is None:
        folder.describe(phase.settings)
        trainer = CellTrainer(phase, execution, cache)
        yield from _run_rounds(trainer, folder, CellHistory(), notify)
        trainer.close()


def _before(
    cell: Cell, trainer: CellTrainer, run: RunFolder, cache: DeviceCache, execution: ExecutionSettings, notify: Notify
) -> TrainingCoroutine[CellHistory]:
    """What a cell starts from: nothing, a first phase (trained now if it is not there yet), or a checkpoint."""
    history = CellHistory()
    if cell.first_phase:
        yield from first_phase_coroutine(cell.first_phase, run, cache, execution, notify)
        folder = run.first_phase(cell.first_phase.id)
        history.weights, result = folder.weights(), folder.result()
        assert result is not None
        history.rounds, history.epochs = ([{**row, "shared": True} for row in result[name]] for name in result)
    if cell.pretraining:
        if cell.pretraining.checkpoint:
            history.weights = read_weights(cell.pretraining.checkpoint)
        assert history.weights is not None
        fresh = trainer.fresh_weights(trainer.rounds[0].index)
        history.weights = transfer_weights(history.weights, fresh, trainer.layout, cell.pretraining.head)
    return history


def _run_rounds(
    trainer: CellTrainer, folder: CellFolder, history: CellHistory, notify: Notify
) -> TrainingCoroutine[None]:
    """Adds to `history` the rounds that are not in it yet, from the folder's checkpoint on, and stores the result."""
    checkpoint = folder.checkpoint()
    inside = None
    if checkpoint is not None:
        history.weights, history.rounds, history.epochs = (checkpoint[key] for key in ("weights", "rounds", "epochs"))
        inside = checkpoint["training"]
    over = {row["round"] for row in history.rounds}
    started = time.perf_counter()
    elsewhere = trainer.execution.engine and trainer.execution.engine(trainer)
    trainer.setup_seconds += time.perf_counter() - started
    for round_ in trainer.rounds:
        if round_.index not in over:
            stop_if_requested()
            log = RoundRecorder(trainer, round_, history, notify)
            if elsewhere:
                training = log.of(elsewhere)
            else:
                training = yield from _train_here(log, folder, inside)
            row, history.weights = yield from _finish_round(trainer, round_, training, log.seconds)
            log.close(row)
            if round_ is not trainer.rounds[-1]:
                _save(folder, history, None)
            log.tell(row)
            inside = None
    assert history.weights is not None
    folder.finish(history.weights, history.rounds, history.epochs)


class RoundRecorder:
    """What a round under way leaves: rows of its epochs, seconds, and what those who wait are told.

    Args:
        trainer: The cell's.
        round_: Which round.
        history: What came before it.
        notify: Who waits.
    """

    def __init__(self, trainer: CellTrainer, round_: Round, history: CellHistory, notify: Notify) -> None:
        self.trainer, self.round, self.history = trainer, round_, history
        self.seconds = dict.fromkeys(SECONDS, 0.0)
        self.epochs: list[Row] = []
        self._notify = notify
        self._sizes = {each.index: len(each.train) for each in trainer.rounds}
        self._started = time.perf_counter()

    @property
    def previous(self) -> StateDict | None:
        """The weights that the last round ended with, on the device."""
        weights = self.history.weights
        return weights and {name: tensor.to(self.trainer.device) for name, tensor in weights.items()}

    def started(self) -> None:
        """The seconds since it was made, and in the first round that it runs the lab's own, are those of setting up."""
        self.seconds["setup_seconds"] += time.perf_counter() - self._started + self.trainer.setup_seconds
        self.trainer.setup_seconds = 0.0

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

    def of(self, elsewhere: Callable[[Round, StateDict | None, OnEpoch], TrainingOutcome]) -> TrainingOutcome:
        """Lets another engine train the round; asked to stop, it does so, and the round will begin again."""

        def listen(epoch: Epoch, last: bool) -> None:
            self.add(epoch, last)
            if not last:
                stop_if_requested()

        self.started()
        return elsewhere(self.round, self.previous, listen)


def _train_here(
    log: RoundRecorder, folder: CellFolder, inside: dict[str, Any] | None
) -> TrainingCoroutine[RoundTraining]:
    """Trains a round, from the middle of it if `inside` is its checkpoint."""
    trainer, round_ = log.trainer, log.round
    weights, hooks = trainer.start(round_.index, log.previous)
    trainer.model.load_state_dict(weights)
    training = trainer.training(round_, hooks)
    if inside is not None:
        training.load_state_dict(inside["state"])
        log.seconds, log.epochs = inside["seconds"], inside["epochs"]
    log.started()
    saved = time.perf_counter()
    while training.status is None:
        epoch = yield from training.epoch()
        log.add(epoch, last=training.status is not None)
        due = requested() or time.perf_counter() - saved > trainer.execution.checkpoint_seconds
        if training.status is None and due:
            inside = {"state": training.state_dict(), "seconds": log.seconds, "epochs": log.epochs}
            _save(folder, log.history, inside)
            stop_if_requested()
            saved = time.perf_counter()
    return training


def _finish_round(
    trainer: CellTrainer, round_: Round, training: TrainingOutcome, seconds: dict[str, float]
) -> TrainingCoroutine[tuple[Row, StateDict]]:
    """The round's row, and the weights that the next round calls `previous`."""
    started, recorded = time.perf_counter(), training.capture_seconds
    last = trainer.weights()
    if training.best_state is not None:  # early stopping reports its best weights; the next round starts from the last
        trainer.model.load_state_dict(training.best_state)
    accuracies = yield from trainer.evaluate(round_)
    seconds["evaluation_seconds"] += time.perf_counter() - started - (training.capture_seconds - recorded)
    seconds["setup_seconds"] += training.capture_seconds
    alone = None if trainer.execution.timing == "isolated" else trainer.execution.step_times.get(trainer.cell.step_kind)
    row = {
        "round": round_.index,
        "shared": False,
        "dataset": trainer.dataset.name,
        "train_samples": len(round_.train),
        "new_samples": len(round_.new),
        "epochs": training.epochs,
        "steps": training.steps,
        "samples_seen": training.samples_seen,
        "flops": training.samples_seen * trainer.flops,
        "converged": training.status in ("converged", "finished"),
        "status": training.status,
        **accuracies,
        **seconds,
        "estimated_isolated_seconds": alone and alone.seconds(training.steps, training.samples_seen),
        "timing": trainer.execution.timing,
        "threads": trainer.cell.arm.training.threads,
        "device": trainer.execution.device,
    }
    return row, last


def _epoch_row(epoch: Epoch) -> Row:
    return {name: getattr(epoch, name) for name in EPOCH_COLUMNS if name not in ("round", "shared")}


def _save(folder: CellFolder, history: CellHistory, inside: dict[str, Any] | None) -> None:
    folder.save_checkpoint(
        {"weights": history.weights, "rounds": history.rounds, "epochs": history.epochs, "training": inside}
    )
