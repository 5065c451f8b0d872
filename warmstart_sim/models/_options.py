"""Options that several convolutional networks have. It does not import torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Norm = Literal["layer", "batch", "none"]
Init = Literal["he", "xavier", "default"]
Activation = Literal["tanh", "relu", "aid", "crelu"]
KeepProbability = Annotated[float, Field(ge=0.5, le=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Width = Annotated[int, Field(ge=1)]
Stem = Literal["cifar", "imagenet"]

SMALL = 128  # pixels: below this height, `stem` is "cifar" unless it is given


def stem_for(height: int, stem: Stem | None) -> Stem:
    """The stem that is asked for, or the usual one for images of this height.

    >>> stem_for(64, None), stem_for(224, None), stem_for(64, "imagenet")
    ('cifar', 'imagenet', 'imagenet')
    """
    return stem or ("cifar" if height < SMALL else "imagenet")
