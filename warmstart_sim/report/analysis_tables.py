"""The tables of analyses as text, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from warmstart_sim.registry import ANALYSES
from warmstart_sim.report.wording import Table, format_value, is_empty, p_value, percent, readable
from warmstart_sim.results.tables import Run

ROUNDED = ("0 to 1", "ratio", "rank", "s")  # units of numbers that are shown with three digits


def tables_without_figure(run: Run, most_rows: int) -> Iterator[tuple[str, Table, int]]:
    """The table of each analysis that the run has, unless a figure shows all of it.

    Yields:
        The name of the analysis, its table, and how many rows are left out.
    """
    for name in ANALYSES.names():
        details = ANALYSES.details(name)
        if "figure" not in details and (run.folder / f"{name}.csv").exists():
            rows = run.analysis(name).dropna(axis="columns", how="all")
            yield name, *analysis_table(rows, details.get("columns", {}), most_rows)


def analysis_table(rows: pd.DataFrame, measured: Mapping[str, str], most_rows: int) -> tuple[Table, int]:
    """The table of an analysis: a row for each combination of the columns that were not measured, means over seeds.

    The ends of an interval, in the columns NAME_low and NAME_high, stand in brackets behind NAME.

    Args:
        rows: The table.
        measured: The columns of measured numbers, and their units; a table of a user's own analysis is shown as it is.
        most_rows: How many rows to show.

    Returns:
        The table, and how many rows are left out.
    """
    if measured:
        keys = [column for column in rows if column not in measured and column != "seed"]
        rows = rows.groupby(keys, sort=False, dropna=False, observed=True)[list(measured)].mean().reset_index()

    def text(column: str, value: Any) -> str:
        unit = measured.get(column)
        if is_empty(value):
            return "–"
        if unit == "fraction":
            return percent(value)
        if unit == "p":
            return p_value(value)
        return format_value(float(f"{value:.3g}") if unit and unit in ROUNDED else value)

    def cell(column: str, row: Mapping[str, Any]) -> str:
        ends = [f"{column}_low", f"{column}_high"]
        if not set(ends) <= row.keys() or is_empty(row[ends[0]]):
            return text(column, row[column])
        low, high = (text(end, row[end]).removesuffix(" %") for end in ends)
        return f"{text(column, row[column])} [{low}, {high}]"

    names = [name for name in map(str, rows) if not _is_end(name, rows)]
    shown: list[dict[Any, Any]] = rows.head(most_rows).to_dict("records")
    cells = [[cell(name, row) for name in names] for row in shown]
    numbers = sum(name not in measured for name in names) if measured else len(names)
    return Table([readable(name) for name in names], cells, numbers), len(rows) - len(shown)


def _is_end(name: str, rows: pd.DataFrame) -> bool:
    """Whether a column is an end of another column's interval."""
    return any(name.endswith(end) and name.removesuffix(end) in rows for end in ("_low", "_high"))
