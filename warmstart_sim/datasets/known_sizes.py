"""Shapes and sizes of the data sets known by name, so that a scenario can be checked and rehearsed without them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

ImageSetName = Literal[
    "cifar10",
    "cifar100",
    "cifar10_corrupted",
    "svhn",
    "mnist",
    "mnist_corrupted",
    "fashion_mnist",
    "digits",
    "noisy_digits",
    "tiny_imagenet",
]


@dataclass(frozen=True)
class ImageSet:
    """An image set with its default options.

    Attributes:
        shape: (channels, height, width) of an image.
        classes: The number of classes.
        train_samples: The number of training images.
        test_samples: The number of test images.
        dtype: "uint8" for pixels, or "float32".
    """

    shape: tuple[int, int, int]
    classes: int
    train_samples: int
    test_samples: int
    dtype: Literal["uint8", "float32"] = "uint8"


@dataclass(frozen=True)
class PhotoSet:
    """A set of colour photographs, which are scaled to the option `size`: (3, size, size).

    Attributes:
        classes: The number of classes.
        train_samples: The number of training images.
        test_samples: The number of test images.
    """

    classes: int
    train_samples: int
    test_samples: int


@dataclass(frozen=True)
class TextSet:
    """A text set.

    Attributes:
        classes: The number of classes, which are equally frequent.
        train_samples: The number of training texts.
        test_samples: The number of test texts.
    """

    classes: int
    train_samples: int
    test_samples: int


IMAGE_SETS: Mapping[ImageSetName, ImageSet] = {
    "cifar10": ImageSet((3, 32, 32), 10, 50_000, 10_000),
    "cifar100": ImageSet((3, 32, 32), 100, 50_000, 10_000),
    "cifar10_corrupted": ImageSet((3, 32, 32), 10, 50_000, 10_000),
    "svhn": ImageSet((3, 32, 32), 10, 73_257, 26_032),
    "mnist": ImageSet((1, 28, 28), 10, 60_000, 10_000),
    "mnist_corrupted": ImageSet((1, 28, 28), 10, 60_000, 10_000),
    "fashion_mnist": ImageSet((1, 28, 28), 10, 60_000, 10_000),
    "digits": ImageSet((1, 8, 8), 10, 1_198, 599),
    "noisy_digits": ImageSet((1, 8, 8), 10, 1_198, 5 * 599, "float32"),
    "tiny_imagenet": ImageSet((3, 64, 64), 200, 100_000, 10_000),
}
PHOTO_SETS: Mapping[str, PhotoSet] = {
    "oxford_iiit_pet": PhotoSet(37, 3_680, 3_669),
    "cars196": PhotoSet(196, 8_144, 8_041),
    "caltech101": PhotoSet(101, 3_030, 5_647),
    "stanford_dogs": PhotoSet(120, 12_000, 8_580),
    "cassava": PhotoSet(5, 5_656, 1_885),
    "cmaterdb": PhotoSet(10, 5_000, 1_000),
    "birds2010": PhotoSet(200, 3_000, 3_033),
    "imagenet": PhotoSet(1_000, 1_281_167, 50_000),
}
TEXT_SETS: Mapping[str, TextSet] = {"imdb": TextSet(classes=2, train_samples=25_000, test_samples=25_000)}


def known_shape(name: str, options: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """The shape of an image of a set with these options; None if it is not known by name.

    >>> known_shape("cifar10", {}), known_shape("mnist", {"size": 224}), known_shape("cars196", {"size": 64})
    ((3, 32, 32), (1, 224, 224), (3, 64, 64))
    """
    if name in PHOTO_SETS:
        return 3, options["size"], options["size"]
    if not (known := IMAGE_SETS.get(name)):  # type: ignore[call-overload]
        return None
    channels, height, width = known.shape
    return channels, options.get("size") or height, options.get("size") or width
