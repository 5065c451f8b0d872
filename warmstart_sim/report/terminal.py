"""The summary as a table for the terminal, narrower than 100 columns with names of the usual length."""

from __future__ import annotations

import pandas as pd
from rich import box
from rich.table import Table

from warmstart_sim.report.figures import REHEARSAL
from warmstart_sim.report.wording import TIMING_IN_FULL, axis_names, duration, is_empty, plain, points, ratio, value
from warmstart_sim.results.statistics import most_accurate
from warmstart_sim.results.tables import Run

MOST_ROWS = 60  # more run off the screen
COLUMNS = ("seeds", "accuracy (%)", "difference (points)", "train time", "time ratio", "epochs")


def terminal_table(run: Run) -> Table:
    """One row for each arm and combination of varied values; ± is half of the 95 % interval of the mean.

    Below stands how the train times were found.
    """
    every = run.summary()
    summary = most_accurate(every, run.reference, MOST_ROWS)
    title = f"final {plain(run.metric)}, and paired difference from {plain(run.reference)}"
    table = Table(
        title=f"{REHEARSAL}\n{title}" if run.environment.get("rehearsal") else title,
        title_justify="left",
        caption="\n".join(filter(None, [_timing(every["timing"]), *_cut(every, summary)])) or None,
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
            table.add_column(plain(axis))
    for name in COLUMNS:
        table.add_column(name.replace(" ", "\n"), justify="right", no_wrap=True)
    for row in summary.to_dict("records"):
        half = 100 * (row["final_accuracy_high"] - row["final_accuracy"])
        accuracy = 100 * row["final_accuracy"]
        table.add_row(
            plain(str(row["strategy"])),
            *("" if is_empty(row[axis]) else value(row[axis]) for axis in run.axes),
            str(row["seeds"]),
            "–" if is_empty(accuracy) else f"{accuracy:.1f}" + ("" if is_empty(half) else f" ± {half:.1f}"),
            points(row["difference"], row["difference_low"], row["difference_high"]),
            duration(row["train_seconds"]),
            ratio(row["time_ratio"]),
            "–" if is_empty(row["epochs"]) else f"{row['epochs']:,.0f}",
        )
    return table


def _cut(every: pd.DataFrame, shown: pd.DataFrame) -> list[str]:
    more = len(every) - len(shown)
    return [f"{more:,} rows more, less accurate or without a result, in summary.csv"] if more else []


def _timing(timing: pd.Series[str]) -> str | None:
    kinds = list(timing.dropna().unique())
    if len(kinds) == 1 and kinds[0] in TIMING_IN_FULL:
        return f"train times: {TIMING_IN_FULL[kinds[0]]}"
    return "train times: of several kinds, not to be compared; see timing in summary.csv" if kinds else None
