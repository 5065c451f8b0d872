"""The folders of raw data sets and of decoded ones."""

from __future__ import annotations

import os
from pathlib import Path


def data_root(explicit: Path | None = None) -> Path:
    """Returns the folder of the raw data sets.

    Args:
        explicit: The value of `--data-root`. If None, the environment variable `WARMSTART_SIM_DATA` is used, and
            without it `warmstart-sim/data` in the user's cache folder.
    """
    if explicit is not None:
        return explicit.expanduser()
    return _from_environment("WARMSTART_SIM_DATA") or _user_cache() / "data"


def cache_root() -> Path:
    """Returns the folder of decoded data sets, which can be deleted: `WARMSTART_SIM_CACHE`, or in the user's cache."""
    return _from_environment("WARMSTART_SIM_CACHE") or _user_cache() / "decoded"


def _user_cache() -> Path:
    return (_from_environment("XDG_CACHE_HOME") or Path.home() / ".cache") / "warmstart-sim"


def _from_environment(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value).expanduser() if value else None
