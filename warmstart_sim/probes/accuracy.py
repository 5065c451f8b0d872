"""Accuracy on all three sets."""

from __future__ import annotations

from collections.abc import Mapping

from warmstart_sim.registry import PROBES
from warmstart_sim.types import RoundContext, Split

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@PROBES.register(
    "accuracy",
    "measured_by_loop",
    "ignores_previous",
    columns={f"{split}_accuracy": "fraction" for split in SPLITS},
    cost="a forward pass over the training, validation and test sets",
)
def accuracy(context: RoundContext, /) -> Mapping[str, float | None]:
    """Train, validation and test accuracy in full, in evaluation mode on clean inputs.

    After every epoch the training loop measures it itself, together with the stop rule's criterion. With
    `each_round` it is measured at a round's start as well: how accurate the weights are that a strategy starts from.

    Columns:
        `train_accuracy`, `validation_accuracy`, `test_accuracy`; empty where a set is empty.
    """
    assert context.weights is not None
    return {f"{split}_accuracy": context.evaluate(context.weights, split)[0] for split in SPLITS}
