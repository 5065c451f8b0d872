"""Label noise that ends."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field, PositiveInt

from warmstart_sim.datasets.label_noise import label_noise as with_noise
from warmstart_sim.registry import CHANGES
from warmstart_sim.types import IntArray


@CHANGES.register("label_noise", "training_only", "needs_classes", changes="labels")
def label_noise(
    labels: IntArray,
    arrived: IntArray,
    seed: int,
    classes: int,
    *,
    share: Annotated[float, Field(gt=0, lt=1)] = 0.2,
    end: PositiveInt = 1,
) -> IntArray:
    """Samples that arrive before round `end` have noisy labels, those after it have not; test labels have none.

    `share` of their labels is replaced by labels drawn uniformly from all classes, as `data.label_noise` does. A noisy
    label stays as long as a round trains on its sample.

    Args:
        labels: The labels, shape (n,).
        arrived: The round in which each sample arrived, shape (n,); -1 for never.
        seed: The experiment's seed.
        classes: Not used.
        share: Above 0 and below 1. Default 0.2.
        end: The first round without noise, at least 1. Default 1: only the first round's samples have noise.
    """
    return with_noise(labels, np.flatnonzero((arrived >= 0) & (arrived < end)), share, seed).labels
