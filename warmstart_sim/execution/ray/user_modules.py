"""The user's own modules, which machines of a cluster need not have."""

from __future__ import annotations

import site
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from warmstart_sim.scenario import Cell


def own_modules(cells: Iterable[Cell]) -> list[Path]:
    """The user's own modules that cells need, and those that were imported from beside them: files and packages.

    What is installed, and what was typed into a script, is not among them: the first must be installed on every
    machine, the second travels with the cells.

    Args:
        cells: Whose own modules have been imported.
    """
    names: set[str] = set()
    for cell in cells:
        components = [cell.data, cell.stream, cell.model, cell.arm.start, *cell.arm.parts]
        if cell.pretraining and cell.pretraining.source:
            components.append(cell.pretraining.source.data)
        for each in components:
            if each.is_user_defined:
                module = type(each.target).__module__ if each.target is not None else each.name
                names.add(getattr(each.target, "__module__", module).partition(":")[0].partition(".")[0])
    tops = {name: path for name in sys.modules if "." not in name and (path := _file(name))}
    folders = {tops[name].parent for name in names - {"__main__", "warmstart_sim"} if name in tops}
    return sorted(path for name, path in tops.items() if path.parent in folders and name != "__main__")


def _file(name: str) -> Path | None:
    """Where a module comes from, if it is a user's: its file, or its package's folder."""
    module = sys.modules[name]
    file = getattr(module, "__file__", None)
    if not file or not file.endswith(".py"):
        return None
    path = Path(file).resolve()
    installed = [sysconfig.get_path(each) for each in ("stdlib", "platstdlib", "purelib", "platlib")]
    installed += [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    if any(path.is_relative_to(Path(each).resolve()) for each in installed):
        return None
    return path.parent if path.name == "__init__.py" else path
