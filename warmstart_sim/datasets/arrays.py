"""Your own arrays: images, features or tokens in one .npz file."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from warmstart_sim.datasets.arrival import newest_held_out, order_of_values
from warmstart_sim.datasets.labels import number_labels
from warmstart_sim.datasets.split import stratified_split
from warmstart_sim.errors import DataError, unknown
from warmstart_sim.registry import DATASETS
from warmstart_sim.seeding import numpy_generator
from warmstart_sim.types import Dataset, IntArray, Samples

KEYS = ("x_train", "y_train", "x_test", "y_test")
CHANNELS = (1, 3)


@DATASETS.register("arrays", "same_for_every_seed")
def arrays(
    root: Path,
    seed: int,
    *,
    path: Path,
    classes: Annotated[int, Field(ge=2)] | None = None,
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2,
    arrival: str | None = None,
) -> Dataset:
    """Your own arrays: a .npz file with x_train and y_train, and optionally x_test and y_test.

    Inputs are uint8 images (n, height, width), with 1 or 3 channels before or after height and width if there are any;
    floats (n, ...), used as they are; or tokens: integers other than uint8, (n, length), padded with zeros at the end.
    Labels are whole numbers of any type, text or booleans, shape (n,) or (n, 1), or one-hot rows (n, k). The classes
    are numbered in sorted order, and a note says how, unless they are 0 to k - 1 already.

    Args:
        root: Not used.
        seed: Not used: the split is the same for every seed.
        path: The file.
        classes: The number of classes k; whole numbers below it are then left as they are. Default: the number of
            different training labels, or of the columns of one-hot rows.
        test_fraction: The share of each class held out for testing, in (0, 1). Ignored if there is an x_test.
        arrival: The file's array of numbers or dates, shape (n,), that orders the training samples; without an x_test,
            the last are held out. Default: the order of x_train.

    Raises:
        DataError: The file does not exist, has other keys, or holds arrays that do not fit together.
    """
    path = path.expanduser()
    found = _read(path, arrival)
    labels = number_labels(
        f"arrays: {path}",
        found["y_train"],
        found.get("y_test", ()),
        classes,
        ("the labels y_train", "the labels y_test"),
    )
    train = _samples(path, found, "train", labels.train)
    order = _order(path, found, arrival, len(train)) if arrival else np.arange(len(train))
    if "x_test" in found:
        test = _samples(path, found, "test", labels.test)
        train = train.take(order) if arrival else train
    elif arrival:
        train, test = (train.take(part) for part in newest_held_out(order, test_fraction))
    else:
        split = stratified_split(train.labels, test_fraction, numpy_generator(0, "held_out"))
        train, test = (train.take(part) for part in split)
    return Dataset("arrays", train, test, labels.classes, notes=labels.notes)


def _order(path: Path, found: Mapping[str, NDArray[Any]], arrival: str, count: int) -> IntArray:
    """The order of the training samples."""
    times = found[arrival]
    if times.shape != (count,):
        raise DataError(
            f"arrays: {path}: {arrival} has shape {times.shape}; it needs one value for each of {count} rows"
        )
    return order_of_values("arrays", times, f"the array '{arrival}' of {path}")


def _read(path: Path, arrival: str | None) -> Mapping[str, NDArray[Any]]:
    if not path.is_file():
        raise DataError(f"arrays: there is no file {path}")
    if not zipfile.is_zipfile(path):
        raise DataError(f"arrays: {path} is not a .npz file, or it is truncated")
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = {key: archive[key] for key in archive.files}
    except Exception as error:  # zipfile, zlib and NumPy raise many different errors for a damaged file
        hint = "; save text labels as y.astype(str)" if "allow_pickle" in str(error) else ""
        raise DataError(f"arrays: {path} does not hold plain arrays, or is damaged ({error}){hint}") from error
    if arrival and (arrival not in found or arrival in KEYS):
        others = [key for key in found if key not in KEYS]
        raise DataError(f"arrays: {path}: arrival: {unknown('array', arrival, others)}")
    for key in found:
        if key not in KEYS and key != arrival:
            raise DataError(f"arrays: {path}: {unknown('array', key, KEYS)}")
    needed = KEYS if {"x_test", "y_test"} & found.keys() else KEYS[:2]
    if absent := [key for key in needed if key not in found]:
        raise DataError(f"arrays: {path} has no {' and no '.join(absent)}")
    return found


def _samples(path: Path, found: Mapping[str, NDArray[Any]], part: str, labels: IntArray) -> Samples:
    x, y = found[f"x_{part}"], found[f"y_{part}"]
    if x.ndim == 1 and len(x) == len(labels) > 0:
        raise DataError(f"arrays: {path}: x_{part} has shape {x.shape}; a single feature is a column, x[:, None]")
    if x.ndim < 2 or len(x) != len(labels) or len(x) == 0:
        raise DataError(f"arrays: {path}: x_{part} has shape {x.shape} and y_{part} {y.shape}; both need n > 0 rows")
    return Samples(_inputs(path, x, part), labels)


def _inputs(path: Path, x: NDArray[Any], part: str) -> NDArray[Any]:
    """Converts to uint8 (n, channels, height, width), float32 (n, ...), or int64 (n, length)."""
    if np.issubdtype(x.dtype, np.floating):
        with np.errstate(over="ignore"):  # values too large for float32 become infinite, and `validate` rejects those
            return x.astype(np.float32)
    if x.dtype == np.uint8 and x.ndim == 3:
        return x[:, None]
    if x.dtype == np.uint8 and x.ndim == 4 and x.shape[1] in CHANNELS:
        return x
    if x.dtype == np.uint8 and x.ndim == 4 and x.shape[3] in CHANNELS:
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    if np.issubdtype(x.dtype, np.integer) and x.dtype != np.uint8 and x.ndim == 2:
        return x.astype(np.int64)  # values too large for int64 become negative, and `validate` rejects those
    raise DataError(
        f"arrays: {path}: x_{part} is {x.dtype} of shape {x.shape}; inputs are uint8 images (n, height, width) with "
        "1 or 3 channels before or after the sides, floats (n, ...), or integer tokens (n, length) other than uint8"
    )
