import csv
import re
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from warmstart_sim.datasets import load, tokenizing
from warmstart_sim.datasets.text_folder import text_folder
from warmstart_sim.errors import DataError

read = partial(text_folder, Path("unused"), 0, min_count=1, length=4)


def words_of(samples, vocabulary: str) -> list[str]:
    """Converts tokens back to texts, given the training words by falling frequency; ? is an unknown word."""
    names = ["", "?", *vocabulary.split()]
    return [" ".join(names[token] for token in row).strip() for row in samples.inputs]


@pytest.fixture
def folders(write_texts, tmp_path):
    return write_texts(tmp_path / "own", {"cat": [f"miaow {i}" for i in range(5)], "dog": ["wuff"] * 10})


def test_folders_of_classes_are_split_by_class(folders):
    dataset = read(path=folders)
    assert dataset.classes == 2
    assert np.bincount(dataset.train.labels).tolist() == [4, 8]
    assert np.bincount(dataset.test.labels).tolist() == [1, 2]
    assert np.bincount(read(path=folders, test_fraction=0.5).test.labels).tolist() == [2, 5]


def test_the_split_is_a_partition_and_texts_keep_their_labels(folders):
    dataset = read(path=folders)
    held_out = words_of(dataset.test, "wuff miaow " + " ".join("01234"))
    assert held_out == ["miaow ?", "wuff", "wuff"]  # its number is in no training text
    assert dataset.test.labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize("test_folder", ["test", "val", "valid"])
def test_train_and_test_folders_are_used_as_given(tmp_path, write_texts, test_folder):
    write_texts(tmp_path / "train", {"pos": ["good film", "good"], "neg": ["bad"]})
    write_texts(tmp_path / test_folder, {"pos": ["good", "new film"]})
    dataset = read(path=tmp_path)
    assert words_of(dataset.train, "good bad film") == ["bad", "good film", "good"]
    assert dataset.train.labels.tolist() == [0, 1, 1]  # neg before pos
    assert words_of(dataset.test, "good bad film") == ["good", "? film"]
    assert dataset.test.labels.tolist() == [1, 1]


def test_a_train_folder_without_a_test_folder_is_split(tmp_path, write_texts):
    write_texts(tmp_path / "train", {"a": ["x"] * 5, "b": ["x"] * 5})
    assert len(read(path=tmp_path).test) == 2


def test_other_files_are_ignored_and_subfolders_of_a_class_are_read(folders, write_texts):
    before = read(path=folders)
    (folders / "cat" / "notes.md").write_text("not a text")
    (folders / ".hidden").mkdir()
    assert read(path=folders).digest() == before.digest()
    write_texts(folders / "cat", {"more": ["purr"] * 5})
    assert len(read(path=folders).train) == 16


TRAIN = "text,label\nA good film,pos\nbad,neg\ngood,pos\n"
TEST = "label,text,stars\npos,a film,3\nneg,unheard of,1\n"


@pytest.mark.parametrize("test_name", ["test", "val", "valid"])
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_train_and_test_tables_are_used_as_given(tmp_path, suffix, test_name):
    separator = "," if suffix == "csv" else "\t"
    (tmp_path / f"train.{suffix}").write_text(TRAIN.replace(",", separator))
    (tmp_path / f"{test_name}.{suffix}").write_text(TEST.replace(",", separator))
    dataset = read(path=tmp_path)
    assert words_of(dataset.train, "good a bad film") == ["a good film", "bad", "good"]
    assert dataset.train.labels.tolist() == [1, 0, 1]
    assert words_of(dataset.test, "good a bad film") == ["a film", "? ?"]
    assert dataset.test.labels.tolist() == [1, 0]


@pytest.mark.parametrize("name", ["own.csv", "train.csv"])
def test_one_table_is_split_by_class(tmp_path, name):
    pd.DataFrame({"text": [f"w{i}" for i in range(30)], "label": ["a", "b", "b"] * 10}).to_csv(tmp_path / name)
    dataset = read(path=tmp_path / name if name == "own.csv" else tmp_path, test_fraction=0.3)
    assert np.bincount(dataset.train.labels).tolist() == [7, 14]
    assert np.bincount(dataset.test.labels).tolist() == [3, 6]


def test_the_columns_can_be_named(tmp_path):
    (tmp_path / "own.csv").write_text("review,sentiment,text\ngood,1,x\nbad,0,x\ngood,1,x\nbad,0,x\n")
    dataset = read(path=tmp_path / "own.csv", text_column="review", label_column="sentiment")
    assert dataset.vocabulary_size == 4


