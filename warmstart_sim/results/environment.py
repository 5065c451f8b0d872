"""Record of how a run is made: versions, device, commit, date and command."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("warmstart-sim", "torch", "torchvision", "avalanche-lib", "numpy", "scikit-learn")


def environment(device: str, **settings: Any) -> dict[str, Any]:
    """A flat record of where and how a run is made.

    Args:
        device: Such as "cpu" or "cuda:0".
        settings: How it is made, recorded as they are: rehearsal, workers, slots, batching, engine.
    """
    return {
        "date": now(),
        "command": " ".join([Path(sys.argv[0]).name.replace("__main__.py", "python -m warmstart_sim"), *sys.argv[1:]]),
        **settings,
        "device": device,
        "device_name": device_name(device),
        "cores": usable_cores(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def machine(device: str) -> dict[str, str | None]:
    """Where a round is trained, and by which code: the columns device_name, host and commit of its row."""
    return {"device_name": device_name(device), "host": platform.node(), "commit": _commit()}


def now() -> str:
    """The local date and time with its time zone, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def device_name(device: str) -> str:
    """The name of the processor or the GPU."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the checkout that the package runs from, with a "+" if it has changes; None for a wheel."""
    folder = Path(__file__).resolve().parent.parent.parent
    if not (folder / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, timeout=5, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
