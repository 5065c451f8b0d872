"""Your own texts: a folder with one folder per class, or tables of texts and labels."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, PositiveInt

from warmstart_sim.datasets.arrival import FILE_TIMES, newest_held_out, order_of_files, order_of_values
from warmstart_sim.datasets.class_folders import TEST_NAMES, files_by_class, train_and_test_folders
from warmstart_sim.datasets.labels import number_labels
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
    allow_empty: bool = False,
    text_column: str = "text",
    label_column: str = "label",
    vocabulary: PositiveInt = 20_000,
    min_count: PositiveInt = 2,
    length: PositiveInt = 400,
    keep: Keep = "start",
    lowercase: bool = True,
    punctuation: Punctuation = "drop",
    arrival: str | None = None,
) -> Dataset:
    """Your own texts: a folder of class folders with .txt files, a folder with train.csv, or a .csv or .tsv file.

    PATH/train/CLASS/*.txt and PATH/test/CLASS/*.txt, PATH/train.csv and PATH/test.csv, or PATH/CLASS/*.txt or one table
    with a part held out for testing. The fields of a table may also be separated by semicolons, tabs or bars. Classes
    are numbered in the order of their names, numerically if all names are numbers. Texts are UTF-8; they are tokenised
    once, and the tokens are cached on disk under a hash of the texts.

    Args:
        root: Not used.
        seed: Not used: the split is the same for every seed.
        path: The folder or file. `val` or `valid` can replace `test`. Class folders may contain subfolders.
        test_fraction: The share of each class held out for testing, in (0, 1). Ignored if there are test texts.
        allow_empty: Whether a class folder without texts counts as a class, whose samples may come later.
        text_column: The table's column of texts.
        label_column: The table's column of classes, words or numbers.
        vocabulary: The size of the vocabulary: the most frequent words of the training texts.
        min_count: Words that occur less often in the training texts are unknown.
        length: The length of a text in words; shorter texts are padded with 0 at the end.
        keep: Which part of a longer text is kept: its "start" or its "end".
        lowercase: Whether to convert texts to lower case.
        punctuation: "drop" punctuation marks and symbols, or "keep" each as a separate word.
        arrival: The table's column of numbers or dates that orders the training texts, or "mtime": the time of their
            files, the oldest first. Without test texts, the newest are held out. Default: the order in which they are
            found.

    Raises:
        DataError: The path does not exist or has no texts, there are fewer than two classes, the test texts have an
            unknown class, a table lacks a column or has a row without text or label, or a file is not UTF-8.
    """
    train, test = _find_texts(path.expanduser(), text_column, label_column, allow_empty, arrival)
    sources, test_names = (train.source, test and test.source), test.class_names if test else ()
    labels = number_labels("text_folder", train.class_names, test_names, parts=sources, empty=train.empty)
    if labels.classes < 2:
        raise DataError(f"text_folder: {train.source} has only one class ({train.class_names[0]})")
    if test is None:
        if train.order is not None:
            kept, held_out = newest_held_out(train.order, test_fraction)
        else:
            kept, held_out = stratified_split(labels.train, test_fraction, numpy_generator(0, "held_out"))
        parts = (_subset(train.texts, labels.train, kept), _subset(train.texts, labels.train, held_out))
    else:
        order = np.arange(len(train.texts)) if train.order is None else train.order
        parts = (_subset(train.texts, labels.train, order), Texts(test.texts, labels.test))
    options = TextOptions(vocabulary, min_count, length, keep, lowercase, punctuation)
    dataset = text_dataset("text_folder", *parts, labels.classes, options)
    return replace(dataset, notes=(*dataset.notes, *train.notes, *labels.notes))


@dataclass(frozen=True)
class _LabelledTexts:
    """Texts with the names of their classes, the folder or file that they come from, and classes without texts.

    `order` is that of their arrival, if one is asked for.
    """

    source: Path
    texts: list[str]
    class_names: list[str]
    empty: list[str] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    order: IntArray | None = None


def _find_texts(
    path: Path, text_column: str, label_column: str, allow_empty: bool, arrival: str | None
) -> tuple[_LabelledTexts, _LabelledTexts | None]:
    """Reads the training texts and, if there are any, the test texts."""
    if not path.exists():
        raise DataError(f"text_folder: there is no file or folder {path}")
    if path.is_file():
        return _read_table(path, text_column, label_column, arrival), None
    if train := _find_table(["train"], path):
        test = _find_table(TEST_NAMES, path)
        return (
            _read_table(train, text_column, label_column, arrival),
            _read_table(test, text_column, label_column) if test else None,
        )
    train_folder, test_folder = train_and_test_folders("text_folder", path)
    train_texts = _read_folder(train_folder, allow_empty, arrival)
    return train_texts, _read_folder(test_folder) if test_folder else None


def _find_table(names: Sequence[str], folder: Path) -> Path | None:
    files = (folder / f"{name}{suffix}" for name in names for suffix in SEPARATORS)
    return next((file for file in files if file.is_file()), None)


def _read_folder(folder: Path, allow_empty: bool = False, arrival: str | None = None) -> _LabelledTexts:
    if arrival not in (None, FILE_TIMES):
        raise DataError(f"text_folder: arrival: {folder} has no column '{arrival}'; the times of its files are `mtime`")
    found = files_by_class("text_folder", folder, "texts", (".txt",), allow_empty)
    texts = [read_text("text_folder", file) for files in found.files.values() for file in files]
    names = [name for name, files in found.files.items() for _ in files]
    empty = [name for name, files in found.files.items() if not files]
    order = None
    if arrival:
        order = order_of_files("text_folder", [file for files in found.files.values() for file in files])
    return _LabelledTexts(folder, texts, names, empty, found.notes, order)


def _read_table(file: Path, text_column: str, label_column: str, arrival: str | None = None) -> _LabelledTexts:
    import pandas as pd

    if file.suffix.lower() not in SEPARATORS:
        raise DataError(f"text_folder: {file} is neither a folder nor a .csv or .tsv file")
    try:
        # Read strings only, and keep "NA" and "null": they can be words or classes.
        separator = _separator(file, {text_column, label_column})
        frame = pd.read_csv(file, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"text_folder: {file} is not UTF-8 ({error.reason}); convert it") from error
    except ValueError as error:  # raised by pandas for an empty file, ragged rows or open quotes
        raise DataError(f"text_folder: cannot read the table {file} ({' '.join(str(error).split())})") from error
    if not isinstance(frame.index, pd.RangeIndex):
        raise DataError(f"text_folder: the rows of {file} have more fields than its header")
    needed = {"text_column": text_column, "label_column": label_column, **({"arrival": arrival} if arrival else {})}
    for option, column in needed.items():
        if column not in frame:
            raise DataError(f"text_folder: {file}: {unknown('column', column, frame.columns)}; set `{option}`")
    if frame.empty:
        raise DataError(f"text_folder: {file} has no texts, only a header")
    for column, what in ((text_column, "text"), (label_column, "label")):
        if len(rows := np.flatnonzero(frame[column].str.strip() == "")):
            raise DataError(f"text_folder: {file}: row {rows[0] + 1} below the header has no {what} ('{column}')")
    order = (
        order_of_values("text_folder", frame[arrival].to_numpy(), f"the column '{arrival}' of {file}")
        if arrival
        else None
    )
    return _LabelledTexts(file, frame[text_column].tolist(), frame[label_column].str.strip().tolist(), order=order)


def _separator(file: Path, columns: set[str]) -> str:
    """What separates the fields of a table: with it, the header has these columns; else what the suffix says."""
    usual = SEPARATORS[file.suffix.lower()]
    with file.open(encoding="utf-8-sig", newline="") as stream:
        header = stream.readline()
    fields = {separator: set(next(csv.reader([header], delimiter=separator), [])) for separator in (usual, *",;\t|")}
    return next((separator for separator, found in fields.items() if columns <= found), usual)


def _subset(texts: Sequence[str], labels: IntArray, indices: IntArray) -> Texts:
    return Texts([texts[index] for index in indices], labels[indices])
