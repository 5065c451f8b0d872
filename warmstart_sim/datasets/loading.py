"""From a data set's name to its samples, checked, and shared by the cells of one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from warmstart_sim.datasets.validation import validate
from warmstart_sim.errors import DataError
from warmstart_sim.registry import DATASETS
from warmstart_sim.types import Dataset

KEPT = 4  # data sets: a transfer experiment needs two at a time

_recent: dict[tuple[object, ...], Dataset] = {}


def load(name: str, options: Mapping[str, Any], root: Path, seed: int) -> Dataset:
    """The data set called `name`, checked.

    The last few stay in memory, so that the cells of a process share them: their arrays are read-only, and files that
    change afterwards are not noticed.

    Args:
        name: A registered name, or `module:function`.
        options: The keyword arguments of its function, valid ones.
        root: The folder that holds raw data sets, from `data_root`.
        seed: The experiment's seed.

    Raises:
        WarmstartError: No data set has that name.
        DataError: The data are missing, damaged, or no data set that one could train on.

    >>> load("digits", {}, Path("unused"), seed=0).input_shape
    (1, 8, 8)
    """
    function = DATASETS.get(name)
    # Without the trait a data set is taken to depend on the seed: forgetting it costs time, never a wrong result.
    one_for_all = DATASETS.has_trait(name, "same_for_every_seed")
    key = (name, repr(sorted(options.items())), root, None if one_for_all else seed)
    if key not in _recent:
        _recent[key] = _read_only(validate(_call(function, name, options, root, seed)))
        if len(_recent) > KEPT:
            del _recent[next(iter(_recent))]  # the one that was loaded first
    return _recent[key]


def _call(function: Callable[..., Dataset], name: str, options: Mapping[str, Any], root: Path, seed: int) -> Dataset:
    try:
        return function(root, seed, **options)
    except OSError as error:  # no permission, a failing disk; the message names the file
        raise DataError(f"{name}: {error}") from error


def _read_only(dataset: Dataset) -> Dataset:
    for samples in (dataset.train, dataset.test):
        samples.inputs.setflags(write=False)
        samples.labels.setflags(write=False)
    return dataset
