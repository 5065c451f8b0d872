"""Random token sequences that can be learnt: rehearsals and tests of text scenarios without any download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, PositiveInt

from warmstart_sim.datasets.tokenizing import FIRST_WORD, PADDING
from warmstart_sim.registry import DATASETS
from warmstart_sim.seeding import numpy_generator
from warmstart_sim.types import Dataset, IntArray, Samples

OWN = 0.15  # the share of words that are drawn by the class's own order of words
SHORTEST = 5  # words of a text


@DATASETS.register("synthetic_text", "same_for_every_seed")
def synthetic_text(
    root: Path,
    seed: int,
    *,
    vocabulary: PositiveInt = 1000,
    length: PositiveInt = 60,
    classes: Annotated[int, Field(ge=2)] = 2,
    train_samples: PositiveInt = 2000,
    test_samples: PositiveInt = 500,
) -> Dataset:
    """Random texts to learn from offline: no result of them means anything.

    A text has 5 to `length` words. Each is the word of rank r with a probability proportional to 1 / r (Zipf's law): in
    85 % of the draws by an order of the words that all classes share, otherwise by the class's own.

    Args:
        root: Not used.
        seed: Not used: the texts are the same for every seed.
        vocabulary: The number of words; their tokens are 2 to vocabulary + 1.
        length: The most words of a text; shorter ones are padded with 0 at the end.
        classes: The number of classes, which have equal shares.
        train_samples: Texts to train on.
        test_samples: Texts to test on; they do not depend on `train_samples`.
    """
    generator = numpy_generator(0, "synthetic_text", 0)
    own = np.stack([generator.permutation(vocabulary) for _ in range(classes)])
    train = _samples(own, length, train_samples, numpy_generator(0, "synthetic_text", 1))
    test = _samples(own, length, test_samples, numpy_generator(0, "synthetic_text", 2))
    return Dataset("synthetic_text", train, test, classes, vocabulary_size=FIRST_WORD + vocabulary)


def _samples(own: IntArray, length: int, count: int, generator: np.random.Generator) -> Samples:
    """Texts of classes whose own orders of the words are `own`, shape (classes, vocabulary)."""
    classes, vocabulary = own.shape
    labels = generator.permutation(np.arange(count, dtype=np.int64) % classes)
    lengths = generator.integers(min(SHORTEST, length), length + 1, size=(count, 1))
    zipf = np.cumsum(1 / np.arange(1, vocabulary + 1))
    ranks = np.searchsorted(zipf, generator.uniform(0, zipf[-1], size=(count, length)))
    words = np.where(generator.random((count, length)) < OWN, own[labels[:, None], ranks], ranks)
    return Samples(np.where(np.arange(length) < lengths, FIRST_WORD + words, PADDING), labels)
