"""Scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, which need no download."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from warmstart_sim.datasets.split import stratified_split
from warmstart_sim.registry import DATASETS
from warmstart_sim.seeding import numpy_generator
from warmstart_sim.types import Dataset, IntArray, Samples

BRIGHTEST = 16  # the largest value in scikit-learn's images


@DATASETS.register("digits", "same_for_every_seed")
def digits(root: Path, seed: int) -> Dataset:
    """Handwritten digits of 8 x 8 pixels, a third of each class for testing; easy, and offline.

    Values 0 to 16 become pixels: `round(255 * value / 16)`, uint8 (n, 1, 8, 8). There are 1,198 training and 599 test
    images, the same for every seed.
    """
    images, labels = _load_images()
    train, test = stratified_split(labels, 1 / 3, numpy_generator(0, "digits_split"))
    pixels = np.round(images * (255 / BRIGHTEST)).astype(np.uint8)
    return Dataset("digits", Samples(pixels[train], labels[train]), Samples(pixels[test], labels[test]), classes=10)


@DATASETS.register("noisy_digits")
def noisy_digits(
    root: Path,
    seed: int,
    *,
    noise: Annotated[float, Field(ge=0)] = 1.5,
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 1 / 3,
    test_draws: Annotated[int, Field(ge=1)] = 5,
    split: Literal["by_seed", "as_digits"] = "by_seed",
) -> Dataset:
    """The 8 x 8 digits with pixel noise, so that models overfit (a small MLP tests at about 61 %); quick, and offline.

    `x = (v - m) / d + noise * z`, float32 (n, 1, 8, 8), where m and d are the mean and the standard deviation of all
    training pixels and z is standard normal, drawn once for each image.

    Args:
        root: Not used: the images come with scikit-learn.
        seed: Draws the split and the noise.
        noise: The standard deviation of the noise, in units of d; at least 0.
        test_fraction: The share of each class held out for testing, in (0, 1).
        test_draws: How many copies of each test image there are, each with its own noise. More copies measure the same
            accuracy more precisely. Training images have one copy.
        split: "by_seed" (default), or "as_digits": if `test_fraction` is 1/3, the test images are those of `digits`, so
            that a model trained on either set has not seen the other's test images.
    """
    images, labels = _load_images()
    train, test = stratified_split(
        labels, test_fraction, numpy_generator(seed if split == "by_seed" else 0, "digits_split")
    )
    images = (images - images[train].mean()) / images[train].std()
    generator = numpy_generator(seed, "digits_noise")

    def noisy(indices: IntArray) -> Samples:
        inputs = images[indices] + noise * generator.standard_normal(images[indices].shape)
        return Samples(inputs.astype(np.float32), labels[indices])

    return Dataset("noisy_digits", noisy(train), noisy(np.tile(test, test_draws)), classes=10)


def _load_images() -> tuple[NDArray[np.float64], IntArray]:
    """The values 0 to 16, shape (n, 1, 8, 8), and the labels, from scikit-learn's file.

    Importing scikit-learn would take longer than many a run on digits, in every worker process.
    """
    package = importlib.util.find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    table = np.loadtxt(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    return table[:, :-1].reshape(-1, 1, 8, 8), table[:, -1].astype(np.int64)
