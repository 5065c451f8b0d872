"""Labels that change their meaning."""

from __future__ import annotations

import numpy as np
from pydantic import PositiveInt

from warmstart_sim.registry import CHANGES
from warmstart_sim.seeding import numpy_generator
from warmstart_sim.types import IntArray


@CHANGES.register("permuted_labels", "needs_classes", changes="labels")
def permuted_labels(
    labels: IntArray, arrived: IntArray, seed: int, classes: int, *, start: PositiveInt = 1
) -> IntArray:
    """From round `start` on, new samples have permuted labels: no class keeps its number.

    Samples that arrived before keep their labels, so that old and new ones contradict each other.

    Args:
        labels: The labels, shape (n,).
        arrived: The round in which each sample arrived, shape (n,).
        seed: The experiment's seed.
        classes: The number of classes, at least 2.
        start: The first round whose new samples have permuted labels, at least 1. Default 1.

    >>> permuted_labels(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), 0, 2).tolist()
    [0, 1, 1, 0]
    """
    cycle = numpy_generator(seed, "permuted_labels").permutation(classes)
    permuted = np.empty(classes, dtype=np.int64)
    permuted[cycle] = np.roll(cycle, 1)  # one cycle through all classes
    return np.where(arrived >= start, permuted[labels], labels)
