"""Class shares that change from round to round."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field

from warmstart_sim.errors import WarmstartError
from warmstart_sim.registry import CHANGES
from warmstart_sim.seeding import numpy_generator
from warmstart_sim.types import IntArray, Round


@CHANGES.register("class_shares", "needs_classes", changes="rounds")
def class_shares(
    rounds: list[Round], labels: IntArray, seed: int, *, strength: Annotated[float, Field(gt=0, le=1)] = 0.5
) -> list[Round]:
    """The classes' shares of the new samples change from round to round; test samples stay as they are.

    The samples arrive in another order, in rounds of the same sizes. Sample i of class number c of C, in a random order
    of classes, arrives at time (1 - strength) * i / n + strength * (c + v) / C, with v uniform in [0, 1).

    Args:
        rounds: The stream's rounds.
        labels: All training labels, shape (n,).
        seed: The experiment's seed.
        strength: Above 0, where shares hardly change, to 1, where classes arrive one after another. Default 0.5.

    Raises:
        WarmstartError: The stream itself decides in which round a class arrives.

    >>> rounds = [Round(t, np.arange(4 * t + 4), np.arange(4 * t, 4 * t + 4)) for t in range(2)]
    >>> first, second = class_shares(rounds, np.arange(8) % 2, 0, strength=1)
    >>> len(set((first.new % 2).tolist())), len(second.train)
    (1, 8)
    """
    if any(each.classes is not None for each in rounds):
        raise WarmstartError(
            "stream.changes.class_shares: in this stream classes arrive one after another already; choose another one, "
            "such as online"
        )
    arriving = np.concatenate([each.new for each in rounds])
    generator = numpy_generator(seed, "class_shares")
    classes = generator.permutation(np.unique(labels[arriving]))
    rank = np.argsort(classes)[np.searchsorted(np.sort(classes), labels[arriving])]
    shifted = (rank + generator.random(len(arriving))) / len(classes)
    time = (1 - strength) * np.arange(len(arriving)) / len(arriving) + strength * shifted
    place = dict(zip(arriving.tolist(), arriving[np.argsort(time, kind="stable")].tolist(), strict=True))

    def moved(indices: IntArray) -> IntArray:
        return np.array([place.get(index, index) for index in indices.tolist()], dtype=np.int64)

    return [replace(each, train=moved(each.train), new=moved(each.new)) for each in rounds]
