"""The order in which samples arrive."""

from __future__ import annotations

from typing import Literal

import numpy as np

from warmstart_sim.seeding import numpy_generator
from warmstart_sim.types import IntArray

Order = Literal["random", "balanced"]


def arrival_order(labels: IntArray, pool: IntArray, seed: int, order: Order) -> IntArray:
    """The indices of `pool` in the order in which they arrive.

    "random" is a plain permutation. "balanced" also permutes, then deals the classes evenly: every prefix holds each
    class in proportion to its share of the pool, to within one sample or so.

    >>> labels = np.array([0, 0, 0, 1, 1, 1])
    >>> sorted(labels[arrival_order(labels, np.arange(6), seed=3, order="balanced")[:2]].tolist())
    [0, 1]
    """
    generator = numpy_generator(seed, "arrival")
    permuted = generator.permutation(pool)
    if order == "random":
        return permuted
    # The j-th of a class's m samples arrives at time (j + u) / m, with one random offset u in [0, 1) for each class.
    arrival = np.empty(len(permuted))
    for label in np.unique(labels[permuted]):
        members = np.flatnonzero(labels[permuted] == label)
        arrival[members] = (np.arange(len(members)) + generator.random()) / len(members)
    return permuted[np.argsort(arrival, kind="stable")]
