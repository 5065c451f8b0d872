"""ReDo: dormant hidden units are recycled while training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from warmstart_sim.registry import PARTS
from warmstart_sim.types import Hooks, RoundContext, StateDict

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.utils.hooks import RemovableHandle

    from warmstart_sim.hidden_units import HiddenLayer


@PARTS.register("redo", "ignores_previous", changes="hidden units")
@dataclass(frozen=True, kw_only=True)
class Redo:
    """ReDo: every 1,000 steps, hidden units that are nearly silent get new incoming and zero outgoing weights.

    Unit i of a layer is dormant if s_i = E|h_i| / mean_k E|h_k| <= tau, over some training samples, where h is what the
    next layer reads, in evaluation mode. Its incoming weights and bias are drawn anew, its outgoing weights become
    zero, and the optimiser's moments of both become zero. `hidden_units` says what counts as a unit, and what is done
    about BatchNorm.

    Sokar et al. 2023, https://arxiv.org/abs/2302.12902. FIRE's study has tau 0.5 and `every: epoch`.

    Attributes:
        tau: At least 0. Default 0.025. With 0 only units that are silent on all samples are reset.
        every: Steps between two looks, counted from the start of the round, or "epoch". Default 1000.
        samples: How many training samples, other ones each time. Default 64.
    """

    tau: Annotated[float, Field(ge=0)] = 0.025
    every: Annotated[int, Field(ge=1)] | Literal["epoch"] = 1000
    samples: Annotated[int, Field(ge=1)] = 64

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext, /) -> Hooks:
        """The hooks of a round."""
        import torch

        from warmstart_sim.hidden_units import hidden_layers, reset_units, silent

        looks = torch.zeros((), dtype=torch.int64)  # steps, or epochs
        layers: list[HiddenLayer] = []

        def attach(model: nn.Module) -> list[RemovableHandle]:
            layers.extend(hidden_layers(model, "part 'redo'"))
            return []

        def look(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
            looks.add_(1)
            if self.every != "epoch" and looks % self.every:
                return
            inputs, _ = context.samples(context.some(context.train, self.samples, f"redo {int(looks)}"))
            generator = context.step_generator("redo", int(looks))
            weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}  # of before all resets
            for layer in layers:
                activity = layer.by_unit(context.block_inputs(weights, layer.reader, inputs))
                dormant = silent(activity[..., None], self.tau).nonzero().flatten()
                if len(dormant) and layer.trains(model):
                    reset_units(model, optimizer, layer, dormant, fresh, generator)

        state = {"looks": looks}
        if self.every == "epoch":
            return Hooks(attach=attach, after_epoch=look, state=state)
        return Hooks(attach=attach, after_step=look, state=state)
