"""Checks what a scenario file says about results: the rows of papers that it reproduces, and its claims."""

from __future__ import annotations

from collections.abc import Sequence

from warmstart_sim.errors import WarmstartError, nearest
from warmstart_sim.published import paper_rows
from warmstart_sim.registry import PROBES
from warmstart_sim.results import claims
from warmstart_sim.results.columns import EPOCH_COLUMNS, ROUND_COLUMNS, column_of
from warmstart_sim.scenario.axes import Axis
from warmstart_sim.scenario.messages import scenario_error
from warmstart_sim.scenario.parsing import Scenario


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
    for index, text in enumerate(scenario.header.claims):
        try:
            claim = claims.parse_claim(text)
            if (columns := _columns(scenario)) is not None:
                claims.check_names(claim, arms, columns, [column_of(axis.column) for axis in axes])
        except (ValueError, WarmstartError) as error:
            raise scenario_error(where, f"claims.{index}", str(error)) from None


def _columns(scenario: Scenario) -> list[str] | None:
    """The columns that the tables will have, or patterns of them; None if a user's own probe adds some."""
    probes = [each.probe for each in (*scenario.measure.each_epoch, *scenario.measure.each_round)]
    if any(probe.is_user_defined for probe in probes):
        return None
    declared = [column for probe in probes for column in PROBES.details(probe.name).get("columns", ())]
    measured = [column.replace("{block}", "*") for column in declared]
    return [*ROUND_COLUMNS, *EPOCH_COLUMNS, *measured, *(f"{column}_at_start" for column in measured)]
