"""Your own images: a folder with one folder per class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveInt

from warmstart_sim.datasets.arrival import newest_held_out, order_of_files
from warmstart_sim.datasets.class_folders import files_by_class, train_and_test_folders
from warmstart_sim.datasets.image_files import decoded
from warmstart_sim.datasets.labels import describe_classes
from warmstart_sim.datasets.split import stratified_split
from warmstart_sim.errors import DataError
from warmstart_sim.registry import DATASETS
from warmstart_sim.seeding import numpy_generator
from warmstart_sim.types import Dataset

SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".gif", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}


@DATASETS.register("image_folder", "same_for_every_seed")
def image_folder(
    root: Path,
    seed: int,
    *,
    path: Path,
    size: PositiveInt | tuple[PositiveInt, PositiveInt],
    channels: Literal[1, 3] = 3,
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2,
    allow_empty: bool = False,
    arrival: Literal["mtime"] | None = None,
) -> Dataset:
    """Your own images: PATH/train/CLASS/* and PATH/test/CLASS/*, or PATH/CLASS/* with a part held out for testing.

    Images are decoded and cached as `image_files.decoded` says. Classes are numbered by sorted name.

    Args:
        root: Not used.
        seed: Not used: the split is the same for every seed.
        path: The folder. `val` or `valid` can replace `test`. Class folders may contain subfolders.
        size: Height and width, or one number for both.
        channels: 3 for colour, 1 for grey.
        test_fraction: The share of each class held out for testing, in (0, 1). Ignored if there is a test folder.
        allow_empty: Whether a class folder without images counts as a class, whose samples may come later.
        arrival: "mtime" orders training images by the time of their files, the oldest first; without a test folder, the
            newest are held out. Default: by class and name.

    Raises:
        DataError: The folder does not exist or has no images, there are fewer than two classes, the test folder has an
            unknown class, an image cannot be read, or all files have the same time.
    """
    path = path.expanduser()
    train_folder, test_folder = train_and_test_folders("image_folder", path)
    found = files_by_class("image_folder", train_folder, "images", SUFFIXES, allow_empty)
    train_files = found.files
    if len(train_files) < 2:
        raise DataError(f"image_folder: {train_folder} has only one class ({next(iter(train_files))})")
    number = {label: index for index, label in enumerate(train_files)}
    train = [(file, number[label]) for label, files in train_files.items() for file in files]
    order = order_of_files("image_folder", [file for file, _ in train]) if arrival else np.arange(len(train))
    if test_folder is None and arrival:
        kept, held_out = newest_held_out(order, test_fraction)
        train, test = [train[i] for i in kept], [train[i] for i in held_out]
    elif test_folder is None:
        labels = np.array([label for _, label in train])
        kept, held_out = stratified_split(labels, test_fraction, numpy_generator(0, "held_out"))
        train, test = [train[i] for i in kept], [train[i] for i in held_out]
    else:
        test_files = files_by_class("image_folder", test_folder, "images", SUFFIXES).files
        if unknown := sorted(test_files.keys() - number.keys()):
            raise DataError(f"image_folder: class '{unknown[0]}' in {test_folder} is not in {train_folder}")
        train = [train[i] for i in order]
        test = [(file, number[label]) for label, files in test_files.items() for file in files]

    height, width = (size, size) if isinstance(size, int) else size
    dataset = decoded("image_folder", path, train, test, (channels, height, width), len(number))
    return replace(dataset, notes=(*found.notes, f"image_folder: {describe_classes([*number])}"))
