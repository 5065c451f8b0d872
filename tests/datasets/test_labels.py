"""Labels as people have them, numbered as scikit-learn and plain NumPy number them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.preprocessing import LabelEncoder

from warmstart_sim import Dataset, Samples, run
from warmstart_sim.datasets import load, validate
from warmstart_sim.datasets.labels import number_labels
from warmstart_sim.errors import DataError

INDICES = np.random.default_rng(0).permutation(np.arange(60) % 3)
NAMES = np.array(["bird", "cat", "dog"])
NUMBERED = {  # what classes 0, 1 and 2 are called, and what the note says
    "text": (NAMES, "classes: bird -> 0, cat -> 1, dog -> 2"),
    "bytes": (NAMES.astype(bytes), "classes: bird -> 0, cat -> 1, dog -> 2"),
    "accents": (np.array(["a b", "z", "é"]), "classes: a b -> 0, z -> 1, é -> 2"),
    "numbers as text": (np.array(["1", "9", "10"]), "classes: 1 -> 0, 9 -> 1, 10 -> 2"),
    "from 1": (np.array([1, 2, 3], np.uint8), "classes: 1 -> 0, 2 -> 1, 3 -> 2"),
    "with gaps": (np.array([-1, 0, 7]), "classes: -1 -> 0, 0 -> 1, 7 -> 2"),
    "beyond 2^63": (np.array([0, 2**63, 2**63 + 1], np.uint64), f"classes: 0 -> 0, {2**63} -> 1, {2**63 + 1} -> 2"),
    "floats": (np.array([0.0, 1.0, 2.0], np.float32), None),
    "floats from 1": (np.array([1.0, 2.0, 3.0]), "classes: 1 -> 0, 2 -> 1, 3 -> 2"),
    "a column": (np.array([[0], [1], [2]]), None),
    "one-hot rows": (np.eye(3), "one-hot rows: the class is the column of the 1, 0 to 2"),
    "one-hot booleans": (np.eye(3, dtype=bool), "one-hot rows: the class is the column of the 1, 0 to 2"),
}


@pytest.mark.parametrize("kind", NUMBERED)
def test_arrays_are_numbered_in_sorted_order_and_the_test_labels_follow(npz, kind):
    names, note = NUMBERED[kind]
    inputs, order = np.random.default_rng(0).normal(size=(60, 4)), [2, 0, 1]
    path = npz(x_train=inputs, y_train=names[INDICES], x_test=inputs[:3], y_test=names[order])
    dataset = load("arrays", {"path": path}, Path(), 0)
    assert dataset.train.labels.tolist() == INDICES.tolist()
    assert dataset.test.labels.tolist() == order
    assert (dataset.classes, dataset.train.labels.dtype) == (3, np.int64)
    assert dataset.notes == ((f"arrays: {path}: {note}",) if note else ())


@pytest.mark.parametrize("kind", ["text", "from 1", "with gaps", "floats from 1", "accents"])
def test_the_order_is_that_of_scikit_learn(kind):
    labels = NUMBERED[kind][0][INDICES]
    assert number_labels("own", labels).train.tolist() == LabelEncoder().fit_transform(labels).tolist()


def test_booleans_are_classes_0_and_1():
    labels = number_labels("own", INDICES > 0)
    assert labels.train.tolist() == (INDICES > 0).astype(int).tolist()
    assert labels.notes == ("own: classes: False -> 0, True -> 1",)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(lambda names: names.tolist(), id="list"),
        pytest.param(pd.Series, id="series"),
        pytest.param(pd.Categorical, id="categorical"),
        pytest.param(lambda names: names.astype(object), id="objects"),
    ],
)
def test_python_takes_lists_and_columns_of_a_table(given):
    labels = number_labels("own", given(NAMES[INDICES]), given(NAMES[[1]]))
    assert (labels.train.tolist(), labels.test.tolist(), labels.classes) == (INDICES.tolist(), [1], 3)


def test_python_takes_tensors():
    assert number_labels("own", torch.from_numpy(INDICES) + 1).train.tolist() == INDICES.tolist()


def test_a_data_set_of_python_objects_is_numbered_noted_and_runs(tiny_scenario, tmp_path):
    inputs = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    indices = Dataset("own", Samples(inputs, INDICES), Samples(inputs[:9], INDICES[:9]), 3)
    given = Dataset("own", Samples(inputs, list(NAMES[INDICES])), Samples(inputs[:9], list(NAMES[INDICES[:9]])), 3)
    assert validate(given).digest() == indices.digest()
    tiny_scenario |= {"seeds": [0], "stream": {"name": "online", "chunk_size": 30}, "model": "mlp"}
    del tiny_scenario["data"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        first, second = (
            run(tiny_scenario, data=each, out=str(i), quiet=True) for i, each in enumerate([indices, given])
        )
    columns = ["train_accuracy", "test_accuracy"]
    assert first.rounds[columns].equals(second.rounds[columns])
    assert second.environment["notes"] == ["own: classes: bird -> 0, cat -> 1, dog -> 2"]
    assert "bird -&gt; 0, cat -&gt; 1" in (tmp_path / "1" / "report.html").read_text("utf-8")


def test_declared_classes_leave_whole_numbers_as_they_are(npz):
    gaps = np.where(INDICES == 1, 4, INDICES)
    assert number_labels("own", gaps, [3], classes=5).train.tolist() == gaps.tolist()
    assert number_labels("own", gaps, [4], classes=5).test.tolist() == [4]
    assert number_labels("own", gaps.astype(str), ["3"], classes=5).test.tolist() == [3]
    assert number_labels("own", gaps).classes == 3


def test_declared_classes_leave_room_for_names_that_come_later():
    assert number_labels("own", NAMES[INDICES], classes=5).classes == 5


def test_a_long_list_of_classes_is_cut_in_the_note():
    (note,) = number_labels("own", np.arange(1, 1001)).notes
    assert note.startswith("own: classes: 1 -> 0, 2 -> 1, ")
    assert note.endswith("30 -> 29, and so on: 1000 in sorted order")


NAN = np.array([0, 1, np.nan, 2])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.5, 1.5], "hold 0.5: classes are whole numbers or text; np.digitize puts measurements into classes"),
        (NAN, "hold nan: give sample 2 a label, or leave it out"),
        ([0, np.inf], "hold inf: classes are whole numbers"),
        ([[0.2, 0.8], [0.9, 0.1]], r"hold 0.2: give the index of the largest score, y.argmax\(axis=1\)"),
        (
            [[1, 0], [1, 1]],
            r"have shape \(2, 2\), and row 1 is not one-hot: give one class a sample",
        ),
        ([[1, 0], [0, 0]], "row 1 is not one-hot"),
        ([[0, 2], [2, 0]], "row 0 is not one-hot"),
        (np.zeros((2, 2, 2)), r"have shape \(2, 2, 2\): give one class"),
        ([["a", "b"], ["b", "a"]], r"have shape \(2, 2\): give one class"),
        ([0, "cat", 1], "mix numbers and text: give all labels one type, and every sample a label"),
        (["cat", None, "dog"], "mix NoneType and text"),
        (["cat", float("nan"), "dog"], "mix numbers and text"),
        (["cat", " ", "dog"], "are empty for sample 1"),
        (
            np.array(["2020-01-01", "2021-01-01"], "datetime64[D]"),
            r"are datetime64\[D\]; they can be whole numbers, text",
        ),
        (np.array([1j, 2]), "are complex128"),
        ([{}, {}], "are object; they can be"),
        ([[1], [1, 2]], "are object; they can be"),
    ],
)
def test_what_is_ambiguous_is_refused_in_one_line_that_says_what_to_do(labels, message):
    with pytest.raises(DataError, match=f"^own: the training labels .*{message}") as caught:
        number_labels("own", labels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("train", "test", "classes", "message"),
    [
        (["a", "b"], ["c"], None, "class 'c' in the test labels is not in the training labels"),
        ([1, 2], [0], None, "class '0' in the test labels is not in the training labels"),
        ([1, 2], ["a"], None, "class 'a' in the test labels is not in the training labels"),
        (np.eye(3), np.eye(2), None, "the training labels have 3 one-hot columns, the test labels 2"),
        (["a", "b", "c"], [], 2, "the training labels hold 3 classes, and `classes` is 2"),
        ([1, 2, 5], [], 4, "the training labels hold 5; with 4 classes they are 0 to 3"),
    ],
)
def test_test_labels_and_declared_classes_must_fit(train, test, classes, message):
    with pytest.raises(DataError, match=f"^own: {message}$"):
        number_labels("own", train, test, classes)
