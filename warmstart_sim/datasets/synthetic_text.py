"""Random token sequences that can be learnt, for rehearsals and tests without a download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, PositiveInt

from warmstart_sim.datasets.tokenizing import FIRST_WORD, PADDING
from warmstart_sim.registry import DATASETS
from warmstart_sim.seeding import numpy_generator
from warmstart_sim.types import Dataset, IntArray, Samples

CLASS_SHARE = 0.15  # of the words, drawn from the class's own ranking
SHORTEST = 5  # text, in words


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
    """Random texts for offline tests. Results on them say nothing about real data.

    A text has 5 to `length` words. Each is the word of rank r with a probability proportional to 1 / r (Zipf's law), in
    a ranking that all classes share (85 % of the draws) or in the class's own ranking.

    Args:
        root: Not used.
        seed: Not used: the texts are the same for every seed.
        vocabulary: The number of words; their tokens are 2 to vocabulary + 1.
        length: The maximum number of words; shorter texts are padded with 0 at the end.
        classes: The number of classes, which are equally frequent.
        train_samples: The number of training texts.
        test_samples: The number of test texts; they do not depend on `train_samples`.
    """
    generator = numpy_generator(0, "synthetic_text", 0)
    rankings = np.stack([generator.permutation(vocabulary) for _ in range(classes)])
    train = _samples(rankings, length, train_samples, numpy_generator(0, "synthetic_text", 1))
    test = _samples(rankings, length, test_samples, numpy_generator(0, "synthetic_text", 2))
    return Dataset("synthetic_text", train, test, classes, vocabulary_size=FIRST_WORD + vocabulary)


def _samples(rankings: IntArray, length: int, count: int, generator: np.random.Generator) -> Samples:
    """Draws texts, given each class's ranking of the words, shape (classes, vocabulary)."""
    classes, vocabulary = rankings.shape
    labels = generator.permutation(np.arange(count, dtype=np.int64) % classes)
    lengths = generator.integers(min(SHORTEST, length), length + 1, size=(count, 1))
    zipf = np.cumsum(1 / np.arange(1, vocabulary + 1))
    ranks = np.searchsorted(zipf, generator.uniform(0, zipf[-1], size=(count, length)))
    words = np.where(generator.random((count, length)) < CLASS_SHARE, rankings[labels[:, None], ranks], ranks)
    return Samples(np.where(np.arange(length) < lengths, FIRST_WORD + words, PADDING), labels)
