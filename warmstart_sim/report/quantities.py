"""The quantities that figures show: accuracy, the difference from the reference, costs, or any column of a table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from warmstart_sim.report.timing import comparable_times, train_time_name
from warmstart_sim.report.wording import column_name, readable
from warmstart_sim.results.figure_settings import of_arm
from warmstart_sim.results.statistics import COSTS
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
        kind: How heatmaps draw it.
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
    kind: Literal["accuracy", "difference", "cost", "other"] = "other"


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
            "accuracy", "final accuracy", table, "final_accuracy", 100, "%", accuracy_label(run), f"final {metric}",
            kind="accuracy",
        ),
        Quantity(
            "difference", f"difference from {reference}", pairs, "difference", 100, "points",
            f"difference from\n{reference} (points)",
            f"difference in final {metric} from {reference} with the same seed", kind="difference",
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
            kind="cost",
        ),
        Quantity(
            "epochs", "epochs", table, "epochs", 1, "epochs", f"epochs {when}", f"number of epochs {when}", kind="cost"
        ),
        Quantity(
            "flops", "FLOPs", known, "flops", 1 / flop, f"{prefix}FLOP", f"training FLOPs\n({prefix}FLOP)",
            f"number of training FLOPs {when}", kind="cost",
        ),
    ]  # fmt: skip


def column_quantity(run: Run, table: pd.DataFrame, column: str, rows_name: str) -> Quantity:
    """Any column of a table as a figure shows it: accuracies in per cent, and seconds of one kind only.

    Args:
        run: The run.
        table: Has the column; for train_seconds of rounds or cells, from `statistics.counted_seconds`.
        column: Its name.
        rows_name: What captions call the rows of `table`.
    """
    own, arm = of_arm(column)
    if arm:
        quantity, of = column_quantity(run, table, own, rows_name), f"{readable(own)} of {readable(arm)}"
        label = quantity.label.replace(quantity.title, of)
        return replace(quantity, name=of, title=of, column=column, label=label, description=of)
    name = column_name(run, column)
    if column == "train_seconds" and "compared_seconds" in table:
        times = comparable_times(table)
        return Quantity(
            column, "train time", times.rows, "compared_seconds", 1 / times.unit_seconds, times.unit,
            times.axis_label("train time"), f"train time ({times.in_full})", times.note(rows_name), kind="cost",
        )  # fmt: skip
    if column == "difference":
        reference = readable(run.reference)
        return Quantity(
            column, name, table, column, 100, "points", f"difference from\n{reference} (points)",
            f"{readable(run.metric)} minus that of {reference} with the same seed", kind="difference",
        )  # fmt: skip
    if column.endswith("accuracy"):
        return Quantity(column, name, table, column, 100, "%", f"{name} (%)", name, kind="accuracy")
    unit = run.column_info(column).get("unit", "")
    kind: Literal["cost", "other"] = "cost" if column in COSTS else "other"
    return Quantity(column, name, table, column, 1, unit, f"{name} ({unit})" if unit else name, name, kind=kind)


def accuracy_label(run: Run) -> str:
    """The label of an axis of final accuracies."""
    return f"final {readable(run.metric)} (%)".replace(" accuracy", "\naccuracy")
