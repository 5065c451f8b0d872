"""What a training in progress asks of whoever runs it: a step, or a number from the device.

Training is written as generators that yield these. Alone, a training is run to its end by `finish`; beside others, a
driver collects the minibatches of many trainings and steps them together, and lets nobody wait for another's numbers.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from warmstart_sim.training.stepper import Stepper

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StepRequest:
    """A step to be made before the training goes on.

    Attributes:
        stepper: Whose step.
        index: The batch's indices into the training samples, int64 on the device.
        width: The length to which its texts are cut; None for other inputs.
    """

    stepper: Stepper
    index: torch.Tensor
    width: int | None

    def run(self) -> None:
        """Makes the step alone."""
        self.stepper.step(self.index, self.width)


class PendingValues:
    """Numbers on their way from the device.

    Args:
        tensor: Small, on any device; its values are those that it has when the work queued so far is done.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self._values = tensor
        self._event: torch.cuda.Event | None = None
        if tensor.is_cuda:
            self._values = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._values.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    @property
    def ready(self) -> bool:
        """Whether the numbers have come."""
        return self._event is None or self._event.query()

    def run(self) -> None:
        """Waits for the numbers."""
        if self._event is not None:
            self._event.synchronize()

    def values(self) -> list[float]:
        """The numbers; they must be ready."""
        values: list[float] = self._values.tolist()
        return values


TrainingRequest = StepRequest | PendingValues
TrainingCoroutine = Generator[TrainingRequest, None, T]


def wait_for_values(tensor: torch.Tensor) -> TrainingCoroutine[list[float]]:
    """The values of a one-dimensional tensor, once they are there."""
    reading = PendingValues(tensor)
    if not reading.ready:
        yield reading
    return reading.values()


def run_to_end(coroutine: TrainingCoroutine[T]) -> T:
    """Runs a training to its end, alone, and returns what it returns."""
    error: Exception | None = None
    while True:
        try:
            request = next(coroutine) if error is None else coroutine.throw(error)
        except StopIteration as stop:
            result: T = stop.value
            return result
        error = None
        try:
            request.run()
        except Exception as raised:  # what is wrong with a step is the training's own affair
            error = raised
