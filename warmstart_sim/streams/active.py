"""Active learning: the model chooses the samples of the next round."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from warmstart_sim.errors import WarmstartError
from warmstart_sim.registry import STREAMS
from warmstart_sim.streams.order import accumulating, arrival_order
from warmstart_sim.types import IntArray, Round

Query = Literal["random", "margin", "entropy", "badge"]


@STREAMS.register("active", "model_chooses", "needs_classes")
def active(
    labels: IntArray,
    pool: IntArray,
    seed: int,
    *,
    query: Query = "margin",
    chunk_size: PositiveInt = 100,
    initial: PositiveInt | None = None,
) -> list[Round]:
    """The model of each arm chooses which `chunk_size` samples arrive next; they accumulate (Ash & Adams 2020).

    The first samples are drawn at random, the same for all arms of a seed. The others are chosen at the end of a round,
    by the weights that it ended with. These rounds are those of the query "random", with which samples arrive in a
    random order; `experiment/active_learning.py` replaces them one by one for other queries.

    Args:
        labels: All training labels, shape (n,).
        pool: Indices of the samples that may be chosen.
        seed: The experiment's seed.
        query: Which samples are chosen: "random"; "margin" (default): those with the smallest difference of the two
            largest probabilities; "entropy": those with the largest entropy; "badge": by k-means++ on the gradients of
            the last layer (see `experiment.queries`).
        chunk_size: How many are chosen for each round; the last one has what is left. Default 100.
        initial: How many samples the first round has. Default `chunk_size`.

    Raises:
        WarmstartError: The first round has more samples than there are.
    """
    first = initial or chunk_size
    if first > len(pool):
        key = "initial" if initial else "chunk_size"
        raise WarmstartError(f"stream.{key}: {first} is more than the {len(pool)} available training samples")
    ends = [*range(first, len(pool), chunk_size), len(pool)]
    return accumulating(arrival_order(labels, pool, seed, "random"), ends)
