"""Contrast that fades."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from warmstart_sim.registry import CHANGES
from warmstart_sim.streams.changes import rounds_of_drift
from warmstart_sim.types import IntArray


@CHANGES.register("contrast", changes="inputs")
def contrast(
    inputs: NDArray[np.float32],
    arrived: IntArray,
    generator: np.random.Generator,
    *,
    per_round: Annotated[float, Field(gt=0, lt=1)] = 0.1,
    start: PositiveInt = 1,
) -> NDArray[np.float32]:
    """Inputs lose `per_round` of their contrast with each round.

    m + (1 - per_round)^t (x - m), with the mean m of each channel of each image (of flat inputs, of each sample), where
    t counts the rounds from `start` on, that one included. Source: Hendrycks & Dietterich 2019.

    Args:
        inputs: Images (n, channels, height, width), or flat inputs (n, features).
        arrived: The round in which each sample arrived, shape (n,).
        generator: Not used.
        per_round: Above 0 and below 1. Default 0.1.
        start: The first round with less contrast, at least 1. Default 1.

    >>> contrast(np.array([[0, 1], [0, 1]], np.float32), np.array([0, 1]), None, per_round=0.5).tolist()
    [[0.0, 1.0], [0.25, 0.75]]
    """
    factor = (1 - per_round) ** rounds_of_drift(arrived, start)
    mean = inputs.mean(axis=tuple(range(2, inputs.ndim)) or 1, keepdims=True)
    return mean + factor.astype(np.float32).reshape(-1, *[1] * (inputs.ndim - 1)) * (inputs - mean)
