"""Waiting for other processes."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.forked import ForkedProcess

# Seconds for what takes a few on an idle machine: a dozen processes may share two cores, and import torch.
PATIENCE = 300


def wait_for(what: Callable[[], object], process: ForkedProcess | None = None) -> None:
    """Waits until it is true, or fails; also when a process ends before it is."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        assert process is None or process.poll() is None, process.said()
        time.sleep(0.02)
