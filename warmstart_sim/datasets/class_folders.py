"""Finds the files of a data set that has one folder per class."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
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


@dataclass(frozen=True)
class ClassFiles:
    """The sorted files of each class, the classes in the order of their names, and what the user should be told."""

    files: dict[str, list[Path]]
    notes: tuple[str, ...] = ()


def files_by_class(
    name: str, folder: Path, what: str, suffixes: Collection[str], allow_empty: bool = False
) -> ClassFiles:
    """Finds the files of each class. A class is a folder that is not hidden; it may contain subfolders and links.

    Args:
        name: The data set's name, for messages.
        folder: The folder that contains the class folders.
        what: What the files are, such as "images", for messages.
        suffixes: File name suffixes in lower case; hidden files and files with other suffixes are ignored.
        allow_empty: Whether a folder without files is a class; otherwise it is left out, with a note.

    Raises:
        DataError: There are no files.
    """
    classes = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    files = {child.name: _files(child, suffixes) for child in classes}
    if not any(files.values()):
        raise DataError(f"{name}: no {what} in the folders of {folder} ({', '.join(sorted(suffixes))})")
    empty = [label for label, found in files.items() if not found]
    if allow_empty or not empty:
        return ClassFiles(files)
    note = f"{name}: no {what} in {', '.join(empty)} ({folder}): no class, unless `allow_empty: true` makes it one"
    return ClassFiles({label: found for label, found in files.items() if found}, (note,))


def _files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    found: list[Path] = []
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:  # a link to a folder that is already in
            folders.clear()
            continue
        seen.add(real)
        # macOS writes a hidden ._NAME beside each file.
        found += (Path(parent, name) for name in names if Path(name).suffix.lower() in suffixes and name[0] != ".")
    return sorted(found)
