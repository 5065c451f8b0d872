"""Texts of a Markov chain, whose entropy is known, for a model that predicts the next symbol; offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from warmstart_sim.registry import DATASETS
from warmstart_sim.seeding import numpy_generator
from warmstart_sim.types import Dataset, Samples

Floats = NDArray[np.float64]


@DATASETS.register("markov_text", "same_for_every_seed")
def markov_text(
    root: Path,
    seed: int,
    *,
    symbols: Annotated[int, Field(ge=2, le=64)] = 16,
    order: Annotated[int, Field(ge=1, le=3)] = 2,
    concentration: Annotated[float, Field(gt=0)] = 0.2,
    length: PositiveInt = 32,
    train_samples: PositiveInt = 1000,
    test_samples: PositiveInt = 500,
) -> Dataset:
    """Texts of a Markov chain with a known entropy, for `decoder`; offline.

    The next symbol depends on the last `order` ones. For each of their combinations c, its probabilities P(s | c) are
    drawn from a Dirichlet distribution, once for all seeds. The entropy is H = -sum_c pi_c sum_s P(s | c) log P(s | c),
    where pi is the stationary distribution of the combinations, and on average no model's perplexity is below exp(H).
    A note gives both.

    Args:
        root: Not used.
        seed: Not used: chain and texts are the same for every seed.
        symbols: The number of symbols, which are the tokens and the classes.
        order: How many symbols the next one depends on, 1 to 3. Default 2.
        concentration: Of the Dirichlet distribution, above 0. The smaller, the more predictable. Default 0.2.
        length: The symbols of a text. Default 32.
        train_samples: The number of training texts.
        test_samples: The number of test texts; they do not depend on `train_samples`.
    """
    chances = chain(symbols, order, concentration, numpy_generator(0, "markov_text", 0))
    train, test = (
        draw(chances, length, count, numpy_generator(0, "markov_text", part))
        for part, count in ((1, train_samples), (2, test_samples))
    )
    entropy = entropy_rate(chances)
    note = f"markov_text: the entropy is {entropy:.4f} nats a symbol, the lowest perplexity {np.exp(entropy):.3f}"
    return Dataset("markov_text", train, test, symbols, vocabulary_size=symbols, notes=(note,))


def chain(symbols: int, order: int, concentration: float, generator: np.random.Generator) -> Floats:
    """The probabilities of the next symbol, the last axis, given the `order` symbols before it, the oldest first."""
    return generator.dirichlet(np.full(symbols, concentration), size=(symbols,) * order)


def stationary(chances: Floats) -> Floats:
    """The stationary distribution of a chain's last symbols, by power iteration.

    >>> stationary(np.array([[0.5, 0.5], [1.0, 0.0]])).round(4).tolist()
    [0.6667, 0.3333]
    """
    now = np.full(chances.shape[:-1], 1 / chances[..., 0].size)
    for _ in range(10_000):
        before, now = now, (now[..., None] * chances).sum(0)
        if np.abs(now - before).sum() < 1e-13:
            break
    return now


def entropy_rate(chances: Floats) -> float:
    """The entropy of a symbol given those before it, in nats.

    >>> round(float(entropy_rate(np.full((4, 4), 0.25)) / np.log(4)), 6)
    1.0
    """
    logarithms = np.log(chances, out=np.zeros_like(chances), where=chances > 0)
    return float(-(stationary(chances)[..., None] * chances * logarithms).sum())


def draw(chances: Floats, length: int, count: int, generator: np.random.Generator) -> Samples:
    """Draws texts that begin as in the middle of a long one, and the next symbol at each of their positions."""
    symbols, order = chances.shape[-1], chances.ndim - 1
    first = generator.choice(symbols**order, size=count, p=stationary(chances).ravel())
    text = list(np.unravel_index(first, chances.shape[:-1]))
    limits = chances.cumsum(-1)
    while len(text) < length + 1:
        chosen = generator.random((count, 1)) > limits[tuple(text[len(text) - order :])]
        text.append(np.minimum(chosen.sum(1), symbols - 1))  # the last limit may be 1 - 1e-16
    tokens = np.stack(text, axis=1)[:, : length + 1].astype(np.int64)
    return Samples(np.ascontiguousarray(tokens[:, :-1]), np.ascontiguousarray(tokens[:, 1:]))
