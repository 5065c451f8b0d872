"""Hidden units of a model: which layer makes them, which one reads them, and how one is reset.

It imports torch, so parts and probes import it when they are called.

A hidden unit is an output of a linear layer or a channel of a convolution that passes a nonlinearity and is read by one
other such layer; norms, dropout, pooling and flattening may lie between. In a `TransformerEncoderLayer` they are those
between its two linear layers. Not among them are the sums of residual blocks, which no single layer makes, what a
grouped convolution reads, and recurrent layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from warmstart_sim.errors import WarmstartError
from warmstart_sim.resets import forget, redrawn
from warmstart_sim.types import StateDict

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
NO_ACTIVATIONS = (nn.Identity, nn.Flatten, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Dropout)
FUNCTIONS = {F.relu, F.gelu, F.silu, torch.relu, torch.tanh, torch.sigmoid, torch.flatten}


@dataclass(frozen=True)
class HiddenLayer:
    """A layer of hidden units.

    Attributes:
        name: The module whose outputs they are.
        units: How many there are.
        norm: The normalisation layer between their layer and the nonlinearity; None without one.
        reader: The module that reads them.
        spread: How many inputs of the reader a unit has: its positions, if a linear layer reads a convolution.
        reader_norm: The BatchNorm that follows the reader at once; None without one.
    """

    name: str
    units: int
    norm: str | None
    reader: str
    spread: int
    reader_norm: str | None

    def by_unit(self, inputs: torch.Tensor) -> torch.Tensor:
        """The reader's inputs as (n, units, positions): features (n, ..., units * spread), or images."""
        inputs = inputs if inputs.ndim == 4 else inputs.movedim(-1, 1)
        return inputs.reshape(len(inputs), self.units, -1)

    def columns(self, units: torch.Tensor) -> torch.Tensor:
        """Indices of the reader's inputs that belong to these units."""
        return (units[:, None] * self.spread + torch.arange(self.spread, device=units.device)).flatten()

    def sizes_in(self, model: nn.Module) -> torch.Tensor:
        """The mean |w| of each unit's incoming weights, (units,)."""
        weight: torch.Tensor = model.get_parameter(f"{self.name}.weight").detach()
        return weight.abs().flatten(1).mean(1)

    def sizes_out(self, model: nn.Module) -> torch.Tensor:
        """The mean |w| of each unit's outgoing weights, (units,)."""
        weight: torch.Tensor = model.get_parameter(f"{self.reader}.weight").detach()
        return weight.abs().reshape(len(weight), self.units, -1).mean((0, 2))

    def trains(self, model: nn.Module) -> bool:
        """Whether both the units' layer and their reader train in this round."""
        weights = (model.get_parameter(f"{name}.weight") for name in (self.name, self.reader))
        return all(weight.requires_grad for weight in weights)


def hidden_layers(model: nn.Module, what: str) -> tuple[HiddenLayer, ...]:
    """The layers of hidden units, from input to output.

    Args:
        model: It is traced by torch.fx, and does not change.
        what: Who asks, for the message.

    Raises:
        WarmstartError: It has none, or its forward pass cannot be traced.
    """
    try:
        graph, why = _Tracer().trace(model), "has none"
    except Exception as error:  # tracing runs the user's own code, which may branch on values
        graph, why = fx.Graph(), f"cannot be traced ({type(error).__name__})"
    modules = dict(model.named_modules())
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    layers = [node for node in graph.nodes if _is_layer(node, modules) and calls[node.target] == 1]
    found = tuple(layer for node in layers if (layer := _hidden_layer(node, modules)) is not None)
    encoders = {name: each for name, each in modules.items() if isinstance(each, nn.TransformerEncoderLayer)}
    found += tuple(
        HiddenLayer(f"{name}.linear1", each.linear1.out_features, None, f"{name}.linear2", 1, None)
        for name, each in encoders.items()
    )
    if not found:
        raise WarmstartError(
            f"{what} needs hidden units: outputs of a linear layer or a convolution that one other such layer reads; "
            f"this model {why}"
        )
    return found


