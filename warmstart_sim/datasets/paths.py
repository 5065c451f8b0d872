"""Where data sets lie, and where decoded ones are kept."""

from __future__ import annotations

import os
from pathlib import Path


def data_root(explicit: Path | None = None) -> Path:
    """The folder of the raw data sets.

    Args:
        explicit: What the user gave as `--data-root`; it wins over the environment variable `WARMSTART_SIM_DATA`,
            which wins over `warmstart-sim/data` in the user's cache folder.
    """
    if explicit is not None:
        return explicit.expanduser()
    return _from_environment("WARMSTART_SIM_DATA") or _user_cache() / "data"


def cache_root() -> Path:
    """The folder of decoded data sets, safe to delete: `WARMSTART_SIM_CACHE`, or one in the user's cache folder."""
    return _from_environment("WARMSTART_SIM_CACHE") or _user_cache() / "decoded"


def _user_cache() -> Path:
    return (_from_environment("XDG_CACHE_HOME") or Path.home() / ".cache") / "warmstart-sim"


def _from_environment(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value).expanduser() if value else None
