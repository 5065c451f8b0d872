"""When samples arrived: the order of a table's column, of an array, or of files' times."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmstart_sim.errors import DataError
from warmstart_sim.types import IntArray

FILE_TIMES = "mtime"  # the value of `arrival` that stands for the time at which a file was last changed


def order_of_files(name: str, files: Sequence[Path]) -> IntArray:
    """The files' indices by the time of their last change, the oldest first; files of one time keep their order.

    Raises:
        DataError: All have the same time.
    """
    return _order(name, np.array([file.stat().st_mtime_ns for file in files]), "the files' times")


def order_of_values(name: str, values: Sequence[Any] | NDArray[Any], what: str) -> IntArray:
    """The indices of numbers or dates in ascending order; equal ones keep theirs.

    Args:
        name: The data set's name, for messages.
        values: Numbers, dates, or texts of either.
        what: What they are, such as "the column 'day'".

    Raises:
        DataError: One of them is neither, or all are the same.
    """
    import pandas as pd

    found = pd.Series(np.asarray(values))
    as_dates = pd.to_datetime(found, errors="coerce", format="mixed", utc=True)
    as_numbers = as_dates if found.dtype.kind == "M" else pd.to_numeric(found, errors="coerce")
    times = min(as_numbers, as_dates, key=lambda read: read.isna().sum())  # numbers if all are
    if times.isna().any():
        row = int(times.isna().to_numpy().argmax())
        raise DataError(
            f"{name}: {what} has {str(found[row])!r} in row {row + 1}, which is neither a number nor a date"
        )
    return _order(name, times.to_numpy(), what)


def _order(name: str, times: NDArray[Any], what: str) -> IntArray:
    if len(times) > 1 and (times == times[0]).all():
        raise DataError(f"{name}: {what} are all the same, so they give no order of arrival")
    return np.argsort(times, kind="stable").astype(np.int64)


def newest_held_out(order: IntArray, test_fraction: float) -> tuple[IntArray, IntArray]:
    """Splits indices in order of arrival: the newest are held out, at least one, and at most all but one.

    >>> newest_held_out(np.array([3, 1, 0, 2]), 0.25)
    (array([3, 1, 0]), array([2]))
    """
    count = min(max(1, round(test_fraction * len(order))), len(order) - 1)
    return order[: len(order) - count], order[len(order) - count :]
