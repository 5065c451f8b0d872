"""A running average of the weights teaches the model that trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from warmstart_sim.parts.self_distillation import kl_divergence
from warmstart_sim.registry import PARTS
from warmstart_sim.types import Batch, Hooks, RoundContext, StateDict

if TYPE_CHECKING:
    import torch
    from torch import nn


@PARTS.register("ema_distillation", "ignores_previous", changes="the loss")
@dataclass(frozen=True, kw_only=True)
class EmaDistillation:
    """EMA teacher: adds the KL divergence of the model from a running average of its weights to the loss.

    1. loss <- loss + weight * tau^2 KL(student || teacher), the mean over the batch of sum_k q_k (log q_k - log p_k),
       where q and p are the softmax of the student's and the teacher's logits / tau.
    2. After each step, theta_teacher <- decay theta_teacher + (1 - decay) theta, parameters and buffers.

    The average begins anew at the start of each round. It is in evaluation mode, sees the student's inputs, and no
    gradient flows through it. Note the direction: `self_distillation`, whose teacher is the last round's model, has
    KL(teacher || student). A step needs a further forward pass.

    Attributes:
        weight: At least 0. Default 1.
        temperature: tau, above 0. Default 1.
        decay: In [0, 1). Default 0.999, as in Hare & Tortoise (Lee et al. 2024).
    """

    weight: Annotated[float, Field(ge=0)] = 1.0
    temperature: Annotated[float, Field(gt=0)] = 1.0
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.999

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext, /) -> Hooks:
        """The hooks of a round: the loss term, and the average's update."""
        from warmstart_sim.parts._running_average import copied, update

        if self.weight == 0:
            return Hooks()
        teacher = copied(context.start or fresh)

        def loss_term(batch: Batch, logits: torch.Tensor) -> torch.Tensor:
            assert batch.model_inputs is not None
            taught = context.forward(teacher, batch.model_inputs) / self.temperature
            divergence = kl_divergence(logits / self.temperature, taught)
            return self.weight * self.temperature**2 * divergence.mean()

        def after_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
            update(teacher, model, self.decay)

        return Hooks(loss_term=loss_term, after_step=after_step, state={"teacher": teacher})