@pytest.mark.parametrize(
    ("labels", "numbers"),
    [
        (["10", "9", "-1", "9.0"], [2, 1, 0, 1]),
        (["10", "9", "-1", "x9"], [1, 2, 0, 3]),
        (["nan", "1", "NA", "null"], [2, 0, 1, 3]),
        (["Pos", "neg", " neg ", "Pos"], [0, 1, 1, 0]),
        (["5", "12345678901234567890", "12345678901234567891", "5"], [0, 1, 2, 0]),
    ],
    ids=["numbers", "words", "not numbers", "spaces", "large"],
)
def test_classes_are_sorted_as_numbers_if_possible_and_else_as_words(tmp_path, labels, numbers):
    for part in ("train", "test"):
        pd.DataFrame({"text": ["word"] * len(labels), "label": labels}).to_csv(tmp_path / f"{part}.csv")
    dataset = read(path=tmp_path)
    assert dataset.train.labels.tolist() == dataset.test.labels.tolist() == numbers
    assert dataset.classes == len(set(numbers))


def test_class_folders_are_sorted_as_numbers_too(tmp_path, write_texts):
    write_texts(tmp_path / "train", {"10": ["ten"], "9": ["nine", "nine"]})
    write_texts(tmp_path / "test", {"10": ["ten"]})
    dataset = read(path=tmp_path)
    assert words_of(dataset.train, "nine ten") == ["ten", "nine", "nine"]
    assert dataset.train.labels.tolist() == [1, 0, 0]
    assert dataset.test.labels.tolist() == [1]


def test_quotes_line_breaks_and_words_for_missing_values_are_kept(tmp_path):
    (tmp_path / "train.csv").write_text('text,label\n"one, ""two""\nthree",a\nNA,b\nnull,b\n')
    (tmp_path / "test.csv").write_text("text,label\nnan,a\n")
    dataset = read(path=tmp_path)
    assert words_of(dataset.train, "na null one three two") == ["one two three", "na", "null"]


def test_a_byte_order_mark_is_accepted(tmp_path, write_texts):
    (tmp_path / "own.csv").write_text(TRAIN + TRAIN.partition("\n")[2], "utf-8-sig")
    assert read(path=tmp_path / "own.csv").classes == 2
    folder = write_texts(tmp_path / "own", {"a": ["x"], "b": ["x"]})
    (folder / "a" / "0.txt").write_text("x", "utf-8-sig")
    assert read(path=folder).vocabulary_size == 3


def test_an_empty_class_folder_is_noted_and_is_a_class_if_the_user_says_so(tmp_path, write_texts):
    folder = write_texts(tmp_path, {"a": ["x"], "b": [], "c": ["x"]})
    dataset = read(path=folder)
    assert (dataset.classes, dataset.train.labels.tolist()) == (2, [0, 1])
    assert (
        dataset.notes[0] == f"text_folder: no texts in b ({folder}): no class, unless `allow_empty: true` makes it one"
    )
    allowed = read(path=folder, allow_empty=True)
    assert (allowed.classes, allowed.train.labels.tolist()) == (3, [0, 2])
    assert allowed.notes == ("text_folder: classes: a -> 0, b -> 1, c -> 2",)


def test_the_classes_of_a_table_are_noted(tmp_path):
    (tmp_path / "own.csv").write_text(TRAIN)
    assert read(path=tmp_path / "own.csv").notes == ("text_folder: classes: neg -> 0, pos -> 1",)
    (tmp_path / "own.csv").write_text(TRAIN.replace("neg", "0").replace("pos", "1"))
    assert read(path=tmp_path / "own.csv").notes == ()


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_tables_are_read_as_pythons_csv_module_reads_them(tmp_path, separator, suffix, ending):
    rows = [
        ("text", "label"),
        ("one, two; three|four\tfive", "a"),
        ("six\nseven", "b"),
        ('a "quoted" word', "a b"),
        ("é", "b"),
    ]
    with (tmp_path / f"train.{suffix}").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=separator, lineterminator=ending).writerows(rows)
    (tmp_path / "test.csv").write_text("text,label\nsix,b\n")
    dataset = read(path=tmp_path, length=10)
    with (tmp_path / f"train.{suffix}").open(encoding="utf-8-sig", newline="") as file:
        texts, labels = zip(*list(csv.reader(file, delimiter=separator))[1:], strict=True)
    names = sorted(set(labels))
    assert dataset.train.labels.tolist() == [names.index(label) for label in labels]
    words = [len(re.findall(r"\w+", text)) for text in texts]
    assert (dataset.train.inputs > 0).sum(axis=1).tolist() == words


def test_options_reach_the_tokens(folders):
    dataset = read(path=folders, vocabulary=1, length=1, keep="end", lowercase=False, punctuation="keep")
    assert dataset.vocabulary_size == 3
    assert dataset.train.inputs.tolist() == [[1]] * 4 + [[2]] * 8


