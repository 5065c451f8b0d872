"""Measurements on the idle machine before cells run in parallel: seconds of a step alone, and steps/s with slots."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from warmstart_sim.acceleration.device_cache import DeviceCache
from warmstart_sim.acceleration.stacked_layers import Unstackable
from warmstart_sim.errors import WarmstartError
from warmstart_sim.execution.interleaved import RunningTask, StackedStep, separate_steps, step_together
from warmstart_sim.execution.progress import ProgressEvent
from warmstart_sim.execution.tasks import Task
from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.settings import Batching, ExecutionSettings
from warmstart_sim.scenario import Cell
from warmstart_sim.training import step_time
from warmstart_sim.training.batches import batch_sizes
from warmstart_sim.training.coroutine import TrainingCoroutine
from warmstart_sim.training.loop import RoundTraining
from warmstart_sim.training.step_time import StepTime, seconds_per_call, step_requests, timed, training_on
from warmstart_sim.training.stepper import StepRequest

MODES: dict[str, tuple[Batching, ...]] = {"cpu": ("stacked",), "cuda": ("streams", "stacked")}
COUNTS = (2, 4, 8, 16, 32)
MIN_SPEEDUP = 1.15  # slots must be this much faster than one cell at a time
# A CPU gains from slots only if a step is so short that launching its kernels takes much of it.
LONGEST_STEP = {"cpu": 0.02, "cuda": float("inf")}
BLOCKS, BLOCK_SECONDS = 3, 0.15
MOST_STEPS = 64  # of an epoch that is timed: what it costs beside its steps hardly counts in a longer one


@dataclass(frozen=True)
class Rate:
    """The speed of cells of one kind in slots.

    Attributes:
        batching: How they make their steps.
        slots: The number of cells.
        steps_per_second: Of all cells together.
    """

    batching: Batching
    slots: int
    steps_per_second: float


def step_times(cells: Sequence[Cell], execution: ExecutionSettings) -> dict[str, StepTime]:
    """Measures a step of each kind alone, by `Cell.step_kind`; kinds whose steps fail are left out.

    Args:
        cells: The cells that will run.
        execution: Where they run.
    """
    times = {}
    for kind, (cell, index) in _examples(cells).items():
        with ignore_cell_failures():
            trainer = _prepared_trainer(cell, execution, DeviceCache(execution.device), index)
            indices = torch.from_numpy(trainer.rounds[-1].train).to(trainer.device)
            times[kind] = step_time.measure(trainer.stepper, trainer.train_samples, indices)
    return times


def release_memory(device: str) -> None:
    """Frees what measuring has left in this process, which other processes may need on a GPU."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


@contextlib.contextmanager
def ignore_cell_failures() -> Iterator[None]:
    """Ignores errors that concern one cell only: the cell will record them when it runs."""
    try:
        yield
    except WarmstartError:
        raise
    except Exception:
        pass


def rates(
    cell: Cell,
    execution: ExecutionSettings,
    most: int,
    counts: Sequence[int] | None = None,
    batching: Batching | Literal["auto"] = "auto",
) -> Iterator[Rate]:
    """Measures the speed of cells like this one: one alone, then with more and more slots in each kind of batching.

    Whole epochs are timed, with what they cost beside their steps. A kind of batching is given up as soon as more slots
    are not faster, and skipped if it cannot pay.

    Args:
        cell: An example.
        execution: Where it runs.
        most: The largest number of slots.
        counts: The numbers of slots to try, whether they pay or not; None for 2, 4, 8 and so on.
        batching: The kind to try; "auto" tries all.
    """
    device = torch.device(execution.device).type
    alone = _rate(cell, execution, "separate", 1)
    yield alone
    too_long = 1 / alone.steps_per_second > LONGEST_STEP[device]
    compiled = device == "cpu" and cell.arm.training.compile and batching != "separate"  # such steps are not stacked
    if compiled or (counts is None and too_long):
        return
    for kind in MODES[device] if batching == "auto" else (batching,):
        best = 0.0
        for count in counts or sorted({*(count for count in COUNTS if count < most), min(most, COUNTS[-1])}):
            try:
                rate = _rate(cell, execution, kind, count)
            except (torch.OutOfMemoryError, Unstackable):
                break
            yield rate
            if counts is None and rate.steps_per_second < best:
                break
            best = rate.steps_per_second


