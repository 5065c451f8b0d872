"""Tiny ImageNet and ImageNet, from the folders that their archives unpack to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pydantic import PositiveInt

from warmstart_sim.datasets.class_folders import files_by_class
from warmstart_sim.datasets.image_files import decoded
from warmstart_sim.datasets.image_folder import SUFFIXES, image_folder
from warmstart_sim.datasets.known_sizes import IMAGE_SETS, PHOTO_SETS, ImageSet, PhotoSet
from warmstart_sim.errors import DataError
from warmstart_sim.registry import DATASETS
from warmstart_sim.types import Dataset

TINY_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
IMAGENET_URL = "https://image-net.org/download.php"
OR_ELSE = (
    "point --data-root or WARMSTART_SIM_DATA to a folder that has it, or try the scenario with --rehearse, which needs "
    "no data"
)


@DATASETS.register("tiny_imagenet", "same_for_every_seed")
def tiny_imagenet(root: Path, seed: int) -> Dataset:
    """Tiny ImageNet: 100,000 + 10,000 photographs of 64 x 64 pixels in 200 classes (Le & Yang, 2015).

    The labels of its test images were never published, so its validation images are the test set, as in the papers.

    Args:
        root: It contains the folder tiny-imagenet-200, with train/CLASS/images/*, val/images/* and
            val/val_annotations.txt.
        seed: Not used.

    Raises:
        DataError: The folder is missing or incomplete.
    """
    folder, known = root / "tiny-imagenet-200", IMAGE_SETS["tiny_imagenet"]
    annotations = folder / "val" / "val_annotations.txt"
    for needed in (folder / "train", folder / "val" / "images", annotations):
        if not needed.exists():
            raise DataError(
                f"tiny_imagenet: {needed.relative_to(root)} not found in {root}. Get it with `curl -O {TINY_URL} && "
                f"unzip -q tiny-imagenet-200.zip -d {root}`, {OR_ELSE}"
            )
    files = files_by_class("tiny_imagenet", folder / "train", "images", SUFFIXES).files
    number = {name: index for index, name in enumerate(files)}
    train = [(file, number[name]) for name, found in files.items() for file in found]
    rows = [line.split("\t")[:2] for line in annotations.read_text(encoding="utf-8").splitlines() if line.strip()]
    if wrong := next((row for row in rows if row[-1] not in number), None):
        raise DataError(f"tiny_imagenet: {annotations} has the line {wrong}, but {wrong[-1]} is no folder in train")
    test = [(folder / "val" / "images" / file, number[name]) for file, name in rows]
    _check_complete("tiny_imagenet", folder, known, len(files), len(train), len(test))
    return decoded("tiny_imagenet", folder, train, test, known.shape, known.classes)


@DATASETS.register("imagenet", "same_for_every_seed")
def imagenet(root: Path, seed: int, *, size: PositiveInt = 224) -> Dataset:
    """ImageNet (ILSVRC 2012): 1,281,167 + 50,000 photographs in 1,000 classes (Russakovsky et al., 2015).

    The labels of its test images were never published, so its validation images are the test set, as in the papers.
    All images are decoded once, to memory and to the cache: 3 size^2 bytes each, which is 200 GB at 224 pixels.

    Args:
        root: It contains the folder imagenet, with train/CLASS/* and val/CLASS/*.
        seed: Not used.
        size: Height and width to which images are scaled and cropped. Default 224.

    Raises:
        DataError: The folder is missing or incomplete.
    """
    folder, known = root / "imagenet", PHOTO_SETS["imagenet"]
    parts = [folder / "train", folder / "val"]
    if missing := next((part for part in parts if not part.is_dir()), None):
        images = known.train_samples + known.test_samples
        raise DataError(
            f"imagenet: {missing.relative_to(root)} not found in {root}. With an account, {IMAGENET_URL} has "
            f"ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar: unpack them to train/CLASS/* and val/CLASS/*. At "
            f"{size} pixels the set needs {images * 3 * size**2 / 1e9:,.0f} GB of memory, and as much on the disk. "
            f"Otherwise {OR_ELSE}"
        )
    counts = [files_by_class("imagenet", part, "images", SUFFIXES).files for part in parts]
    train, test = (sum(map(len, files.values())) for files in counts)
    _check_complete("imagenet", folder, known, len(counts[0]), train, test)
    dataset: Dataset = image_folder(root, 0, path=folder, size=size)
    return replace(dataset, name="imagenet")


def _check_complete(name: str, folder: Path, known: ImageSet | PhotoSet, classes: int, train: int, test: int) -> None:
    expected = known.classes, known.train_samples, known.test_samples
    if (classes, train, test) != expected:
        raise DataError(
            f"{name}: {folder} has {classes:,} classes, {train:,} training and {test:,} validation images, but the set "
            f"has {expected[0]:,}, {expected[1]:,} and {expected[2]:,}; unpack its archives again"
        )
