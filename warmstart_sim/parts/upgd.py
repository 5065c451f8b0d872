"""UPGD: steps and noise are small where weights are useful."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from warmstart_sim.registry import PARTS
from warmstart_sim.types import Hooks, RoundContext, StateDict

if TYPE_CHECKING:
    import torch
    from torch import nn


@PARTS.register("upgd", "ignores_previous", changes="weights")
@dataclass(frozen=True, kw_only=True)
class Upgd:
    """UPGD: gates each weight's step, and noise added to it, by the weight's utility.

    1. u <- decay u + (1 - decay) y, with y = -g w ("signed"), or |g w| ("absolute"), divided by 1 - decay^steps.
    2. gate = 1 - sigmoid(u / max u), the maximum over all weights that train.
    3. theta <- theta + gate (step - rate sigma N(0, 1)), where step is what the optimiser adds.

    With plain sgd that is theta - rate (g + noise) (1 - sigmoid(u / max u)), as in Elsayed & Mahmood 2024
    (https://arxiv.org/abs/2404.00781, weight-wise and global, first order); there the optimiser's weight decay is not
    gated, here it is a part of the step. With other optimisers their whole step is gated. A gate lies between 0.27 for
    the most useful weight, 0.5 for u = 0, and less than 1.

    Attributes:
        decay: In [0, 1). Default 0.999.
        sigma: The deviation of the noise, at least 0. Default 0.001. With 0 nothing is drawn.
        utility: "signed" (default, the authors' code) or "absolute".
    """

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    sigma: Annotated[float, Field(ge=0)] = 0.001
    utility: Literal["signed", "absolute"] = "signed"

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext, /) -> Hooks:
        """The hooks of a round: one follows utilities and keeps the weights, one gates the step."""
        import torch

        names = sorted(context.layout.parameters)
        utilities = {name: torch.zeros_like(fresh[name]) for name in names}
        weights = {name: torch.zeros_like(fresh[name]) for name in names}  # of before the step
        state: dict[str, Any] = {"steps": torch.zeros((), dtype=torch.int64), "utilities": utilities}

        def before_step(model: nn.Module) -> None:
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    weights[name].copy_(parameter)
                    if parameter.grad is not None:
                        y = parameter.grad * parameter
                        utilities[name].lerp_(y.abs() if self.utility == "absolute" else -y, 1 - self.decay)

        def after_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
            state["steps"] += 1
            trained = {id(each): group["lr"] for group in optimizer.param_groups for each in group["params"]}
            named = [(name, each) for name, each in model.named_parameters() if id(each) in trained]
            generator = context.step_generator("upgd", int(state["steps"]), named[0][1].device)
            # 1 - decay^steps divides u and max u alike
            highest = torch.stack([utilities[name].max() for name, _ in named]).max().clamp_min(1e-30)
            with torch.no_grad():
                for name, parameter in named:
                    step = parameter - weights[name]
                    if self.sigma:
                        noise = torch.empty_like(parameter).normal_(generator=generator)
                        step -= trained[id(parameter)] * self.sigma * noise
                    parameter.copy_(weights[name] + step * gate(utilities[name], highest))

        return Hooks(before_step=before_step, after_step=after_step, state=state)


def gate(utility: torch.Tensor, highest: torch.Tensor) -> torch.Tensor:
    """1 - sigmoid(u / max u).

    >>> import torch
    >>> gate(torch.tensor([0.0, 2.0]), highest=torch.tensor(2.0))
    tensor([0.5000, 0.2689])
    """
    return (-utility / highest).sigmoid()