def fastest(found: Sequence[Rate]) -> Rate:
    """The fastest rate, or that of one cell at a time (the first) if no other is clearly faster.

    >>> fastest([Rate("separate", 1, 100.0), Rate("streams", 4, 110.0)]).slots
    1
    """
    best = max(found, key=lambda rate: rate.steps_per_second)
    return best if best.steps_per_second > MIN_SPEEDUP * found[0].steps_per_second else found[0]


def use_default_generators(cells: Sequence[Cell], execution: ExecutionSettings) -> bool:
    """Whether training steps of any cell draw from torch's default generators, as dropout does.

    Such cells train alone only: in slots, they would change each other's numbers, and those of all cells beside them.
    """
    for cell, index in _examples(cells).values():
        with ignore_cell_failures():
            if _uses_default_generators(cell, execution, index):
                return True
    return False


def _examples(cells: Sequence[Cell]) -> dict[str, tuple[Cell, int]]:
    """A cell and the index of a round for each kind of step."""
    return {kind: (cell, index) for cell in reversed(cells) for kind, index in cell.step_kinds.items()}


def _uses_default_generators(cell: Cell, execution: ExecutionSettings, round_index: int) -> bool:
    trainer = _prepared_trainer(cell, execution, DeviceCache(execution.device, lambda device: None), round_index)
    with torch.random.fork_rng(devices=[trainer.device] if trainer.device.type == "cuda" else []):
        before = _generator_states(trainer.device)
        _full_batch_request(trainer).run()
        return any(
            not torch.equal(one, other) for one, other in zip(before, _generator_states(trainer.device), strict=True)
        )


def _generator_states(device: torch.device) -> list[torch.Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _prepared_trainer(
    cell: Cell, execution: ExecutionSettings, cache: DeviceCache, round_index: int = 0
) -> CellTrainer:
    """A trainer of the cell, ready for steps with the settings of a round."""
    trainer = CellTrainer(cell, execution, cache)
    trainer.begin(replace(trainer.rounds[0], index=round_index), None)
    trainer.stepper.train_mode()
    return trainer


def _full_batch_request(trainer: CellTrainer) -> StepRequest:
    """A step on a batch of the full size."""
    indices = torch.from_numpy(trainer.rounds[-1].train).to(trainer.device)
    size = trainer.stepper.settings.batch_size
    (request,) = step_requests(trainer.stepper, trainer.train_samples, indices, size)
    return request


def _rate(cell: Cell, execution: ExecutionSettings, batching: Batching, count: int) -> Rate:
    gc.collect()  # the last call's steppers and their captured graphs refer to each other and would keep their memory
    cache = DeviceCache(execution.device, captures_steps=batching != "stacked")
    streams = [torch.cuda.Stream(cache.device) if batching == "streams" else None for _ in range(count)]
    trainers = [_prepared_trainer(cell, execution, cache) for _ in range(count)]
    indices = _short_epoch(trainers[0], count)
    trainings = [training_on(trainer.stepper, trainer.train_samples, indices) for trainer in trainers]
    step = StackedStep(cache) if batching == "stacked" else separate_steps

    def epochs() -> None:
        running = [
            RunningTask(Task(cell), _epoch(training), stream)
            for training, stream in zip(trainings, streams, strict=True)
        ]
        while running:
            for task in step_together(running, step, _Nobody(), wait=batching != "streams"):
                running.remove(task)
        if isinstance(step, StackedStep) and step.unstackable:
            raise Unstackable("or too large for the memory")

    steps = count * len(batch_sizes(len(indices), trainers[0].stepper.settings.batch_size))
    with torch.random.fork_rng(devices=[cache.device] if cache.device.type == "cuda" else []):  # as `run_slots` does
        return Rate(batching, count, steps / seconds_per_call(epochs, cache.device, BLOCKS, BLOCK_SECONDS))


def _epoch(training: RoundTraining) -> TrainingCoroutine[str | None]:
    yield from training.train_epoch()
    return None


def _short_epoch(trainer: CellTrainer, count: int) -> torch.Tensor:
    """The training samples of the last round, or so many that an epoch of all slots takes no longer than a block."""
    request = _full_batch_request(trainer)
    request.run()
    with timed(trainer.device) as clock:
        request.run()
    steps = min(MOST_STEPS, max(1, int(BLOCK_SECONDS / (count * max(clock.seconds, 1e-9)))))
    indices = torch.from_numpy(trainer.rounds[-1].train).to(trainer.device)
    return indices[: steps * trainer.stepper.settings.batch_size]


class _Nobody:
    """A `TaskSource` without tasks, to which nobody listens."""

    def take(self, idle: bool) -> Task | None:
        return None

    def report(self, event: ProgressEvent) -> None:
        pass
