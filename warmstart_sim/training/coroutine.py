"""Training as a coroutine: a generator that yields its step requests and the values that it waits for.

`run_to_end` runs one training alone. `execution.interleaved` runs several at a time: it collects their step requests
and makes these steps together, and no training waits for another one's values.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol, TypeVar

import torch

T = TypeVar("T")


class TrainingRequest(Protocol):
    """What a training coroutine yields: a `StepRequest` or `PendingValues`."""

    def run(self) -> None:
        """Makes the step, or waits for the values."""
        ...


TrainingCoroutine = Generator[TrainingRequest, None, T]


class PendingValues:
    """Values that are being copied from the device to the host.

    Args:
        tensor: Small, on any device; its values are read once the work queued so far is done.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self._values = tensor
        self._event: torch.cuda.Event | None = None
        if tensor.is_cuda:
            self._values = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._values.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(tensor.device))  # another device may be the current one

    @property
    def ready(self) -> bool:
        """Whether the values have arrived."""
        return self._event is None or self._event.query()

    def run(self) -> None:
        """Waits for the values."""
        if self._event is not None:
            self._event.synchronize()

    def values(self) -> list[float]:
        """The values; call it only when `ready`."""
        values: list[float] = self._values.tolist()
        return values


def arrived(pending: PendingValues) -> TrainingCoroutine[list[float]]:
    """Waits for pending values, and returns them."""
    if not pending.ready:
        yield pending
    return pending.values()


def run_to_end(coroutine: TrainingCoroutine[T]) -> T:
    """Runs a training to its end, alone, and returns its result."""
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
        except Exception as raised:  # raised again inside the coroutine, at its yield
            error = raised
