import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from warmstart_sim.datasets import validate
from warmstart_sim.errors import DataError
from warmstart_sim.types import Dataset, Samples

INDICES = np.arange(6) % 3


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
    ],
    ids=["pixels", "features", "float images"],
)
def test_valid_data_are_returned_unchanged(inputs):
    given = dataset(inputs)
    assert validate(given) is given


def test_lists_and_tensors_are_inputs_too():
    inputs = np.arange(24, dtype=np.float32).reshape(6, 4)
    for given in (torch.from_numpy(inputs), pd.DataFrame(inputs)):
        found = validate(dataset(given, INDICES))
        assert found.train.inputs.dtype == np.float32
        assert np.array_equal(found.train.inputs, inputs)
    with pytest.raises(DataError, match=r"inputs are float64: convert them to uint8 .* float32"):
        validate(dataset(inputs.tolist(), INDICES))


def test_classes_that_the_test_samples_lack_are_noted():
    given = dataset(test=Samples(np.zeros((2, 1, 4, 4), np.uint8), INDICES[:2]))
    assert validate(given).notes == ("own: the test samples lack 1 of 3 classes",)


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
        ({"labels": np.zeros((6, 2), np.int64)}, r"training labels have shape \(6, 2\), and row 0 is not one-hot"),
        ({"labels": np.zeros(5, np.int64)}, "6 inputs but 5 labels"),
        ({"labels": np.array([0, 1, 2, 0, 1, 3])}, "training labels hold 3; with 3 classes they are 0 to 2"),
        ({"labels": np.array([0, 1, 2, 0, 1, -1])}, "training labels hold -1"),
        ({"labels": np.full(6, 2)}, "the training labels are all 2: there is only one class"),
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
def test_violations_are_reported_in_one_line(changed, message):
    with pytest.raises(DataError, match=message) as caught:
        validate(dataset(**changed))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("own: ")


TOKENS = np.array([[4, 2, 3], [2, 0, 0], [3, 3, 0]] * 2)


def with_tokens(train=TOKENS, test=TOKENS, size: int | None = 5) -> Dataset:
    labels = np.arange(len(train), dtype=np.int64) % 3
    return Dataset("own", Samples(train, labels), Samples(test, labels[: len(test)]), 3, size)


def test_valid_tokens_are_returned_unchanged():
    for given in (with_tokens(), with_tokens(size=100), with_tokens(test=TOKENS[:0])):
        assert validate(given) is given


def test_a_vocabulary_of_unknown_size_is_as_large_as_the_largest_token_of_both_parts():
    assert validate(with_tokens(size=None)).vocabulary_size == 5
    assert validate(with_tokens(test=TOKENS + 4 * (TOKENS > 0), size=None)).vocabulary_size == 9
    assert validate(with_tokens(test=TOKENS[:0], size=None)).vocabulary_size == 5


def changed(row: int, *tokens: int) -> np.ndarray:
    copy = TOKENS.copy()
    copy[row] = tokens
    return copy


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (with_tokens(size=4), "training sample 0 holds a token outside 0 to 3"),
        (with_tokens(test=changed(1, 5, 0, 0)), "test sample 1 holds a token outside 0 to 4"),
        (with_tokens(changed(4, -1, 0, 0)), "training sample 4 holds a token outside 0 to 4"),
        (with_tokens(changed(4, -1, 0, 0), size=None), "training sample 4 holds a token outside 0 to 4"),
        (with_tokens(changed(2, 1, 0, 1)), r"training sample 2 has padding \(0\) before its end"),
        (with_tokens(changed(3, 0, 1, 1)), r"training sample 3 has padding \(0\) before its end"),
        (with_tokens(test=changed(5, 0, 0, 0)), r"test sample 5 has no tokens, only padding \(0\)"),
        (with_tokens(TOKENS * 0, size=None), r"training sample 0 has no tokens, only padding \(0\)"),
    ],
)
def test_invalid_tokens_are_reported_with_the_first_sample(given, message):
    with pytest.raises(DataError, match=f"^own: {message}$"):
        validate(given)
