"""Builds one network that computes R networks of the same architecture.

R linear layers are one batched product, R convolutions one grouped convolution, and R BatchNorms or GroupNorms one over
R times the channels, so that every model keeps statistics of its own.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from warmstart_sim.models._interface import ReadLogits
from warmstart_sim.models._layers import (
    Flatten,
    GlobalAveragePool,
    InsertedNormalization,
    apply_inserted_normalization,
)

ELEMENTWISE = (nn.ReLU, nn.ReLU6, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Identity)
POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
LEAVES = (InsertedNormalization, Flatten, GlobalAveragePool)  # beside torch's own layers
FUNCTIONS = (F.relu, F.gelu, F.silu, torch.relu, torch.tanh, torch.sigmoid, torch.add, operator.add, operator.iadd)


class Unstackable(Exception):
    """The model contains something that has no stacked form."""


class SampleMask:
    """Which samples of a stacked batch are real rather than padding: a bool mask (R, n), or None for all."""

    def __init__(self) -> None:
        self.mask: torch.Tensor | None = None


class StackedLinear(nn.Module):
    """R linear layers on (R, n, features): one batched product."""

    def __init__(self, layer: nn.Linear, count: int) -> None:
        super().__init__()
        self.weight = _stacked_parameter(layer.weight, count)
        self.bias = _stacked_parameter(layer.bias, count) if layer.bias is not None else None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps (R, n, features) to (R, n, units)."""
        if self.bias is None:
            return torch.bmm(inputs, self.weight.mT)
        return torch.baddbmm(self.bias[:, None], inputs, self.weight.mT)


