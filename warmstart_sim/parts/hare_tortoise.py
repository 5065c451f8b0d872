"""Hare & Tortoise: fast weights, which go back to a slow average of themselves from time to time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from warmstart_sim.registry import PARTS
from warmstart_sim.types import Hooks, RoundContext, StateDict

if TYPE_CHECKING:
    import torch
    from torch import nn


@PARTS.register("hare_tortoise", "ignores_previous", changes="weights")
@dataclass(frozen=True, kw_only=True)
class HareTortoise:
    """Hare & Tortoise: every ten epochs the weights go back to a slow running average of themselves.

    1. After each step, slow <- decay slow + (1 - decay) theta, parameters and buffers.
    2. After every `every` epochs, theta <- slow.

    The average begins anew at the start of each round. The optimiser's moments stay as they are. What is evaluated is
    always theta, so a round that does not end with a multiple of `every` epochs is reported with the fast weights.

    Lee et al. 2024, https://arxiv.org/abs/2406.02596, with AdamW, rate and weight decay 1e-3, and gradients clipped at
    0.5, which an arm's `training` has to bring.

    Attributes:
        decay: In [0, 1]. Default 0.999. With 1 every return is to the start of the round.
        every: Epochs between two returns, at least 1. Default 10.
    """

    decay: Annotated[float, Field(ge=0, le=1)] = 0.999
    every: Annotated[int, Field(ge=1)] = 10

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext, /) -> Hooks:
        """The hooks of a round: the average's update, and the return."""
        from warmstart_sim.parts._running_average import copied, update

        slow = copied(context.start or fresh)
        state: dict[str, Any] = {"slow": slow, "epochs": 0}

        def after_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
            update(slow, model, self.decay)

        def after_epoch(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
            state["epochs"] += 1
            if state["epochs"] % self.every == 0:
                model.load_state_dict(slow)

        return Hooks(after_step=after_step, after_epoch=after_epoch, state=state)
