"""Eight classes in three features among many of noise (Alabdulmohsin et al. 2021, section 1.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, PositiveInt

from warmstart_sim.registry import DATASETS
from warmstart_sim.seeding import numpy_generator
from warmstart_sim.types import Dataset, Samples

SIGNAL = 3  # features, one for each bit of a label
CLASSES = 2**SIGNAL


@DATASETS.register("signal_in_noise")
def signal_in_noise(
    root: Path,
    seed: int,
    *,
    alpha: Annotated[float, Field(ge=0)] = 1.0,
    features: Annotated[int, Field(ge=SIGNAL)] = 128,
    train_samples: PositiveInt = 256,
    test_samples: PositiveInt = 10_000,
) -> Dataset:
    """Vectors of noise whose first three features encode one of eight classes; quick, and offline.

    Labels y are uniform on 0 to 7. The features 1 to 3 are alpha times -1 or 1, the bits of y with the highest first;
    all others are standard normal: float32 (n, features). Use it with `normalize: none`, which leaves alpha as it is.

    Args:
        root: Not used.
        seed: Draws all samples, for training and for testing.
        alpha: The strength of the signal, at least 0. Default 1.
        features: Default 128, so that 125 are noise.
        train_samples: The number of training samples. Default 256.
        test_samples: The number of test samples. Default 10,000; their number does not change the training samples.
    """

    def samples(count: int, purpose: str) -> Samples:
        generator = numpy_generator(seed, purpose)
        labels = generator.integers(CLASSES, size=count)
        inputs = generator.standard_normal((count, features), dtype=np.float32)
        bits = labels[:, None] >> np.arange(SIGNAL)[::-1] & 1
        inputs[:, :SIGNAL] = alpha * (2 * bits - 1)
        return Samples(inputs, labels)

    train, test = samples(train_samples, "signal_train"), samples(test_samples, "signal_test")
    return Dataset("signal_in_noise", train, test, CLASSES)
