"""Checks `figures:` of a scenario: their keys, and the columns that they name as far as they are known before a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from warmstart_sim.errors import unknown
from warmstart_sim.registry import PROBES
from warmstart_sim.results.columns import (
    EPOCH_COLUMNS,
    IDENTITY_COLUMNS,
    ROUND_COLUMNS,
    TEXT_COLUMNS,
    column_of,
    column_pattern,
)
from warmstart_sim.results.figure_settings import FIGURES, Curves, Figure, Scatter, of_arm
from warmstart_sim.scenario.axes import Axis
from warmstart_sim.scenario.messages import scenario_error, validated
from warmstart_sim.scenario.parsing import Scenario

EVALUATED = ("validation_accuracy", "test_accuracy")  # by epoch only if they are asked for


def parse_figures(items: Iterable[Mapping[str, Any]], where: str) -> list[Figure]:
    """Validates the keys of figures.

    Raises:
        WarmstartError: A figure has an unknown kind, or one of its keys is missing, unknown or wrong.
    """
    figures = []
    for index, item in enumerate(items):
        place, kind = f"figures[{index}]", item.get("kind")
        if kind is None:
            raise scenario_error(where, f"{place}.kind", f"is missing (there are: {', '.join(FIGURES)})")
        if kind not in FIGURES:
            raise scenario_error(where, f"{place}.kind", unknown("kind", kind, FIGURES))
        figures.append(validated(FIGURES[kind], item, where, place))
    return figures


def check_figures(scenario: Scenario, axes: Sequence[Axis], where: str) -> None:
    """Validates the figures of a scenario, and that the tables of its run will have the columns that they name.

    What a user-defined probe measures, and the tables of analyses, are not known before the run.

    Raises:
        WarmstartError: A figure is invalid, or names a column that there will not be.
    """
    for index, figure in enumerate(parse_figures(scenario.header.figures, where)):
        if getattr(figure, "table", None) is None:
            for key, problem in _problems(figure, scenario, axes):
                raise scenario_error(where, f"figures[{index}].{key}", problem)


def _problems(figure: Figure, scenario: Scenario, axes: Sequence[Axis]) -> Iterator[tuple[str, str]]:
    """(key, problem) for each column that a figure names and that its table will not have."""
    by_epoch = isinstance(figure, Curves) and figure.x == "epoch"
    table = "epochs.csv" if by_epoch else "rounds.csv"
    labels = [arm.label for arm in scenario.arms]
    varied = {column_of(axis.column): axis for axis in axes}
    numbers = [name for name, axis in varied.items() if all(map(_is_number, axis.values))]
    standard = (*IDENTITY_COLUMNS, *(EPOCH_COLUMNS if by_epoch else (*ROUND_COLUMNS, "difference")))
    measured = [*numbers, *(name for name in standard if name not in TEXT_COLUMNS)]
    named = list(figure.names(figure.measured))
    if by_epoch and not named:
        named = [("y", scenario.metric)]
    for key, name in named:
        name, arm = of_arm(name) if isinstance(figure, Scatter) else (name, "")
        if arm and arm not in labels:
            yield key, unknown("strategy", arm, labels)
        if by_epoch and name in EVALUATED and not _evaluates_epochs(scenario, name):
            yield key, f"`{name}` is not measured by epoch; add `measure: {{each_epoch: [accuracy]}}`"
        elif column_of(name, labels) not in measured and (problem := _not_of_probes(name, scenario, by_epoch)):
            yield key, problem.format(unknown(f"column of {table}", name, measured))
    for key, name in figure.names(figure.grouped):
        column = column_of(name, labels)
        if key in ("rows", "columns"):
            if column not in numbers:
                yield key, unknown("varied number", name, numbers)
        elif column not in (*varied, *standard, "y") and (problem := _not_of_probes(name, scenario, by_epoch)):
            yield key, problem.format(unknown(f"column of {table}", name, [*varied, *standard]))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _evaluates_epochs(scenario: Scenario, column: str) -> bool:
    validates = any(arm.training.validates_with for arm in scenario.arms)
    return any(each.by_loop for each in scenario.measure.each_epoch) or (column == EVALUATED[0] and validates)


def _not_of_probes(column: str, scenario: Scenario, by_epoch: bool) -> str:
    """Why no probe of the scenario measures a column, with {} for "unknown"; empty if one may measure it."""
    place = "each_epoch" if by_epoch else "each_round"
    probes = [each.probe for each in getattr(scenario.measure, place)]
    name = column if by_epoch else column.removesuffix("_at_start")
    if name == "probe_seconds" or any(probe.is_user_defined or _measures(probe.name, name) for probe in probes):
        return ""
    missing = next((probe for probe in PROBES.names() if _measures(probe, name)), None)
    return f"`{column}` is measured by the probe `{missing}`; add it to `measure.{place}`" if missing else "{}"


def _measures(probe: str, column: str) -> bool:
    """Whether a registered probe has this column."""
    declared = PROBES.details(probe).get("columns", {})
    patterns = [column_pattern(each) for each in declared]
    return any(fnmatchcase(column, each) or fnmatchcase(each, column) for each in patterns)  # either may have a star
