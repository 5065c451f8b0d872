"""Errors that a user can act on: one line, what was found, what is valid, the nearest match."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WarmstartError(Exception):
    """A user's mistake: the command line prints its one line on stderr and exits with `exit_code`."""

    exit_code = 2


class DataError(WarmstartError):
    """A data set that is missing, truncated or corrupt; the line says how to get it."""

    exit_code = 3


class RunError(WarmstartError):
    """The run could not finish (a full disk, failed cells); what is complete stays, and the run can go on."""

    exit_code = 1


def nearest(name: object, valid: Iterable[str]) -> str:
    """A hint that names the valid choice closest to `name`, or nothing when none is close.

    >>> nearest("warm_strat", ["random_init", "warm_start"])
    "; did you mean 'warm_start'?"
    >>> nearest("ResNet-18", ["resnet18", "mlp"])
    "; did you mean 'resnet18'?"
    >>> nearest("zebra", ["random_init", "warm_start"])
    ''
    """
    spelt = {_letters(choice): choice for choice in valid}
    matches = difflib.get_close_matches(_letters(name), spelt, n=1, cutoff=0.6)
    return f"; did you mean '{spelt[matches[0]]}'?" if matches else ""


def _letters(name: object) -> str:
    """A name without what people write in different ways: `ResNet-18` is close to `resnet18`."""
    return str(name).lower().replace("-", "_").replace(" ", "_")


def unknown(kind: str, name: object, valid: Iterable[str]) -> str:
    """The line for a name that does not exist.

    >>> unknown("strategy", "warmstart", ["random_init", "warm_start"])
    "unknown strategy 'warmstart'; did you mean 'warm_start'? (there are: random_init, warm_start)"
    """
    choices = list(valid)
    return f"unknown {kind} '{name}'{nearest(name, choices)} (there are: {', '.join(choices)})"
