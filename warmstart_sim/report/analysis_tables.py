"""The tables of analyses as text, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from warmstart_sim.registry import ANALYSES
from warmstart_sim.report.wording import Table, format_value, is_empty, percent, readable
from warmstart_sim.results.tables import Run


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
        return "–" if is_empty(value) else percent(value) if measured.get(column) == "fraction" else format_value(value)

    shown = rows.head(most_rows)
    table = [[text(str(name), value) for name, value in row.items()] for row in shown.to_dict("records")]
    head = [readable(str(column)) for column in rows]
    return Table(head, table, numbers=len(rows.columns) - len(measured)), len(rows) - len(shown)
