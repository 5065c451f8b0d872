"""Turns labels as people have them (text, booleans, whole numbers, columns, one-hot rows) into classes 0 to k - 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmstart_sim.errors import DataError
from warmstart_sim.types import IntArray

MOST_LISTED = 30  # classes in a note


@dataclass(frozen=True)
class NumberedLabels:
    """Labels as class indices, int64 (n,), the number of classes, and what the user should be told."""

    train: IntArray
    test: IntArray
    classes: int
    notes: tuple[str, ...] = ()


def number_labels(
    name: str,
    train: Any,
    test: Any = (),
    classes: int | None = None,
    parts: tuple[object, object] = ("the training labels", "the test labels"),
    empty: Sequence[str] = (),
) -> NumberedLabels:
    """Numbers the classes in sorted order: as numbers if all labels are numbers, else as text.

    Labels that are 0 to k - 1 already, or whole numbers below `classes`, stay as they are.

    Args:
        name: What messages begin with.
        train: Training labels: text, booleans or whole numbers of any type, (n,) or (n, 1), or one-hot rows (n, k).
        test: Test labels. Each must occur in `train` or be a number below `classes`.
        classes: The number of classes k. Default: that of the training labels, or of the columns of one-hot rows.
        parts: What messages call the training and the test labels.
        empty: Names of classes without training samples.

    Raises:
        DataError: The labels are of another kind, or it is not clear which classes they mean.

    >>> numbered = number_labels("mine", ["dog", "cat", "dog"], ["cat"])
    >>> numbered.train.tolist(), numbered.test.tolist(), numbered.notes
    ([1, 0, 1], [0], ('mine: classes: cat -> 0, dog -> 1',))
    """
    train, columns = _one_label_each(f"{name}: {parts[0]}", train)
    test, test_columns = _one_label_each(f"{name}: {parts[1]}", test)
    if columns and test_columns not in (None, columns):
        raise DataError(f"{name}: {parts[0]} have {columns} one-hot columns, {parts[1]} {test_columns}")
    keys = _keys([*train.tolist(), *empty, *test.tolist()])
    train_keys, test_keys = keys[: len(train)], keys[len(train) + len(empty) :]
    found = sorted(set(keys[: len(train) + len(empty)]))
    given, classes = classes or columns, classes or columns or len(found)
    if all(_is_index(key, classes) for key in found):
        number = {key: int(key) for key in set(keys) if _is_whole(key)}
    else:
        number = {key: index for index, key in enumerate(found)}
        if given and len(found) > given and isinstance(found[0], str):
            raise DataError(f"{name}: {parts[0]} hold {len(found)} classes, and `classes` is {given}")
        if given and len(found) != given and not isinstance(found[0], str):
            outside = next(key for key in found if not _is_index(key, given))
            raise DataError(f"{name}: {parts[0]} hold {outside}; with {given} classes they are 0 to {given - 1}")
    if unknown := [key for key in test_keys if key not in number]:
        raise DataError(f"{name}: class '{unknown[0]}' in {parts[1]} is not in {parts[0]}")
    notes = [f"{name}: one-hot rows: the class is the column of the 1, 0 to {columns - 1}"] if columns else []
    if any(str(key) != str(index) for key, index in number.items()):
        notes.append(f"{name}: {describe_classes(found)}")
    train, test = (np.array([number[key] for key in part], dtype=np.int64) for part in (train_keys, test_keys))
    return NumberedLabels(train, test, classes, tuple(notes))


def describe_classes(names: Sequence[object]) -> str:
    """The numbers of classes, for a note.

    >>> describe_classes(["cat", "dog"])
    'classes: cat -> 0, dog -> 1'
    """
    listed = ", ".join(f"{name} -> {index}" for index, name in enumerate(names[:MOST_LISTED]))
    more = f", and so on: {len(names)} in sorted order" if len(names) > MOST_LISTED else ""
    return f"classes: {listed}{more}"


def _one_label_each(where: str, labels: Any) -> tuple[NDArray[Any], int | None]:
    """The labels with shape (n,), and the number of columns if they were one-hot rows."""
    array = np.asarray(labels) if hasattr(labels, "dtype") else np.array(labels, dtype=object)
    if array.size == 0:
        return np.empty(0, np.int64), None
    if sum(size > 1 for size in array.shape) <= 1:
        array = array.reshape(-1)  # a column (n, 1), or a row
    if array.dtype.kind == "O":
        array = _of_one_type(where, array)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    if array.dtype.kind == "f":
        _check_whole(where, array)
    if array.dtype.kind not in "biufU":
        raise DataError(f"{where} are {array.dtype}; they can be whole numbers, text, booleans or one-hot rows")
    if array.ndim > 1:
        return _from_one_hot(where, array)
    if array.dtype.kind == "U" and not (filled := np.char.strip(array) != "").all():
        raise DataError(f"{where} are empty for sample {np.argmin(filled)}: give it a label, or leave it out")
    return array, None


def _of_one_type(where: str, array: NDArray[Any]) -> NDArray[Any]:
    """An array of Python objects as an array of text, numbers or booleans."""
    names = {"U": "text", "S": "text", "b": "booleans", "i": "numbers", "u": "numbers", "f": "numbers"}
    types = {type(each): each for each in array.flat}
    kinds = {
        names.get(np.asarray(each).dtype.kind) if np.isscalar(each) else None: kind for kind, each in types.items()
    }
    if len(kinds) > 1:
        found = sorted(name or kind.__name__ for name, kind in kinds.items())
        raise DataError(f"{where} mix {' and '.join(found)}: give all labels one type, and every sample a label")
    return array if None in kinds else np.array(array.tolist())


def _check_whole(where: str, array: NDArray[np.floating[Any]]) -> None:
    whole = np.isfinite(array) & (array == np.rint(array))
    if whole.all():
        return
    index = tuple(np.argwhere(~whole)[0])
    if np.isnan(array[index]):
        hint = f"give sample {index[0]} a label, or leave it out"
    elif array.ndim == 2:
        hint = "give the index of the largest score, y.argmax(axis=1)"
    else:
        hint = "classes are whole numbers or text; np.digitize puts measurements into classes"
    raise DataError(f"{where} hold {array[index]}: {hint}")


def _from_one_hot(where: str, array: NDArray[Any]) -> tuple[IntArray, int]:
    fault = ""
    if array.ndim == 2 and array.dtype.kind != "U":
        one_hot = ((array == 0) | (array == 1)).all(axis=1) & (array.sum(axis=1) == 1)
        if one_hot.all():
            return array.argmax(axis=1), array.shape[1]
        fault = f", and row {np.argmin(one_hot)} is not one-hot"
    raise DataError(f"{where} have shape {array.shape}{fault}: give one class a sample, shape (n,), or one-hot rows")


def _keys(labels: list[Any]) -> list[Any]:
    """Labels as numbers if all are numbers, also in texts (10 comes after 9, and 1.0 equals 1), or else as text."""
    if not any(isinstance(label, str) for label in labels):
        return [int(label) if isinstance(label, float) else label for label in labels]
    try:
        numbers = [Decimal(label) for label in labels]
    except InvalidOperation:
        numbers = []
    if numbers and all(number.is_finite() for number in numbers):
        return numbers
    return [str(label).strip() for label in labels]


def _is_whole(key: Any) -> bool:
    return not isinstance(key, str) and int(key) == key


def _is_index(key: Any, classes: int) -> bool:
    return _is_whole(key) and 0 <= key < classes
