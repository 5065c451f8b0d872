"""Random images that can be learnt, in the shape of a known image set, for rehearsals and tests without a download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from warmstart_sim.datasets.known_sizes import IMAGE_SETS, ImageSetName
from warmstart_sim.registry import DATASETS
from warmstart_sim.seeding import numpy_generator
from warmstart_sim.types import Dataset, Samples

FloatArray = NDArray[np.float32]

WAVES = 2.0  # of a smooth field across an image: more waves, finer detail
CONTRAST = (0.2, 0.8)  # range of the class pattern's strength
CLUTTER = 1.0  # strength of each image's own smooth field
GRAIN = 0.5  # strength of the white noise
SPREAD = 45  # pixel values per unit of strength, around mid-grey
BLOCK = 1000  # images drawn at a time, which bounds the memory


@DATASETS.register("synthetic", "same_for_every_seed")
def synthetic(
    root: Path,
    seed: int,
    *,
    like: ImageSetName = "cifar10",
    shape: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None,
    classes: Annotated[int, Field(ge=2)] | None = None,
    train_samples: PositiveInt = 5000,
    test_samples: PositiveInt = 1000,
) -> Dataset:
    """Random images for offline tests, in the shape of a known image set. Results on them say nothing about real data.

    Each class has a smooth random pattern p. An image is `128 + 45 * (c * p + f + 0.5 * z)`, clipped to 0..255, where p
    is shifted by up to an eighth of each side (with wrap-around), c in [0.2, 0.8] is a random contrast, f is a smooth
    random field drawn for this image, and z is white noise.

    Args:
        root: Not used.
        seed: Not used: the images are the same for every seed.
        like: The set whose shape and number of classes are used. Each set has its own patterns.
        shape: (channels, height, width), instead of that set's.
        classes: The number of classes, instead of that set's; classes are equally frequent.
        train_samples: The number of training images.
        test_samples: The number of test images; they do not depend on `train_samples`.
    """
    shape = shape or IMAGE_SETS[like].shape
    classes = classes or IMAGE_SETS[like].classes
    purpose = f"synthetic_{like}"
    patterns = _smooth_fields(classes, shape, numpy_generator(0, purpose, 0))
    train = _samples(patterns, train_samples, numpy_generator(0, purpose, 1))
    test = _samples(patterns, test_samples, numpy_generator(0, purpose, 2))
    return Dataset("synthetic", train, test, classes)


def _samples(patterns: FloatArray, count: int, generator: np.random.Generator) -> Samples:
    labels = generator.permutation(np.arange(count, dtype=np.int64) % len(patterns))
    blocks = [_images(patterns[labels[start : start + BLOCK]], generator) for start in range(0, count, BLOCK)]
    return Samples(np.concatenate(blocks), labels)


def _images(patterns: FloatArray, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Draws one image for each pattern; both have shape (n, channels, height, width)."""
    count = len(patterns)
    contrast = generator.uniform(*CONTRAST, size=(count, 1, 1, 1)).astype(np.float32)
    clutter = _smooth_fields(count, patterns.shape[1:], generator)
    grain = generator.standard_normal(patterns.shape, dtype=np.float32)
    strength: FloatArray = contrast * _shifted(patterns, generator) + CLUTTER * clutter + GRAIN * grain
    return np.clip(128 + SPREAD * strength, 0, 255).astype(np.uint8)


def _shifted(images: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Rolls each image by up to an eighth of its height and width."""
    count, channels, height, width = images.shape
    rows = np.arange(height) + generator.integers(0, height // 8 + 1, size=(count, 1))
    columns = np.arange(width) + generator.integers(0, width // 8 + 1, size=(count, 1))
    rolled: FloatArray = images[
        np.arange(count)[:, None, None, None],
        np.arange(channels)[None, :, None, None],
        (rows % height)[:, None, :, None],
        (columns % width)[:, None, None, :],
    ]
    return rolled


def _smooth_fields(count: int, shape: tuple[int, ...], generator: np.random.Generator) -> FloatArray:
    """Draws periodic fields (count, *shape) with mean square 1: white noise without its high frequencies."""
    height, width = shape[-2:]
    down, across = np.fft.fftfreq(height, 1 / height), np.fft.rfftfreq(width, 1 / width)  # in waves across the image
    kept = np.exp(-(down[:, None] ** 2 + across**2) / (2 * WAVES**2)).astype(np.float32)
    spectrum = np.fft.rfft2(generator.standard_normal((count, *shape), dtype=np.float32)) * kept
    fields = np.fft.irfft2(spectrum, s=(height, width))
    return np.asarray(fields / np.sqrt(np.mean(fields**2, axis=(1, 2, 3), keepdims=True)), dtype=np.float32)
