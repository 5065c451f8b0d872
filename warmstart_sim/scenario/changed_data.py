"""Applies the `changes` of a stream: to its rounds, and to the labels and inputs of what arrives; without torch."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from warmstart_sim.errors import WarmstartError
from warmstart_sim.registry import CHANGES
from warmstart_sim.scenario.component import Component
from warmstart_sim.seeding import numpy_generator
from warmstart_sim.types import Dataset, IntArray, Round, Samples

BLOCK = 1_000  # inputs that are changed at a time, which bounds the memory; noise is drawn block by block


def of_kind(changes: Sequence[Component], kind: str) -> list[Component]:
    """The changes of "rounds", "labels" or "inputs", in the order in which they are applied: by name."""
    found = [each for each in changes if CHANGES.details(each.name)["changes"] == kind]
    return sorted(found, key=lambda each: each.name)


def changes_test_data(changes: Sequence[Component]) -> bool:
    """Whether samples that arrive with different rounds are tested on different data."""
    drifts = [*of_kind(changes, "labels"), *of_kind(changes, "inputs")]
    return any(not CHANGES.has_trait(each.name, "training_only") for each in drifts)


def changed_rounds(rounds: list[Round], labels: IntArray, changes: Sequence[Component], seed: int) -> list[Round]:
    """The stream's rounds as the changes of "rounds" leave them.

    Raises:
        WarmstartError: A change does not fit the stream.
    """
    for each in of_kind(changes, "rounds"):
        change, options = each.bind(CHANGES)
        rounds = change(rounds, labels, seed, **options)
    return rounds


def check_drift(rounds: Sequence[Round], changes: Sequence[Component]) -> None:
    """Checks that something arrives after the first round, if labels or inputs are to drift.

    Raises:
        WarmstartError: Nothing does.
    """
    drifts = [*of_kind(changes, "labels"), *of_kind(changes, "inputs")]
    if drifts and not any(len(each.new) for each in rounds[1:]):
        raise WarmstartError(
            f"stream.changes.{drifts[0].name}: changes samples that arrive after the first round, and in this stream "
            "none do; choose one in which samples arrive, such as online"
        )


def check_inputs(changes: Sequence[Component], dataset: str, shape: Sequence[int], dtype: str) -> None:
    """Checks that the changes of "inputs" can be applied to inputs of this shape and dtype.

    Raises:
        WarmstartError: They cannot.
    """
    for each in of_kind(changes, "inputs"):
        if dtype == "int64":
            text = f"changes numbers, and the inputs of {dataset} are the words of texts"
        elif CHANGES.has_trait(each.name, "images_only") and len(shape) != 3:
            text = f"changes images, and an input of {dataset} has shape {tuple(shape)}"
        else:
            continue
        raise WarmstartError(f"stream.changes.{each.name}: {text}; leave it out")


def with_test_classes(rounds: Sequence[Round], labels: IntArray, test: IntArray) -> list[Round]:
    """The rounds with their own test samples, where classes arrive one after another.

    Args:
        rounds: The stream's rounds.
        labels: Labels of the test set.
        test: Indices of the test samples.
    """
    own, so_far = [], labels[:0]
    for each in rounds:
        if each.classes is not None:
            so_far = np.concatenate((so_far, each.classes))
            here, new = (test[np.isin(labels[test], classes)] for classes in (so_far, each.classes))
            each = replace(each, test=here, like_new=new)
        own.append(each)
    return own


def changed_dataset(
    dataset: Dataset,
    rounds: Sequence[Round],
    validation: IntArray,
    test: IntArray,
    changes: Sequence[Component],
    seed: int,
) -> tuple[Dataset, list[Round]]:
    """Changes labels and inputs by the round in which they arrived; without such changes, returns its arguments.

    Samples that a round is validated or tested on are changed as if they had arrived with it. The validation samples of
    each round come behind the training samples, and the test samples of each round take the place of those that are
    there. Rounds whose samples are the same share them.

    Args:
        dataset: With the labels to train on.
        rounds: The stream's rounds, after `changed_rounds` and `with_test_classes`.
        validation: Indices of the validation samples, into the training set.
        test: Indices of the test samples, sorted.
        changes: All changes of the stream.
        seed: The experiment's seed.
    """
    if not (of_kind(changes, "labels") or of_kind(changes, "inputs")):
        return dataset, list(rounds)
    check_inputs(changes, dataset.name, dataset.input_shape, str(dataset.train.inputs.dtype))
    arrived = np.full(len(dataset.train), -1)
    for each in reversed(rounds):  # a duplicate is a copy of what arrived first
        arrived[each.new] = each.index
    change = functools.partial(_changed, seed=seed, classes=dataset.classes)
    train, tests = [change(dataset.train, arrived, changes, split="train")], list[Samples]()
    if not changes_test_data(changes):
        return replace(dataset, train=train[0]), list(rounds)
    shared = [each for each in changes if not CHANGES.has_trait(each.name, "training_only")]
    clean_validation, clean_test = dataset.train.take(validation), dataset.test.take(test)
    own = []
    for each in rounds:
        now = np.full(max(len(validation), len(test)), each.index)
        first = _append(train, change(clean_validation, now[: len(validation)], shared, split="validation"))
        first_test = _append(tests, change(clean_test, now[: len(test)], shared, split="test"))
        here, new = (
            first_test + np.flatnonzero(np.isin(test, test if some is None else some))
            for some in (each.test, each.like_new)
        )
        own.append(replace(each, validation=first + np.arange(len(validation)), test=here, like_new=new))
    return replace(dataset, train=_joined(train), test=_joined(tests)), own


def _changed(
    samples: Samples, arrived: IntArray, changes: Sequence[Component], *, seed: int, split: str, classes: int
) -> Samples:
    """Samples with the labels and the inputs with which they arrived.

    Args:
        samples: As they are in the data set.
        arrived: The round in which each arrived; -1 for never.
        changes: The changes to apply.
        seed: The experiment's seed.
        split: "train", "validation" or "test", which have noise of their own.
        classes: The number of classes.
    """
    labels = samples.labels
    for each in of_kind(changes, "labels"):
        change, options = each.bind(CHANGES)
        labels = change(labels, arrived, seed, classes, **options)
    if not (of_inputs := of_kind(changes, "inputs")):
        return Samples(samples.inputs, labels)
    inputs = samples.inputs.copy()
    for start in range(0, len(inputs), BLOCK):
        block = inputs[start : start + BLOCK]
        values = block.astype(np.float32) / (255 if block.dtype == np.uint8 else 1)
        for each in of_inputs:
            change, options = each.bind(CHANGES)
            generator = numpy_generator(seed, f"{each.name} {split}", start)
            values = change(values, arrived[start : start + BLOCK], generator, **options)
        block[:] = np.rint(values.clip(0, 1) * 255) if block.dtype == np.uint8 else values
    return Samples(inputs, labels)


def _append(parts: list[Samples], samples: Samples) -> int:
    """Appends samples, unless they are equal to the last ones; the position of their first one."""
    last = parts[-1] if parts else None
    if last is None or not all(
        np.array_equal(one, other) for one, other in ((last.labels, samples.labels), (last.inputs, samples.inputs))
    ):
        parts.append(samples)
    return sum(map(len, parts[:-1]))


def _joined(parts: Sequence[Samples]) -> Samples:
    parts = [each for each in parts if len(each)] or parts[:1]
    if len(parts) == 1:
        return parts[0]
    return Samples(np.concatenate([each.inputs for each in parts]), np.concatenate([each.labels for each in parts]))
