"""Draws the numbers that a paper prints as hollow markers beside ours.

`published` is a table with the columns strategy, those of `run.axes` (empty where the number does not depend on one),
metric (a column of our tables), value, low and high (empty without a spread), in our units.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from warmstart_sim.report.panels import Line, plus_minus
from warmstart_sim.report.style import add_hover
from warmstart_sim.results.tables import Run

NOTE = " Hollow markers: the numbers that the paper prints."
FINAL = "final_accuracy"  # in tables of cells and settings: the run's metric after the last round


def draw_published(
    run: Run, ax: Axes, line: Line, published: pd.DataFrame | None, column: str, x: Any, scale: float = 1
) -> bool:
    """Draws the published numbers of a line's arm and varied values; returns whether there are any.

    Args:
        run: The run.
        ax: Where to.
        line: The line that they belong to.
        published: See the module; None if there are none.
        column: The column that the line draws.
        x: The column along the x axis, or one place for all points. Columns that are no varied keys have none.
        scale: The factor from the column's values to those in the figure.
    """
    if published is None or (isinstance(x, str) and x not in published):
        return False
    rows = published[(published["metric"] == (run.metric if column == FINAL else column))]
    rows = rows[rows["strategy"] == line.arm]
    for axis in run.axes:
        if axis in rows and axis != x:
            rows = rows[rows[axis].isna() | rows[axis].isin(line.rows[axis].dropna())]
    at = rows[x] if isinstance(x, str) else pd.Series(float(x), rows.index)
    rows, at = rows[at.notna()], at[at.notna()]
    value = scale * rows["value"]
    errors = [(value - scale * rows["low"]).fillna(0), (scale * rows["high"] - value).fillna(0)]
    ax.errorbar(
        at, value, yerr=errors, color=line.style.color, marker=line.style.marker or "o", linestyle="", markersize=9,
        markerfacecolor="none", markeredgecolor=line.style.color, markeredgewidth=1.4, elinewidth=1, zorder=4,
    )  # fmt: skip
    add_hover(ax, at, value, [f"{line.label}, published: {plus_minus(each, float('nan'))}" for each in value])
    return bool(len(rows))
