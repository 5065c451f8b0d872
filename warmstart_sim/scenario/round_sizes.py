"""How many samples the rounds of cells have, and that their streams fit the data; without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from warmstart_sim.datasets.known_sizes import IMAGE_SETS, PHOTO_SETS, TEXT_SETS
from warmstart_sim.errors import WarmstartError
from warmstart_sim.scenario.cells import Cell
from warmstart_sim.scenario.changed_data import check_inputs, of_kind
from warmstart_sim.scenario.splits import check_first_phase, inputs_of, load_component, split_rounds


@dataclass(frozen=True)
class RoundSize:
    """How many samples a round has.

    Attributes:
        train: All samples to train on.
        new: Those that arrived with this round.
        again: Those that the round before trained on as well.
    """

    train: int
    new: int
    again: int


def round_sizes(cell: Cell, data_root: Path) -> list[RoundSize]:
    """The sizes of a cell's rounds.

    Sizes of well-known data sets are built in, with equally many samples of each class; any other data set is loaded.

    Raises:
        WarmstartError: As `load_dataset` and `split_rounds`.
    """
    name = cell.data.name
    known = IMAGE_SETS.get(name) or PHOTO_SETS.get(name) or TEXT_SETS.get(name)  # type: ignore[call-overload]
    if known is None or cell.data.options.get("test_fraction", 1 / 3) != 1 / 3:  # an option of noisy_digits
        labels = load_component(cell.data, cell.seed, data_root).train.labels
    else:
        labels = np.arange(known.train_samples, dtype=np.int64) % known.classes
    rounds = split_rounds(cell, labels, 0).rounds
    before = [rounds[0].train[:0], *(each.train for each in rounds)]
    return [
        RoundSize(len(each.train), len(each.new), int(np.isin(each.train, last).sum()))
        for each, last in zip(rounds, before, strict=False)
    ]


def checked_round_sizes(cells: Sequence[Cell], data_root: Path, where: str) -> list[list[RoundSize]]:
    """`round_sizes` of each cell, computed once for equal splits, after `check_first_phase` of each.

    Args:
        cells: The cells of a scenario.
        data_root: The folder of the data sets.
        where: What to name in errors.

    Raises:
        WarmstartError: As `round_sizes` and `check_first_phase`, or the stream changes inputs of another kind.
    """
    sizes: dict[str, list[RoundSize]] = {}
    starts = {repr((cell.pretraining, cell.data, cell.seed)): cell for cell in cells}

    def found(cell: Cell) -> list[RoundSize]:
        key = repr((cell.data, cell.data_settings, cell.stream, cell.rounds, cell.changes, cell.seed))
        if key not in sizes:
            if of_kind(cell.changes, "inputs"):
                check_inputs(cell.changes, *inputs_of(cell.data, cell.seed, data_root))
            sizes[key] = round_sizes(cell, data_root)
        return sizes[key]

    try:
        for cell in starts.values():
            check_first_phase(cell, data_root)
        return [list(found(cell)) for cell in cells]
    except WarmstartError as error:
        raise type(error)(f"{where}: {error}") from None
