"""Splits data that come without a test set."""

from __future__ import annotations

import numpy as np

from warmstart_sim.types import IntArray


def stratified_split(
    labels: IntArray, test_fraction: float, generator: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """Holds out the same share of every class at random.

    Of a class of m samples, `round(test_fraction * m)` are held out: at least one, and at most m - 1 (so a class with a
    single sample is only trained on).

    Args:
        labels: The label of each sample, shape (n,).
        test_fraction: The share held out, in (0, 1).
        generator: The random generator.

    Returns:
        (train, test): disjoint int64 indices, each sorted, together 0 to n - 1.

    >>> train, test = stratified_split(np.array([0, 0, 0, 1, 1, 1]), 1 / 3, np.random.default_rng(0))
    >>> len(train), len(test)
    (4, 2)
    """
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        count = max(1, round(test_fraction * len(members)))
        held_out[members[: min(count, len(members) - 1)]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
