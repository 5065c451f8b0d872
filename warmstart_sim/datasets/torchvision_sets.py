"""The public image sets that torchvision provides, verified and downloaded if they are missing."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import PositiveInt

from warmstart_sim.datasets.adapt import resized
from warmstart_sim.datasets.download import download
from warmstart_sim.datasets.known_sizes import IMAGE_SETS, ImageSetName
from warmstart_sim.errors import DataError
from warmstart_sim.registry import DATASETS
from warmstart_sim.types import Dataset, Samples

# The files of a set, relative to the root, each with a function that checks it.
Files = Mapping[str, Callable[[Path], bool]]
Size = PositiveInt | None  # height and width to which images are resized; None keeps them


@DATASETS.register("cifar10", "same_for_every_seed")
def cifar10(root: Path, seed: int, *, size: Size = None) -> Dataset:
    """CIFAR-10: 50,000 + 10,000 colour photographs of 32 x 32 pixels in 10 classes (Krizhevsky, 2009)."""
    from torchvision.datasets import CIFAR10

    return resized(_cifar("cifar10", CIFAR10, root), size)


@DATASETS.register("cifar100", "same_for_every_seed")
def cifar100(root: Path, seed: int, *, size: Size = None) -> Dataset:
    """CIFAR-100: 50,000 + 10,000 colour photographs of 32 x 32 pixels in 100 classes (Krizhevsky, 2009)."""
    from torchvision.datasets import CIFAR100

    return resized(_cifar("cifar100", CIFAR100, root), size)


@DATASETS.register("svhn", "same_for_every_seed")
def svhn(root: Path, seed: int, *, size: Size = None) -> Dataset:
    """SVHN: 73,257 + 26,032 house-number digits, 32 x 32 pixels in colour (Netzer et al., 2011)."""
    from torchvision.datasets import SVHN
    from torchvision.datasets.utils import check_integrity

    parts = ("train", "test")
    files = {SVHN.split_list[part][1]: partial(check_integrity, md5=SVHN.split_list[part][2]) for part in parts}
    _ensure_files("svhn", root, files, lambda folder: [SVHN(folder, split=part, download=True) for part in parts])
    train, test = (SVHN(root, split=part) for part in parts)
    dataset = _dataset("svhn", _samples(train.data, train.labels), _samples(test.data, test.labels))
    return resized(dataset, size)


@DATASETS.register("mnist", "same_for_every_seed")
def mnist(root: Path, seed: int, *, size: Size = None) -> Dataset:
    """MNIST: 60,000 + 10,000 handwritten digits, 28 x 28 pixels in grey (LeCun et al., 1998)."""
    from torchvision.datasets import MNIST

    return resized(_mnist("mnist", MNIST, root), size)


@DATASETS.register("fashion_mnist", "same_for_every_seed")
def fashion_mnist(root: Path, seed: int, *, size: Size = None) -> Dataset:
    """Fashion-MNIST: 60,000 + 10,000 pieces of clothing, 28 x 28 pixels in grey (Xiao et al., 2017)."""
    from torchvision.datasets import FashionMNIST

    return resized(_mnist("fashion_mnist", FashionMNIST, root), size)


def _cifar(name: ImageSetName, kind: Any, root: Path) -> Dataset:
    from torchvision.datasets.utils import check_integrity

    listed = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    files = {f"{kind.base_folder}/{file}": partial(check_integrity, md5=md5) for file, md5 in listed}
    _ensure_files(name, root, files, partial(kind, download=True))
    train, test = (
        _samples(part.data.transpose(0, 3, 1, 2), part.targets)  # torchvision stores channels last
        for part in (kind(root, train=True), kind(root, train=False))
    )
    return _dataset(name, train, test)


def _mnist(name: ImageSetName, kind: Any, root: Path) -> Dataset:
    # torchvision verifies only the archives; of the extracted files it checks only that they exist.
    known = IMAGE_SETS[name]
    files: dict[str, Callable[[Path], bool]] = {}
    for prefix, count in (("train", known.train_samples), ("t10k", known.test_samples)):
        files[f"{kind.__name__}/raw/{prefix}-images-idx3-ubyte"] = partial(_is_idx, shape=(count, *known.shape[1:]))
        files[f"{kind.__name__}/raw/{prefix}-labels-idx1-ubyte"] = partial(_is_idx, shape=(count,))
    _ensure_files(name, root, files, partial(kind, download=True))
    train, test = (
        _samples(part.data.numpy()[:, None], part.targets.numpy())
        for part in (kind(root, train=True), kind(root, train=False))
    )
    return _dataset(name, train, test)


def _is_idx(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether `path` is a complete idx file of bytes: header 0, 0, 8 (uint8), number of dimensions, sizes as int32."""
    header = struct.pack(f">4B{len(shape)}i", 0, 0, 8, len(shape), *shape)
    with path.open("rb") as file:
        return file.read(len(header)) == header and path.stat().st_size == len(header) + math.prod(shape)


def _samples(pixels: Any, labels: Any) -> Samples:
    return Samples(np.ascontiguousarray(pixels, dtype=np.uint8), np.asarray(labels, dtype=np.int64))


def _dataset(name: ImageSetName, train: Samples, test: Samples) -> Dataset:
    return Dataset(name, train, test, IMAGE_SETS[name].classes)


def _ensure_files(name: str, root: Path, files: Files, fetch: Callable[[Path], object]) -> None:
    """Downloads the set if some of `files` are missing from `root`, and checks that all are intact.

    Raises:
        DataError: A file is missing and cannot be downloaded, or is damaged.
    """
    absent = [file for file in files if not (root / file).is_file()]
    if absent:
        missing = absent[0] + (f" and {len(absent) - 1} more" if len(absent) > 1 else "")
        download(name, root, absent, fetch, missing)
    damaged = [file for file, intact in files.items() if not intact(root / file)]
    if damaged:
        raise DataError(
            f"{name}: damaged or truncated in {root}: {', '.join(damaged)}; "
            f"delete that and run `warmstart-sim data {name}` on a machine with network"
        )
