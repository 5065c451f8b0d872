"""Pixel noise that grows."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from warmstart_sim.registry import CHANGES
from warmstart_sim.streams.changes import rounds_of_drift
from warmstart_sim.types import IntArray


@CHANGES.register("pixel_noise", changes="inputs")
def pixel_noise(
    inputs: NDArray[np.float32],
    arrived: IntArray,
    generator: np.random.Generator,
    *,
    per_round: Annotated[float, Field(gt=0, le=1)] = 0.05,
    start: PositiveInt = 1,
) -> NDArray[np.float32]:
    """Gaussian noise on inputs, whose deviation grows by `per_round` with each round.

    x + t * per_round * N(0, 1), where t counts the rounds from `start` on, that one included. Source: Hendrycks &
    Dietterich 2019, whose severities 1 to 5 on 32x32 images are deviations of 0.04 to 0.1.

    Args:
        inputs: Pixels in [0, 1], or other values, shape (n, ...).
        arrived: The round in which each sample arrived, shape (n,).
        generator: Draws the noise.
        per_round: In (0, 1], where pixels are in [0, 1]. Default 0.05.
        start: The first round with noise, at least 1. Default 1.
    """
    deviation = per_round * rounds_of_drift(arrived, start)
    noise = generator.standard_normal(inputs.shape, dtype=np.float32)
    return inputs + deviation.astype(np.float32).reshape(-1, *[1] * (inputs.ndim - 1)) * noise
