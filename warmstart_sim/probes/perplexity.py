"""Perplexity on all three sets."""

from __future__ import annotations

import math
from collections.abc import Mapping

from warmstart_sim.registry import PROBES
from warmstart_sim.types import RoundContext, Split

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@PROBES.register(
    "perplexity",
    "ignores_previous",
    columns={f"{split}_perplexity": "" for split in SPLITS},
    cost="a forward pass over the training, validation and test sets",
)
def perplexity(context: RoundContext, /) -> Mapping[str, float | None]:
    """Train, validation and test perplexity, exp(mean cross-entropy), in evaluation mode on clean inputs.

    For a text it is the mean over all positions: how many equally likely tokens the model chooses from. At the least it
    is 1, and that of a uniform guess is the number of classes.

    Columns:
        `train_perplexity`, `validation_perplexity`, `test_perplexity`; empty where a set is empty.
    """
    assert context.weights is not None
    return {f"{split}_perplexity": _exp(context.evaluate(context.weights, split)[1]) for split in SPLITS}


def _exp(loss: float | None) -> float | None:
    """The perplexity of a loss; infinite rather than too large for a number."""
    if loss is None:
        return None
    return math.inf if loss > 700 else math.exp(loss)
