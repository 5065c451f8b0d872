"""The summary as a table for the terminal, narrower than 100 columns with names of the usual length."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from rich import box
from rich import table as rich_table

from warmstart_sim.report.analysis_tables import analysis_table
from warmstart_sim.report.figures import REHEARSAL
from warmstart_sim.report.timing import TIMING_IN_FULL
from warmstart_sim.report.wording import (
    Table,
    axis_names,
    duration,
    format_value,
    is_empty,
    points,
    ratio,
    readable,
)
from warmstart_sim.results.statistics import most_accurate
from warmstart_sim.results.tables import Run

MOST_ROWS = 60  # more do not fit on the screen
COLUMNS = ("seeds", "accuracy (%)", "difference (points)", "train time", "time ratio", "epochs")


def terminal_table(run: Run) -> rich_table.Table:
    """One row for each arm and combination of varied values; ± is half of the 95 % interval of the mean.

    The caption says how the train times were found.
    """
    summary = run.summary()
    shown = most_accurate(summary, run.reference, MOST_ROWS)
    title = f"final {readable(run.metric)}, and paired difference from {readable(run.reference)}"
    notes = [_timing_note(summary["timing"])]
    if run.candidates is not None:
        notes.append("settings chosen for each arm on validation data: see selection.csv")
    if more := len(summary) - len(shown):
        notes.append(f"{more:,} more rows, less accurate or without a result, are in summary.csv")
    table = rich_table.Table(
        title=f"{REHEARSAL}\n{title}" if run.environment.get("rehearsal") else title,
        title_justify="left",
        caption="\n".join(filter(None, notes)) or None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("strategy")
    for axis, name in axis_names(run).items():
        if name:
            table.add_column(name.replace(" ", "\n"), justify="right", no_wrap=True)
        else:
            table.add_column(readable(axis))
    for name in COLUMNS:
        table.add_column(name.replace(" ", "\n"), justify="right", no_wrap=True)
    for row in shown.to_dict("records"):
        half = 100 * (row["final_accuracy_high"] - row["final_accuracy"])
        accuracy = 100 * row["final_accuracy"]
        table.add_row(
            readable(str(row["strategy"])),
            *("" if is_empty(row[axis]) else format_value(row[axis]) for axis in run.axes),
            str(row["seeds"]),
            "–" if is_empty(accuracy) else f"{accuracy:.1f}" + ("" if is_empty(half) else f" ± {half:.1f}"),
            points(row["difference"], row["difference_low"], row["difference_high"]),
            duration(row["compared_seconds"]),
            ratio(row["time_ratio"]),
            "–" if is_empty(row["epochs"]) else f"{row['epochs']:,.0f}",
        )
    return table


def _timing_note(timing: pd.Series[str]) -> str:
    kinds = list(timing.dropna().unique())
    if len(kinds) == 1 and kinds[0] in TIMING_IN_FULL:
        return f"train times: {TIMING_IN_FULL[kinds[0]]}"
    return "train times: of several kinds, not comparable; see the column timing in summary.csv" if kinds else ""


def text_table(table: Table) -> rich_table.Table:
    """A table of text for the terminal."""
    shown = rich_table.Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for index, name in enumerate(table.head):
        shown.add_column(name, justify="right" if index >= table.numbers else "left", overflow="fold")
    for row in table.rows:
        shown.add_row(*row)
    return shown


def analysis_text(rows: pd.DataFrame, measured: Mapping[str, str]) -> rich_table.Table:
    """The table of an analysis, means over seeds; see `analysis_tables.analysis_table`."""
    table, more = analysis_table(rows, measured, MOST_ROWS)
    text = text_table(table)
    if more:
        text.caption = f"{more:,} more rows are in the file"
    return text
