"""The L2 penalty, as a term of the loss."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from warmstart_sim.registry import PARTS
from warmstart_sim.types import Batch, Hooks, RoundContext, StateDict

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch


@PARTS.register("l2", "ignores_previous", "plain_loss_term", changes="the loss")
@dataclass(frozen=True, kw_only=True)
class L2:
    """L2 penalty: adds strength / 2 times the sum of squares of all parameters to the loss.

    loss <- loss + (strength / 2) ||theta||_2^2, over the parameters that train: weights, biases, and the scale and
    shift of normalisation layers, as in PyTorch's weight decay.

    With the factor 1/2 the gradient is `strength * theta`, which is what `training.optimizer.weight_decay` adds in sgd
    and adam: there the two train alike, up to rounding, and weight decay is the faster of them. In adamw they differ,
    because its weight decay bypasses the moments. The penalty is a part of `running_train_loss`; weight decay is not.

    Attributes:
        strength: At least 0. Ash & Adams 2020 (Table 3) have 1e-1 to 1e-4, and weight decay in their public code.

    >>> import torch
    >>> penalty([torch.tensor([3.0]), torch.tensor([4.0])], strength=0.1)
    tensor(1.2500)
    """

    strength: Annotated[float, Field(ge=0)]

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext, /) -> Hooks:
        """The hooks of a round: the penalty, unless it is zero."""
        return Hooks(loss_term=L2Term(self.strength) if self.strength else None)


@dataclasses.dataclass(frozen=True)
class L2Term:
    """The loss term. Terms of equal strength are equal, so that a captured step stays valid across rounds."""

    strength: float

    def __call__(self, batch: Batch, logits: torch.Tensor) -> torch.Tensor:
        """The penalty on the parameters of the model that train."""
        assert batch.model is not None
        return penalty((each for each in batch.model.parameters() if each.requires_grad), self.strength)


def penalty(parameters: Iterable[torch.Tensor], strength: float) -> torch.Tensor:
    """(strength / 2) * the sum of squares, a scalar."""
    import torch

    return strength / 2 * torch.stack([parameter.square().sum() for parameter in parameters]).sum()
