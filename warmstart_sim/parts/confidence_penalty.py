"""The confidence penalty (Pereyra et al. 2017): predictions of high entropy are rewarded."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from warmstart_sim.registry import PARTS
from warmstart_sim.types import Batch, Hooks, RoundContext, StateDict

if TYPE_CHECKING:
    import torch


@PARTS.register("confidence_penalty", "ignores_previous", "plain_loss_term", changes="the loss")
@dataclass(frozen=True, kw_only=True)
class ConfidencePenalty:
    """Confidence penalty: subtracts strength times the mean entropy of the predictions from the loss.

    loss <- loss - strength * mean over the batch of H(p), with H(p) = -sum_k p_k log p_k and p the softmax of a
    sample's logits (Pereyra et al. 2017, https://arxiv.org/abs/1701.06548). The entropy is at most log(classes). The
    term is a part of `running_train_loss`, which may therefore be negative.

    Attributes:
        strength: At least 0. Ash & Adams 2020 (Table 3) have 1e-1 to 1e-4.
    """

    strength: Annotated[float, Field(ge=0)]

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext, /) -> Hooks:
        """The hooks of a round: the penalty, unless it is zero."""
        return Hooks(loss_term=ConfidenceTerm(self.strength) if self.strength else None)


@dataclasses.dataclass(frozen=True)
class ConfidenceTerm:
    """The loss term. Terms of equal strength are equal, so that a captured step stays valid across rounds."""

    strength: float

    def __call__(self, batch: Batch, logits: torch.Tensor) -> torch.Tensor:
        """-strength * mean entropy."""
        return -self.strength * entropy(logits).mean()


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """The entropy of the softmax of each row, in nats.

    >>> import torch
    >>> entropy(torch.zeros(1, 10)).exp()
    tensor([10.0000])
    """
    log_probabilities = logits.log_softmax(1)
    return -(log_probabilities.exp() * log_probabilities).sum(1)
