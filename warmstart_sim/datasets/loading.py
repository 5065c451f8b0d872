"""Loads a data set by name, validates it, and keeps it in memory for the other cells of the process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from warmstart_sim.datasets.validation import validate
from warmstart_sim.errors import DataError
from warmstart_sim.registry import DATASETS
from warmstart_sim.types import Dataset

MAX_KEPT = 4  # data sets in memory; a transfer experiment needs two at a time

_recent: dict[tuple[object, ...], Dataset] = {}


def load(name: str, options: Mapping[str, Any], root: Path, seed: int) -> Dataset:
    """Loads and validates the data set called `name`.

    The last few data sets stay in memory, and the cells of a process share them. Their arrays are therefore read-only,
    and files that change after the first load are not read again.

    Args:
        name: A registered name, or `module:function`.
        options: The keyword arguments of its function, already validated.
        root: The folder of the raw data sets, from `data_root`.
        seed: The experiment's seed.

    Raises:
        WarmstartError: No data set has that name.
        DataError: The data are missing or damaged, or cannot be trained on.

    >>> load("digits", {}, Path("unused"), seed=0).input_shape
    (1, 8, 8)
    """
    function = DATASETS.get(name)
    # Without the trait, a data set is assumed to depend on the seed: a forgotten trait costs time, not correctness.
    same_for_every_seed = DATASETS.has_trait(name, "same_for_every_seed")
    key = (name, repr(sorted(options.items())), root, None if same_for_every_seed else seed)
    if key not in _recent:
        _recent[key] = _read_only(validate(_call(function, name, options, root, seed)))
        if len(_recent) > MAX_KEPT:
            del _recent[next(iter(_recent))]  # the oldest
    return _recent[key]


def _call(function: Callable[..., Dataset], name: str, options: Mapping[str, Any], root: Path, seed: int) -> Dataset:
    try:
        return function(root, seed, **options)
    except OSError as error:  # for example no permission; the message contains the file name
        raise DataError(f"{name}: {error}") from error


def _read_only(dataset: Dataset) -> Dataset:
    for samples in (dataset.train, dataset.test):
        samples.inputs.setflags(write=False)
        samples.labels.setflags(write=False)
    return dataset
