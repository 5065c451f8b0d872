"""What a grid is: the settings of an arm that two varied numbers span, and what each of them came to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from warmstart_sim.report.panels import is_number
from warmstart_sim.report.wording import arm, axis_names, is_empty, setting
from warmstart_sim.results.tables import Run

LAMBDA, SIGMA = "lambda", "sigma"
CORNERS = {"random init": (0.0, 1.0), "warm start": (1.0, 0.0)}  # (lambda, sigma): to the bit what they are called
STATES = ("complete", "gave_up", "diverged", "unfinished")


@dataclass(frozen=True)
class Grid:
    """One or several arms over the same two varied numbers.

    Attributes:
        arms: Their labels.
        row: The key whose values are rows; lambda if it is one of them.
        column: The key whose values are columns.
        facets: Other varied keys that these arms have.
        rows: The values of the rows, from the top: the greatest first, as in Ash & Adams's Figure 8.
        columns: The values of the columns, from the left: in order, but sigma from the greatest on, as there.
        settings: One row for each setting of these arms, as in `Run.summary`, with its `state`: complete if any seed
            is, else what most seeds came to.
    """

    arms: tuple[str, ...]
    row: str
    column: str
    facets: tuple[str, ...]
    rows: tuple[float, ...]
    columns: tuple[float, ...]
    settings: pd.DataFrame

    @property
    def corners(self) -> dict[str, tuple[float, float]]:
        """The settings that have a name of their own, where the grid has them: (lambda, sigma)."""
        if (self.row, self.column) != (LAMBDA, SIGMA):
            return {}
        return {name: (lam, sig) for name, (lam, sig) in CORNERS.items() if lam in self.rows and sig in self.columns}

    def panels(self, run: Run) -> Iterator[tuple[str, Mapping[str, Any], pd.DataFrame]]:
        """(title, values of the facets and the arm, settings) for each combination of arm and facets."""
        names = {axis: name for axis, name in axis_names(run).items() if axis in self.facets}
        keys = ["strategy", *self.facets]
        for values, rows in self.settings.groupby(keys, dropna=False, observed=True, sort=True):
            place = dict(zip(keys, values, strict=True))
            label = str(place["strategy"])
            name = [arm(label, run.scenario["strategies"].get(label) or {}, run.axes)] if len(self.arms) > 1 else []
            yield ", ".join(filter(None, [*name, setting(place, names)])), place, rows


def grids_of(run: Run) -> list[Grid]:
    """The grids of a run, one for each two keys; none where no arm has two varied numbers.

    An arm's own keys come before those that all arms have. In a pre-training only own keys count: what all arms have
    there is the fraction of the target, along which figures of their own are drawn.
    """
    spans: dict[tuple[str, str], list[str]] = {}
    for name, rows in run.rounds.groupby("strategy", observed=True):
        if keys := _two_keys(run, rows):
            spans.setdefault(keys, []).append(str(name))
    if not spans:
        return []
    summary = run.summary()
    return [_grid(run, summary, *keys, tuple(arms)) for keys, arms in spans.items()]


def _two_keys(run: Run, rows: pd.DataFrame) -> tuple[str, str] | None:
    varied = [axis for axis in run.axes if is_number(rows, axis) and rows[axis].nunique() > 1]
    own = [
        axis for axis in varied if axis not in (run.scenario.get("vary") or {})
    ]  # options of arms, not settings of all
    if LAMBDA in own and SIGMA in own:
        return LAMBDA, SIGMA
    keys = own if run.pretrained else [*own, *(axis for axis in varied if axis not in own)]
    return (keys[0], keys[1]) if len(keys) > 1 else None


def _grid(run: Run, summary: pd.DataFrame, row: str, column: str, arms: tuple[str, ...]) -> Grid:
    settings = summary[summary["strategy"].isin(arms) & summary[row].notna() & summary[column].notna()]
    facets = tuple(axis for axis in run.axes if axis not in (row, column) and settings[axis].notna().any())
    rows, columns = (_values(run, settings, axis) for axis in (row, column))
    counts = settings[["gave_up", "diverged", "unfinished"]]
    state = counts.idxmax(axis=1).where(settings["seeds"] == 0, "complete")
    ordered = columns[::-1] if column == SIGMA else columns
    return Grid(arms, row, column, facets, rows[::-1], ordered, settings.assign(state=state))


def _values(run: Run, settings: pd.DataFrame, axis: str) -> tuple[float, ...]:
    """The values of a varied number in order: those that have run, and those that the scenario asks for."""
    vary = run.scenario.get("vary") or {}
    asked = [values for key, values in vary.items() if key == axis or (_is_option(key) and key.endswith(f".{axis}"))]
    found = {float(value) for values in asked for value in values if isinstance(value, (int, float))}
    return tuple(sorted(found | {float(value) for value in settings[axis].unique() if not is_empty(value)}))


def _is_option(key: str) -> bool:
    return key.startswith("strategies.")


def without_outliers(numbers: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest number, less those that lie three quartile distances off the middle half.

    One setting that learned nothing would leave no difference to be seen between all others.

    Where the middle half are all equal, there is no such distance, and nothing is left out.

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


def runs_of(flags: np.ndarray) -> list[tuple[int, int, int]]:
    """(row, first column, columns) of each stretch of true cells beside each other.

    >>> runs_of(np.array([[True, True, False, True]]))
    [(0, 0, 2), (0, 3, 1)]
    """
    found = []
    for row, line in enumerate(flags):
        start = 0
        for flag, group in groupby(line.tolist()):
            length = len(list(group))
            if flag:
                found.append((row, start, length))
            start += length
    return found
