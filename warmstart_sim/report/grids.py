"""Grids: the settings of an arm over two varied numbers, with the result of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from warmstart_sim.errors import WarmstartError, unknown
from warmstart_sim.report.panels import is_number
from warmstart_sim.report.wording import arm_label, axis_names, is_empty, setting_label
from warmstart_sim.results.tables import Run

LAMBDA, SIGMA = "lambda", "sigma"
CORNERS = {"random init": (0.0, 1.0), "warm start": (1.0, 0.0)}  # (lambda, sigma) with bit for bit the same weights


@dataclass(frozen=True)
class GridPanel:
    """The settings of one arm at one combination of the other varied values."""

    title: str
    arm: str
    other_values: Mapping[str, Any]
    settings: pd.DataFrame


@dataclass(frozen=True)
class Grid:
    """One or several arms over the same two varied numbers.

    Attributes:
        arms: The names of the arms.
        row: The key whose values are rows; lambda if it is one of the two.
        column: The key whose values are columns.
        facets: The other varied keys of these arms.
        rows: The values of the rows from top to bottom: in descending order, as in Ash & Adams's Figure 8.
        columns: The values of the columns from left to right: in ascending order, but sigma descending, as there.
        summary: The run's summary: `Run.summary`.
        settings: One row for each setting of these arms, as in `Run.summary`, with its `state`: complete if any seed
            is, otherwise the most frequent state of its seeds.
        suffix: Added to the names of figures; empty if the run has one grid.
    """

    arms: tuple[str, ...]
    row: str
    column: str
    facets: tuple[str, ...]
    rows: tuple[float, ...]
    columns: tuple[float, ...]
    summary: pd.DataFrame
    settings: pd.DataFrame
    suffix: str

    @property
    def corners(self) -> dict[str, tuple[float, float]]:
        """The settings in the grid that equal random init and the warm start: (lambda, sigma)."""
        if (self.row, self.column) != (LAMBDA, SIGMA):
            return {}
        return {name: (lam, sig) for name, (lam, sig) in CORNERS.items() if lam in self.rows and sig in self.columns}

    def panels(self, run: Run) -> Iterator[GridPanel]:
        """A panel for each combination of arm and facets."""
        names = {axis: name for axis, name in axis_names(run).items() if axis in self.facets}
        keys = ["strategy", *self.facets]
        for values, rows in self.settings.groupby(keys, dropna=False, observed=True, sort=True):
            arm, *others = values
            other_values = dict(zip(self.facets, others, strict=True))
            label = [arm_label(run, str(arm))] if len(self.arms) > 1 else []
            title = ", ".join(filter(None, [*label, setting_label(other_values, names)]))
            yield GridPanel(title, str(arm), other_values, rows)


def grids_of(run: Run) -> list[Grid]:
    """The grids of a run, one for each pair of keys; none if no arm has two varied numbers.

    An arm's own keys come before those that all arms have. With pre-training only own keys count: what all arms have
    there is the fraction of the target, which has plots of its own.
    """
    arms_of: dict[tuple[str, str], list[str]] = {}
    for name, rows in run.rounds.groupby("strategy", observed=True):
        if keys := _two_keys(run, rows):
            arms_of.setdefault(keys, []).append(str(name))
    if not arms_of:
        return []
    summary = run.summary()
    return [_grid(run, summary, *keys, tuple(arms), len(arms_of) > 1) for keys, arms in arms_of.items()]


def grid_over(run: Run, row: str, column: str) -> Grid:
    """The grid of all arms that have both of two varied numbers.

    Raises:
        WarmstartError: One of them is not a varied number, or no arm has both.
    """
    for key in (row, column):
        if key not in run.axes or not is_number(run.rounds, key):
            numbers = [axis for axis in run.axes if is_number(run.rounds, axis)]
            raise WarmstartError(unknown("varied number", key, numbers))
    with_both = run.rounds.dropna(subset=[row, column])
    arms = tuple(str(arm) for arm in with_both["strategy"].drop_duplicates())
    if not arms:
        raise WarmstartError(f"no arm has both {row} and {column}")
    return _grid(run, run.summary(), row, column, arms, several=False)


def _two_keys(run: Run, rows: pd.DataFrame) -> tuple[str, str] | None:
    varied = [axis for axis in run.axes if is_number(rows, axis) and rows[axis].nunique() > 1]
    own = [axis for axis in varied if axis not in run.common_axes]
    if LAMBDA in own and SIGMA in own:
        return LAMBDA, SIGMA
    keys = own if run.pretrained else [*own, *(axis for axis in varied if axis not in own)]
    return (keys[0], keys[1]) if len(keys) > 1 else None


def _grid(run: Run, summary: pd.DataFrame, row: str, column: str, arms: tuple[str, ...], several: bool) -> Grid:
    settings = summary[summary["strategy"].isin(arms) & summary[row].notna() & summary[column].notna()]
    facets = tuple(axis for axis in run.axes if axis not in (row, column) and settings[axis].notna().any())
    rows, columns = (_values(run, settings, axis) for axis in (row, column))
    counts = settings[["gave_up", "diverged", "unfinished"]]
    state = counts.idxmax(axis=1).where(settings["seeds"] == 0, "complete")
    ordered = columns[::-1] if column == SIGMA else columns
    suffix = f"_{row}_{column}" if several else ""
    return Grid(arms, row, column, facets, rows[::-1], ordered, summary, settings.assign(state=state), suffix)


def _values(run: Run, settings: pd.DataFrame, axis: str) -> tuple[float, ...]:
    """The values of a varied number in order: those of finished cells and those that the scenario asks for."""
    asked: set[float] = set()
    for key in run.axis_keys[axis]:
        asked |= {float(value) for value in run.scenario["vary"][key] if isinstance(value, (int, float))}
    return tuple(sorted(asked | {float(value) for value in settings[axis].unique() if not is_empty(value)}))


def without_outliers(numbers: np.ndarray) -> tuple[float, float]:
    """The range of the numbers without those more than three interquartile ranges away from the middle half.

    A single setting that learned nothing would otherwise take up the whole scale of a figure. If the middle half are
    equal, nothing counts as an outlier.

    >>> without_outliers(np.array([0.10, 0.52, 0.53, 0.55, 0.57]))
    (0.52, 0.57)
    >>> without_outliers(np.array([0.1, 0.5, 0.5, 0.5, 0.6]))
    (0.1, 0.6)
    """
    low, high = np.quantile(numbers, [0.25, 0.75])
    if low == high:
        return float(numbers.min()), float(numbers.max())
    inside = numbers[(numbers >= low - 3 * (high - low)) & (numbers <= high + 3 * (high - low))]
    return float(inside.min()), float(inside.max())
