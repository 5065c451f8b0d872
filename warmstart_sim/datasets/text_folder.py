"""Anyone's texts: a folder with a folder for each class, or tables of texts and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, PositiveInt

from warmstart_sim.datasets.class_folders import TEST_NAMES, files_by_class, train_and_test_folders
from warmstart_sim.datasets.split import stratified_split
from warmstart_sim.datasets.tokenizing import Keep, Punctuation, TextOptions, Texts, read_text, text_dataset
from warmstart_sim.errors import DataError, unknown
from warmstart_sim.registry import DATASETS
from warmstart_sim.seeding import numpy_generator
from warmstart_sim.types import Dataset, IntArray

SEPARATORS = {".csv": ",", ".tsv": "\t"}


@DATASETS.register("text_folder", "same_for_every_seed")
def text_folder(
    root: Path,
    seed: int,
    *,
    path: Path,
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2,
    text_column: str = "text",
    label_column: str = "label",
    vocabulary: PositiveInt = 20_000,
    min_count: PositiveInt = 2,
    length: PositiveInt = 400,
    keep: Keep = "start",
    lowercase: bool = True,
    punctuation: Punctuation = "drop",
) -> Dataset:
    """Your own texts: a folder of class folders with .txt files, a folder with train.csv, or a .csv or .tsv file.

    PATH/train/CLASS/*.txt and PATH/test/CLASS/*.txt, PATH/train.csv and PATH/test.csv, or PATH/CLASS/*.txt or one table
    with a part held out for testing. Classes are numbered in the order of their names, as numbers if all are. Texts are
    UTF-8; they are tokenised once, and the tokens are kept on disk under a hash of the texts.

    Args:
        root: Not used.
        seed: Not used: the split is the same for every seed.
        path: The folder or file. In place of `test`, `val` or `valid` will do. Class folders may have folders inside.
        test_fraction: The share of each class held out, in (0, 1); where there are test texts it has no effect.
        text_column: The column of the texts, in a table.
        label_column: The column of the classes, words or numbers, in a table.
        vocabulary: The most words that are known: the most frequent ones of the training texts.
        min_count: Words that the training texts hold less often are unknown.
        length: Words of a text; shorter ones are padded with 0 at the end.
        keep: Which part of a longer text is kept: its "start" or its "end".
        lowercase: Whether capital letters count as small ones.
        punctuation: "drop" punctuation marks and symbols, or "keep" each as a word of its own.

    Raises:
        DataError: No such path, no texts, fewer than two classes, an unknown class among the test texts, a table
            without the columns or with a row that lacks a text or a label, or a file that is not UTF-8.
    """
    train, test = _found(path.expanduser(), text_column, label_column)
    train_labels, test_labels, classes = _numbered(train, test)
    if test is None:
        kept, held_out = stratified_split(train_labels, test_fraction, numpy_generator(0, "held_out"))
        parts = (_chosen(train.texts, train_labels, kept), _chosen(train.texts, train_labels, held_out))
    else:
        parts = (Texts(train.texts, train_labels), Texts(test.texts, test_labels))
    options = TextOptions(vocabulary, min_count, length, keep, lowercase, punctuation)
    return text_dataset("text_folder", *parts, classes, options)


@dataclass(frozen=True)
class _Named:
    """Texts with the names of their classes, and where they are from."""

    place: Path
    texts: list[str]
    names: list[str]


def _found(path: Path, text_column: str, label_column: str) -> tuple[_Named, _Named | None]:
    """The training texts and, if there are any, the test texts."""
    if not path.exists():
        raise DataError(f"text_folder: there is no file or folder {path}")
    if path.is_file():
        return _table(path, text_column, label_column), None
    if train := _table_called(["train"], path):
        test = _table_called(TEST_NAMES, path)
        return _table(train, text_column, label_column), _table(test, text_column, label_column) if test else None
    train_folder, test_folder = train_and_test_folders("text_folder", path)
    return _folder(train_folder), _folder(test_folder) if test_folder else None


def _table_called(names: Sequence[str], folder: Path) -> Path | None:
    files = (folder / f"{name}{suffix}" for name in names for suffix in SEPARATORS)
    return next((file for file in files if file.is_file()), None)


def _folder(folder: Path) -> _Named:
    files = files_by_class("text_folder", folder, "texts", (".txt",))
    texts = [read_text("text_folder", file) for each in files.values() for file in each]
    return _Named(folder, texts, [name for name, each in files.items() for _ in each])


def _table(file: Path, text_column: str, label_column: str) -> _Named:
    import pandas as pd

    if file.suffix.lower() not in SEPARATORS:
        raise DataError(f"text_folder: {file} is neither a folder nor a .csv or .tsv file")
    try:
        # As strings, and "NA" and "null" as they stand: they can be words and classes.
        frame = pd.read_csv(
            file, sep=SEPARATORS[file.suffix.lower()], dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    except UnicodeDecodeError as error:
        raise DataError(f"text_folder: {file} is not UTF-8 ({error.reason}); convert it") from error
    except ValueError as error:  # what pandas raises for an empty file, ragged rows or open quotes
        raise DataError(f"text_folder: cannot read the table {file} ({' '.join(str(error).split())})") from error
    if not isinstance(frame.index, pd.RangeIndex):
        raise DataError(f"text_folder: the rows of {file} have more fields than its header")
    for option, column in (("text_column", text_column), ("label_column", label_column)):
        if column not in frame:
            raise DataError(f"text_folder: {file}: {unknown('column', column, frame.columns)}; set `{option}`")
    if frame.empty:
        raise DataError(f"text_folder: {file} has no texts, only a header")
    for column, what in ((text_column, "text"), (label_column, "label")):
        if len(rows := np.flatnonzero(frame[column].str.strip() == "")):
            raise DataError(f"text_folder: {file}: row {rows[0] + 1} below the header has no {what} ('{column}')")
    return _Named(file, frame[text_column].tolist(), frame[label_column].str.strip().tolist())


def _numbered(train: _Named, test: _Named | None) -> tuple[IntArray, IntArray, int]:
    """The labels of the training and the test texts, and the number of classes."""
    test_names = test.names if test else []
    keys: list[Any] = _as_numbers([*train.names, *test_names]) or [*train.names, *test_names]
    train_keys, test_keys = keys[: len(train.names)], keys[len(train.names) :]
    number = {key: index for index, key in enumerate(sorted(set(train_keys)))}
    if len(number) < 2:
        raise DataError(f"text_folder: {train.place} has one class only ({train.names[0]})")
    for name, key in zip(test_names, test_keys, strict=True):
        if key not in number:
            raise DataError(f"text_folder: class '{name}' in {test and test.place} is not in {train.place}")
    train_labels, test_labels = (
        np.array([number[key] for key in part], dtype=np.int64) for part in (train_keys, test_keys)
    )
    return train_labels, test_labels, len(number)


def _as_numbers(names: Sequence[str]) -> list[Decimal] | None:
    """The names as numbers, or None if one is none: 10 comes after 9, and 1.0 is 1."""
    try:
        numbers = [Decimal(name) for name in names]
    except InvalidOperation:
        return None
    return numbers if all(number.is_finite() for number in numbers) else None


def _chosen(texts: Sequence[str], labels: IntArray, indices: IntArray) -> Texts:
    return Texts([texts[index] for index in indices], labels[indices])
