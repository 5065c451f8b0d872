"""Runs the probes of a scenario's `measure:`, and collects their columns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch

from warmstart_sim.errors import WarmstartError
from warmstart_sim.registry import PROBES
from warmstart_sim.results.columns import EPOCH_COLUMNS, IDENTITY_COLUMNS, ROUND_COLUMNS, Row, column_pattern
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

    def due(self, epoch: int) -> list[MeasuredProbe]:
        """The probes to run after an epoch (1 for the first)."""
        return [each for each in self.measure.each_epoch if not each.by_loop and epoch % each.every == 0]

    def at_start(self) -> list[MeasuredProbe]:
        """The probes to run at a round's start."""
        return list(self.measure.each_round)

    def at_end(self) -> list[MeasuredProbe]:
        """The probes to run at a round's end."""
        return [each for each in self.measure.each_round if not each.by_loop]

    def row(
        self, probes: Iterable[MeasuredProbe], context: RoundContext, table: Literal["epoch", "round"], suffix: str = ""
    ) -> Row:
        """Runs probes, and returns their columns and `probe_seconds`.

        Args:
            probes: Which probes.
            context: The round's context, with `start`, `weights` and `epoch`.
            table: Whose row it becomes a part of.
            suffix: Stands behind every column's name.

        Raises:
            WarmstartError: A probe returned something else than numbers by columns of its own.
        """
        row: Row = {}
        started = _now(context)
        for each in probes:
            name = each.probe.name
            for found, value in _values(name, each.probe.make(PROBES), context).items():
                column = f"{found}{suffix}"
                if column in TAKEN[table] or column in row:
                    raise WarmstartError(f"probe '{name}' returned the column '{column}', which is taken")
                row[column] = value
                self.columns[column] = {"probe": name, "unit": unit(name, found)}
        return {**row, "probe_seconds": _now(context) - started}


def unit(probe: str, column: str) -> str:
    """The unit with which a probe was registered for a column; empty for a user's own probe."""
    declared: Mapping[str, str] = PROBES.details(probe).get("columns", {})
    for pattern, found in sorted(declared.items(), key=lambda each: "{" in each[0]):
        if fnmatchcase(column, column_pattern(pattern)):
            return found
    return ""


def _values(name: str, probe: Callable[[RoundContext], Any], context: RoundContext) -> dict[str, float | None]:
    """Runs a probe, which may be a user's: it gets no gradients, and cannot disturb torch's default generators."""
    device = next(iter(context.fresh.values())).device
    with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        found = probe(context)
    if not isinstance(found, Mapping):
        raise WarmstartError(f"probe '{name}' must return a mapping of column names to numbers, not {found!r}")
    try:
        values = {str(column): None if value is None else float(value) for column, value in found.items()}
    except (TypeError, ValueError, RuntimeError) as error:  # torch raises the last for a tensor of several numbers
        raise WarmstartError(f"probe '{name}' must return numbers: {error}") from error
    # JSON and CSV have no infinity, and an empty cell says that there is nothing to draw.
    return {column: value if value is not None and math.isfinite(value) else None for column, value in values.items()}


def _now(context: RoundContext) -> float:
    if context.weights and (tensor := next(iter(context.weights.values()))).is_cuda:
        torch.cuda.current_stream(tensor.device).synchronize()
    return time.perf_counter()
