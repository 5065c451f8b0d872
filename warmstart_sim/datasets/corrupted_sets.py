"""MNIST and CIFAR-10 with corrupted images, from the published .npy files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from warmstart_sim.datasets.adapt import resized
from warmstart_sim.datasets.known_sizes import IMAGE_SETS
from warmstart_sim.datasets.torchvision_sets import Size, cifar10
from warmstart_sim.errors import DataError
from warmstart_sim.registry import DATASETS
from warmstart_sim.types import Dataset, Samples

MnistCorruption = Literal[
    "identity", "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "shear", "scale", "rotate", "brightness",
    "translate", "stripe", "fog", "spatter", "dotted_line", "zigzag", "canny_edges",
]  # fmt: skip
CifarCorruption = Literal[
    "brightness", "contrast", "defocus_blur", "elastic_transform", "fog", "frost", "gaussian_blur", "gaussian_noise",
    "glass_blur", "impulse_noise", "jpeg_compression", "motion_blur", "pixelate", "saturate", "shot_noise", "snow",
    "spatter", "speckle_noise", "zoom_blur",
]  # fmt: skip


@DATASETS.register("mnist_corrupted", "same_for_every_seed")
def mnist_corrupted(root: Path, seed: int, *, corruption: MnistCorruption = "identity", size: Size = None) -> Dataset:
    """MNIST-C: 60,000 + 10,000 handwritten digits, all with one corruption (Mu & Gilmer, 2019).

    Alabdulmohsin et al. 2021 do not name the corruption. `identity`, MNIST itself, is the default of the TensorFlow
    Datasets that they used, and fits their accuracies of 99 %.
    """
    name, known = "mnist_corrupted", IMAGE_SETS["mnist_corrupted"]
    source = "mnist_c.zip from https://zenodo.org/records/3239543"

    def samples(part: str, count: int) -> Samples:
        images = _read(name, root, f"mnist_c/{corruption}/{part}_images.npy", (count, 28, 28, 1), source)
        labels = _read(name, root, f"mnist_c/{corruption}/{part}_labels.npy", (count,), source)
        return _samples(images, labels)

    train, test = samples("train", known.train_samples), samples("test", known.test_samples)
    return resized(Dataset(name, train, test, known.classes), size)


@DATASETS.register("cifar10_corrupted", "same_for_every_seed")
def cifar10_corrupted(
    root: Path,
    seed: int,
    *,
    corruption: CifarCorruption = "brightness",
    severity: Annotated[int, Field(ge=1, le=5)] = 1,
    size: Size = None,
) -> Dataset:
    """CIFAR-10-C: the 50,000 images of CIFAR-10, and its 10,000 test images corrupted (Hendrycks & Dietterich, 2019).

    Alabdulmohsin et al. 2021 do not name the corruption. `brightness` at severity 1 is the default of the TensorFlow
    Datasets that they used, and fits accuracies close to those on CIFAR-10.

    Args:
        root: Holds CIFAR-10, downloaded if it is missing, and the folder CIFAR-10-C.
        seed: Not used.
        corruption: The kind of corruption.
        severity: 1 (mild) to 5.
        size: Height and width to which images are resized. Default none: 32.
    """
    name, count = "cifar10_corrupted", IMAGE_SETS["cifar10_corrupted"].test_samples
    source = "CIFAR-10-C.tar from https://zenodo.org/records/2535967"
    images = _read(name, root, f"CIFAR-10-C/{corruption}.npy", (5 * count, 32, 32, 3), source)
    labels = _read(name, root, "CIFAR-10-C/labels.npy", (5 * count,), source)
    part = slice((severity - 1) * count, severity * count)  # the severities follow each other
    clean: Dataset = cifar10(root, seed)
    return resized(replace(clean, name=name, test=_samples(images[part], labels[part])), size)


def _samples(images: NDArray[Any], labels: NDArray[Any]) -> Samples:
    return Samples(images.transpose(0, 3, 1, 2).copy(), labels.astype(np.int64))  # from channels last


def _read(name: str, root: Path, file: str, shape: tuple[int, ...], source: str) -> NDArray[Any]:
    """An array of this shape from a file, whose values are read when they are used.

    Raises:
        DataError: The file is missing, or holds something else.
    """
    path = root / file
    if not path.is_file():
        raise DataError(
            f"{name}: {file} not found in {root}; unpack {source} there, point --data-root or WARMSTART_SIM_DATA to a "
            "folder that has it, or try the scenario with --rehearse"
        )
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise DataError(f"{name}: {path} is damaged or no .npy file of numbers ({error}); unpack it again") from error
    if array.shape != shape:
        raise DataError(f"{name}: {path} has shape {array.shape}, not {shape}; unpack {source} again")
    return array
