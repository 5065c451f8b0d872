"""The one place where the layers meet: for every round of a cell, start -> train -> probe -> record."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Iterator
from typing import Any

import torch

from warmstart_sim.acceleration.device_cache import DeviceCache
from warmstart_sim.errors import DeviceLost, WarmstartError, error_summary
from warmstart_sim.experiment.active_learning import choose_next, model_chooses, restore_choices
from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.copies import first_phase_rows
from warmstart_sim.experiment.engine import Engine
from warmstart_sim.experiment.probing import Probing
from warmstart_sim.experiment.recorder import CellHistory, Notify, Progress, RoundRecorder
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.models.weights import read_weights, transfer_weights
from warmstart_sim.preemption import requested, stop_if_requested
from warmstart_sim.registry import STRATEGIES
from warmstart_sim.results.cell_folder import CellFolder
from warmstart_sim.results.store import RunFolder
from warmstart_sim.results.tensorboard import TensorBoardLog
from warmstart_sim.scenario import Cell
from warmstart_sim.training.coroutine import TrainingCoroutine, run_to_end
from warmstart_sim.training.loop import Carried, RoundTraining, TrainingOutcome


def run_cell(
    cell: Cell,
    run: RunFolder,
    execution: ExecutionSettings,
    notify: Notify = lambda progress: None,
    engine: Engine | None = None,
) -> str | None:
    """Runs a cell to its end, alone, from its last checkpoint if there is one, and stores the result.

    The arguments, the result and the errors are those of `cell_coroutine`.
    """
    return run_to_end(cell_coroutine(cell, run, DeviceCache(execution.device), execution, notify, engine))


def cell_coroutine(
    cell: Cell,
    run: RunFolder,
    cache: DeviceCache,
    execution: ExecutionSettings,
    notify: Notify,
    engine: Engine | None = None,
) -> TrainingCoroutine[str | None]:
    """`run_cell` as a coroutine that yields its step requests.

    Args:
        cell: What to train: a cell, or a first phase of cells.
        run: Where results go.
        cache: Samples and steppers that outlive the cell in this process.
        execution: Where and how it runs.
        notify: Called after every epoch.
        engine: Another training loop in place of ours.

    Returns:
        None, or why the cell failed; the reason is stored in its folder too.

    Raises:
        WarmstartError: An error that concerns the whole run: the data, the model or the stream do not fit the scenario,
            or files cannot be read or written.
    """
    folder = cell.folder(run)
    if folder.complete and (not cell.is_first_phase or folder.weights() is not None):
        return None
    with _stores_failure(cell, run, execution.device), _tensorboard_log(cell, run, execution, notify) as notify:
        if cell.is_first_phase:
            folder.describe(cell.settings)
        trainer = CellTrainer(cell, execution, cache)
        history = yield from initial_history(trainer, run, cache, notify, engine)
        unfinished: dict[str, Any] | None = None  # the state of a round that was interrupted between two epochs
        if checkpoint := folder.checkpoint():
            history.weights, history.rounds, history.epochs = (
                checkpoint[key] for key in ("weights", "rounds", "epochs")
            )
            unfinished = checkpoint["training"]
            history.carried = Carried(**checkpoint.get("carried", {}))  # those of earlier versions have none
            if "arrived" in checkpoint:
                restore_choices(trainer, checkpoint["arrived"])
        probing = Probing(cell.measure, checkpoint["columns"] if checkpoint else {})
        over = {row["round"] for row in history.rounds}
        started = time.perf_counter()
        train_with_engine = engine(trainer) if engine else None
        trainer.setup_seconds += time.perf_counter() - started
        for round_ in trainer.rounds:
            if round_.index in over:
                continue
            stop_if_requested()
            recorder = RoundRecorder(trainer, round_, history, probing, folder, notify)
            if train_with_engine:
                outcome = train_with_engine(round_, recorder.previous, recorder)
            else:
                context, training = trainer.begin(round_, recorder.previous, history.carried)
                recorder.started(context, unfinished and unfinished["recorder"])
                if unfinished is not None:
                    training.load_state_dict(unfinished["training"])
                    unfinished = None
                outcome = yield from _train(training, recorder, folder)
                next_round = cell.arm.training.in_round(round_.index + 1)
                history.carried = training.carried(next_round.keeps_optimizer)
            next_weights = outcome.next_weights or trainer.weights()
            row = yield from recorder.round_row(outcome)
            history.weights = next_weights
            recorder.close(row)
            if round_ is not trainer.rounds[-1]:
                if model_chooses(trainer):
                    choose_next(trainer, round_, next_weights)
                    folder.save_arrival([each.new.tolist() for each in trainer.rounds[: round_.index + 2]])
                _save_checkpoint(folder, recorder, None)
            recorder.report(row)
        assert history.weights is not None
        folder.finish(history.weights, history.rounds, history.epochs, probing.columns)
        trainer.close()
        return None
    return folder.error()


class CellFailed(Exception):
    """A cell cannot be trained, for a reason that needs no traceback."""


@contextlib.contextmanager
def _stores_failure(cell: Cell, run: RunFolder, device: str) -> Iterator[None]:
    """Ends an error that concerns this cell alone: its reason is stored in its folder, and other cells can go on.

    Raises:
        WarmstartError: The error concerns the whole run, or the process can no longer use the device.
    """
    folder = cell.folder(run)
    try:
        yield
    except WarmstartError:
        raise
    except OSError as error:
        raise run.unusable(error) from error
    except CellFailed as failure:
        folder.fail(str(failure))
    except Exception as error:
        folder.fail(error_summary(error), traceback.format_exc())
        if _is_lost(torch.device(device)):
            raise DeviceLost(
                f"{cell.id}: {error_summary(error)}; after this error the process cannot use {device} any more; with "
                "--workers 2, cells run in processes of their own, and the others go on"
            ) from error


def _is_lost(device: torch.device) -> bool:
    """Whether all further work on the device fails, as after a device-side assert; also waits for the failed cell's."""
    if device.type != "cuda":
        return False
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


