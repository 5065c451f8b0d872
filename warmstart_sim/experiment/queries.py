"""Queries of active learning: which samples a model asks for. Pure functions of its outputs, in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, softmax

from warmstart_sim.types import IntArray

Floats = NDArray[np.float64]


def margin(logits: Floats, count: int) -> IntArray:
    """The `count` samples with the smallest margin p_1 - p_2 of the two most probable classes (Scheffer et al. 2001).

    >>> margin(np.log([[0.5, 0.4, 0.1], [0.9, 0.1, 0.0001], [0.45, 0.45, 0.1]]), 2).tolist()
    [2, 0]
    """
    largest = np.sort(softmax(logits, axis=1), axis=1)
    return np.argsort(largest[:, -1] - largest[:, -2], kind="stable")[:count]


def entropy(logits: Floats, count: int) -> IntArray:
    """The `count` samples with the largest entropy - sum_k p_k log p_k (Shannon; Settles 2009, section 3.1).

    >>> entropy(np.log([[0.5, 0.4, 0.1], [0.9, 0.1, 0.0001], [0.45, 0.45, 0.1]]), 2).tolist()
    [2, 0]
    """
    return np.argsort(-entr(softmax(logits, axis=1)).sum(axis=1), kind="stable")[:count]


def badge(logits: Floats, features: Floats, count: int, generator: np.random.Generator) -> IntArray:
    """BADGE (Ash et al. 2020): k-means++ on the gradients of the last layer's weights, were predictions the labels.

    The gradient of sample i is the outer product of a_i = p_i - onehot(argmax p_i) and the last layer's input h_i. The
    first choice is the sample with the largest one, as in the authors' code; each further one is drawn with probability
    proportional to the squared distance D_i^2 from the nearest choice. Outer products are never formed:
    ||a h^T - a' h'^T||^2 = |a|^2 |h|^2 + |a'|^2 |h'|^2 - 2 (a . a') (h . h').

    Args:
        logits: Shape (n, classes).
        features: What the last layer gets, shape (n, ...).
        count: How many to choose, at most n.
        generator: Draws the choices.

    Returns:
        Their positions, in the order in which they were chosen.
    """
    a, h = softmax(logits, axis=1), features.reshape(len(features), -1).astype(np.float64)
    a[np.arange(len(a)), logits.argmax(axis=1)] -= 1
    squares = (a**2).sum(axis=1) * (h**2).sum(axis=1)

    def distances(k: int) -> Floats:
        found: Floats = squares + squares[k] - 2 * (a @ a[k]) * (h @ h[k])
        found[k] = 0
        return np.maximum(found, 0)

    chosen = [int(squares.argmax())]
    nearest = distances(chosen[0])
    while len(chosen) < count:
        nearest[chosen] = 0
        total = nearest.sum()
        if total > 0:
            chosen.append(int(generator.choice(len(a), p=nearest / total)))
        else:  # all that are left equal a choice
            chosen.append(int(generator.choice(np.setdiff1d(np.arange(len(a)), chosen))))
        nearest = np.minimum(nearest, distances(chosen[-1]))
    return np.array(chosen, dtype=np.int64)
