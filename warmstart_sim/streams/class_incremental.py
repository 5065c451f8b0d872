"""Classes that arrive one after another."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveInt

from warmstart_sim.errors import WarmstartError
from warmstart_sim.registry import STREAMS
from warmstart_sim.seeding import numpy_generator
from warmstart_sim.streams.order import arrival_order
from warmstart_sim.types import IntArray, Round

ClassOrder = Literal["random", "given"] | tuple[Annotated[int, Field(ge=0)], ...]


@STREAMS.register("class_incremental", "own_test_data", "needs_classes")
def class_incremental(
    labels: IntArray,
    pool: IntArray,
    seed: int,
    *,
    classes_per_round: PositiveInt = 2,
    accumulate: bool = True,
    order: ClassOrder = "random",
) -> list[Round]:
    """New classes arrive with each round, all their samples at once.

    The model has outputs for all classes from the first round on. A round's test accuracy is that on the test samples
    of the classes that have arrived so far.

    Args:
        labels: All training labels, shape (n,).
        pool: Indices of the samples that arrive.
        seed: The experiment's seed.
        classes_per_round: Classes that arrive with each round; the last round has what is left. Default 2.
        accumulate: Whether rounds train on the samples of all classes so far (default), or only on the new ones.
        order: The order of the classes: "random" (default), "given": by their numbers, or a list of all classes.

    Raises:
        WarmstartError: There are fewer classes, or the list leaves one out, has one twice or an unknown one.

    >>> labels = np.array([0, 1, 2, 0, 1, 2])
    >>> rounds = class_incremental(labels, np.arange(6), 0, classes_per_round=1, order=(2, 0, 1))
    >>> [sorted(each.train.tolist()) for each in rounds]
    [[2, 5], [0, 2, 3, 5], [0, 1, 2, 3, 4, 5]]
    """
    classes = _ordered(np.unique(labels[pool]), order, seed)
    if classes_per_round > len(classes):
        raise WarmstartError(f"stream.classes_per_round: {classes_per_round} is more than the {len(classes)} classes")
    arriving = arrival_order(labels, pool, seed, "random")
    rounds: list[Round] = []
    for start in range(0, len(classes), classes_per_round):
        some = classes[start : start + classes_per_round]
        new = arriving[np.isin(labels[arriving], some)]
        train = np.concatenate((rounds[-1].train, new)) if accumulate and rounds else new
        rounds.append(Round(len(rounds), train, new, classes=some))
    return rounds


def _ordered(classes: IntArray, order: ClassOrder, seed: int) -> IntArray:
    """The classes in the order in which they arrive."""
    if order == "random":
        return numpy_generator(seed, "class_order").permutation(classes)
    if order == "given":
        return classes
    given, found = list(order), classes.tolist()
    if unknown := [each for each in given if each not in found]:
        raise WarmstartError(f"stream.order: class {unknown[0]} has no training samples; there are {_listed(found)}")
    if twice := [each for each in given if given.count(each) > 1]:
        raise WarmstartError(f"stream.order: class {twice[0]} arrives twice; give each class once")
    if absent := [each for each in found if each not in given]:
        raise WarmstartError(f"stream.order: class {absent[0]} never arrives; give all of {_listed(found)}")
    return np.array(given, dtype=np.int64)


def _listed(classes: list[int]) -> str:
    """The classes in a message, shortened.

    >>> _listed([0, 1, 3]), _listed(list(range(100)))
    ('0, 1, 3', '0, 1, 2, ... 99')
    """
    return (
        ", ".join(map(str, classes)) if len(classes) <= 12 else f"{', '.join(map(str, classes[:3]))}, ... {classes[-1]}"
    )
