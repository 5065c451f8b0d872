"""Sets of photographs of any size: three that torchvision reads, and four from a folder with one folder per class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import PositiveInt

from warmstart_sim.datasets.class_folders import files_by_class, train_and_test_folders
from warmstart_sim.datasets.download import download
from warmstart_sim.datasets.image_files import Labelled, decoded
from warmstart_sim.datasets.image_folder import SUFFIXES, image_folder
from warmstart_sim.datasets.known_sizes import PHOTO_SETS
from warmstart_sim.errors import DataError
from warmstart_sim.registry import DATASETS
from warmstart_sim.seeding import numpy_generator
from warmstart_sim.types import Dataset

PIXELS = 224  # height and width in Alabdulmohsin et al. 2021
CALTECH_TRAIN = 30  # training images of each class, the usual number


@DATASETS.register("oxford_iiit_pet", "same_for_every_seed")
def oxford_iiit_pet(root: Path, seed: int, *, size: PositiveInt = PIXELS) -> Dataset:
    """Oxford-IIIT Pet: 3,680 + 3,669 photographs of cats and dogs, 37 breeds (Parkhi et al., 2012)."""
    from torchvision.datasets import OxfordIIITPet

    folder = "oxford-iiit-pet"
    if not all((root / folder / part).is_dir() for part in ("images", "annotations")):
        wanted = [f"{folder}/images", f"{folder}/annotations"]
        download("oxford_iiit_pet", root, wanted, lambda into: OxfordIIITPet(into, download=True), folder)
    train, test = (
        list(zip(part._images, part._labels, strict=True))
        for part in (OxfordIIITPet(root, split="trainval"), OxfordIIITPet(root, split="test"))
    )
    return _decoded("oxford_iiit_pet", root / folder, train, test, size)


@DATASETS.register("cars196", "same_for_every_seed")
def cars196(root: Path, seed: int, *, size: PositiveInt = PIXELS) -> Dataset:
    """Stanford Cars: 8,144 + 8,041 photographs of 196 models of cars (Krause et al., 2013); not downloaded."""
    from torchvision.datasets import StanfordCars

    folder = root / "stanford_cars"
    needed = ("cars_train", "cars_test", "devkit/cars_train_annos.mat", "devkit/cars_meta.mat")
    for each in (*needed, "cars_test_annos_withlabels.mat"):
        if not (folder / each).exists():
            raise DataError(
                f"cars196: {each} not found in {folder}. Its authors no longer offer the set; copies have the files "
                f"cars_train.tgz, cars_test.tgz, car_devkit.tgz and cars_test_annos_withlabels.mat: unpack them "
                f"there. Or try the scenario with --rehearse"
            )
    train, test = (
        [(Path(file), int(label)) for file, label in StanfordCars(root, split=split)._samples]
        for split in ("train", "test")
    )
    return _decoded("cars196", folder, train, test, size)


@DATASETS.register("caltech101", "same_for_every_seed")
def caltech101(root: Path, seed: int, *, size: PositiveInt = PIXELS) -> Dataset:
    """Caltech-101: photographs of 101 kinds of objects, 30 of each for training (Fei-Fei et al., 2004).

    The set has no split. The 30 are drawn at random, the same for every seed; 5,647 are left for testing. The class of
    background images is left out.
    """
    from torchvision.datasets import Caltech101

    folder = Path("caltech101") / "101_ObjectCategories"
    if not (root / folder).is_dir():
        download("caltech101", root, [str(folder)], lambda into: Caltech101(into, download=True), str(folder))
    theirs = Caltech101(root)
    generator = numpy_generator(0, "caltech101_split")
    order = generator.permutation(len(theirs))
    labels = np.array(theirs.y)
    chosen = np.concatenate([order[labels[order] == k][:CALTECH_TRAIN] for k in range(len(theirs.categories))])

    def files(indices: Any) -> Labelled:
        names = [(theirs.categories[theirs.y[i]], theirs.index[i], theirs.y[i]) for i in indices]
        return [(root / folder / category / f"image_{index:04d}.jpg", label) for category, index, label in names]

    return _decoded("caltech101", root / folder, files(np.sort(chosen)), files(np.setdiff1d(order, chosen)), size)


@DATASETS.register("stanford_dogs", "same_for_every_seed")
def stanford_dogs(root: Path, seed: int, *, size: PositiveInt = PIXELS) -> Dataset:
    """Stanford Dogs: 12,000 + 8,580 photographs of 120 breeds (Khosla et al., 2011), from an image folder."""
    return _from_folder("stanford_dogs", "http://vision.stanford.edu/aditya86/ImageNetDogs", root, size)


@DATASETS.register("cassava", "same_for_every_seed")
def cassava(root: Path, seed: int, *, size: PositiveInt = PIXELS) -> Dataset:
    """Cassava leaves: 5,656 + 1,885 photographs in five classes (Mwebaze et al., 2019), from an image folder.

    Alabdulmohsin et al. 2021 (table 5) count four classes; the set has healthy leaves and four diseases.
    """
    return _from_folder("cassava", "https://www.kaggle.com/c/cassava-disease", root, size)


@DATASETS.register("cmaterdb", "same_for_every_seed")
def cmaterdb(root: Path, seed: int, *, size: PositiveInt = PIXELS) -> Dataset:
    """CMATERdb 3.1: 5,000 + 1,000 images of handwritten Bangla digits (Das et al., 2012), from an image folder."""
    return _from_folder("cmaterdb", "https://code.google.com/archive/p/cmaterdb", root, size)


@DATASETS.register("birds2010", "same_for_every_seed")
def birds2010(root: Path, seed: int, *, size: PositiveInt = PIXELS) -> Dataset:
    """Caltech-UCSD Birds: 3,000 + 3,033 photographs of 200 species (Welinder et al., 2010), from an image folder."""
    return _from_folder("birds2010", "https://www.vision.caltech.edu/datasets/cub_200_2010", root, size)


def _decoded(name: str, path: Path, train: Labelled, test: Labelled, size: int) -> Dataset:
    return decoded(name, path, train, test, (3, size, size), PHOTO_SETS[name].classes)


def _from_folder(name: str, url: str, root: Path, size: int) -> Dataset:
    """Reads ROOT/NAME/train/CLASS/* and ROOT/NAME/test/CLASS/*.

    Raises:
        DataError: A folder is missing, or it has another number of classes.
    """
    path, known = root / name, PHOTO_SETS[name]
    train, test = train_and_test_folders(name, path) if path.is_dir() else (path, None)
    if test is None:
        raise DataError(
            f"{name}: train/CLASS/* and test/CLASS/* not found in {path}; put {known.train_samples:,} training and "
            f"{known.test_samples:,} test images of {known.classes} classes there, from {url} (docs/scenarios.md has a "
            "script), point --data-root or WARMSTART_SIM_DATA to a folder that has them, or try the scenario with "
            "--rehearse"
        )
    if (found := len(files_by_class(name, train, "images", SUFFIXES).files)) != known.classes:
        raise DataError(f"{name}: {train} has {found} classes, but the set has {known.classes}")
    dataset: Dataset = image_folder(root, 0, path=path, size=size)
    return replace(dataset, name=name)
