"""Selective weight re-initialisation: the least useful weights are drawn anew while training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from warmstart_sim.registry import PARTS
from warmstart_sim.types import Hooks, RoundContext, StateDict

if TYPE_CHECKING:
    import torch
    from torch import nn


@PARTS.register("selective_reinitialization", "ignores_previous", changes="weights")
@dataclass(frozen=True, kw_only=True)
class SelectiveReinitialization:
    """Selective weight re-initialisation: every n steps, the weights of the lowest utility are drawn anew.

    The utility of a weight is |g w| ("gradient") or |w| ("magnitude"), where g is the loss gradient over some training
    samples. After every `every` steps, in each weight tensor with two dimensions or more that trains:

    - with `share`, the round(share * d) of its d weights with the lowest utility are drawn anew;
    - with `factor` instead, all whose utility is at most factor times the tensor's mean utility.

    A new weight is an entry of the tensor's fresh initialisation, drawn at random. The optimiser's moments of replaced
    weights become zero. Steps are counted from the start of the round.

    Hernandez-Garcia et al. 2025, "Reinitializing weights vs units for maintaining plasticity in neural networks".

    Attributes:
        every: n, at least 1. Default 1000.
        share: In [0, 1]. Default 0.01, unless there is a factor.
        factor: At least 0. Default none.
        utility: "gradient" (default) or "magnitude".
        samples: How many training samples the gradient is over, other ones each time. Default 128.
    """

    every: Annotated[int, Field(ge=1)] = 1000
    share: Annotated[float, Field(ge=0, le=1)] = 0.01
    factor: Annotated[float, Field(ge=0)] | None = None
    utility: Literal["gradient", "magnitude"] = "gradient"
    samples: Annotated[int, Field(ge=1)] = 128

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext, /) -> Hooks:
        """The hooks of a round."""
        state = {"steps": 0}

        def after_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
            import torch

            from warmstart_sim.resets import forget, redrawn

            state["steps"] += 1
            if state["steps"] % self.every:
                return
            generator = context.step_generator("selective_reinitialization", state["steps"])
            with torch.no_grad():
                for name, weight, utility in self._utilities(model, context, state["steps"]):
                    mask = self.selected(utility)
                    weight.copy_(torch.where(mask, redrawn(weight, fresh[name], generator), weight))
                    forget(optimizer, weight, mask)

        return Hooks(after_step=after_step, state=state)

    def _utilities(
        self, model: nn.Module, context: RoundContext, step: int
    ) -> Iterator[tuple[str, nn.Parameter, torch.Tensor]]:
        """Name, weight and utility of every weight tensor that trains."""
        weights = [(name, each) for name, each in model.named_parameters() if each.requires_grad and each.ndim > 1]
        if self.utility == "magnitude":
            yield from ((name, each, each.abs()) for name, each in weights)
            return
        some = context.some(context.train, self.samples, f"selective_reinitialization step {step}")
        gradients = context.gradients({name: each.clone() for name, each in model.state_dict().items()}, some)
        yield from ((name, each, (gradients[name] * each).abs()) for name, each in weights)

    def selected(self, utility: torch.Tensor) -> torch.Tensor:
        """A mask of the weights to draw anew.

        >>> import torch
        >>> SelectiveReinitialization(factor=0.5).selected(torch.tensor([0.0, 1.0, 5.0]))
        tensor([ True,  True, False])
        """
        import torch

        if self.factor is not None:
            return utility <= self.factor * utility.mean()
        mask = torch.zeros(utility.numel(), dtype=torch.bool, device=utility.device)
        mask[utility.flatten().argsort(stable=True)[: round(self.share * utility.numel())]] = True
        return mask.view(utility.shape)
