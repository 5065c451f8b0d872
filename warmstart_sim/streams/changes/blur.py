"""Images that get out of focus."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from warmstart_sim.registry import CHANGES
from warmstart_sim.streams.changes import rounds_of_drift
from warmstart_sim.types import IntArray


@CHANGES.register("blur", "images_only", changes="inputs")
def blur(
    inputs: NDArray[np.float32],
    arrived: IntArray,
    generator: np.random.Generator,
    *,
    per_round: Annotated[float, Field(gt=0, le=10)] = 0.2,
    start: PositiveInt = 1,
) -> NDArray[np.float32]:
    """Gaussian blur of images, whose deviation grows by `per_round` pixels with each round.

    The deviation is t * per_round pixels, where t counts the rounds from `start` on, that one included. Source:
    Hendrycks & Dietterich 2019, whose severities 1 to 5 on 32x32 images are deviations of 0.4 to 1.

    Args:
        inputs: Images (n, channels, height, width).
        arrived: The round in which each sample arrived, shape (n,).
        generator: Not used.
        per_round: In pixels, above 0 and at most 10. Default 0.2.
        start: The first round with blur, at least 1. Default 1.
    """
    from scipy.ndimage import gaussian_filter

    rounds = rounds_of_drift(arrived, start)
    blurred = inputs.copy()
    for count in np.unique(rounds[rounds > 0]):
        deviation = per_round * count
        blurred[rounds == count] = gaussian_filter(inputs[rounds == count], (0, 0, deviation, deviation))
    return blurred
