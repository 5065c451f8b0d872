"""Errors that a user can fix, with one-line messages: what was found, what is valid, the nearest match."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WarmstartError(Exception):
    """A user's mistake. The command line prints the message, one line, to stderr and exits with `exit_code`."""

    exit_code = 2


class DataError(WarmstartError):
    """A missing, truncated or corrupt data set; the message says how to get it."""

    exit_code = 3


class RunError(WarmstartError):
    """The run could not finish (full disk, failed cells). Completed cells are kept, and the run can be resumed."""

    exit_code = 1


class DeviceLost(RunError):
    """An error on a GPU after which this process cannot use it any more; other processes can."""


def error_summary(error: BaseException) -> str:
    r"""The type and the first line of an error that a user's or a library's code raised.

    >>> error_summary(ValueError("too small\nby far")), error_summary(KeyError())
    ('ValueError: too small', 'KeyError: no message')
    """
    first_line = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {first_line or 'no message'}"


def nearest(name: object, valid: Iterable[str]) -> str:
    """Returns a hint with the valid choice closest to `name`, or an empty string if none is close.

    >>> nearest("warm_strat", ["random_init", "warm_start"])
    "; did you mean 'warm_start'?"
    >>> nearest("ResNet-18", ["resnet18", "mlp"])
    "; did you mean 'resnet18'?"
    >>> nearest("zebra", ["random_init", "warm_start"])
    ''
    """
    choices = {_normalized(choice): choice for choice in valid}
    matches = difflib.get_close_matches(_normalized(name), choices, n=1, cutoff=0.6)
    return f"; did you mean '{choices[matches[0]]}'?" if matches else ""


def _normalized(name: object) -> str:
    """Ignores case, hyphens and spaces, so that `ResNet-18` is close to `resnet18`."""
    return str(name).lower().replace("-", "_").replace(" ", "_")


def unknown(kind: str, name: object, valid: Iterable[str]) -> str:
    """Returns the error message for an unknown name.

    >>> unknown("strategy", "warmstart", ["random_init", "warm_start"])
    "unknown strategy 'warmstart'; did you mean 'warm_start'? (there are: random_init, warm_start)"
    """
    choices = list(valid)
    return f"unknown {kind} '{name}'{nearest(name, choices)} (there are: {', '.join(choices)})"
