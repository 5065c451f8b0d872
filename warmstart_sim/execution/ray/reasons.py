"""Turns Ray's errors into one line for users."""

from __future__ import annotations

from typing import Any

from warmstart_sim.errors import RunError, WarmstartError

MACHINE_LOST = "its machine was lost"
WORKER_KILLED = "it was killed or crashed; often that means out of memory"


def cause(error: Any) -> WarmstartError:
    """The error that ends the run when a Ray task has raised `error`."""
    if isinstance(error.cause, WarmstartError):
        return error.cause
    if isinstance(error.cause, ImportError):
        return WarmstartError(f"--ray: a machine lacks what is installed here ({error.cause})")
    return RunError(f"--ray: {why(error)}")


def why(error: BaseException) -> str:
    """Shortens Ray's message to one line."""
    text = " ".join(str(error).split())
    if "node" in text and ("node has died" in text or "node was terminated" in text or "NodeDied" in text):
        return MACHINE_LOST
    if "unavailable" in text:
        return "it was killed or its machine was lost: it cannot be reached any more"
    for sign in ("OutOfMemory", "out of memory", "low on memory", "memory pressure"):
        if sign in text:
            return "Ray ended it because the machine ran out of memory"
    if "died unexpectedly" in text or "worker process has died" in text:
        return WORKER_KILLED
    if "Traceback" in text:  # from another process, in full
        text = str(error).strip().splitlines()[-1]
    return f"{type(error).__name__}: {text}"[:300]
