"""The order in which samples arrive, and rounds in which they accumulate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from warmstart_sim.seeding import numpy_generator
from warmstart_sim.types import IntArray, Round

Order = Literal["random", "balanced", "given"]


def arrival_order(labels: IntArray, pool: IntArray, seed: int, order: Order) -> IntArray:
    """Returns the indices of `pool` in the order in which they arrive.

    "random" is a permutation. "balanced" is a permutation in which every prefix has the class proportions of the pool,
    up to about one sample per class. "given" is the order of `pool`, which is that of the data set.

    >>> labels = np.array([0, 0, 0, 1, 1, 1])
    >>> sorted(labels[arrival_order(labels, np.arange(6), seed=3, order="balanced")[:2]].tolist())
    [0, 1]
    """
    if order == "given":
        return pool
    generator = numpy_generator(seed, "arrival")
    permuted = generator.permutation(pool)
    if order == "random":
        return permuted
    # Sample j of a class with m samples arrives at time (j + u) / m, with one random offset u in [0, 1) per class.
    arrival = np.empty(len(permuted))
    for label in np.unique(labels[permuted]):
        members = np.flatnonzero(labels[permuted] == label)
        arrival[members] = (np.arange(len(members)) + generator.random()) / len(members)
    return permuted[np.argsort(arrival, kind="stable")]


def accumulating(arriving: IntArray, ends: Sequence[int]) -> list[Round]:
    """Rounds on the first samples of `arriving`, up to each of `ends`; the new ones are those after the end before.

    >>> [each.new.tolist() for each in accumulating(np.array([4, 2, 3]), [1, 3])]
    [[4], [2, 3]]
    """
    return [
        Round(index=index, train=arriving[:end], new=arriving[start:end])
        for index, (start, end) in enumerate(zip([0, *ends], ends, strict=False))
    ]
