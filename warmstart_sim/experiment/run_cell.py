"""The one place where the layers meet: for every round of a cell, start -> train -> probe -> record."""

from __future__ import annotations

import time
from typing import Any

from warmstart_sim.acceleration.device_cache import DeviceCache
from warmstart_sim.errors import WarmstartError
from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.engine import Engine, RoundTrainer
from warmstart_sim.experiment.probing import Probing
from warmstart_sim.experiment.recorder import CellHistory, Notify, RoundRecorder
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.models.weights import read_weights, transfer_weights
from warmstart_sim.preemption import requested, stop_if_requested
from warmstart_sim.registry import STRATEGIES
from warmstart_sim.results.cell_folder import CellFolder
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario import Cell
from warmstart_sim.training.coroutine import TrainingCoroutine, run_to_end
from warmstart_sim.training.loop import TrainingOutcome


def run_cell(
    cell: Cell,
    run: RunFolder,
    execution: ExecutionSettings,
    notify: Notify = lambda progress: None,
    engine: Engine | None = None,
) -> None:
    """Runs a cell to its end, alone, from its last checkpoint if there is one, and stores the result.

    Args:
        cell: What to train.
        run: Where results go.
        execution: Where and how it runs.
        notify: Called after every epoch.
        engine: Another training loop in place of ours.

    Raises:
        WarmstartError: The data, the model or the stream do not fit the scenario.
    """
    run_to_end(cell_coroutine(cell, run, DeviceCache(execution.device), execution, notify, engine))


def cell_coroutine(
    cell: Cell,
    run: RunFolder,
    cache: DeviceCache,
    execution: ExecutionSettings,
    notify: Notify,
    engine: Engine | None = None,
) -> TrainingCoroutine[None]:
    """`run_cell` as a coroutine that yields its step requests.

    Args:
        cell: What to train.
        run: Where results go.
        cache: Samples and steppers that outlive the cell in this process.
        execution: Where and how it runs.
        notify: Called after every epoch.
        engine: Another training loop in place of ours.
    """
    folder = run.cell(cell.id)
    if folder.complete:
        return
    trainer = CellTrainer(cell, execution, cache)
    history = yield from _initial_history(trainer, run, cache, notify, engine)
    yield from _run_rounds(trainer, folder, history, notify, engine)
    trainer.close()


def first_phase_coroutine(
    phase: Cell,
    run: RunFolder,
    cache: DeviceCache,
    execution: ExecutionSettings,
    notify: Notify,
    engine: Engine | None = None,
) -> TrainingCoroutine[None]:
    """Runs a cell that is the first phase of others, and stores it where they look for it."""
    folder = run.first_phase(phase.id)
    if folder.complete and folder.weights() is not None:
        return
    folder.describe(phase.settings)
    trainer = CellTrainer(phase, execution, cache)
    yield from _run_rounds(trainer, folder, CellHistory(), notify, engine)
    trainer.close()


def _initial_history(
    trainer: CellTrainer, run: RunFolder, cache: DeviceCache, notify: Notify, engine: Engine | None
) -> TrainingCoroutine[CellHistory]:
    """What a cell starts from: nothing, a first phase (trained now if it is not complete), or a file of weights."""
    cell = trainer.cell
    history = CellHistory()
    if cell.first_phase and hasattr(cell.arm.start.make(STRATEGIES), "prepare_first_round"):
        raise WarmstartError(
            f"strategy '{cell.arm.start.name}' prepares the first round, but in stream {cell.stream.name} all arms "
            "share it; choose another stream, such as online"
        )
    if cell.first_phase:
        yield from first_phase_coroutine(cell.first_phase, run, cache, trainer.execution, notify, engine)
        folder = run.first_phase(cell.first_phase.id)
        history.weights, result = folder.weights(), folder.result()
        assert result is not None
        history.rounds, history.epochs = (
            [{**row, "shared": True} for row in result[table]] for table in ("rounds", "epochs")
        )
    if cell.pretraining:
        if cell.pretraining.checkpoint:
            history.weights = read_weights(cell.pretraining.checkpoint)
        assert history.weights is not None
        fresh = trainer.fresh_weights(trainer.rounds[0].index)
        history.weights = transfer_weights(history.weights, fresh, trainer.layout, cell.pretraining.head)
    return history


def _run_rounds(
    trainer: CellTrainer, folder: CellFolder, history: CellHistory, notify: Notify, engine: Engine | None
) -> TrainingCoroutine[None]:
    """Adds to `history` the rounds that are not in it yet, from the folder's checkpoint on, and stores the result."""
    unfinished: dict[str, Any] | None = None  # the state of a round that was interrupted between two epochs
    if checkpoint := folder.checkpoint():
        history.weights, history.rounds, history.epochs = (checkpoint[key] for key in ("weights", "rounds", "epochs"))
        unfinished = checkpoint["training"]
    probing = Probing(trainer.cell.measure, checkpoint["columns"] if checkpoint else {})
    over = {row["round"] for row in history.rounds}
    started = time.perf_counter()
    train_round: RoundTrainer | None = engine(trainer) if engine else None
    trainer.setup_seconds += time.perf_counter() - started
    for round_ in trainer.rounds:
        if round_.index in over:
            continue
        stop_if_requested()
        recorder = RoundRecorder(trainer, round_, history, probing, notify)
        if train_round:
            outcome = train_round(round_, recorder.previous, recorder)
        else:
            outcome = yield from _train(trainer, recorder, folder, unfinished)
        last_weights = trainer.weights()
        row = yield from recorder.round_row(outcome)
        history.weights = last_weights
        recorder.close(row)
        if round_ is not trainer.rounds[-1]:
            _save_checkpoint(folder, recorder, None)
        recorder.report(row)
        unfinished = None
    assert history.weights is not None
    folder.finish(history.weights, history.rounds, history.epochs, probing.columns)


def _train(
    trainer: CellTrainer, recorder: RoundRecorder, folder: CellFolder, unfinished: dict[str, Any] | None
) -> TrainingCoroutine[TrainingOutcome]:
    """Trains a round with our own loop, from the middle of it if `unfinished` is its checkpoint."""
    context, training = trainer.begin(recorder.round, recorder.previous)
    recorder.started(context, unfinished and unfinished["recorder"])
    if unfinished is not None:
        training.load_state_dict(unfinished["training"])
    saved = time.perf_counter()
    while training.status is None:
        row = yield from training.epoch()
        recorder.add_epoch(row, last=training.status is not None)
        due = requested() or time.perf_counter() - saved > trainer.execution.checkpoint_seconds
        if training.status is None and due:
            _save_checkpoint(folder, recorder, {"training": training.state_dict(), "recorder": recorder.state_dict()})
            stop_if_requested()
            saved = time.perf_counter()
    return training.outcome


def _save_checkpoint(folder: CellFolder, recorder: RoundRecorder, unfinished: dict[str, Any] | None) -> None:
    history = recorder.history
    folder.save_checkpoint(
        {
            "weights": history.weights, "rounds": history.rounds, "epochs": history.epochs, "training": unfinished,
            "columns": recorder.probing.columns,
        }
    )  # fmt: skip
