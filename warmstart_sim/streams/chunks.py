"""Chunks of growing or unequal size."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field, PositiveInt

from warmstart_sim.errors import WarmstartError
from warmstart_sim.registry import STREAMS
from warmstart_sim.streams.order import Order, accumulating, arrival_order
from warmstart_sim.types import IntArray, Round


@STREAMS.register("chunks")
def chunks(
    labels: IntArray,
    pool: IntArray,
    seed: int,
    *,
    sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None = None,
    first: PositiveInt | None = None,
    growth: Annotated[float, Field(ge=1)] | None = None,
    order: Order = "random",
) -> list[Round]:
    """Samples arrive in chunks of unequal or growing size, and accumulate.

    Without `sizes`, chunk t has first * growth^t samples, rounded, until all have arrived; the last one has what is
    left.

    Args:
        labels: All training labels, shape (n,).
        pool: Indices of the samples that arrive.
        seed: The experiment's seed.
        sizes: The size of each chunk. Samples beyond their sum never arrive. Default none.
        first: The size of the first chunk. Default 100.
        growth: The factor by which chunks grow, at least 1. Default 2.
        order: "random" (default); "balanced": the class proportions are the same in every chunk; or "given": as in the
            data set, for all seeds.

    Raises:
        WarmstartError: The sizes add up to more than the pool, or `sizes` comes with `first` or `growth`.

    >>> [len(each.new) for each in chunks(np.zeros(9, dtype=np.int64), np.arange(9), 0, first=2, growth=1.5)]
    [2, 3, 4]
    """
    if sizes is None:
        if first is not None and first > len(pool):
            raise WarmstartError(f"stream.first: {first} is more than the {len(pool)} available training samples")
        first, growth = first or min(100, len(pool)), growth or 2.0
        grown = [first]
        while (left := len(pool) - sum(grown)) > 0:
            grown.append(min(left, round(first * growth ** len(grown))))
        sizes = tuple(grown)
    elif first is not None or growth is not None:
        key = "first" if first is not None else "growth"
        raise WarmstartError(f"stream.{key}: `sizes` has the size of each chunk already; leave one of the two out")
    if sum(sizes) > len(pool):
        raise WarmstartError(
            f"stream.sizes: the {len(sizes)} chunks have {sum(sizes)} samples together, which is more than the "
            f"{len(pool)} available training samples"
        )
    return accumulating(arrival_order(labels, pool, seed, order), np.cumsum(sizes).tolist())
