"""A clock that synchronises with the device."""

from __future__ import annotations

import time

import torch


class Stopwatch:
    """Measures seconds since its creation, including all work queued on `device`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._started = self._now()

    def seconds(self) -> float:
        """Waits for the device and returns the seconds since the start."""
        return self._now() - self._started

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
