"""Finds the files of a data set that has one folder per class."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from warmstart_sim.errors import DataError

TEST_NAMES = ("test", "val", "valid")  # the first that exists is used


def train_and_test_folders(name: str, path: Path) -> tuple[Path, Path | None]:
    """Returns the folders that contain the class folders: PATH/train and PATH/test, or PATH and None without a split.

    Args:
        name: The data set's name, for errors.
        path: The user's folder. `val` or `valid` can replace `test`.

    Raises:
        DataError: The folder does not exist.
    """
    if not path.is_dir():
        raise DataError(f"{name}: there is no folder {path}")
    train = path / "train"
    if not train.is_dir() or not any(child.is_dir() for child in train.iterdir()):
        return path, None  # a folder "train" without class folders inside is itself a class: railway vehicles
    return train, next((path / part for part in TEST_NAMES if (path / part).is_dir()), None)


def files_by_class(name: str, folder: Path, what: str, suffixes: Collection[str]) -> dict[str, list[Path]]:
    """Returns the sorted files of each class. A class is a folder that is not hidden; it may contain subfolders.

    Args:
        name: The data set's name, for errors.
        folder: The folder that contains the class folders.
        what: What the files are, such as "images", for errors.
        suffixes: File name suffixes in lower case; files with other suffixes are ignored.

    Raises:
        DataError: There are no files, or a class has none.
    """
    classes = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    files = {child.name: sorted(f for f in child.rglob("*") if f.suffix.lower() in suffixes) for child in classes}
    if not any(files.values()):
        raise DataError(f"{name}: no {what} in the folders of {folder} ({', '.join(sorted(suffixes))})")
    if empty := [label for label, found in files.items() if not found]:
        raise DataError(f"{name}: class '{empty[0]}' in {folder} has no {what}")
    return files
