"""Measures seconds of work on the device without waiting for it."""

from __future__ import annotations

import time

import torch


class Moment:
    """When the device has done the work that is queued so far: at once on a CPU, an event on CUDA.

    Args:
        device: Its current stream is meant.
        excluded: Seconds before this moment that do not count, such as those of captures.
    """

    def __init__(self, device: torch.device, excluded: float) -> None:
        self._excluded = excluded
        self._time = time.perf_counter()
        self._event: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)
            self._event.record(torch.cuda.current_stream(device))

    def seconds_until(self, later: Moment) -> float:
        """The seconds from this moment to a later one of the same device; waits until both are over."""
        if self._event is None or later._event is None:
            seconds = later._time - self._time
        else:
            later._event.synchronize()
            seconds = self._event.elapsed_time(later._event) / 1000
        return seconds - (later._excluded - self._excluded)
