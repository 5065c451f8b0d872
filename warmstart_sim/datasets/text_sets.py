"""The text sets that are known by name: their sizes, so that a scenario can be checked without them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class TextSet:
    """What a set holds.

    Attributes:
        classes: The number of classes, which have equal shares.
        train_samples: Texts to train on.
        test_samples: Texts to test on.
    """

    classes: int
    train_samples: int
    test_samples: int


TEXT_SETS: Mapping[str, TextSet] = {"imdb": TextSet(classes=2, train_samples=25_000, test_samples=25_000)}
