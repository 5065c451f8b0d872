"""Which labels become noise, and how: so many, drawn uniformly from all classes, and never those of other samples."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from warmstart_sim.datasets.label_noise import label_noise

SHARES = st.floats(0, 0.99)
SEEDS = st.integers(0, 2**31)


def labels_of(count: int, classes: int = 7) -> np.ndarray:
    return np.random.default_rng(count).integers(0, classes, count)


@given(count=st.integers(1, 300), share=SHARES, seed=SEEDS)
def test_a_share_of_the_pool_and_nothing_else_gets_random_labels(count, share, seed):
    labels = labels_of(count)
    pool = np.random.default_rng(seed).permutation(count)[: count // 2 + 1]
    noise = label_noise(labels, pool, share, seed)
    assert len(np.unique(noise.corrupted)) == len(noise.corrupted) == round(share * len(pool))
    assert set(noise.corrupted) <= set(pool)
    clean = np.setdiff1d(np.arange(count), noise.corrupted)
    assert np.array_equal(noise.labels[clean], labels[clean])
    assert set(noise.labels) <= set(labels)
    assert set(noise.lost) == set(labels[pool]) - set(noise.labels[pool])
    assert np.array_equal(labels, labels_of(count))  # the data set's own labels stay as they are


@given(count=st.integers(1, 300), shares=st.tuples(SHARES, SHARES), seed=SEEDS)
def test_more_noise_of_the_same_seed_leaves_less_noise_as_it_is(count, shares, seed):
    labels, pool = labels_of(count), np.arange(count)
    less, more = (label_noise(labels, pool, share, seed) for share in sorted(shares))
    assert set(less.corrupted) <= set(more.corrupted)
    assert np.array_equal(more.labels[less.corrupted], less.labels[less.corrupted])


def test_random_labels_are_uniform_whatever_the_true_ones_are():
    labels = np.repeat(np.arange(10), 10_000)
    noise = label_noise(labels, np.arange(len(labels)), 0.4, seed=3)
    counts = np.zeros((10, 10))  # true class, drawn class
    np.add.at(counts, (labels[noise.corrupted], noise.labels[noise.corrupted]), 1)
    expected = 0.4 * 10_000 / 10
    assert ((counts - expected) ** 2 / expected).sum() < 148.2  # chi-squared, 100 cells, 0.1 % (99 degrees of freedom)
    assert abs((noise.labels != labels).mean() - 0.4 * 0.9) < 0.005


def test_seeds_corrupt_other_samples():
    labels = labels_of(200)
    first, second = (label_noise(labels, np.arange(200), 0.2, seed) for seed in (0, 1))
    assert not np.array_equal(first.corrupted, second.corrupted)


def test_a_class_that_does_not_occur_is_never_drawn():
    labels = np.array([0, 2, 4] * 100)
    assert set(label_noise(labels, np.arange(300), 0.9, seed=0).labels) == {0, 2, 4}
