"""The quantities that figures over varied values show: accuracy, the difference from the reference, and costs."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from warmstart_sim.report.timing import comparable_times, train_time_name
from warmstart_sim.report.wording import readable
from warmstart_sim.results.tables import Run

PREFIXES = {"E": 1e18, "P": 1e15, "T": 1e12, "G": 1e9, "": 1.0}


@dataclass(frozen=True)
class Quantity:
    """A column of a table as a figure shows it.

    Attributes:
        name: Part of the names of files.
        title: Part of headings.
        rows: The rows with values that may be drawn together.
        column: The column with the values.
        scale: The factor from the column's values to those in the figure.
        unit: The unit of the values in the figure.
        label: The label of an axis or a colour bar.
        description: For captions.
        note: A sentence for the caption on rows that are left out, or nothing.
    """

    name: str
    title: str
    rows: pd.DataFrame
    column: str
    scale: float
    unit: str
    label: str
    description: str
    note: str = ""


def accuracies(run: Run, table: pd.DataFrame, pairs: pd.DataFrame) -> list[Quantity]:
    """Final accuracy and its difference from the reference.

    Args:
        run: The run.
        table: Has final_accuracy: from `statistics.cells` or `statistics.summary`.
        pairs: Has difference: from `statistics.paired`, or the same summary.
    """
    metric, reference = readable(run.metric), readable(run.reference)
    return [
        Quantity(
            "accuracy", "final accuracy", table, "final_accuracy", 100, "%", accuracy_label(run), f"final {metric}"
        ),
        Quantity(
            "difference", f"difference from {reference}", pairs, "difference", 100, "points",
            f"difference from\n{reference} (points)",
            f"difference in final {metric} from {reference} with the same seed",
        ),
    ]  # fmt: skip


def costs(run: Run, table: pd.DataFrame, rows_name: str) -> list[Quantity]:
    """Train time, epochs and FLOPs of cells or settings.

    Args:
        run: The run.
        table: From `statistics.cells` or `statistics.summary`.
        rows_name: What captions call the rows of `table`.
    """
    times = comparable_times(table)
    known = table[table["flops"] > 0]
    prefix, flop = next(each for each in PREFIXES.items() if each[1] <= known["flops"].max() or each[1] == 1)
    when = train_time_name(run).removeprefix("train time ")  # of all rounds, or after the first phase
    return [
        Quantity(
            "train_time", "train time", times.rows, "compared_seconds", 1 / times.unit_seconds, times.unit,
            times.axis_label("train time"), f"{train_time_name(run)} ({times.in_full})", times.note(rows_name),
        ),
        Quantity("epochs", "epochs", table, "epochs", 1, "epochs", f"epochs {when}", f"number of epochs {when}"),
        Quantity(
            "flops", "FLOPs", known, "flops", 1 / flop, f"{prefix}FLOP", f"training FLOPs\n({prefix}FLOP)",
            f"number of training FLOPs {when}",
        ),
    ]  # fmt: skip


def accuracy_label(run: Run) -> str:
    """The label of an axis of final accuracies."""
    return f"final {readable(run.metric)} (%)".replace(" accuracy", "\naccuracy")
