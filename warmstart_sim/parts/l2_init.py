"""Regularisation towards the initialisation (L2 Init), as a term of the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from warmstart_sim.registry import PARTS
from warmstart_sim.types import Batch, Hooks, RoundContext, StateDict

if TYPE_CHECKING:
    import torch

Norm = Literal["l2", "l1", "huber"]


@PARTS.register("l2_init", "ignores_previous", "plain_loss_term", changes="the loss")
@dataclass(frozen=True, kw_only=True)
class L2Init:
    """L2 Init: adds strength / 2 times the squared distance of the parameters from the initialisation to the loss.

    loss <- loss + strength * sum_i d(theta_i - theta_0,i), over the parameters that train, but for scale and shift of
    normalisation layers, with

    - "l2": d(x) = x^2 / 2, so that the gradient is strength * (theta - theta_0);
    - "l1": d(x) = |x|;
    - "huber": d(x) = x^2 / 2 for |x| <= 1, else |x| - 1/2.

    Kumar et al. 2023, https://arxiv.org/abs/2308.11958, who write the first without the factor 1/2.

    Attributes:
        strength: At least 0. Default 1e-3, as in FIRE's study.
        norm: "l2" (default), "l1" or "huber".
        towards: theta_0: the "initial" weights, from which round 0 started (default), or a "fresh" initialisation,
            another one in every round.
    """

    strength: Annotated[float, Field(ge=0)] = 1e-3
    norm: Norm = "l2"
    towards: Literal["initial", "fresh"] = "initial"

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext, /) -> Hooks:
        """The hooks of a round: the penalty, unless it is zero."""
        if self.strength == 0:
            return Hooks()
        origin = context.initial() if self.towards == "initial" else fresh
        targets = {name: origin[name] for name in sorted(context.layout.parameters - context.layout.norm_affine)}

        def loss_term(batch: Batch, logits: torch.Tensor) -> torch.Tensor:
            assert batch.model is not None
            trained = {name: each for name, each in batch.model.named_parameters() if each.requires_grad}
            return self.strength * distance(trained, targets, self.norm)

        return Hooks(loss_term=loss_term)


def distance(parameters: Mapping[str, torch.Tensor], targets: StateDict, norm: Norm) -> torch.Tensor:
    """The sum of d over all entries of the parameters that have a target, a scalar.

    >>> import torch
    >>> distance({"w": torch.tensor([3.0, 1.5])}, {"w": torch.tensor([0.0, 1.0])}, "huber")
    tensor(2.6250)
    """
    import torch
    from torch.nn import functional as F

    moved = [parameter - targets[name] for name, parameter in parameters.items() if name in targets]
    if norm == "l2":
        sums = [each.square().sum() / 2 for each in moved]
    elif norm == "l1":
        sums = [each.abs().sum() for each in moved]
    else:
        sums = [F.huber_loss(each, torch.zeros_like(each), reduction="sum") for each in moved]
    return torch.stack(sums).sum()
