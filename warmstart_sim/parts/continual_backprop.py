"""Continual backprop: in every step, the least useful hidden units may be replaced by new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from warmstart_sim.registry import PARTS
from warmstart_sim.types import Hooks, RoundContext, StateDict

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.utils.hooks import RemovableHandle

    from warmstart_sim.hidden_units import HiddenLayer

State = dict[str, Any]


@PARTS.register("continual_backprop", "ignores_previous", changes="hidden units")
@dataclass(frozen=True, kw_only=True)
class ContinualBackprop:
    """Continual backprop: replaces a small share of the least useful mature hidden units in every step.

    1. u <- eta u + (1 - eta) y for each unit, with the y of the step
       "contribution": mean|w_out| mean|h|, or
       "adaptable": mean|w_out| mean|h - h_bar| / mean|w_in|,
       where means of h are over the batch (and positions), and h_bar is h's running mean with the same eta. Running
       means that begin at zero are divided by 1 - eta^age.
    2. Of the units of a layer that are older than `maturity` steps, rho times their number, added up over steps, are
       replaced, those with the lowest u first: incoming weights and bias are drawn anew, h_bar w_out moves to the bias
       of the next layer, outgoing weights, age, u and h_bar become zero, and so do the optimiser's moments.

    h is what the next layer reads in training. `hidden_units` says what counts as a unit, and what is done about
    BatchNorm. Ages are counted from the start of the round. After a step the GPU is waited for only when units are due.

    Dohare et al. 2024, https://doi.org/10.1038/s41586-024-07711-7.

    Attributes:
        rho: The share of mature units that is replaced in a step, in [0, 1]. Default 1e-5, the paper's for a ResNet;
            1e-4 in FIRE's study.
        maturity: m, at least 0. Default 1000.
        eta: In [0, 1). Default 0.99.
        utility: "contribution" (default, the paper's for a ResNet) or "adaptable".
    """

    rho: Annotated[float, Field(ge=0, le=1)] = 1e-5
    maturity: Annotated[int, Field(ge=0)] = 1000
    eta: Annotated[float, Field(ge=0, lt=1)] = 0.99
    utility: Literal["contribution", "adaptable"] = "contribution"

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext, /) -> Hooks:
        """The hooks of a round: one follows the units' activity, and one replaces units after a step."""
        import torch

        from warmstart_sim.hidden_units import hidden_layers

        state: State = {"steps": torch.zeros((), dtype=torch.int64)}  # tensors: captured steps hold their addresses
        layers: list[HiddenLayer] = []

        def attach(model: nn.Module) -> list[RemovableHandle]:
            layers.extend(hidden_layers(model, "part 'continual_backprop'"))
            handles = []
            for layer in layers:
                own = state[layer.name] = self._new_state(layer, model.get_parameter(f"{layer.name}.weight").device)
                reader = model.get_submodule(layer.reader)
                handles.append(reader.register_forward_pre_hook(self._follow(layer, own)))
            return handles

        def after_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
            state["steps"] += 1
            for layer in layers:
                if len(units := self._due(layer, state[layer.name], model)) and layer.trains(model):
                    generator = context.step_generator(f"continual_backprop {layer.name}", int(state["steps"]))
                    self._replace(layer, units, state[layer.name], model, optimizer, fresh, generator)

        return Hooks(attach=attach, after_step=after_step, state=state)

    @staticmethod
    def _new_state(layer: HiddenLayer, device: torch.device) -> State:
        import torch

        on_device = {name: torch.zeros(layer.units, device=device) for name in ("size", "mean", "ones", "utility")}
        return {**on_device, "age": torch.zeros(layer.units, dtype=torch.int64), "due": torch.zeros(())}

    def _follow(self, layer: HiddenLayer, own: State) -> Any:
        """A forward hook that keeps mean |h| (or |h - h_bar|) of the batch, the running mean of h, and that of 1."""
        import torch

        def follow(reader: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            if not reader.training:
                return
            with torch.no_grad():
                h = layer.by_unit(args[0]).float().transpose(0, 1).flatten(1)  # (units, samples and positions)
                own["mean"].lerp_(h.mean(1), 1 - self.eta)
                own["ones"].lerp_(torch.ones_like(own["ones"]), 1 - self.eta)
                centre = (own["mean"] / own["ones"])[:, None] if self.utility == "adaptable" else 0.0
                own["size"].copy_((h - centre).abs().mean(1))

        return follow

    def _due(self, layer: HiddenLayer, own: State, model: nn.Module) -> torch.Tensor:
        """Follows the utilities, and returns the units to replace now."""
        import torch

        y = layer.sizes_out(model) * own["size"]
        if self.utility == "adaptable":
            y = y / layer.sizes_in(model).clamp_min(1e-12)
        own["utility"].lerp_(y, 1 - self.eta)
        own["age"] += 1
        mature = own["age"] > self.maturity
        own["due"] += self.rho * mature.sum()
        count = min(int(own["due"]), int(mature.sum()))
        own["due"] -= count
        if count == 0:
            return torch.empty(0, dtype=torch.int64)
        utility = (own["utility"] / own["ones"]).masked_fill(~mature.to(y.device), float("inf"))
        units: torch.Tensor = utility.argsort(stable=True)[:count]
        return units

    @staticmethod
    def _replace(
        layer: HiddenLayer,
        units: torch.Tensor,
        own: State,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        fresh: StateDict,
        generator: torch.Generator,
    ) -> None:
        from warmstart_sim.hidden_units import reset_units

        means = (own["mean"] / own["ones"])[units]
        reset_units(model, optimizer, layer, units, fresh, generator, means)
        for name in ("mean", "ones", "utility"):
            own[name][units] = 0
        own["age"][units.cpu()] = 0
