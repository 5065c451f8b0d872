"""All settings of a cell by column, from the stored scenario of its run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from warmstart_sim.results.columns import column_of, plain
from warmstart_sim.results.tables import Run, bundles


def cell_settings(run: Run, row: Mapping[Any, Any]) -> dict[str, str]:
    """All settings of a cell by column, in the form of `plain`: `data_name`, `lambda`, labels of bundles and so on.

    They are those of the scenario's sections, then of its axes, then of the arm, then of the axes of the arm. Options
    of parts have the same columns in `parts` and in an arm.

    Args:
        run: The run.
        row: The cell's arm and varied values, by column.
    """
    scenario = run.scenario
    found: dict[str, Any] = {}
    for section in ("data", "stream", "model", "training"):
        _set(found, section, scenario.get(section))
    for part, options in (scenario.get("parts") or {}).items():
        _set(found, part, options)
    labels = bundles(scenario)
    for key in sorted(scenario.get("vary") or {}, key=lambda key: key not in labels):
        if key in labels and pd.isna(row[key]):  # a bundle of another arm
            continue
        settings = scenario["vary"][key][str(row[key])] if key in labels else {key: row.get(column_of(key))}
        for name in sorted(settings, key=lambda name: name.count(".")):  # a section before its keys
            _set(found, name.removeprefix("parts."), settings[name])
    arm = scenario["strategies"][str(row["strategy"])] or {}
    for key, value in (arm.get("training") or {}).items():
        merges = key in ("optimizer", "schedule", "later_rounds") and isinstance(value, Mapping) and "name" not in value
        _set(found, f"training.{key}", value, replace=not merges)
    for key, value in arm.items():
        if key != "training":
            _set(found, key, value)
    own = {axis: value for axis, value in known(row.items()).items() if axis not in run.common_axes or axis in labels}
    return {column_of(key): plain(value) for key, value in found.items() if value is not None} | own


def _set(found: dict[str, Any], key: str, value: Any, replace: bool = True) -> None:
    """Sets a dotted key, and those below it if the value is a mapping; a bare name stands for `name`."""
    if replace:
        for each in [each for each in found if each.startswith(f"{key}.")]:
            del found[each]
    if isinstance(value, Mapping):
        for name, inside in value.items():
            _set(found, f"{key}.{name}", inside)
    else:
        found |= {key: value, f"{key}.name": value} if isinstance(value, str) else {key: value}


def known(pairs: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """The pairs without empty values, in the form of `plain`."""
    return {key: plain(value) for key, value in pairs if not pd.isna(value)}
