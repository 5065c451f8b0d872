"""Samples that arrive more than once."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field

from warmstart_sim.registry import CHANGES
from warmstart_sim.seeding import numpy_generator
from warmstart_sim.types import IntArray, Round


@CHANGES.register("duplicates", changes="rounds")
def duplicates(
    rounds: list[Round], labels: IntArray, seed: int, *, share: Annotated[float, Field(gt=0, le=10)] = 0.2
) -> list[Round]:
    """With each round's m new samples, `share` * m duplicates arrive, drawn at random from all samples so far.

    A duplicate is an exact copy, trained on and counted as often as it is there.

    Args:
        rounds: The stream's rounds.
        labels: Not used.
        seed: The experiment's seed.
        share: Duplicates for each new sample, above 0 and at most 10. Default 0.2.

    >>> rounds = [Round(0, np.arange(10), np.arange(10)), Round(1, np.arange(20), np.arange(10, 20))]
    >>> [(len(each.train), len(each.new)) for each in duplicates(rounds, np.zeros(20, int), 0, share=0.5)]
    [(15, 15), (30, 15)]
    """
    arrived = rounds[0].new[:0]
    chunks, changed = [], []
    for each in rounds:
        arrived = np.concatenate((arrived, each.new))
        generator = numpy_generator(seed, "duplicates", each.index)
        again = generator.choice(arrived, round(share * len(each.new)))
        chunks.append(np.concatenate((each.new, again)))
        kept = [k for k, before in enumerate(rounds[: each.index + 1]) if np.isin(before.new, each.train).all()]
        changed.append(replace(each, train=np.concatenate([chunks[k] for k in kept]), new=chunks[-1]))
    return changed
