"""Expands a scenario into cells: one for each arm, seed and combination of varied values."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from warmstart_sim.errors import WarmstartError, unknown
from warmstart_sim.scenario.axes import Axis, axes_of
from warmstart_sim.scenario.cells import Cell, with_copies, with_kept_epochs
from warmstart_sim.scenario.figures import check_figures
from warmstart_sim.scenario.messages import scenario_error
from warmstart_sim.scenario.named_results import check_names
from warmstart_sim.scenario.parsing import Scenario, parse
from warmstart_sim.scenario.rehearsal import reduced
from warmstart_sim.scenario.section_checks import NEEDS_VALIDATION
from warmstart_sim.scenario.yaml_files import quoted, set_path, to_plain_values


def plan(raw: Mapping[str, Any], where: str) -> tuple[Scenario, list[Cell]]:
    """Validates a scenario with all its axes and lists its cells, seed by seed, so that early results are paired.

    Args:
        raw: Content of the scenario file.
        where: Name of the scenario in error messages.

    Returns:
        The scenario with the first value of each axis, and all cells, which are reduced if it is a rehearsal.

    Raises:
        WarmstartError: The scenario or a value of an axis is invalid.
    """
    axes = axes_of(raw, where)
    combinations = _combinations(axes)
    scenarios = [_scenario_at(raw, axes, combination, where) for combination in combinations]
    cells: dict[str, Cell] = {}
    for seed in scenarios[0].header.seeds:
        for combination, scenario in zip(combinations, scenarios, strict=True):
            moved = _moved_arms(axes, combination)
            for arm in scenario.arms:
                if moved - {arm.label}:  # the arm's own cell is that of another combination
                    continue
                cell = Cell(
                    scenario.header.name, arm, seed, _varied_values(axes, combination, arm.label), scenario.data,
                    scenario.data_settings, arm.stream(scenario.stream), scenario.rounds, arm.model or scenario.model,
                    scenario.measure, scenario.changes, scenario.pretraining,
                    first_phase_epochs=scenario.first_phase_epochs,
                )  # fmt: skip
                same = cells.setdefault(cell.digest, cell)
                for name, value in cell.varied.items():  # other arms' axes repeat a cell, with None
                    if value != same.varied[name]:
                        both = f"{quoted(same.varied[name])} and {quoted(value)}"
                        raise scenario_error(
                            where, f"vary: {name}", f"{both} come to the same for strategy '{arm.label}'"
                        )
    check_names(scenarios[0], axes, where)
    check_figures(scenarios[0], axes, where)
    _check_select(scenarios, axes, where)
    planned = list(cells.values())
    if scenarios[0].header.rehearsal:
        planned = reduced(planned)
    return _with_common_metric(scenarios), with_copies(with_kept_epochs(planned))


def _check_select(scenarios: Sequence[Scenario], axes: Sequence[Axis], where: str) -> None:
    """Checks that what `select` tunes are axes, and that there are validation data to choose by."""
    select, keys = scenarios[0].header.select, [axis.key for axis in axes]
    if select is None:
        return
    for index, key in enumerate(select.over):
        if key not in keys:
            raise scenario_error(where, f"select.over[{index}]", unknown("key of `vary`", key, keys))
    if not all(each.data_settings.validation_fraction for each in scenarios):
        raise scenario_error(where, "select", NEEDS_VALIDATION.format("data"))


def _combinations(axes: Sequence[Axis]) -> list[tuple[Any, ...]]:
    """The combinations of the axes' values, with the own axes of one arm at a time: arms do not meet each other's."""
    arms = {None, *(axis.arm for axis in axes)}
    indices = {
        each
        for arm in arms
        for each in itertools.product(*(range(len(axis.values) if axis.arm in (None, arm) else 1) for axis in axes))
    }
    return [tuple(axis.values[index] for axis, index in zip(axes, each, strict=True)) for each in sorted(indices)]


def _moved_arms(axes: Sequence[Axis], combination: Sequence[Any]) -> set[str]:
    """The arms whose own axes are not all at their first values."""
    return {axis.arm for axis, value in zip(axes, combination, strict=True) if axis.arm and value is not axis.values[0]}


def _with_common_metric(scenarios: Sequence[Scenario]) -> Scenario:
    """The first scenario; its metric is the test accuracy if the scenarios' metrics differ."""
    first = scenarios[0]
    if all(each.metric == first.metric for each in scenarios):
        return first
    return replace(first, header=first.header.model_copy(update={"metric": "test_accuracy"}))


def _varied_values(axes: Sequence[Axis], combination: Sequence[Any], label: str) -> dict[str, Any]:
    """The value of each axis for one arm, by column; None for axes of other arms."""
    varied = dict.fromkeys(axis.column for axis in axes)
    for axis, value in zip(axes, combination, strict=True):
        if axis.arm in (None, label):
            varied[axis.column] = str(value) if isinstance(value, (list, dict)) else value
    return varied


def _scenario_at(raw: Mapping[str, Any], axes: Sequence[Axis], combination: Sequence[Any], where: str) -> Scenario:
    """Parses the scenario with one value of each axis."""
    combined = {key: to_plain_values(value) for key, value in raw.items() if key != "vary"}
    settings = [
        (key, setting, axis.key)
        for axis, value in zip(axes, combination, strict=True)
        for key, setting in axis.settings(value).items()
    ]
    settings.sort(key=lambda each: each[0].count("."))  # a section before its keys
    for key, setting, axis_key in settings:
        try:
            set_path(combined, key, to_plain_values(setting))
        except ValueError as error:
            raise scenario_error(where, f"vary.{axis_key}", str(error)) from None
    try:
        return parse(combined, where)
    except WarmstartError:
        _check_without_axes(raw, axes, where)
        note = ", ".join(f"{axis.key}: {quoted(value)}" for axis, value in zip(axes, combination, strict=True))
        parse(combined, f"{where} (vary {note})")
        raise


def _check_without_axes(raw: Mapping[str, Any], axes: Sequence[Axis], where: str) -> None:
    """Raises the errors that do not come from an axis, if the scenario is complete without its axes."""
    if not any(axis.bundled for axis in axes):  # a bundle may set required keys
        parse({**raw, "vary": None}, where)
