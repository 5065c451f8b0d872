"""Checks what a scenario file says about results: the rows of papers that it reproduces, and its claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from warmstart_sim.errors import WarmstartError, nearest
from warmstart_sim.published import paper_rows
from warmstart_sim.registry import PROBES
from warmstart_sim.results import claims
from warmstart_sim.results.columns import EPOCH_COLUMNS, ROUND_COLUMNS, TEXT_COLUMNS, column_of, column_pattern, plain
from warmstart_sim.scenario.axes import Axis, axes_of
from warmstart_sim.scenario.messages import scenario_error
from warmstart_sim.scenario.parsing import Scenario
from warmstart_sim.scenario.yaml_files import mapping_or_empty


def check_names(scenario: Scenario, axes: Sequence[Axis], where: str) -> None:
    """Checks that what `reproduces` and `claims` name exists.

    Args:
        scenario: The scenario at the first value of each axis.
        axes: Its axes.
        where: Name of the scenario in error messages.

    Raises:
        WarmstartError: No paper has such a row, a claim is not in the grammar, or it names an arm, a column or a varied
            value that does not exist.
    """
    for index, row in enumerate(scenario.header.reproduces):
        if row not in paper_rows():
            text = f"no paper has '{row}'{nearest(row, paper_rows())}; `warmstart-sim papers` lists all"
            raise scenario_error(where, f"reproduces.{index}", text)
    arms = [arm.label for arm in scenario.arms]
    values = _values_by_column(axes)
    for index, text in enumerate(scenario.header.claims):
        try:
            claim = claims.parse_claim(text)
            columns = _numeric_columns(scenario, claim.by_epoch)
            claims.check_names(claim, arms, columns, values, [each.name for each in scenario.analyze])
        except (ValueError, WarmstartError) as error:
            raise scenario_error(where, f"claims.{index}", str(error)) from None


def with_claims_that_apply(raw: Mapping[str, Any], before: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`raw` without the claims about strategies or varied values that it no longer has.

    Args:
        raw: A scenario with changes.
        before: The same without them.
        where: Name of the scenario in error messages.
    """
    if not isinstance(stated := raw.get("claims"), list) or not stated:
        return dict(raw)

    def applies(text: Any, scenario: Mapping[str, Any]) -> bool:
        arms, values = mapping_or_empty(scenario.get("strategies")), _values_by_column(axes_of(scenario, where))
        try:
            claims.check_names(claims.parse_claim(str(text)), arms, None, values)
        except (ValueError, WarmstartError):
            return False
        return True

    return {**raw, "claims": [each for each in stated if applies(each, raw) or not applies(each, before)]}


def _values_by_column(axes: Sequence[Axis]) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for axis in axes:
        values.setdefault(column_of(axis.column), []).extend(map(plain, axis.values))
    return values


def _numeric_columns(scenario: Scenario, by_epoch: bool) -> list[str] | None:
    """The numeric columns that epochs.csv or rounds.csv will have, or patterns of them.

    None if a user's own probe adds some.
    """
    probes = [each.probe for each in (scenario.measure.each_epoch if by_epoch else scenario.measure.each_round)]
    if any(probe.is_user_defined for probe in probes):
        return None
    declared = [column for probe in probes for column in PROBES.details(probe.name).get("columns", ())]
    measured = [column_pattern(column) for column in declared]
    at_start = [] if by_epoch else [f"{column}_at_start" for column in measured]
    standard = [each for each in (EPOCH_COLUMNS if by_epoch else ROUND_COLUMNS) if each not in TEXT_COLUMNS]
    return [*dict.fromkeys([*standard, *measured, *at_start])]