@torch.no_grad()
def reset_units(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    layer: HiddenLayer,
    units: torch.Tensor,
    fresh: StateDict,
    generator: torch.Generator,
    means: torch.Tensor | None = None,
) -> None:
    """Resets hidden units in place: new incoming weights and bias, outgoing weights of zero, moments of zero.

    So the model's output changes only by what the units contributed. With `means`, their mean contribution is moved to
    the reader's bias; a reader without a bias but with BatchNorm after it has it moved to the running mean (in training
    mode BatchNorm subtracts the mean by itself). A unit's entries in its own normalisation layer, running statistics
    included, become those of a new layer: they described the old unit, and until they have adapted to the new one, its
    outgoing weights are small.

    Args:
        model: The model that trains.
        optimizer: Its optimiser.
        layer: The units' layer.
        units: Their indices, int64.
        fresh: A fresh initialisation; new weights are drawn from its entries.
        generator: On the CPU.
        means: The mean activity of each of these units, as the reader sees it.
    """
    parameters: Mapping[str, nn.Parameter] = dict(model.named_parameters())
    outgoing, columns = parameters[f"{layer.reader}.weight"], layer.columns(units)
    if means is not None:
        _move_to_bias(model, layer, outgoing[:, columns], means)
    outgoing[:, columns] = 0
    forget(optimizer, outgoing, (slice(None), columns))
    for name in (f"{layer.name}.weight", f"{layer.name}.bias"):
        if (parameter := parameters.get(name)) is not None:
            parameter[units] = redrawn(parameter[units], fresh[name], generator)
            forget(optimizer, parameter, units)
    if layer.norm is not None:
        for name, tensor in model.get_submodule(layer.norm).state_dict(prefix=f"{layer.norm}.").items():
            if tensor.shape == (layer.units,):
                tensor[units] = fresh[name].to(tensor)[units]
                if name in parameters:
                    forget(optimizer, parameters[name], units)


def silent(outputs: torch.Tensor, threshold: float) -> torch.Tensor:
    """Which units of outputs (n, units, ...), or of sequences (length, n, units), are dead; bool (units,).

    Unit k is dead if s_k = mean |h_k| / (mean over units of mean |h|) <= threshold (Sokar et al. 2023).

    >>> silent(torch.tensor([[0.0, 1.0], [0.0, 3.0]]), 0.0)
    tensor([ True, False])
    """
    by_unit = outputs.movedim(-1 if outputs.ndim == 3 else 1, 0).flatten(1)
    strength = by_unit.double().abs().mean(1)  # over samples and positions
    return strength <= threshold * strength.mean()


def _move_to_bias(model: nn.Module, layer: HiddenLayer, weights: torch.Tensor, means: torch.Tensor) -> None:
    contribution = weights.reshape(len(weights), len(means), -1).sum(2) @ means.to(weights)
    reader: Any = model.get_submodule(layer.reader)
    if reader.bias is not None:
        reader.bias += contribution
    elif layer.reader_norm is not None:
        model.get_buffer(f"{layer.reader_norm}.running_mean").sub_(contribution)


class _Tracer(fx.Tracer):
    """Takes each module without submodules as one step."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return not any(True for _ in module.children()) or super().is_leaf_module(module, name)


def _is_layer(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    module = modules[str(node.target)] if node.op == "call_module" else None
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def _hidden_layer(node: fx.Node, modules: Mapping[str, nn.Module]) -> HiddenLayer | None:
    """The hidden layer that a layer's node makes, if a chain leads from it to one other layer."""
    norm, active, at = None, False, node
    while True:
        if len(at.users) != 1:
            return None
        (at,) = at.users
        if _is_layer(at, modules):
            break
        if at.op == "call_module":
            module = modules[str(at.target)]
            if isinstance(module, NORMS):
                norm = norm or str(at.target)
            elif any(True for _ in module.parameters()):
                return None
            elif isinstance(module, NO_ACTIVATIONS):
                pass
            elif getattr(module, "elementwise", type(module).__module__.startswith("torch.nn.")):
                active = True
            else:
                return None
        elif at.op == "call_function" and at.target in FUNCTIONS:
            active = active or at.target is not torch.flatten
        elif (at.op, at.target) != ("call_method", "flatten"):
            return None
    made: Any = modules[str(node.target)]
    reader: Any = modules[str(at.target)]
    units = len(made.weight)
    spread, rest = divmod(reader.weight.shape[1], units)
    if not active or rest or (spread > 1 and isinstance(reader, nn.Conv2d)):
        return None
    return HiddenLayer(str(node.target), units, norm, str(at.target), spread, _batch_norm_after(at, modules))


def _batch_norm_after(node: fx.Node, modules: Mapping[str, nn.Module]) -> str | None:
    names = [str(user.target) for user in node.users if user.op == "call_module"]
    has_mean = len(node.users) == len(names) == 1 and getattr(modules[names[0]], "running_mean", None) is not None
    return names[0] if has_mean else None
