"""How train seconds were found, and which of them a figure may draw together: those of one kind."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from warmstart_sim.results.tables import Run

# The kinds of seconds of `statistics.counted_seconds`, the most reliable first; short enough for the label of an axis.
TIMING = {
    "isolated": "timed alone on the device",
    "estimated": "estimated from step time",
    "concurrent": "timed beside other cells",
}
TIMING_IN_FULL = {**TIMING, "estimated": "estimated from the step time measured on the idle device"}


@dataclass(frozen=True)
class ComparableTimes:
    """The rows of a table whose train seconds are of its most common kind.

    Attributes:
        rows: The rows; none where every row is of mixed kinds.
        kind: A key of `TIMING`.
        left_out: The number of other rows.
        unit: The unit in which a figure shows the seconds.
        unit_seconds: The length of this unit.
    """

    rows: pd.DataFrame
    kind: str
    left_out: int
    unit: str
    unit_seconds: float

    @property
    def in_full(self) -> str:
        """How the seconds were found, for a caption."""
        return TIMING_IN_FULL[self.kind]

    def axis_label(self, name: str) -> str:
        """The label of an axis of times."""
        return f"{name} ({self.unit})\n{TIMING[self.kind]}"

    def note(self, rows_name: str) -> str:
        """A caption's sentence that counts the rows (cells, rounds) that are left out, or nothing."""
        return f" {self.left_out} {rows_name} that were timed otherwise are left out." if self.left_out else ""


def comparable_times(table: pd.DataFrame) -> ComparableTimes:
    """Selects the rows of a table with train seconds that a figure may draw together.

    Args:
        table: From `statistics.cells`, `statistics.summary` or `statistics.counted_seconds`.
    """
    counts = table["timing"].value_counts()
    kind = max(TIMING, key=lambda each: counts.get(each, 0))
    rows = table[table["timing"] == kind]
    longest = rows["compared_seconds"].max()
    unit, seconds = ("s", 1.0) if longest < 600 else ("min", 60.0) if longest < 10800 else ("h", 3600.0)
    return ComparableTimes(rows, kind, len(table) - len(rows), unit, seconds)


def train_time_name(run: Run) -> str:
    """The name of an arm's train time, which excludes a first phase that all arms share."""
    return "train time after the first phase" if run.rounds["shared"].any() else "train time of all rounds"