@contextlib.contextmanager
def _tensorboard_log(cell: Cell, run: RunFolder, execution: ExecutionSettings, notify: Notify) -> Iterator[Notify]:
    """Gives `notify`, which also writes each epoch to the cell's TensorBoard log if the settings ask for one."""
    if not execution.tensorboard:
        yield notify
        return
    log = TensorBoardLog(run.path / "tensorboard" / cell.folder(run).path.name)

    def log_and_notify(progress: Progress) -> None:
        log.write(progress.total_epochs, progress.epoch_row, progress.round_row)
        notify(progress)

    with contextlib.closing(log):
        yield log_and_notify


def initial_history(
    trainer: CellTrainer,
    run: RunFolder,
    cache: DeviceCache,
    notify: Notify = lambda progress: None,
    engine: Engine | None = None,
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
        if failure := (yield from cell_coroutine(cell.first_phase, run, cache, trainer.execution, notify, engine)):
            raise CellFailed(f"its first phase failed: {failure}")
        folder = cell.first_phase.folder(run)
        history.rounds, history.epochs = first_phase_rows(folder)
        annealing = cell.first_phase.arm.training.schedule.anneal or 0  # it is no part of the way to the next round
        history.carried = Carried(cell.first_phase_epochs or history.rounds[-1]["epochs"] - annealing)
        history.weights = folder.weights(None if cell.ignores_previous else cell.first_phase_epochs)
        if history.weights is None:
            (phase,) = history.rounds
            ended = f"ended in epoch {phase['epochs']} ({phase['status']})"
            raise CellFailed(f"stream.first_phase_epochs is {cell.first_phase_epochs}, but the first phase {ended}")
    if cell.pretraining:
        if cell.pretraining.checkpoint:
            history.weights, _ = read_weights(
                cell.pretraining.checkpoint, trainer.model, trainer.layout, cell.pretraining.weights
            )
        assert history.weights is not None
        fresh = trainer.fresh_weights(trainer.rounds[0].index)
        history.weights = transfer_weights(history.weights, fresh, trainer.layout, cell.pretraining.head)
    return history


def _train(training: RoundTraining, recorder: RoundRecorder, folder: CellFolder) -> TrainingCoroutine[TrainingOutcome]:
    """Trains a round with our own loop to its end, with a checkpoint between two epochs from time to time."""
    saved = time.perf_counter()
    while training.status is None:
        row = yield from training.epoch()
        recorder.add_epoch(row, last=training.status is not None)
        due = requested() or time.perf_counter() - saved > recorder.trainer.execution.checkpoint_seconds
        if training.status is None and due:
            _save_checkpoint(folder, recorder, {"training": training.state_dict(), "recorder": recorder.state_dict()})
            stop_if_requested()
            saved = time.perf_counter()
    return training.outcome


def _save_checkpoint(folder: CellFolder, recorder: RoundRecorder, unfinished: dict[str, Any] | None) -> None:
    history, trainer = recorder.history, recorder.trainer
    state: dict[str, Any] = {
        "weights": history.weights, "rounds": history.rounds, "epochs": history.epochs, "training": unfinished,
        "columns": recorder.probing.columns, "carried": vars(history.carried),
    }  # fmt: skip
    if model_chooses(trainer):
        state["arrived"] = [each.new.tolist() for each in trainer.rounds]
    folder.save_checkpoint(state)