class StackedConv2d(nn.Module):
    """R convolutions on (n, R * channels, height, width): one grouped convolution."""

    def __init__(self, layer: nn.Conv2d, count: int) -> None:
        super().__init__()
        if layer.padding_mode != "zeros":
            raise Unstackable(f"a convolution with padding_mode {layer.padding_mode}")
        self.weight = _stacked_parameter(layer.weight, count)
        self.bias = _stacked_parameter(layer.bias, count) if layer.bias is not None else None
        self._options: Any = (layer.stride, layer.padding, layer.dilation, layer.groups * count)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps (n, R * channels_in, height, width) to (n, R * channels_out, ...)."""
        bias = None if self.bias is None else self.bias.flatten()
        return F.conv2d(inputs, self.weight.flatten(0, 1), bias, *self._options)


class StackedBatchNorm(nn.Module):
    """R BatchNorms in training mode, each with the statistics of its own real samples."""

    def __init__(self, layer: nn.BatchNorm1d | nn.BatchNorm2d, count: int, sample_mask: SampleMask) -> None:
        super().__init__()
        if not layer.affine or not layer.track_running_stats or layer.momentum is None:
            raise Unstackable("a BatchNorm without scale and shift or with cumulative statistics")
        self.weight = _stacked_parameter(layer.weight, count)
        self.bias = _stacked_parameter(layer.bias, count)
        for name, buffer in layer.named_buffers():
            self.register_buffer(name, buffer.new_empty((count, *buffer.shape)))
        self.running_mean: torch.Tensor
        self.running_var: torch.Tensor
        self.num_batches_tracked: torch.Tensor
        self._momentum, self._eps, self._sample_mask = layer.momentum, layer.eps, sample_mask
        self._rows = isinstance(layer, nn.BatchNorm1d)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalises (n, R * channels, height, width), or for BatchNorm1d (R, n, features)."""
        self.num_batches_tracked += 1
        return _side_by_side(self._normalized, inputs) if self._rows else self._normalized(inputs)

    def _normalized(self, inputs: torch.Tensor) -> torch.Tensor:
        if self._sample_mask.mask is None:
            mean, var = self.running_mean.flatten(), self.running_var.flatten()
            weight, bias = self.weight.flatten(), self.bias.flatten()
            return F.batch_norm(inputs, mean, var, weight, bias, True, self._momentum, self._eps)
        return self._masked(inputs, self._sample_mask.mask)

    def _masked(self, inputs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        count, features = self.weight.shape
        values = inputs.reshape(len(inputs), count, features, -1)
        counted = mask.T[:, :, None, None].to(values.dtype)  # (n, R, 1, 1)
        size = (mask.sum(1, keepdim=True) * values.shape[3]).to(values.dtype)  # (R, 1), the divisor
        mean = (values * counted).sum((0, 3)) / size
        centred = values - mean[:, :, None]
        var = (centred.square() * counted).sum((0, 3)) / size
        scaled = centred * ((var + self._eps).rsqrt() * self.weight)[:, :, None] + self.bias[:, :, None]
        with torch.no_grad():
            self.running_mean.lerp_(mean, self._momentum)
            self.running_var.lerp_(var * (size / (size - 1)), self._momentum)
        return scaled.reshape(inputs.shape)


class StackedGroupNorm(nn.Module):
    """R GroupNorms: one with R times the groups, because a model's channels lie next to each other."""

    def __init__(self, layer: nn.GroupNorm, count: int, spatial: bool) -> None:
        super().__init__()
        if not layer.affine:
            raise Unstackable("a GroupNorm without scale and shift")
        self.weight = _stacked_parameter(layer.weight, count)
        self.bias = _stacked_parameter(layer.bias, count)
        self._groups, self._eps, self._spatial = layer.num_groups * count, layer.eps, spatial

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalises (n, R * channels, height, width), or (R, n, features)."""
        images = self._spatial and inputs.ndim == 4
        return self._normalized(inputs) if images else _side_by_side(self._normalized, inputs)

    def _normalized(self, inputs: torch.Tensor) -> torch.Tensor:
        return F.group_norm(inputs, self._groups, self.weight.flatten(), self.bias.flatten(), self._eps)


def _side_by_side(norm: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
    """Applies a norm of (n, R * features) to (R, n, features)."""
    count, n, features = inputs.shape
    return norm(inputs.transpose(0, 1).reshape(n, count * features)).view(n, count, features).transpose(0, 1)


class StackedInsertedNormalization(nn.Module):
    """R normalisations with scalars of their own, of (R, n, features) or (n, R * channels, height, width)."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, layer: InsertedNormalization, count: int) -> None:
        super().__init__()
        for name, buffer in layer.named_buffers():
            self.register_buffer(name, buffer.new_empty(count))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalises each model's output."""
        if inputs.ndim == 3:
            return (inputs - self.mean[:, None, None]) / self.deviation[:, None, None]
        images = inputs.reshape(len(inputs), len(self.mean), -1)
        return ((images - self.mean[:, None]) / self.deviation[:, None]).view(inputs.shape)


class _Rows(nn.Module):
    """Flattens to (R, n, features): images (n, R * channels, ...) where the network is spatial, else (R, n, ...)."""

    def __init__(self, count: int, spatial: bool) -> None:
        super().__init__()
        self._count, self._spatial = count, spatial

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if not self._spatial:
            return inputs.flatten(2)
        return inputs.reshape(len(inputs), self._count, -1).transpose(0, 1)


class _Tracer(fx.Tracer):
    """Traces a forward pass, which would lose `torch.no_grad()` on the way."""

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        if not torch.is_grad_enabled():
            raise Unstackable("a forward pass that turns gradients off")
        return super().create_node(*args, **kwargs)

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, LEAVES) or super().is_leaf_module(module, name)

    def call_module(self, module: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Calls a module; of layers that are not traced inside, the inserted normalisation would be lost."""
        output = super().call_module(module, forward, args, kwargs)
        hooked = apply_inserted_normalization in module._forward_hooks.values()
        if hooked and self.is_leaf_module(module, self.path_of_module(module)):
            return apply_inserted_normalization(module, args, output)
        return output


def stacked_network(model: nn.Module, count: int, sample_mask: SampleMask) -> tuple[nn.Module, bool]:
    """`count` models like this one as one module, in training mode, with parameters of shape (count, ...).

    Args:
        model: Made of linear layers, convolutions, BatchNorm, GroupNorm, pooling, activations and sums.
        count: R.
        sample_mask: Read at each call of the module.

    Returns:
        The module, and whether it takes images (n, R * channels, height, width) rather than (R, n, ...). It returns
        logits (R, n, classes). Its parameters and buffers have the model's names, and are uninitialised.

    Raises:
        Unstackable: The model contains anything else.
    """
    read_logits = _only_hook(model)
    try:
        graph = _Tracer().trace(model)
    except Unstackable:
        raise
    except Exception as error:  # tracing runs the user's own code, which may branch on values
        raise Unstackable(f"a forward pass that cannot be traced ({type(error).__name__})") from error
    (output,) = (node for node in graph.nodes if node.op == "output")
    if read_logits and not isinstance(output.args[0], fx.Node):
        output.args = (read_logits.read(output.args[0]),)
    if any(node.op == "call_module" and not node.users for node in graph.nodes):
        raise Unstackable("a layer whose output is not used")
    traced = fx.GraphModule(model, graph)
    spatial = any(isinstance(module, (nn.Conv2d, *POOLING)) for module in traced.modules())
    layer: nn.Module | None = None
    for node in traced.graph.nodes:
        if node.op == "call_module":
            name = str(node.target)
            layer = _stacked_layer(model.get_submodule(name), count, sample_mask, spatial)
            parent, _, last = name.rpartition(".")
            setattr(traced.get_submodule(parent), last, layer)
        elif node.op == "call_function" and node.target in FUNCTIONS:
            continue
        elif node.op not in ("placeholder", "output"):
            raise Unstackable(f"{node.op} {node.target}")
    if not isinstance(layer, (StackedLinear, StackedInsertedNormalization, _Rows)):
        raise Unstackable("an output that is not made by a linear layer")
    if _names(model) != _names(traced):  # of a tied parameter, the model has one name and the stack several
        raise Unstackable("parameters or buffers that are tied or that no layer uses")
    return traced, spatial


def _only_hook(model: nn.Module) -> ReadLogits | None:
    """How to read the logits in the model's output; a stack would lose all other hooks."""
    hooks: list[Any] = [
        hook
        for module in model.modules()
        for found in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        for hook in found.values()
        if hook is not apply_inserted_normalization  # traced like a layer
    ]
    if hooks and not (len(hooks) == 1 and isinstance(hooks[0], ReadLogits)):
        raise Unstackable("hooks of its modules")
    return hooks[0] if hooks else None


def _names(model: nn.Module) -> set[str]:
    return {name for name, _ in (*model.named_parameters(), *model.named_buffers())}


def _stacked_layer(layer: nn.Module, count: int, sample_mask: SampleMask, spatial: bool) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return StackedLinear(layer, count)
    if isinstance(layer, nn.Conv2d):
        return StackedConv2d(layer, count)
    if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
        return StackedBatchNorm(layer, count, sample_mask)
    if isinstance(layer, nn.GroupNorm):
        return StackedGroupNorm(layer, count, spatial)
    if isinstance(layer, InsertedNormalization):
        return StackedInsertedNormalization(layer, count)
    if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1):
        return _Rows(count, spatial)
    if isinstance(layer, (*ELEMENTWISE, *POOLING)):
        return layer
    raise Unstackable(type(layer).__name__)


def _stacked_parameter(parameter: torch.Tensor, count: int) -> nn.Parameter:
    if not parameter.requires_grad:
        raise Unstackable("a parameter that does not train")
    shape = (count, *parameter.shape)
    if parameter.is_cuda:  # each model's slice keeps its memory format, in which evaluation uses it
        return nn.Parameter(parameter.new_empty_strided(shape, (parameter.numel(), *parameter.stride())))
    return nn.Parameter(parameter.new_empty(shape).contiguous())
