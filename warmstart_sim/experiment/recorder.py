"""What a cell has done: collects the rows, seconds and probe values of its rounds, and reports progress."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.probing import AT_START, Probing
from warmstart_sim.preemption import stop_if_requested
from warmstart_sim.results.cell_folder import CellFolder
from warmstart_sim.results.columns import SECONDS, Row
from warmstart_sim.results.environment import machine, now
from warmstart_sim.scenario.sections import MeasuredProbe
from warmstart_sim.training.coroutine import TrainingCoroutine
from warmstart_sim.training.loop import Carried, EpochRow, TrainingOutcome
from warmstart_sim.types import Round, RoundContext, StateDict


@dataclass(frozen=True)
class Progress:
    """How far a cell is, reported after each epoch."""

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
    """What a cell has done so far; this is what a checkpoint holds.

    Attributes:
        weights: The weights that the last round ended with; None before the first.
        rounds: Rows of rounds.csv.
        epochs: Rows of epochs.csv.
        carried: What the last round handed on beside its weights.
    """

    weights: StateDict | None = None
    rounds: list[Row] = field(default_factory=list)
    epochs: list[Row] = field(default_factory=list)
    carried: Carried = field(default_factory=Carried)


class RoundRecorder:
    """Collects a round's epoch rows, seconds and probe values, and reports progress.

    Args:
        trainer: The cell's.
        round_: Which round.
        history: The rounds before it.
        probing: The cell's probes.
        folder: The cell's folder, which may keep weights after some epochs.
        notify: Called after every epoch.
    """

    def __init__(
        self,
        trainer: CellTrainer,
        round_: Round,
        history: CellHistory,
        probing: Probing,
        folder: CellFolder,
        notify: Notify,
    ) -> None:
        self.trainer, self.round, self.history, self.probing = trainer, round_, history, probing
        self._folder = folder
        self._notify = notify
        self._seconds = dict.fromkeys(SECONDS, 0.0)
        self._epochs: list[Row] = []
        self._probed: Row = {}  # at the round's start
        self._context: RoundContext | None = None
        self._sizes = {each.index: len(each.train) for each in trainer.rounds}
        self._start = {**machine(trainer.execution.device), "started": now()}
        if trainer.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(trainer.device)
        self._created = time.perf_counter()
        self._captured = 0.0

    @property
    def previous(self) -> StateDict | None:
        """The weights that the last round ended with, on the device."""
        weights = self.history.weights
        return weights and {name: tensor.to(self.trainer.device) for name, tensor in weights.items()}

    def started(self, context: RoundContext, unfinished: dict[str, Any] | None = None) -> None:
        """Runs the probes of the round's start, or continues from the `state_dict` of an interrupted round.

        The time since the recorder was made, and in a trainer's first round the trainer's own, is setup.
        """
        self._context = context
        self._captured = self.trainer.stepper.capture_seconds
        setup_seconds = time.perf_counter() - self._created + self.trainer.setup_seconds
        self.trainer.setup_seconds = 0.0
        if unfinished is None:
            self._probed = self._probe(self.probing.at_start(), 0, "round", AT_START)
        else:
            self._seconds, self._epochs, self._probed = (unfinished[key] for key in ("seconds", "epochs", "probed"))
            before = unfinished["start"]  # on another machine, perhaps
            several = {name: f"{before[name]} + {here}" for name, here in self._start.items() if here != before[name]}
            self._start = {**self._start, **several, "started": before["started"]}
        self._seconds["setup_seconds"] += setup_seconds

    def state_dict(self) -> dict[str, Any]:
        """What `started` needs to continue."""
        return {
            "seconds": self._seconds, "epochs": self._epochs, "probed": self._probed, "start": self._start
        }  # fmt: skip

    def epoch_ended(self, row: EpochRow, last: bool) -> None:
        """Records an epoch of another engine; its rounds have no checkpoints, so a request to stop ends it here."""
        self.add_epoch(row, last)
        if not last:
            stop_if_requested()

    def add_epoch(self, row: EpochRow, last: bool) -> None:
        """Records an epoch, runs its probes and keeps its weights; the last one is reported with the round's row."""
        seconds = {name: row.pop(name) for name in ("criterion_seconds", "evaluation_seconds")}
        for name, value in {**seconds, "train_seconds": row["train_seconds"]}.items():
            self._seconds[name] += value
        probed = self._probe(self.probing.due(row["epoch"]), row["epoch"], "epoch")
        self._epochs.append({"round": self.round.index, "shared": False, **row, **probed})
        if row["epoch"] in self._folder.kept_epochs:
            self._folder.keep_weights(self.trainer.weights(), row["epoch"])
        if not last:
            self.report()

    def round_row(self, outcome: TrainingOutcome) -> TrainingCoroutine[Row]:
        """Evaluates the model, runs the probes of the round's end, and returns the row of rounds.csv."""
        assert self._context is not None
        trainer, stepper = self.trainer, self.trainer.stepper
        captured_in_training = stepper.capture_seconds - self._captured
        probed = self._probe(self.probing.at_end(), outcome.epochs, "round")
        started = time.perf_counter()
        if outcome.best_state is not None:  # reported are the best weights on validation data
            trainer.model.load_state_dict(outcome.best_state)
        accuracies = yield from trainer.evaluate(self.round)
        captured = stepper.capture_seconds - self._captured
        self._seconds["evaluation_seconds"] += time.perf_counter() - started - (captured - captured_in_training)
        self._seconds["setup_seconds"] += captured
        execution = trainer.execution
        step_time = (
            None
            if execution.timing == "isolated"
            else execution.step_times.get(trainer.cell.step_kind(self.round.index))
        )
        probe_rows = [self._probed, probed, *self._epochs]
        probe_seconds = [row["probe_seconds"] for row in probe_rows if "probe_seconds" in row]
        return {
            "round": self.round.index,
            "shared": False,
            "dataset": trainer.dataset.name,
            "train_samples": len(self.round.train),
            "new_samples": len(self.round.new),
            "epochs": outcome.epochs,
            "steps": outcome.steps,
            "samples_seen": outcome.samples_seen,
            "flops": outcome.samples_seen * trainer.flops(self._context.trainable),
            "converged": outcome.status in ("converged", "finished"),
            "status": outcome.status,
            "best_epoch": outcome.best_epoch,
            **accuracies,
            **self._seconds,
            "estimated_isolated_seconds": step_time
            and step_time.seconds(outcome.steps, outcome.samples_seen, outcome.epochs),
            "timing": execution.timing,
            "threads": trainer.cell.arm.training.in_round(self.round.index).threads,
            "device": execution.device,
            **self._start,
            "ended": now(),
            "peak_memory": _peak_memory(trainer.device),
            **self._probed,
            **probed,
            **({"probe_seconds": sum(probe_seconds)} if probe_seconds else {}),
        }

    def close(self, row: Row) -> None:
        """Adds the round to the history."""
        if row["best_epoch"] in (None, row["epochs"]):  # a round's last check is always full
            self._epochs[-1]["train_accuracy"] = row["train_accuracy"]
        self.history.rounds.append(row)
        self.history.epochs.extend(self._epochs)

    def report(self, row: Row | None = None) -> None:
        """Reports the last epoch, and the round's row once there is one."""
        before = sum(size for index, size in self._sizes.items() if index < self.round.index + (row is not None))
        epochs_before = len(self.history.epochs) - (len(self._epochs) if row is not None else 0)
        epoch = self._epochs[-1]
        self._notify(
            Progress(
                self.round.index, max(self._sizes) + 1, epoch["epoch"], epochs_before + epoch["epoch"], epoch,
                before / sum(self._sizes.values()), row,
            )
        )  # fmt: skip

    def _probe(
        self, probes: Sequence[MeasuredProbe], epoch: int, table: Literal["epoch", "round"], suffix: str = ""
    ) -> Row:
        """Runs probes on the weights that the model has now."""
        if not probes:
            return {}
        assert self._context is not None
        weights = self.trainer.model.state_dict()
        context = replace(self._context, weights=weights, epoch=epoch, rows=self.history.rounds)
        return self.probing.row(probes, context, table, suffix)


def _peak_memory(device: torch.device) -> int:
    """Bytes: on CUDA the most that was allocated on the device in this round, else the process's peak so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # Linux: KiB
