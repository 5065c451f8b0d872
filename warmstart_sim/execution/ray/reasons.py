"""Turns Ray's errors into one line for users."""

from __future__ import annotations

from warmstart_sim.errors import RunError, WarmstartError

KNOWN = {
    "NodeDiedError": "its machine was lost",
    "WorkerCrashedError": "it was killed or crashed; often that means out of memory",
    "OutOfMemoryError": "Ray ended it because the machine ran out of memory",
}


def concerns_run(error: BaseException) -> bool:
    """Whether a Ray task has raised an error that concerns the whole run."""
    return isinstance(getattr(error, "cause", None), (WarmstartError, ImportError))


def run_error(error: BaseException, what: str) -> WarmstartError:
    """The error that ends the run: the one that a Ray task has raised for users, or else `what` with Ray's reason."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, WarmstartError):
        return cause
    if isinstance(cause, ImportError):
        return WarmstartError(f"--ray: a machine lacks what is installed here ({cause})")
    return RunError(f"--ray: {what} ({why(error)})")


def why(error: BaseException) -> str:
    """Shortens Ray's message to one line; of a traceback from another process, the last line is kept."""
    name, text = type(error).__name__, str(error).strip()
    if "Traceback" in text:
        text = text.splitlines()[-1]
    return KNOWN.get(name) or f"{name}: {' '.join(text.split())}"[:300]
