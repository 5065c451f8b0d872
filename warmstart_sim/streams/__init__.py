"""Streams: how samples arrive. Each is a function (labels, pool, seed, options) -> rounds of sample indices."""

from __future__ import annotations

import numpy as np

from warmstart_sim.seeding import numpy_generator
from warmstart_sim.types import IntArray


def split_validation(labels: IntArray, fraction: float, seed: int) -> tuple[IntArray, IntArray]:
    """Splits the indices of `labels` at random into a training pool and validation data.

    Args:
        labels: Training labels, shape (n,).
        fraction: The share held out for validation, in [0, 1); `round(fraction * n)` samples.
        seed: The experiment's seed: every arm of a seed gets the same split.

    Returns:
        (pool, validation): disjoint int64 indices, each sorted, together 0 to n - 1.

    >>> pool, validation = split_validation(np.zeros(9, dtype=np.int64), 1 / 3, seed=0)
    >>> len(pool), len(validation)
    (6, 3)
    """
    permutation = numpy_generator(seed, "validation").permutation(len(labels))
    count = round(fraction * len(labels))
    return np.sort(permutation[count:]), np.sort(permutation[:count])


def random_subset(indices: IntArray, count: int | None, seed: int, purpose: str) -> IntArray:
    """Draws at most `count` indices; None keeps all. Subsets are nested: a larger count only adds indices."""
    if count is None or count >= len(indices):
        return indices
    return np.sort(numpy_generator(seed, purpose).permutation(indices)[:count])
