"""A clock that reads when the work on the device is done."""

from __future__ import annotations

import time

import torch


class Stopwatch:
    """Starts when it is made.

    Args:
        device: Whose work counts.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._started = self._now()

    def seconds(self) -> float:
        """Since the start."""
        return self._now() - self._started

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
