"""Measures a training step alone, to estimate the isolated training time of cells that run beside others."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from warmstart_sim.training.batches import DeviceSamples
from warmstart_sim.training.coroutine import run_to_end
from warmstart_sim.training.loop import RoundData, RoundTraining
from warmstart_sim.training.stepper import RUNS, Stepper, StepRequest

BLOCKS = 5  # timed blocks of steps; their median is the result
BLOCK_SECONDS = 0.05  # about, of a block; a block has at least two steps
EPOCHS = 9


@dataclass(frozen=True)
class StepTime:
    """seconds = step_seconds * steps + sample_seconds * samples + epoch_seconds * epochs.

    Attributes:
        step_seconds: The time of a step, apart from its samples.
        sample_seconds: The time that each sample adds.
        epoch_seconds: What an epoch costs beside its steps: the order of the samples, setting up, reading the sums.

    >>> StepTime(0.001, 0.00002, 0.005).seconds(steps=10, samples=1000, epochs=2)
    0.04
    """

    step_seconds: float
    sample_seconds: float
    epoch_seconds: float = 0.0

    def seconds(self, steps: int, samples: int, epochs: int) -> float:
        """The time of `epochs` epochs with `steps` steps on `samples` samples in all."""
        return self.step_seconds * steps + self.sample_seconds * samples + self.epoch_seconds * epochs


def measure(stepper: Stepper, samples: DeviceSamples, indices: torch.Tensor) -> StepTime:
    """Times steps on batches of the full size and of a quarter of it, fits a line through both, and times epochs.

    It trains the model. Texts have their mean length.

    Args:
        stepper: After `begin`, with the hooks of the arm.
        samples: The training samples.
        indices: Training samples to make batches of, int64 on the device, shape (n,), n at least 1.
    """
    full = stepper.settings.batch_size
    small = max(2, full // 4)
    slow = _seconds(stepper, samples, indices, full)
    # For very fast steps, noise can make the slope negative; then all of the time counts as the step's.
    per_sample = 0.0 if small >= full else max(0.0, slow - _seconds(stepper, samples, indices, small)) / (full - small)
    step = StepTime(max(0.0, slow - per_sample * full), per_sample)
    if samples.lengths is not None:  # an epoch of one batch says more about its longest text than about the epoch
        return step
    one_step = indices[:full]
    rest = _epoch_seconds(stepper, samples, one_step) - step.seconds(1, len(one_step), 0)
    return replace(step, epoch_seconds=max(0.0, rest))


def _epoch_seconds(stepper: Stepper, samples: DeviceSamples, indices: torch.Tensor) -> float:
    """The median time of an epoch of one step."""
    training = training_on(stepper, samples, indices)
    run_to_end(training.train_epoch())
    return statistics.median(run_to_end(training.train_epoch()) for _ in range(EPOCHS))


def training_on(stepper: Stepper, samples: DeviceSamples, indices: torch.Tensor) -> RoundTraining:
    """A training on these samples as the stepper has begun it, for `train_epoch`; it has nothing to evaluate."""
    data = RoundData(samples, indices, indices[:0], samples, indices[:0])
    return RoundTraining(stepper, data, stepper.hooks, seed=0, round_index=0, trainable=stepper.trainable)


def _seconds(stepper: Stepper, samples: DeviceSamples, indices: torch.Tensor, size: int) -> float:
    steps = max(1, min(len(indices) // stepper.settings.batch_size, RUNS[0])) if stepper.makes_runs else 1
    requests = step_requests(stepper, samples, indices, size, steps)
    stepper.train_mode()

    def make_steps() -> None:
        for request in requests:
            request.run()

    return seconds_per_call(make_steps, indices.device, BLOCKS, BLOCK_SECONDS) / steps


def step_requests(
    stepper: Stepper, samples: DeviceSamples, indices: torch.Tensor, size: int, steps: int = 1
) -> list[StepRequest]:
    """Steps on batches of `size` of the samples, repeated if they are fewer; captured if steps are captured."""
    index = indices[torch.arange(size * steps, device=indices.device) % len(indices)]
    return stepper.requests(index, [size] * steps, [stepper.width(samples.mean_length)] * steps)


def seconds_per_call(call: Callable[[], object], device: torch.device, blocks: int, block_seconds: float) -> float:
    """The median over blocks of the seconds of one call, from an idle device to an idle device.

    Args:
        call: What is timed; it is called a few times before.
        device: Where its work runs.
        blocks: The number of blocks.
        block_seconds: About the length of a block; a block has at least two calls.
    """

    def block(calls: int) -> float:
        with timed(device) as clock:
            for _ in range(calls):
                call()
        return clock.seconds / calls

    block(2)
    calls = max(2, int(block_seconds / block(2)))
    return statistics.median(block(calls) for _ in range(blocks))


@dataclass
class Clock:
    """The result of `timed`."""

    seconds: float = 0.0


@contextlib.contextmanager
def timed(device: torch.device) -> Iterator[Clock]:
    """Measures the seconds of a `with` block; the device is idle at its start and at its end."""
    clock = Clock()
    _wait(device)
    started = time.perf_counter()
    yield clock
    _wait(device)
    clock.seconds = time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
