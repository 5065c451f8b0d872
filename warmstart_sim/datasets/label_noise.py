"""Label noise: some training labels are replaced by random ones (Zaidi et al. 2022, section 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from warmstart_sim.seeding import numpy_generator
from warmstart_sim.types import IntArray


@dataclass(frozen=True)
class LabelNoise:
    """Training labels, some of which are noise.

    Attributes:
        labels: The labels to train on, shape (n,).
        corrupted: Indices of the samples whose label was drawn at random, sorted.
        lost: Classes that had samples to train on before, and have none now.
    """

    labels: IntArray
    corrupted: IntArray
    lost: IntArray


def label_noise(labels: IntArray, pool: IntArray, share: float, seed: int) -> LabelNoise:
    """Replaces the labels of `round(share * len(pool))` samples of the pool by labels drawn uniformly from the classes.

    The true class may be drawn, so of k classes about share * (k - 1) / k of the labels become wrong. A larger share
    with the same seed corrupts the same samples with the same labels, and others as well.

    Args:
        labels: All training labels, shape (n,). The classes are those that occur among them.
        pool: Indices of the samples to train on; the labels of others, such as validation data, stay as they are.
        share: q, in [0, 1).
        seed: The experiment's seed.

    >>> noise = label_noise(np.arange(1000) % 10, np.arange(500), share=0.2, seed=0)
    >>> len(noise.corrupted), bool((noise.labels[500:] == np.arange(500, 1000) % 10).all())
    (100, True)
    """
    count = round(share * len(pool))
    if count == 0:
        return LabelNoise(labels, pool[:0], pool[:0])
    generator = numpy_generator(seed, "label_noise")
    order = generator.permutation(pool)
    drawn = generator.choice(np.unique(labels), size=len(pool))
    noisy = labels.copy()
    noisy[order[:count]] = drawn[:count]
    return LabelNoise(noisy, np.sort(order[:count]), np.setdiff1d(labels[pool], noisy[pool]))
