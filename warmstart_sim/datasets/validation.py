"""Validates every data set when it is loaded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from warmstart_sim.datasets.labels import number_labels
from warmstart_sim.errors import DataError
from warmstart_sim.types import Dataset, Samples

# Valid inputs: type -> (number of dimensions of the whole array, description).
KINDS = {
    np.dtype(np.uint8): (range(4, 5), "pixels (n, channels, height, width)"),
    np.dtype(np.float32): (range(2, 6), "values (n, ...)"),
    np.dtype(np.int64): (range(2, 3), "tokens (n, length)"),
}


def validate(dataset: Dataset) -> Dataset:
    """Returns `dataset` if it meets the contract of `Dataset` and `Samples`.

    The result is the same object, except that labels of other kinds are numbered, with a note (`number_labels`), and
    that tokens without a `vocabulary_size` get the largest token + 1.

    Raises:
        DataError: Something is wrong; the message says what was found and where.
    """
    if dataset.classes < 2:
        raise DataError(f"{dataset.name}: there is nothing to learn with {dataset.classes} class")
    if len(dataset.train.inputs) == 0:
        raise DataError(f"{dataset.name}: there are no training samples")
    dataset = with_numbered_labels(dataset)
    _check(dataset.train, f"{dataset.name}: the training", dataset.classes)
    _check(dataset.test, f"{dataset.name}: the test", dataset.classes)
    if len(np.unique(labels := dataset.train.labels)) == 1:
        raise DataError(f"{dataset.name}: the training labels are all {labels[0]}: there is only one class")
    train, test = dataset.train.inputs, dataset.test.inputs
    if (train.shape[1:], train.dtype) != (test.shape[1:], test.dtype):
        raise DataError(
            f"{dataset.name}: test inputs are {test.dtype} of shape {test.shape[1:]}, "
            f"training inputs {train.dtype} of shape {train.shape[1:]}"
        )
    if len(test) and (lost := len(np.setdiff1d(dataset.train.labels, dataset.test.labels))):
        note = f"{dataset.name}: the test samples lack {lost} of {dataset.classes} classes"
        dataset = replace(dataset, notes=(*dataset.notes, note))
    return _with_checked_tokens(dataset) if train.dtype == np.int64 else dataset


def with_numbered_labels(dataset: Dataset) -> Dataset:
    """Returns `dataset` with arrays as inputs and labels 0 to classes - 1: the same object if it has them already.

    Raises:
        DataError: It is not clear which classes they mean.
    """
    train, test = dataset.train, dataset.test
    if _are_next_tokens(dataset):
        return dataset
    are_indices = all(
        isinstance(labels, np.ndarray) and labels.dtype == np.int64 and labels.ndim == 1
        for labels in (train.labels, test.labels)
    )
    are_arrays = all(isinstance(samples.inputs, np.ndarray) for samples in (train, test))
    if are_arrays and are_indices and ((train.labels >= 0) & (train.labels < dataset.classes)).all():
        return dataset
    labels = number_labels(dataset.name, train.labels, test.labels, dataset.classes)
    return replace(
        dataset,
        train=Samples(np.asarray(train.inputs), labels.train),
        test=Samples(np.asarray(test.inputs), labels.test),
        notes=(*dataset.notes, *labels.notes),
    )


def _are_next_tokens(dataset: Dataset) -> bool:
    """Whether the labels are the next token at each position, so that there is a class for each token."""
    return dataset.classes == dataset.vocabulary_size and all(
        isinstance(labels, np.ndarray) and labels.dtype == np.int64 and labels.shape == np.shape(inputs)
        for inputs, labels in ((each.inputs, each.labels) for each in (dataset.train, dataset.test))
    )


def _with_checked_tokens(dataset: Dataset) -> Dataset:
    if dataset.vocabulary_size is None:
        largest = max(samples.inputs.max(initial=0) for samples in (dataset.train, dataset.test))
        dataset = replace(dataset, vocabulary_size=int(largest) + 1)
    size = dataset.vocabulary_size or 0
    for which, samples in (("training", dataset.train), ("test", dataset.test)):
        tokens = samples.inputs.astype(np.int64, copy=False)
        faults = {f"holds a token outside 0 to {size - 1}": ((tokens < 0) | (tokens >= size)).any(axis=1)}
        padding = {
            "has padding (0) before its end": ((tokens[:, :-1] == 0) & (tokens[:, 1:] != 0)).any(axis=1),
            "has no tokens, only padding (0)": tokens[:, 0] == 0,
        }
        for fault, samples_with_it in (faults if dataset.label_shape else faults | padding).items():
            if samples_with_it.any():
                raise DataError(f"{dataset.name}: {which} sample {samples_with_it.argmax()} {fault}")
    return dataset


def _check(samples: Samples, which: str, classes: int) -> None:
    inputs, labels = samples.inputs, samples.labels
    if inputs.dtype not in KINDS:
        kinds = ", ".join(f"{dtype} {what}" for dtype, (_, what) in KINDS.items())
        raise DataError(f"{which} inputs are {inputs.dtype}: convert them to {kinds}")
    dimensions, what = KINDS[inputs.dtype]
    if inputs.ndim not in dimensions or 0 in inputs.shape[1:]:
        raise DataError(f"{which} inputs have shape {inputs.shape}; {inputs.dtype} inputs are {what}")
    if len(inputs) != len(labels):
        raise DataError(f"{which} set has {len(inputs)} inputs but {len(labels)} labels")
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise DataError(f"{which} labels hold {outside[0]}; with {classes} classes they are 0 to {classes - 1}")
    if inputs.dtype == np.float32 and not np.isfinite(inputs).all():
        raise DataError(f"{which} inputs hold NaN or infinite values")
