"""Why something on Ray failed, in a line."""

from __future__ import annotations

from typing import Any

from warmstart_sim.errors import RunError, WarmstartError


def cause(error: Any) -> Exception:
    """What a task raised, if it is of ours or means that we are not there, or what Ray says of it."""
    if isinstance(error.cause, WarmstartError):
        return error.cause
    if isinstance(error.cause, ImportError):
        return WarmstartError(f"--ray: a machine lacks what is installed here ({error.cause})")
    return RunError(f"--ray: {why(error)}")


def why(error: BaseException) -> str:
    """Ray's many lines in one."""
    text = " ".join(str(error).split())
    if "node" in text and ("node has died" in text or "node was terminated" in text or "NodeDied" in text):
        return "its machine was lost"
    if "unavailable" in text:
        return "it was killed or its machine was lost: it cannot be reached any more"
    for sign in ("OutOfMemory", "out of memory", "low on memory", "memory pressure"):
        if sign in text:
            return "Ray ended it because the machine ran out of memory"
    if "died unexpectedly" in text or "worker process has died" in text:
        return "it was killed or crashed; often that means out of memory"
    if "Traceback" in text:  # from another process, in full
        text = str(error).strip().splitlines()[-1]
    return f"{type(error).__name__}: {text}"[:300]
