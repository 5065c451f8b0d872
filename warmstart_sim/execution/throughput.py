"""What is measured before cells are run side by side: what a step costs alone, and how many cells go best together.

Both are measured on the idle machine, once for each kind of step.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from warmstart_sim.acceleration.device_cache import DeviceCache
from warmstart_sim.acceleration.stacked_layers import Unstackable
from warmstart_sim.errors import WarmstartError
from warmstart_sim.execution.interleaved import RunningTask, StackedStep, separate_steps
from warmstart_sim.execution.tasks import Task
from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.settings import Batching, ExecutionSettings
from warmstart_sim.scenario import Cell
from warmstart_sim.training import step_time
from warmstart_sim.training.coroutine import TrainingCoroutine
from warmstart_sim.training.step_time import StepTime, timed
from warmstart_sim.training.stepper import StepRequest

MODES: dict[str, tuple[Batching, ...]] = {"cpu": ("stacked",), "cuda": ("streams", "stacked")}
COUNTS = (2, 4, 8, 16, 32)
WORTH = 1.15  # side by side has to be this much faster than one after another
# A CPU gains from cells side by side only where a step is so short that starting its kernels is much of it.
LONGEST_STEP = {"cpu": 0.02, "cuda": float("inf")}
BLOCKS, BLOCK_SECONDS = 3, 0.15


@dataclass(frozen=True)
class Rate:
    """How fast cells of one kind train side by side.

    Attributes:
        batching: How.
        slots: How many.
        steps_per_second: Of all together.
    """

    batching: Batching
    slots: int
    steps_per_second: float


def step_times(cells: Sequence[Cell], execution: ExecutionSettings) -> dict[str, StepTime]:
    """What a step of each kind costs alone, by `Cell.step_kind`; kinds whose steps fail are left out.

    Args:
        cells: The cells that will be run.
        execution: Where.
    """
    times = {}
    for cell in {cell.step_kind: cell for cell in reversed(cells)}.values():
        with failures_left_to_the_cells():
            trainer = _ready(cell, execution, DeviceCache(execution.device))
            indices = torch.from_numpy(trainer.rounds[-1].train).to(trainer.device)
            times[cell.step_kind] = step_time.measure(trainer.stepper, trainer.train_samples, indices)
    return times


@contextlib.contextmanager
def failures_left_to_the_cells() -> Iterator[None]:
    """A model that fails is no reason to stop here: its cells will record why, and the others go on."""
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
    """How fast cells like this one train: one alone, then more and more side by side in each way that there is.

    A way is left as soon as more slots are no faster, and not tried where it cannot pay. Models that draw from torch's
    default generators (dropout) train alone only: side by side, they would draw from each other's streams of numbers.

    Args:
        cell: An example.
        execution: Where.
        most: No more slots than this.
        counts: The numbers of slots to try, whether they pay or not; None for 2, 4, 8 and so on.
        batching: The way to try; "auto" tries all.
    """
    device = torch.device(execution.device).type
    alone = _rate(cell, execution, "separate", 1)
    yield alone
    hopeless = counts is None and 1 / alone.steps_per_second > LONGEST_STEP[device]
    if hopeless or draws(cell, execution):
        return
    for way in MODES[device] if batching == "auto" else (batching,):
        best = 0.0
        for count in counts or sorted({*(count for count in COUNTS if count < most), min(most, COUNTS[-1])}):
            try:
                rate = _rate(cell, execution, way, count)
            except (torch.OutOfMemoryError, Unstackable):
                break
            yield rate
            if counts is None and rate.steps_per_second < best:
                break
            best = rate.steps_per_second


def fastest(found: Sequence[Rate]) -> Rate:
    """The way that is fastest, or one cell after another where no other is clearly so.

    >>> fastest([Rate("separate", 1, 100.0), Rate("streams", 4, 110.0)]).slots
    1
    """
    best = max(found, key=lambda rate: rate.steps_per_second)
    return best if best.steps_per_second > WORTH * found[0].steps_per_second else found[0]


def draws(cell: Cell, execution: ExecutionSettings) -> bool:
    """Whether a training step of the cell's model draws from torch's default generators."""
    trainer = _ready(cell, execution, DeviceCache(execution.device, lambda device: None))
    with torch.random.fork_rng(devices=[trainer.device] if trainer.device.type == "cuda" else []):
        before = _generator_states(trainer.device)
        _minibatch(trainer).run()
        return any(
            not torch.equal(one, other) for one, other in zip(before, _generator_states(trainer.device), strict=True)
        )


def _generator_states(device: torch.device) -> list[torch.Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _ready(cell: Cell, execution: ExecutionSettings, cache: DeviceCache) -> CellTrainer:
    """A cell's lab, ready for the steps of its first round."""
    trainer = CellTrainer(cell, execution, cache)
    trainer.begin(trainer.rounds[0], None)
    trainer.stepper.train_mode()
    return trainer


def _minibatch(trainer: CellTrainer) -> StepRequest:
    """A batch of the full size; its step is recorded, where steps are."""
    train = torch.from_numpy(trainer.rounds[-1].train)
    index = train[torch.arange(trainer.cell.arm.training.batch_size) % len(train)].to(trainer.device)
    width = trainer.stepper.width(trainer.train_samples.mean_length)
    trainer.stepper.prepare({(len(index), width)})
    return StepRequest(trainer.stepper, index, width)


def _rate(cell: Cell, execution: ExecutionSettings, batching: Batching, count: int) -> Rate:
    gc.collect()  # the steppers of the last call and their recordings refer to each other, and would keep their memory
    cache = DeviceCache(execution.device, captures_steps=batching != "stacked")
    stream = torch.cuda.Stream if batching == "streams" else lambda device: None
    slots = [
        RunningTask(
            Task(cell, first_phase=False), _nothing(), stream(cache.device), _minibatch(_ready(cell, execution, cache))
        )
        for _ in range(count)
    ]
    step = StackedStep(cache) if batching == "stacked" else separate_steps

    def steps(repeats: int) -> float:
        with timed(cache.device) as clock:
            for _ in range(repeats):
                step(slots)
        for slot in slots:
            if slot.error:
                raise slot.error
        if isinstance(step, StackedStep) and step.unstackable:
            raise Unstackable("or too large for the memory")
        return clock.seconds / repeats

    steps(2)
    repeats = max(2, int(BLOCK_SECONDS / steps(2)))
    return Rate(batching, count, count / statistics.median(steps(repeats) for _ in range(BLOCKS)))


def _nothing() -> TrainingCoroutine[str | None]:
    yield from ()
    return None
