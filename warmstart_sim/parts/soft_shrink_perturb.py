"""Shrink and perturb in its soft form: a little in every step rather than once a round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from warmstart_sim.registry import PARTS
from warmstart_sim.types import Hooks, RoundContext, StateDict

if TYPE_CHECKING:
    import torch
    from torch import nn


@PARTS.register("soft_shrink_perturb", "ignores_previous", changes="weights")
@dataclass(frozen=True, kw_only=True)
class SoftShrinkPerturb:
    """Shrink and perturb in every step: weight decay, and Gaussian noise of small deviation.

    theta <- (1 - learning_rate * weight_decay) theta + N(0, sigma^2), after each step, for all parameters that train.

    It is the soft form of `shrink_perturb` that Dohare et al. 2024 (https://doi.org/10.1038/s41586-024-07711-7) compare
    with continual backprop. The shrinking is that of AdamW, and in sgd without momentum that of `weight_decay`.

    Attributes:
        weight_decay: At least 0. Default 5e-4.
        sigma: The deviation of the noise, at least 0. Default 1e-5. With 0 nothing is drawn.
    """

    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    sigma: Annotated[float, Field(ge=0)] = 1e-5

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext, /) -> Hooks:
        """The hooks of a round."""
        state = {"steps": 0}

        def after_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
            import torch

            state["steps"] += 1
            first = optimizer.param_groups[0]["params"][0]
            generator = context.step_generator("soft_shrink_perturb", state["steps"], first.device)
            with torch.no_grad():
                for group in optimizer.param_groups:
                    for parameter in group["params"]:
                        parameter.mul_(1 - group["lr"] * self.weight_decay)
                        if self.sigma:
                            noise = torch.empty_like(parameter).normal_(generator=generator)
                            parameter.add_(noise, alpha=self.sigma)

        return Hooks(after_step=after_step, state=state)
