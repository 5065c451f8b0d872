"""Folders with a folder for each class: how images and texts of one's own are laid out."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from warmstart_sim.errors import DataError

TEST_NAMES = ("test", "val", "valid")  # the first that exists


def train_and_test_folders(name: str, path: Path) -> tuple[Path, Path | None]:
    """The folders whose folders are the classes: PATH/train and PATH/test, or PATH and None where a part is held out.

    Args:
        name: The data set's name, for errors.
        path: The user's folder. In place of `test`, `val` or `valid` will do.

    Raises:
        DataError: There is no such folder.
    """
    if not path.is_dir():
        raise DataError(f"{name}: there is no folder {path}")
    train = path / "train"
    if not train.is_dir() or not any(child.is_dir() for child in train.iterdir()):
        return path, None  # without folders inside, a folder "train" is a class of vehicles
    return train, next((path / part for part in TEST_NAMES if (path / part).is_dir()), None)


def files_by_class(name: str, folder: Path, what: str, suffixes: Collection[str]) -> dict[str, list[Path]]:
    """The files of each class, all in order; a class is a folder that is not hidden, and may have folders inside.

    Args:
        name: The data set's name, for errors.
        folder: The folder of the classes.
        what: What the files are, such as "images", for errors.
        suffixes: How the files' names end, in lower case; other files do not count.

    Raises:
        DataError: No files, or a class without any.
    """
    classes = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    files = {child.name: sorted(f for f in child.rglob("*") if f.suffix.lower() in suffixes) for child in classes}
    if not any(files.values()):
        raise DataError(f"{name}: no {what} in the folders of {folder} ({', '.join(sorted(suffixes))})")
    if empty := [label for label, found in files.items() if not found]:
        raise DataError(f"{name}: class '{empty[0]}' in {folder} has no {what}")
    return files
