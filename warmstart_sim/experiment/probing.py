"""Runs the probes that a scenario's `measure:` asks for, and names the columns of what they return."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from warmstart_sim.errors import WarmstartError
from warmstart_sim.registry import PROBES
from warmstart_sim.results.columns import EPOCH_COLUMNS, IDENTITY_COLUMNS, ROUND_COLUMNS, Row
from warmstart_sim.scenario.sections import Measure, MeasuredProbe
from warmstart_sim.types import RoundContext

AT_START = "_at_start"  # what a probe measures before a round's first epoch has this behind its column's name
TAKEN = {"epoch": {*IDENTITY_COLUMNS, *EPOCH_COLUMNS}, "round": {*IDENTITY_COLUMNS, *ROUND_COLUMNS}}


@dataclass
class Probing:
    """The probes of a cell.

    Args:
        measure: What to measure when.

    Attributes:
        columns: The unit and the probe of every column that was measured.
    """

    measure: Measure
    columns: dict[str, dict[str, str]] = field(default_factory=dict)

    def after_epoch(self, context: RoundContext) -> Row:
        """The columns that the probes of `each_epoch` add to an epoch's row, `probe_seconds` among them."""
        due = [each for each in self.measure.each_epoch if context.epoch % each.every == 0]
        return self._row(_without_accuracy(due), context, "epoch")

    def at_start(self, context: RoundContext) -> Row:
        """The columns that the probes of `each_round` add to a round's row for its start."""
        return self._row(self.measure.each_round, context, "round", AT_START)

    def at_end(self, context: RoundContext) -> Row:
        """The same for its end."""
        return self._row(_without_accuracy(self.measure.each_round), context, "round")

    def _row(self, probes: Iterable[MeasuredProbe], context: RoundContext, table: str, suffix: str = "") -> Row:
        row: Row = {}
        started = _now(context)
        for each in probes:
            for name, value in _values(each.probe.name, each.probe.make(PROBES), context).items():
                column = f"{name}{suffix}"
                if column in TAKEN[table] or column in row:
                    raise WarmstartError(f"probe '{each.probe.name}' returned the column '{column}', which is taken")
                row[column] = value
                self.columns[column] = {"probe": each.probe.name, "unit": unit(each.probe.name, name)}
        return {**row, "probe_seconds": _now(context) - started} if row else row


def unit(probe: str, column: str) -> str:
    """The unit with which a probe was registered for a column; empty for a user's own probe."""
    declared: Mapping[str, str] = PROBES.details(probe).get("columns", {})
    for pattern, found in sorted(declared.items(), key=lambda each: "{" in each[0]):
        head, block, tail = pattern.partition("{block}")
        if column == pattern or (block and column.startswith(head) and column.endswith(tail)):
            return found
    return ""


def _without_accuracy(probes: Iterable[MeasuredProbe]) -> list[MeasuredProbe]:
    """The training loop measures accuracy itself: its stop rule may need it too, and every round ends with it."""
    return [each for each in probes if each.probe.name != "accuracy"]


def _values(name: str, probe: Callable[[RoundContext], Any], context: RoundContext) -> dict[str, float | None]:
    """What a probe, which may be a user's, measures."""
    with torch.no_grad():
        found = probe(context)
    if not isinstance(found, Mapping):
        raise WarmstartError(f"probe '{name}' must return a mapping of column names to numbers, not {found!r}")
    try:
        values = {str(column): None if value is None else float(value) for column, value in found.items()}
    except (TypeError, ValueError) as error:
        raise WarmstartError(f"probe '{name}' must return numbers: {error}") from error
    # JSON and CSV have no infinity, and an empty cell says that there is nothing to draw.
    return {column: value if value is not None and math.isfinite(value) else None for column, value in values.items()}


def _now(context: RoundContext) -> float:
    if context.weights and (tensor := next(iter(context.weights.values()))).is_cuda:
        torch.cuda.current_stream(tensor.device).synchronize()
    return time.perf_counter()
