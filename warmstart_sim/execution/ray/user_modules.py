"""The user's own modules, which machines of a cluster need not have."""

from __future__ import annotations

import json
import re
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from warmstart_sim.scenario import Cell

STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib")).resolve()


def own_modules(cells: Sequence[Cell]) -> list[Path]:
    """The files and packages of modules that cells name, and of those that were imported from beside them.

    Installed packages are not among them: they must be installed on every machine. Objects from `__main__` are sent
    with the cells.

    Args:
        cells: Whose own modules have been imported.
    """
    settings = json.dumps([cell.settings for cell in cells], default=str)
    named = set(re.findall(r'"(\w+)[\w.]*:\w', settings))  # as in "module.submodule:attribute"
    own = {name: path for name in sys.modules if "." not in name and (path := _path(name))}
    folders = {own[name].parent for name in named & own.keys()}
    return sorted(path for path in own.values() if path.parent in folders)


def _path(name: str) -> Path | None:
    """The file of a top-level module or the folder of a package; None if it is installed, or not a file of Python."""
    file = getattr(sys.modules[name], "__file__", None)
    if name in ("__main__", "warmstart_sim") or not file or not file.endswith(".py"):
        return None
    path = Path(file).resolve()
    if {"site-packages", "dist-packages"} & {*path.parts} or path.is_relative_to(STANDARD_LIBRARY):
        return None
    return path.parent if path.name == "__init__.py" else path
