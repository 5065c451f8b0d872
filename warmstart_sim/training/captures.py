"""Captures work for a stepper: cuDNN may choose its algorithms, a second try when memory is short, or a warning."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch

Replay = Callable[[], None]


class GraphCapture(Protocol):
    """Captures work that takes nothing and returns nothing; `acceleration.graph_capture` implements it."""

    def __call__(
        self, work: Callable[[], None], generators: Sequence[torch.Generator], warm_up: Callable[[], None] | None = None
    ) -> Replay:
        """Warms up, captures `work`, and returns a function that replays it.

        Args:
            work: It reads and writes tensors that outlive the capture.
            generators: Generators that `work` draws from, beside the device's default one; every replay draws anew.
            warm_up: Runs a few times before the capture: all kinds of kernels of `work`; None for `work` itself.

        Raises:
            RuntimeError: The work cannot be captured, for example because it waits for the device.
        """
        ...


def capture_or_warn(
    capture: Callable[[], Replay], what: str, device: torch.device, *, frequent: bool, free_memory: Callable[[], None]
) -> Replay | None:
    """What `capture` returns, or after a warning None.

    Args:
        capture: Captures work once.
        what: What is captured, for the warning.
        device: Where.
        frequent: Whether most batches have this size, so that it pays to let cuDNN time its algorithms.
        free_memory: Called when memory has run out, before a second try.

    Raises:
        OutOfMemoryError: There is not enough memory, even after some was freed.
    """
    try:
        with cudnn_benchmark(device, frequent):
            try:
                return capture()
            except RuntimeError as error:
                if not isinstance(_cause(error), torch.OutOfMemoryError):
                    raise
            free_memory()
            return capture()
    except RuntimeError as error:
        cause = _cause(error)
        if isinstance(cause, torch.OutOfMemoryError):
            raise
        warn_uncaptured(what, str(cause).split("\n", 1)[0])
        return None


def warn_uncaptured(what: str, reason: str) -> None:
    """Warns that some work runs kernel by kernel."""
    warnings.warn(
        f"the {what} cannot be captured as a CUDA graph ({reason}); it runs kernel by kernel, which is slower",
        stacklevel=3,
    )


@contextlib.contextmanager
def cudnn_benchmark(device: torch.device, wanted: bool) -> Iterator[None]:
    """On CUDA, lets cuDNN time its algorithms inside, which pays for shapes that come often, and keep the fastest."""
    if device.type != "cuda" or torch.are_deterministic_algorithms_enabled():
        wanted = False
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = wanted or before
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _cause(error: BaseException) -> BaseException:
    """The first error: ending a capture that has failed raises another one, which does not say why."""
    while error.__context__ is not None:
        error = error.__context__
    return error
