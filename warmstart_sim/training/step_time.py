"""What a step costs alone, measured, so that a training beside others can be given the time that it takes alone."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from warmstart_sim.training.batches import DeviceSamples
from warmstart_sim.training.stepper import Stepper

BLOCKS = 5  # of steps; the median block counts
BLOCK_SECONDS = 0.05  # about how long a block takes, unless a single step takes longer


@dataclass(frozen=True)
class StepTime:
    """seconds(steps, samples) = step_seconds * steps + sample_seconds * samples.

    Attributes:
        step_seconds: What a step costs however small its batch is.
        sample_seconds: What each sample adds.

    >>> StepTime(0.001, 0.00002).seconds(steps=10, samples=1000)
    0.03
    """

    step_seconds: float
    sample_seconds: float

    def seconds(self, steps: int, samples: int) -> float:
        """How long so many steps on so many samples take."""
        return self.step_seconds * steps + self.sample_seconds * samples


def measure(stepper: Stepper, samples: DeviceSamples, indices: torch.Tensor) -> StepTime:
    """Times steps on batches of the full size and of a quarter of it, and draws a line through both.

    The model is trained by it. Texts are taken as long as they are on average.

    Args:
        stepper: With its hooks, after `begin`.
        samples: The training samples.
        indices: Of at least one training sample, int64 on the device.
    """
    full = stepper.settings.batch_size
    small = max(2, full // 4)
    if small >= full:
        return StepTime(_seconds(stepper, samples, indices, full), 0.0)
    slow, quick = (_seconds(stepper, samples, indices, size) for size in (full, small))
    # Noise may turn the line round for models that are quick; then all of the time is the step's.
    per_sample = max(0.0, (slow - quick) / (full - small))
    return StepTime(max(0.0, slow - per_sample * full), per_sample)


def _seconds(stepper: Stepper, samples: DeviceSamples, indices: torch.Tensor, size: int) -> float:
    index = indices[torch.arange(size, device=indices.device) % len(indices)]
    width = stepper.width(samples.mean_length)
    stepper.prepare({(size, width)})
    stepper.train_mode()

    def steps(repeats: int) -> float:
        with timed(index.device) as clock:
            for _ in range(repeats):
                stepper.step(index, width)
        return clock.seconds / repeats

    steps(2)
    repeats = max(2, int(BLOCK_SECONDS / steps(2)))
    return statistics.median(steps(repeats) for _ in range(BLOCKS))


@dataclass
class Clock:
    """What `timed` fills in."""

    seconds: float = 0.0


@contextlib.contextmanager
def timed(device: torch.device) -> Iterator[Clock]:
    """Times what happens inside, from an idle device to an idle device."""
    clock = Clock()
    _wait(device)
    started = time.perf_counter()
    yield clock
    _wait(device)
    clock.seconds = time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
