"""Models of one architecture, stacked: their parameters lie side by side, and one step trains all of them.

A small network leaves most of a processor idle: its matrices are so small that starting a kernel costs more than
running it. Stacked, R linear layers are one batched product, R convolutions one grouped convolution, and R BatchNorms
one over R times the channels, so that every model keeps statistics of its own. Nothing else of a training is shared:
each model has its own batch, learning rate, optimiser state and step count.

Batches of different sizes are filled up with samples that count nothing: by a mask, they have no weight in the loss and
no part in BatchNorm's statistics.
"""

from __future__ import annotations

import contextlib
import operator
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from warmstart_sim.training.recording import Recorder
from warmstart_sim.training.stepping import Stepper
from warmstart_sim.training.turns import Minibatch
from warmstart_sim.types import Batch

ELEMENTWISE = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Identity)
POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
FUNCTIONS = (F.relu, F.gelu, F.silu, torch.relu, torch.tanh, torch.sigmoid, torch.add, operator.add, operator.iadd)


class Unstackable(Exception):
    """A model has something in it of which no stacked form is known."""


class Counts:
    """Which samples of a stacked batch count: None for all, else a mask of shape (R, n)."""

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
    """R BatchNorms in training mode, each with the statistics of its own samples that count."""

    def __init__(self, layer: nn.BatchNorm1d | nn.BatchNorm2d, count: int, counts: Counts) -> None:
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
        self._momentum, self._eps, self._counts = layer.momentum, layer.eps, counts
        self._rows = isinstance(layer, nn.BatchNorm1d)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalises (n, R * channels, height, width), or for BatchNorm1d (R, n, features)."""
        self.num_batches_tracked += 1
        if not self._rows:
            return self._normalized(inputs)
        count, n, features = inputs.shape
        across = self._normalized(inputs.transpose(0, 1).reshape(n, count * features))
        return across.view(n, count, features).transpose(0, 1)

    def _normalized(self, inputs: torch.Tensor) -> torch.Tensor:
        if self._counts.mask is None:
            mean, var = self.running_mean.flatten(), self.running_var.flatten()
            weight, bias = self.weight.flatten(), self.bias.flatten()
            return F.batch_norm(inputs, mean, var, weight, bias, True, self._momentum, self._eps)
        return self._masked(inputs, self._counts.mask)

    def _masked(self, inputs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        count, features = self.weight.shape
        values = inputs.reshape(len(inputs), count, features, -1)
        counts = mask.T[:, :, None, None].to(values.dtype)  # (n, R, 1, 1)
        size = (mask.sum(1, keepdim=True) * values.shape[3]).to(values.dtype)  # (R, 1): of how many values a mean is
        mean = (values * counts).sum((0, 3)) / size
        centred = values - mean[:, :, None]
        var = (centred.square() * counts).sum((0, 3)) / size
        scaled = centred * ((var + self._eps).rsqrt() * self.weight)[:, :, None] + self.bias[:, :, None]
        with torch.no_grad():
            self.running_mean.lerp_(mean, self._momentum)
            self.running_var.lerp_(var * (size / (size - 1)), self._momentum)
        return scaled.reshape(inputs.shape)


class _Rows(nn.Module):
    """Flattens to (R, n, features): images (n, R * channels, ...) where the network is spatial, else (R, n, ...)."""

    def __init__(self, count: int, spatial: bool) -> None:
        super().__init__()
        self._count, self._spatial = count, spatial

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if not self._spatial:
            return inputs.flatten(2)
        return inputs.reshape(len(inputs), self._count, -1).transpose(0, 1)


def stacked_network(model: nn.Module, count: int, counts: Counts) -> tuple[nn.Module, bool]:
    """`count` models like this one as one module, in training mode, with parameters of shape (count, ...).

    Args:
        model: Made of linear layers, convolutions, BatchNorm, pooling, activations and sums.
        count: R.
        counts: Says at each call which samples count.

    Returns:
        The module, and whether it takes images (n, R * channels, height, width) rather than (R, n, ...). It returns
        logits (R, n, classes). Its parameters and buffers have the model's names, and no values yet.

    Raises:
        Unstackable: The model has something else in it.
    """
    try:
        traced = fx.symbolic_trace(model)
    except Exception as error:  # tracing runs the user's own code, which may branch on values
        raise Unstackable(f"a forward pass that cannot be traced ({type(error).__name__})") from error
    spatial = any(isinstance(module, (nn.Conv2d, *POOLING)) for module in traced.modules())
    layer: nn.Module | None = None
    for node in traced.graph.nodes:
        if node.op == "call_module":
            name = str(node.target)
            layer = _stacked_layer(traced.get_submodule(name), count, counts, spatial)
            parent, _, last = name.rpartition(".")
            setattr(traced.get_submodule(parent), last, layer)
        elif node.op == "call_function" and node.target in FUNCTIONS:
            continue
        elif node.op not in ("placeholder", "output"):
            raise Unstackable(f"{node.op} {node.target}")
    if not isinstance(layer, (StackedLinear, _Rows)):
        raise Unstackable("an output that is not made by a linear layer")
    if _names(model) != _names(traced):  # of a tied parameter, the model has one name and the stack several
        raise Unstackable("parameters or buffers that are tied or that no layer uses")
    return traced, spatial


def _names(model: nn.Module) -> set[str]:
    return {name for name, _ in (*model.named_parameters(), *model.named_buffers())}


def _stacked_layer(layer: nn.Module, count: int, counts: Counts, spatial: bool) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return StackedLinear(layer, count)
    if isinstance(layer, nn.Conv2d):
        return StackedConv2d(layer, count)
    if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
        return StackedBatchNorm(layer, count, counts)
    if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1):
        return _Rows(count, spatial)
    if isinstance(layer, (*ELEMENTWISE, *POOLING)):
        return layer
    raise Unstackable(type(layer).__name__)


def _stacked_parameter(parameter: torch.Tensor, count: int) -> nn.Parameter:
    if not parameter.requires_grad:
        raise Unstackable("a parameter that does not train")
    return nn.Parameter(parameter.new_empty((count, *parameter.shape)).contiguous())


def stackable(stepper: Stepper) -> bool:
    """Whether what its settings and its hooks ask for can be done in a stack, if its model has a stacked form."""
    plain = not any(hook.loss_term or hook.after_step for hook in stepper.hooks)
    texts = stepper.samples is not None and stepper.samples.lengths is not None
    return plain and not texts and stepper.settings.precision != "bf16"


class Stack:
    """Steppers whose models are of one architecture, and whose steps are made as one.

    The models' own tensors become slices of the stacked ones: evaluation, checkpoints and new weights go on working on
    the single models, and see and change what is trained here.

    Args:
        steppers: At least one; their models have the same parameters, their optimisers the same options but the rate.
        recorder: Records the steps; None runs them as they are.

    Raises:
        Unstackable: There is no stacked form of their model.
    """

    def __init__(self, steppers: Sequence[Stepper], recorder: Recorder | None = None) -> None:
        self.steppers = tuple(steppers)
        self._recorder = recorder
        self._counts = Counts()
        self._network, self._spatial = stacked_network(steppers[0].model, len(steppers), self._counts)
        self._parameters = dict(self._network.named_parameters())
        self._has_statistics = any(isinstance(module, StackedBatchNorm) for module in self._network.modules())
        self._loss_sums, self._correct = self._adopt()
        self._updates: list[Update] = []
        self._version = -1
        self._recorded: dict[tuple[int, bool], tuple[torch.Tensor, torch.Tensor, Callable[[], None]]] = {}

    def _adopt(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies the models into the stacked tensors, and makes their own tensors slices of those."""
        stacked = dict(self._network.named_parameters()) | dict(self._network.named_buffers())
        loss_sums = torch.stack([stepper.loss_sum for stepper in self.steppers])
        correct = torch.stack([stepper.correct for stepper in self.steppers])
        for r, stepper in enumerate(self.steppers):
            own = dict(stepper.model.named_parameters()) | dict(stepper.model.named_buffers())
            for name, tensor in own.items():
                stacked[name].data[r].copy_(tensor.data)
                tensor.data = stacked[name].data[r]
            # The fused kernels walk through memory: state that was laid out like channels-last weights has to follow.
            for state in stepper.optimizer.state.values():
                for key, value in state.items():
                    if isinstance(value, torch.Tensor):
                        state[key] = value.contiguous()
            stepper.loss_sum, stepper.correct = loss_sums[r], correct[r]
            stepper.forget_recordings()
        return loss_sums, correct

    def step(self, minibatches: Sequence[Minibatch]) -> None:
        """Makes one step of every stepper.

        Args:
            minibatches: One for each stepper, in their order; of any sizes, but where there is BatchNorm, two at least.

        Raises:
            Exception: What a transform or torch raised. Nothing has been drawn then, and no weight has changed.
        """
        version = sum(stepper.version for stepper in self.steppers)
        if version != self._version:
            self._updates = list(_updates(self.steppers, list(self._parameters)))
            self._recorded.clear()
            self._version = version
        sizes = [len(minibatch.index) for minibatch in minibatches]
        if min(sizes) == 1 and self._has_statistics:
            raise ValueError("BatchNorm in training mode needs two samples at least")
        index = pad_sequence([minibatch.index for minibatch in minibatches], batch_first=True)
        mask = None
        if min(sizes) < max(sizes):
            ends = torch.tensor(sizes).to(index.device, non_blocking=True)[:, None]
            mask = torch.arange(index.shape[1], device=index.device) < ends
        drawing = [stepper.generator for stepper in self.steppers if any(hook.transform for hook in stepper.hooks)]
        drawn = [generator.get_state() for generator in drawing]
        try:
            if self._recorder is None or (drawing and mask is not None):  # a replay always draws as many
                self._step(index, mask, sizes)
            else:
                self._replay(index, mask)
        except Exception:
            for generator, state in zip(drawing, drawn, strict=True):
                generator.set_state(state)
            raise

    def _step(self, index: torch.Tensor, mask: torch.Tensor | None, sizes: Sequence[int] | None = None) -> None:
        inputs, labels = self._batch(index, sizes or [index.shape[1]] * len(index))
        self._counts.mask = mask
        logits = self._network(inputs)
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
        hits = logits.detach().argmax(2) == labels
        if mask is None:
            loss = losses.mean(1).sum()
        else:
            losses, hits = losses.where(mask, 0.0), hits & mask
            loss = (losses.sum(1) / mask.sum(1)).sum()
        for parameter in self._parameters.values():
            parameter.grad = None
        loss.backward()
        self._update()
        self._loss_sums += losses.detach().sum(1)
        self._correct += hits.sum(1)

    def _update(self) -> None:
        """The steps of all optimisers, those with equal rates in one call."""
        gradients = {}
        for name, parameter in self._parameters.items():
            assert parameter.grad is not None
            gradients[name] = parameter.grad.unbind()
        for update in self._updates:
            update(gradients)

    def _replay(self, index: torch.Tensor, mask: torch.Tensor | None) -> None:
        key = index.shape[1], mask is not None
        if key not in self._recorded:
            self._recorded[key] = self._record(*key)
        static_index, static_mask, replay = self._recorded[key]
        static_index.copy_(index)
        if mask is not None:
            static_mask.copy_(mask)
        replay()

    def _record(self, width: int, masked: bool) -> tuple[torch.Tensor, torch.Tensor, Callable[[], None]]:
        assert self._recorder is not None
        device = self.steppers[0].device
        index = torch.zeros(len(self.steppers), width, dtype=torch.int64, device=device)
        mask = torch.ones(len(self.steppers), width, dtype=torch.bool, device=device)
        with contextlib.ExitStack() as unchanged:
            for stepper in self.steppers:
                unchanged.enter_context(stepper.unchanged())
            generators = [stepper.generator for stepper in self.steppers]
            return index, mask, self._recorder(lambda: self._step(index, mask if masked else None), generators)

    def _batch(self, index: torch.Tensor, sizes: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs as the network takes them, and labels (R, n); one look-up where all share data and no hook is on."""
        samples = self.steppers[0].samples
        assert samples is not None
        alike = all(stepper.samples is samples and not stepper.hooks for stepper in self.steppers)
        if alike:
            order = index.T if self._spatial else index
            inputs, labels = samples.batch(order.flatten())
            inputs = inputs.unflatten(0, order.shape)
            labels = labels.view(order.shape).T if self._spatial else labels.view(order.shape)
        else:
            batches = [_own_batch(*each) for each in zip(self.steppers, index, sizes, strict=True)]
            inputs = torch.stack([inputs for inputs, _ in batches], dim=1 if self._spatial else 0)
            labels = torch.stack([labels for _, labels in batches])
        return inputs.flatten(1, 2) if self._spatial else inputs, labels


def _own_batch(stepper: Stepper, index: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One model's batch, with what its hooks make of the samples that count; the rest are zeros."""
    samples = stepper.samples
    assert samples is not None
    transforms = [hook.transform for hook in stepper.hooks if hook.transform]
    if not transforms:
        return samples.batch(index)
    batch = Batch(*samples.raw_batch(index[:size]), stepper.generator)
    for transform in transforms:
        batch = transform(batch)
    inputs, labels = samples.finished(batch.inputs), batch.labels
    missing = len(index) - size
    return torch.cat((inputs, inputs.new_zeros(missing, *inputs.shape[1:]))), F.pad(labels, (0, missing))


Update = Callable[[Mapping[str, Sequence[torch.Tensor]]], None]  # from each parameter's gradients, one for each model


def _updates(steppers: Sequence[Stepper], names: Sequence[str]) -> Iterator[Update]:
    """The optimiser steps of all models: torch's own kernels on lists, one list for each learning rate."""
    by_rate: defaultdict[Hashable, list[int]] = defaultdict(list)
    for r, stepper in enumerate(steppers):
        rate = stepper.optimizer.param_groups[0]["lr"]
        by_rate[id(rate) if isinstance(rate, torch.Tensor) else rate].append(r)
    for members in by_rate.values():
        first = steppers[members[0]].optimizer
        make = _sgd_update if isinstance(first, torch.optim.SGD) else _adam_update
        parameters: list[torch.Tensor] = []
        states = []
        for name in names:
            for r in members:
                parameter = steppers[r].model.get_parameter(name)
                parameters.append(parameter)
                states.append(steppers[r].optimizer.state[parameter])
        yield make(first.param_groups[0], [(name, r) for name in names for r in members], parameters, states)


def _adam_update(
    group: Mapping[str, Any], places: list[tuple[str, int]], parameters: list[torch.Tensor], states: list[Any]
) -> Update:
    for parameter, state in zip(parameters, states, strict=True):
        if not state:  # as torch.optim.Adam makes it at its first step
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
    means, squares, steps = ([state[key] for state in states] for key in ("exp_avg", "exp_avg_sq", "step"))
    beta1, beta2 = group["betas"]

    def update(gradients: Mapping[str, Sequence[torch.Tensor]]) -> None:
        with torch.no_grad():
            adam(
                parameters, [gradients[name][r] for name, r in places], means, squares, [], steps, fused=True,
                capturable=group["capturable"], decoupled_weight_decay=group["decoupled_weight_decay"], amsgrad=False,
                beta1=beta1, beta2=beta2, lr=group["lr"], weight_decay=group["weight_decay"], eps=group["eps"],
                maximize=False,
            )  # fmt: skip

    return update


def _sgd_update(
    group: Mapping[str, Any], places: list[tuple[str, int]], parameters: list[torch.Tensor], states: list[Any]
) -> Update:
    momentum = group["momentum"]
    for parameter, state in zip(parameters, states, strict=True):
        if momentum and state.get("momentum_buffer") is None:  # from zeros, the first step makes it the gradient
            state["momentum_buffer"] = torch.zeros_like(parameter)
    buffers = [state.get("momentum_buffer") for state in states]

    def update(gradients: Mapping[str, Sequence[torch.Tensor]]) -> None:
        with torch.no_grad():
            sgd(
                parameters, [gradients[name][r] for name, r in places], buffers, fused=True,
                weight_decay=group["weight_decay"], momentum=momentum, lr=group["lr"], dampening=0.0, nesterov=False,
                maximize=False,
            )  # fmt: skip

    return update
