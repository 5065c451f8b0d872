"""A cell's data set, and its samples dealt out into rounds, validation and test; without torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from warmstart_sim import data as datasets
from warmstart_sim.config.cells import Cell, plan
from warmstart_sim.config.component import first_line
from warmstart_sim.config.source import set_values
from warmstart_sim.data.image_sets import IMAGE_SETS
from warmstart_sim.errors import DataError, WarmstartError
from warmstart_sim.registry import DATASETS, STREAMS
from warmstart_sim.streams import held_out, limited
from warmstart_sim.types import Dataset, IntArray, Round


@dataclass(frozen=True)
class Dealt:
    """The rounds of a cell, and what is held out: the same for all arms of a seed."""

    rounds: list[Round]
    validation: IntArray
    test: IntArray


def load_dataset(cell: Cell, data_root: Path) -> Dataset:
    """The cell's data set, from memory where this process has it already.

    Raises:
        DataError: It is missing or damaged.
    """
    function, options = cell.data.bind(DATASETS)
    try:
        if cell.data.target is not None:
            return datasets.validate(function(data_root, cell.seed, **options))
        return datasets.load(cell.data.name, options, data_root, cell.seed)
    except WarmstartError:
        raise
    except Exception as error:
        if not cell.data.is_own:
            raise
        raise DataError(f"data set '{cell.data.name}': {first_line(error)}") from error


def deal(cell: Cell, labels: IntArray, test_count: int) -> Dealt:
    """Holds out validation data, then lets the stream deal out the rest.

    Args:
        cell: Whose settings and seed decide.
        labels: All training labels.
        test_count: The number of test samples.

    Raises:
        WarmstartError: The settings leave nothing to train on, or the stream does not fit the data.
    """
    settings, seed = cell.data_settings, cell.seed
    pool, validation = held_out(labels, settings.validation_fraction, seed)
    pool = limited(pool, settings.train_samples, seed, "train_samples")
    if len(pool) == 0:
        raise WarmstartError(
            f"data.validation_fraction: {settings.validation_fraction} of {len(labels)} samples leaves none to train on"
        )
    test = limited(np.arange(test_count, dtype=np.int64), settings.test_samples, seed, "test_samples")
    stream, options = cell.stream.bind(STREAMS)
    return Dealt(stream(labels, pool, seed, **options)[: cell.rounds], validation, test)


def training_sizes(cell: Cell, data_root: Path) -> list[int]:
    """The number of training samples in each round of a cell.

    The size of a known image set is looked up, so that nothing has to be there; any other data set is loaded.

    Raises:
        WarmstartError: As `load_dataset` and `deal`.
    """
    known = IMAGE_SETS.get(cell.data.name)  # type: ignore[call-overload]
    if known is None or cell.data.options.get("test_fraction", 1 / 3) != 1 / 3:  # noisy_digits splits as it is told
        labels = load_dataset(cell, data_root).train.labels
    else:
        labels = np.arange(known.train_samples, dtype=np.int64) % known.classes
    return [len(each.train) for each in deal(cell, labels, 0).rounds]


def all_training_sizes(cells: Sequence[Cell], data_root: Path, where: str) -> list[list[int]]:
    """`training_sizes` of each cell, found out once for all cells that are dealt the same.

    Args:
        cells: The cells of a scenario.
        data_root: The folder of the data sets.
        where: What to name in errors.

    Raises:
        WarmstartError: As `training_sizes`.
    """
    sizes: dict[str, list[int]] = {}

    def found(cell: Cell) -> list[int]:
        key = repr((cell.data, cell.data_settings, cell.stream, cell.rounds, cell.seed))
        if key not in sizes:
            sizes[key] = training_sizes(cell, data_root)
        return sizes[key]

    try:
        return [found(cell) for cell in cells]
    except WarmstartError as error:
        raise type(error)(f"{where}: {error}") from None


def load_by_name(name: str, assignments: Iterable[str], data_root: Path) -> Dataset:
    """A data set by itself.

    Args:
        name: As in a scenario file.
        assignments: Its options, each "KEY=VALUE".
        data_root: The folder of the data sets.

    Raises:
        WarmstartError: No such data set, or no such option.
        DataError: It is missing or damaged.
    """
    raw = {"name": "data", "data": {"name": name}, "strategies": {"random_init": {}}}
    _, (cell,) = plan(set_values(raw, (f"data.{each}" for each in assignments)), name)
    return load_dataset(cell, data_root)
