"""Soft Weight Rescaling: after each step, layers are drawn a little back to their norm at initialisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from warmstart_sim.registry import PARTS
from warmstart_sim.types import Hooks, RoundContext, StateDict

if TYPE_CHECKING:
    import torch
    from torch import nn

Share = Annotated[float, Field(ge=0, le=1)]
WITH_ALIASES = ConfigDict(validate_by_name=True, validate_by_alias=True, allow_inf_nan=False)


@PARTS.register("soft_weight_rescaling", "ignores_previous", changes="weights")
@dataclass(frozen=True, kw_only=True, config=WITH_ALIASES)
class SoftWeightRescaling:
    """Soft Weight Rescaling: after each step, every layer moves a little towards its norm at initialisation.

    For each layer l from input to output, with W_0 the initialisation of round 0:

    1. c_l = (lambda ||W_0|| + (1 - lambda) ||W||) / ||W||, and W <- c_l W.
    2. b <- C_l b, where C_l is the product of the c's since the last normalisation layer, that of l included.

    In a chain of layers with ReLU the second step makes the logits those from before, times the product of all c's:
    no prediction changes. Scale and shift of normalisation layers stay as they are. Layers are taken in the order of
    the state dict; across a shortcut, C is that of this order.

    Soft Weight Rescaling (2025), which has for warm starts 1e-4 in an MLP, 1e-3 in a CNN, 1e-4 with 1 for the
    classifier in a CNN with BatchNorm, and 1e-2 with 1e-1 in a VGG16.

    Attributes:
        lam: lambda in [0, 1]. Default 1e-4. With 1 every step restores the norms, as `rescale` does once a round.
        head: lambda of the head. Default none: the same.
    """

    lam: Annotated[Share, Field(alias="lambda")] = 1e-4
    head: Share | None = None

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext, /) -> Hooks:
        """The hooks of a round."""
        layout, norms = context.layout, context.initial_norms
        names = [name for name in fresh if name in layout.parameters]
        head = self.lam if self.head is None else self.head

        def after_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
            import torch

            product: torch.Tensor | float = 1.0
            with torch.no_grad():
                for name in names:
                    parameter = model.get_parameter(name)
                    if name in layout.norm_affine:
                        product = 1.0
                    elif not parameter.requires_grad:
                        continue
                    elif parameter.ndim > 1:
                        c = factor(parameter, norms[name], head if layout.in_head(name) else self.lam)
                        product = product * c
                        parameter.mul_(c)
                    else:
                        parameter.mul_(product)

        return Hooks(after_step=after_step)


def factor(weight: torch.Tensor, initial_norm: float, lam: float) -> torch.Tensor:
    """(lambda ||W_0|| + (1 - lambda) ||W||) / ||W||, a scalar; finite for zeros.

    >>> import torch
    >>> factor(torch.tensor([[3.0, 4.0]]), initial_norm=10.0, lam=0.5)
    tensor(1.5000)
    """
    found: torch.Tensor = 1 - lam + lam * initial_norm / weight.norm().clamp_min(1e-12)
    return found