def test_an_empty_file_becomes_one_unknown_word_and_is_reported(folders):
    (folders / "cat" / "0.txt").write_text(" \n")
    assert "texts without words" in read(path=folders).notes[0]


@pytest.mark.parametrize("kind", ["folder", "table"])
def test_a_second_load_tokenises_nothing_and_is_equal(folders, tmp_path, monkeypatch, kind):
    (tmp_path / "own.csv").write_text(TRAIN + "!,neg\n")
    path = folders if kind == "folder" else tmp_path / "own.csv"
    first = read(path=path)
    monkeypatch.setattr(tokenizing, "_tokenizer", None)
    again = read(path=path)
    assert again.digest() == first.digest()
    assert (again.vocabulary_size, again.notes) == (first.vocabulary_size, first.notes)


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def two_tables(train: str, test: str):
    def make(path, write_texts):
        write(path / "train.csv", train)
        return write(path / "test.csv", test).parent

    return make


def table(content: str | bytes, name: str = "own.csv"):
    return lambda path, write_texts: write(path / name, content)


def in_folders(texts: dict[str, list[str]], test: dict[str, list[str]] | None = None):
    def make(path, write_texts):
        if test is None:
            return write_texts(path / "own", texts)
        write_texts(path / "own" / "train", texts)
        return write_texts(path / "own" / "test", test).parent

    return make


def a_file_in_latin_1(path, write_texts):
    folder = write_texts(path / "own", {"a": ["x", "x"], "b": ["x"]})
    (folder / "a" / "1.txt").write_bytes(b"caf\xe9")
    return folder


def an_empty_test_folder(path, write_texts):
    write_texts(path / "own" / "train", {"a": ["x"], "b": ["x"]})
    (path / "own" / "test").mkdir()
    return path / "own"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path, _: path / "absent", "there is no file or folder .*absent"),
        (table("text", "own.txt"), r"own\.txt is neither a folder nor a \.csv or \.tsv file"),
        (lambda path, _: write(path / "flat" / "a.txt", "x").parent, r"no texts in the folders of .*flat \(\.txt\)"),
        (in_folders({"a": [], "b": []}), "no texts in the folders of"),
        (in_folders({"only": ["x"]}), r"own has only one class \(only\)"),
        (in_folders({"a": ["x"], "b": ["x"]}, {"c": ["x"]}), "class 'c' in .*test is not in .*train"),
        (in_folders({"1": ["x"], "2": ["x"]}, {"1": ["x"], "x": ["x"]}), "class 'x' in .*test is not in .*train"),
        (an_empty_test_folder, "no texts in the folders of .*test"),
        (a_file_in_latin_1, r"1\.txt is not UTF-8"),
        (table("Text,label\nx,a\n"), r"unknown column 'text'; did you mean 'Text'\? \(there are: Text, label\)"),
        (table("text,sentiment\nx,a\n"), r"unknown column 'label' \(there are: text, sentiment\); set `label_column`"),
        (table("text,label\nx,a\n,b\n"), r"own\.csv: row 2 below the header has no text \('text'\)"),
        (table("text,label\nx,a\n  ,b\n"), "row 2 below the header has no text"),
        (table("text,label\nx,\ny,b\n"), r"row 1 below the header has no label \('label'\)"),
        (table("text,label\nx,a\ny\n"), "row 2 below the header has no label"),
        (table("text,label\n"), r"own\.csv has no texts, only a header"),
        (table(""), r"cannot read the table .*own\.csv"),
        (table("text,label\nx,a\ny,b,c\n"), r"cannot read the table .*own\.csv .* line 3"),
        (table("text,label\nx,a,c\ny,b,d\n"), "rows of .* have more fields than its header"),
        (table('text,label\n"x,a\ny,b\n'), "cannot read the table"),
        (table("text,label\nx,a\ny,a\n"), r"own\.csv has only one class \(a\)"),
        (table(b"text,label\ncaf\xe9,a\ny,b\n"), r"own\.csv is not UTF-8"),
        (table("text,label\n...,a\n!,b\n"), "the vocabulary is empty; lower `min_count`"),
        (two_tables(TRAIN, "text,label\nx,mixed\n"), r"class 'mixed' in .*test\.csv is not in .*train\.csv"),
        (two_tables(TRAIN, "text,class\nx,pos\n"), r"test\.csv: unknown column 'label'"),
        (two_tables(TRAIN, "text,label\n"), r"test\.csv has no texts"),
    ],
)
def test_invalid_texts_are_reported_in_one_line(tmp_path, write_texts, make, message):
    with pytest.raises(DataError, match=f"text_folder: .*({message})") as caught:
        load("text_folder", {"path": make(tmp_path, write_texts)}, Path(), 0)
    assert "\n" not in str(caught.value)
