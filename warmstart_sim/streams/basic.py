"""The built-in streams: accumulating chunks, a fraction and then all samples, only a fraction, and all at once."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from warmstart_sim.errors import WarmstartError
from warmstart_sim.registry import STREAMS
from warmstart_sim.streams.order import Order, accumulating, arrival_order
from warmstart_sim.types import IntArray, Round


@STREAMS.register("online")
def online(
    labels: IntArray,
    pool: IntArray,
    seed: int,
    *,
    chunk_size: Annotated[int, Field(ge=1)] = 1000,
    order: Order = "random",
) -> list[Round]:
    """Samples arrive `chunk_size` at a time and accumulate (Ash & Adams 2020, section 2.2).

    Round t trains on the first (t + 1) * chunk_size samples. A partial last chunk is kept.

    Args:
        labels: All training labels, shape (n,).
        pool: Indices of the samples that arrive.
        seed: The experiment's seed.
        chunk_size: Samples added in each round, at least 1. Default 1000, as in the papers.
        order: "random" (default); "balanced": the class proportions are the same in every chunk; or "given": as in the
            data set, for all seeds.

    Raises:
        WarmstartError: The chunk is larger than the pool.

    >>> import numpy as np
    >>> [len(each.train) for each in online(np.zeros(5, dtype=np.int64), np.arange(5), 0, chunk_size=2)]
    [2, 4, 5]
    """
    if chunk_size > len(pool):
        raise WarmstartError(f"stream.chunk_size: {chunk_size} is more than the {len(pool)} available training samples")
    arriving = arrival_order(labels, pool, seed, order)
    return accumulating(arriving, [*range(chunk_size, len(pool), chunk_size), len(pool)])


@STREAMS.register("split", "shared_first_round", first_round=("fraction",), later_rounds=("repeats",))
def split(
    labels: IntArray,
    pool: IntArray,
    seed: int,
    *,
    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5,
    order: Order = "random",
    repeats: Annotated[int, Field(ge=0)] | None = None,
) -> list[Round]:
    """A fraction of the data, then all of it (Ash & Adams 2020, section 2.1: 50 %, then 100 %).

    The first round does not depend on how the second starts, so it is trained once per seed and shared by all arms.

    Args:
        labels: All training labels, shape (n,).
        pool: Indices of the samples that arrive.
        seed: The experiment's seed.
        fraction: The share of the pool in the first round, between 0 and 1. Default 0.5. Subsets are nested.
        order: "random" (default), "balanced" or "given".
        repeats: Rounds on all of the data after the second. Default none.

    Raises:
        WarmstartError: The fraction leaves one of the rounds without new samples.

    >>> import numpy as np
    >>> [len(each.new) for each in split(np.zeros(10, dtype=np.int64), np.arange(10), 0, fraction=0.3)]
    [3, 7]
    """
    count = round(fraction * len(pool))
    if not 0 < count < len(pool):
        raise WarmstartError(f"stream.fraction: {fraction} of {len(pool)} training samples leaves a round without data")
    arriving = arrival_order(labels, pool, seed, order)
    first, rest = arriving[:count], arriving[count:]
    rounds = [Round(index=0, train=first, new=first), Round(index=1, train=arriving, new=rest)]
    return rounds + [Round(index=2 + repeat, train=arriving, new=arriving[:0]) for repeat in range(repeats or 0)]


@STREAMS.register("pretrain", "pretrained")
def pretrain(
    labels: IntArray,
    pool: IntArray,
    seed: int,
    *,
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0,
    order: Order = "random",
) -> list[Round]:
    """A fraction of the data, after training on another data set (Ash & Adams 2020, section 4.2 and Figure 9).

    `stream.source` names the other data set. Training on it is round 0, a first phase shared by all arms and fractions.
    `stream.checkpoint`, a file of weights, can replace it.

    Args:
        labels: All training labels, shape (n,).
        pool: Indices of the available samples.
        seed: The experiment's seed.
        fraction: The share p of the pool to train on, in (0, 1]. Default 1. Subsets are nested.
        order: "random" (default); "balanced": the fraction keeps the class proportions; or "given": as in the data set.

    Raises:
        WarmstartError: The fraction leaves no samples.

    >>> import numpy as np
    >>> small, large = (pretrain(np.zeros(9, dtype=np.int64), np.arange(9), 0, fraction=p)[0].train for p in (0.3, 0.6))
    >>> len(small), len(large), set(small) < set(large)
    (3, 5, True)
    """
    count = round(fraction * len(pool))
    if count == 0:
        raise WarmstartError(f"stream.fraction: {fraction} of {len(pool)} training samples leaves none")
    arriving = arrival_order(labels, pool, seed, order)[:count]
    return [Round(index=0, train=arriving, new=arriving)]


@STREAMS.register("static")
def static(labels: IntArray, pool: IntArray, seed: int, *, rounds: Annotated[int, Field(ge=1)] = 1) -> list[Round]:
    """All samples at once, in one or several rounds on the same data.

    Args:
        labels: All training labels, shape (n,).
        pool: Indices of the samples to train on.
        seed: The experiment's seed.
        rounds: The number of rounds, each started by the strategy; at least 1. Default 1.

    >>> import numpy as np
    >>> [len(each.train) for each in static(np.zeros(4, dtype=np.int64), np.arange(4), 0, rounds=2)]
    [4, 4]
    """
    arriving = arrival_order(labels, pool, seed, "random")
    return [Round(index=index, train=arriving, new=arriving if index == 0 else arriving[:0]) for index in range(rounds)]


@STREAMS.register("stages", "shares_budget")
def stages(
    labels: IntArray,
    pool: IntArray,
    seed: int,
    *,
    stages: Annotated[int, Field(ge=1)] = 5,
    epochs: Annotated[int, Field(ge=1)] | None = None,
    steps: Annotated[int, Field(ge=1)] | None = None,
) -> list[Round]:
    """The same samples in T stages, which share a budget of epochs or steps equally (Zaidi et al. 2022).

    Each stage is a round. It lasts floor(N / T) epochs or steps of a budget of N, in the place of `training.until`;
    without a budget it ends as `training.until` says. The learning rate schedule restarts with each stage.

    Args:
        labels: All training labels, shape (n,).
        pool: Indices of the samples to train on.
        seed: The experiment's seed.
        stages: T, at least 1. Default 5.
        epochs: N in epochs, for all stages together, at least T. Default none.
        steps: N in optimiser steps, instead.

    >>> import numpy as np
    >>> [len(each.train) for each in stages(np.zeros(4, dtype=np.int64), np.arange(4), 0, stages=3)]
    [4, 4, 4]
    """
    return static(labels, pool, seed, rounds=stages)
