"""The three quantities that figures over varied values show: accuracy, difference from the reference, train time."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from warmstart_sim.report.timing import comparable_times, train_time_name
from warmstart_sim.report.wording import readable
from warmstart_sim.results.tables import Run


@dataclass(frozen=True)
class Quantity:
    """A column of a table as a figure shows it.

    Attributes:
        name: Part of the names of files.
        title: Part of headings.
        rows: The rows with values that may be drawn together.
        column: The column with the values.
        scale: The factor from the column's values to those in the figure.
        label: The label of an axis or a colour bar.
        description: For captions.
        note: A sentence for the caption on rows that are left out, or nothing.
    """

    name: str
    title: str
    rows: pd.DataFrame
    column: str
    scale: float
    label: str
    description: str
    note: str = ""


def quantities(run: Run, table: pd.DataFrame, pairs: pd.DataFrame, rows_name: str) -> list[Quantity]:
    """Accuracy, difference and train time of cells or settings.

    Args:
        run: The run.
        table: Has final_accuracy, compared_seconds and timing, such as the table from `statistics.cells`.
        pairs: Has difference: from `statistics.paired`, or the same table.
        rows_name: What captions call the rows of `table`.
    """
    metric, reference = readable(run.metric), readable(run.reference)
    times = comparable_times(table)
    return [
        Quantity("accuracy", "final accuracy", table, "final_accuracy", 100, accuracy_label(run), f"final {metric}"),
        Quantity(
            "difference", f"difference from {reference}", pairs, "difference", 100,
            f"difference from\n{reference} (points)",
            f"difference in final {metric} from {reference} with the same seed",
        ),
        Quantity(
            "train_time", "train time", times.rows, "compared_seconds", 1 / times.unit_seconds,
            times.axis_label("train time"), f"{train_time_name(run)} ({times.in_full})", times.note(rows_name),
        ),
    ]  # fmt: skip


def accuracy_label(run: Run) -> str:
    """The label of an axis of final accuracies."""
    return f"final {readable(run.metric)} (%)".replace(" accuracy", "\naccuracy")
