import dataclasses

import numpy as np
import pytest

from warmstart_sim.data import validate
from warmstart_sim.errors import DataError
from warmstart_sim.types import Dataset, Samples


def dataset(inputs=None, labels=None, test=None, classes=3) -> Dataset:
    inputs = np.zeros((6, 1, 4, 4), dtype=np.uint8) if inputs is None else inputs
    labels = np.arange(len(inputs), dtype=np.int64) % 3 if labels is None else labels
    train = Samples(inputs, labels)
    return Dataset("own", train, test or train, classes)


@pytest.mark.parametrize(
    "inputs",
    [
        np.zeros((6, 3, 4, 5), dtype=np.uint8),
        np.zeros((6, 7), dtype=np.float32),
        np.zeros((6, 1, 8, 8), dtype=np.float32),
        np.zeros((6, 20), dtype=np.int64),
    ],
    ids=["pixels", "features", "float images", "tokens"],
)
def test_what_keeps_the_contract_is_returned_as_it_is(inputs):
    given = dataset(inputs)
    assert validate(given) is given


def test_an_empty_test_set_is_allowed():
    given = dataset()
    validate(dataclasses.replace(given, test=Samples(given.train.inputs[:0], given.train.labels[:0])))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"classes": 1}, "nothing to learn with 1 class"),
        ({"inputs": np.zeros((0, 1, 4, 4), np.uint8)}, "no training samples"),
        ({"inputs": np.zeros((6, 1, 4, 4), np.float64)}, "training inputs are float64"),
        ({"inputs": np.zeros((6, 4, 4), np.uint8)}, r"training inputs have shape \(6, 4, 4\)"),
        ({"inputs": np.zeros((6, 0), np.float32)}, r"training inputs have shape \(6, 0\)"),
        ({"inputs": np.zeros(6, np.float32)}, r"training inputs have shape \(6,\)"),
        ({"inputs": np.full((6, 2), np.nan, np.float32)}, "training inputs hold NaN"),
        ({"inputs": np.full((6, 2), np.inf, np.float32)}, "training inputs hold NaN or infinite"),
        ({"labels": np.zeros(6, np.int32)}, "training labels are int32"),
        ({"labels": np.zeros((6, 1), np.int64)}, r"training labels are int64 of shape \(6, 1\)"),
        ({"labels": np.zeros(5, np.int64)}, "6 inputs but 5 labels"),
        ({"labels": np.array([0, 1, 2, 0, 1, 3])}, "training labels hold 3; with 3 classes they are 0 to 2"),
        ({"labels": np.array([0, 1, 2, 0, 1, -1])}, "training labels hold -1"),
        (
            {"test": Samples(np.zeros((2, 1, 4, 5), np.uint8), np.zeros(2, np.int64))},
            r"test inputs are uint8 of shape \(1, 4, 5\)",
        ),
        (
            {"test": Samples(np.zeros((2, 1, 4, 4), np.float32), np.zeros(2, np.int64))},
            "test inputs are float32",
        ),
        ({"test": Samples(np.zeros((2, 1, 4, 4), np.uint8), np.full(2, 9))}, "test labels hold 9"),
    ],
)
def test_what_breaks_it_is_said_in_one_line(changed, message):
    with pytest.raises(DataError, match=message) as caught:
        validate(dataset(**changed))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("own: ")
