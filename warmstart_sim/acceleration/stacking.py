"""Stacked steps: one step trains R models of the same architecture, whose parameters are slices of stacked tensors.

A small network leaves most of a processor idle, because launching a kernel costs more than running it. R of them are
one network (`stacked_layers`). Each model keeps its own batch, learning rate, optimiser state and step count.

Batches of different sizes are padded, and a mask excludes the padding from losses and BatchNorm statistics.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from warmstart_sim.acceleration.stacked_layers import SampleMask, StackedBatchNorm, stacked_network
from warmstart_sim.training.captures import GraphCapture
from warmstart_sim.training.optimizers import fused_step, new_state
from warmstart_sim.training.stepper import Stepper, StepRequest
from warmstart_sim.types import Batch


def stackable(stepper: Stepper) -> bool:
    """Whether stacked steps support the stepper's settings and hooks; its model may still have no stacked form."""
    plain = not any(
        hook.loss_term or hook.attach or hook.before_step or hook.after_step or hook.state is not None
        for hook in stepper.hooks
    )
    samples = stepper.samples
    texts = samples is not None and (samples.lengths is not None or samples.labels.ndim > 1)
    alone = stepper.compiles or stepper.trainable is not None or stepper.settings.precision == "bf16"
    return plain and not texts and not alone


class Stack:
    """Makes the steps of several steppers, whose models have the same architecture, as one.

    The models' own tensors become slices of the stacked ones, so evaluation, checkpoints and new weights keep working
    on the single models.

    Args:
        steppers: At least one. Their optimisers have the same options, except for the learning rate.
        graph_capture: Captures the stacked steps; None runs them eagerly.

    Raises:
        Unstackable: Their model has no stacked form.
    """

    def __init__(self, steppers: Sequence[Stepper], graph_capture: GraphCapture | None = None) -> None:
        self.steppers = tuple(steppers)
        self._graph_capture = graph_capture
        self._mask = SampleMask()
        self._network, self._spatial = stacked_network(steppers[0].model, len(steppers), self._mask)
        self._parameters = dict(self._network.named_parameters())
        self._has_statistics = any(isinstance(module, StackedBatchNorm) for module in self._network.modules())
        self._loss_sums, self._correct = self._adopt()
        self._updates: list[Update] = []
        self._version = -1
        self._captured: dict[tuple[int, bool], tuple[torch.Tensor, torch.Tensor, Callable[[], None]]] = {}

    def _adopt(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies the models into the stacked tensors, and makes the models' own tensors slices of them."""
        stacked = dict(self._network.named_parameters()) | dict(self._network.named_buffers())
        loss_sums = torch.stack([stepper.loss_sum for stepper in self.steppers])
        correct = torch.stack([stepper.correct for stepper in self.steppers])
        for r, stepper in enumerate(self.steppers):
            own = dict(stepper.model.named_parameters()) | dict(stepper.model.named_buffers())
            for name, tensor in own.items():
                stacked[name].data[r].copy_(tensor.data)
                tensor.data = stacked[name].data[r]
            # Fused kernels ignore strides: optimiser state must be laid out like the weights, which are contiguous now.
            for state in stepper.optimizer.state.values():
                for key, value in state.items():
                    if isinstance(value, torch.Tensor):
                        state[key] = value.contiguous()
            stepper.loss_sum, stepper.correct = loss_sums[r], correct[r]
            stepper.drop_captured_graphs()
        return loss_sums, correct

    def step(self, requests: Sequence[StepRequest]) -> None:
        """Makes one step of every stepper.

        Args:
            requests: One for each stepper, in their order, of any batch sizes; with BatchNorm at least two samples.

        Raises:
            Exception: Raised by a transform or torch; generators are restored and no weight has changed.
        """
        version = sum(stepper.version for stepper in self.steppers)
        if version != self._version:
            self._updates = list(_make_updates(self.steppers, list(self._parameters)))
            self._captured.clear()
            self._version = version
        sizes = [len(request.index) for request in requests]
        if min(sizes) == 1 and self._has_statistics:
            raise ValueError("BatchNorm in training mode needs at least two samples")
        indices = [request.index for request in requests]
        alike = min(sizes) == max(sizes)  # the usual case, with one kernel in place of one for each cell
        index = torch.stack(indices) if alike else pad_sequence(indices, batch_first=True)
        mask = None
        if not alike:
            ends = torch.tensor(sizes).to(index.device, non_blocking=True)[:, None]
            mask = torch.arange(index.shape[1], device=index.device) < ends
        drawing = [stepper.generator for stepper in self.steppers if any(hook.transform for hook in stepper.hooks)]
        drawn = [generator.get_state() for generator in drawing]
        try:
            if self._graph_capture is None or (drawing and mask is not None):  # a replay draws for padding too
                self._step(index, mask, sizes)
            else:
                self._replay(index, mask)
        except Exception:
            for generator, state in zip(drawing, drawn, strict=True):
                generator.set_state(state)
            raise

    def _step(self, index: torch.Tensor, mask: torch.Tensor | None, sizes: Sequence[int] | None = None) -> None:
        inputs, labels = self._batch(index, sizes or [index.shape[1]] * len(index))
        self._mask.mask = mask
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
        """Makes the steps of all optimisers, one call for all models that share a learning rate."""
        gradients = {}
        for name, parameter in self._parameters.items():
            assert parameter.grad is not None
            gradients[name] = parameter.grad.unbind()
        for update in self._updates:
            update.step(gradients)

    def _replay(self, index: torch.Tensor, mask: torch.Tensor | None) -> None:
        key = index.shape[1], mask is not None
        if key not in self._captured:
            self._captured[key] = self._capture(*key)
        static_index, static_mask, replay = self._captured[key]
        static_index.copy_(index)
        if mask is not None:
            static_mask.copy_(mask)
        replay()

    def _capture(self, width: int, masked: bool) -> tuple[torch.Tensor, torch.Tensor, Callable[[], None]]:
        assert self._graph_capture is not None
        device = self.steppers[0].device
        index = torch.zeros(len(self.steppers), width, dtype=torch.int64, device=device)
        mask = torch.ones(len(self.steppers), width, dtype=torch.bool, device=device)
        with contextlib.ExitStack() as unchanged:
            for stepper in self.steppers:
                unchanged.enter_context(stepper.preserve_state())
            generators = [stepper.generator for stepper in self.steppers]
            return index, mask, self._graph_capture(lambda: self._step(index, mask if masked else None), generators)

    def _batch(self, index: torch.Tensor, sizes: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs for the stacked network, and labels (R, n); one look-up if all share samples and have no hooks."""
        samples = self.steppers[0].samples
        assert samples is not None
        alike = all(stepper.samples is samples and not stepper.hooks for stepper in self.steppers)
        if alike:
            order = index.T if self._spatial else index
            inputs, labels = samples.batch(order.flatten())
            inputs = inputs.unflatten(0, order.shape)
            labels = labels.view(order.shape).T if self._spatial else labels.view(order.shape)
        else:
            batches = [_padded_batch(*each) for each in zip(self.steppers, index, sizes, strict=True)]
            inputs = torch.stack([inputs for inputs, _ in batches], dim=1 if self._spatial else 0)
            labels = torch.stack([labels for _, labels in batches])
        return inputs.flatten(1, 2) if self._spatial else inputs, labels


def _padded_batch(stepper: Stepper, index: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One model's batch, transformed by its hooks and padded with zeros."""
    samples = stepper.samples
    assert samples is not None
    transforms = [hook.transform for hook in stepper.hooks if hook.transform]
    if not transforms:
        return samples.batch(index)
    index, missing = index[:size], len(index) - size
    batch = Batch(*samples.raw_batch(index), stepper.generator, index)
    for transform in transforms:
        batch = transform(batch)
    inputs, labels = samples.normalized(batch.inputs), batch.labels
    return torch.cat((inputs, inputs.new_zeros(missing, *inputs.shape[1:]))), F.pad(labels, (0, missing))


@dataclass(frozen=True)
class Update:
    """The optimiser step of the parameters, in all models, that have the same options.

    Attributes:
        group: The options.
        slices: The name and the model of each parameter.
        parameters: The parameters, which are slices of the stacked ones.
        states: Their states in their optimisers.
    """

    group: Mapping[str, Any]
    slices: list[tuple[str, int]]
    parameters: list[torch.Tensor]
    states: list[dict[str, Any]]

    def step(self, gradients: Mapping[str, Sequence[torch.Tensor]]) -> None:
        """Makes the step with every parameter's gradients, one for each model."""
        fused_step(self.group, self.parameters, [gradients[name][r] for name, r in self.slices], self.states)


def _make_updates(steppers: Sequence[Stepper], names: Sequence[str]) -> Iterator[Update]:
    """The optimiser steps of all models: one for each learning rate, weight decay and group of parameters."""
    alike: defaultdict[Hashable, list[int]] = defaultdict(list)
    for r, stepper in enumerate(steppers):
        alike[tuple(_group_options(group) for group in stepper.optimizer.param_groups)].append(r)
    for members in alike.values():
        first = steppers[members[0]]
        for group in first.optimizer.param_groups:
            held = {id(parameter) for parameter in group["params"]}
            inside = [name for name in names if id(first.model.get_parameter(name)) in held]
            slices = [(name, r) for name in inside for r in members]
            parameters: list[torch.Tensor] = [steppers[r].model.get_parameter(name) for name, r in slices]
            states = [steppers[r].optimizer.state[each] for (_, r), each in zip(slices, parameters, strict=True)]
            for each, state in zip(parameters, states, strict=True):
                if not state:
                    new_state(group, each, state)
            yield Update(group, slices, parameters, states)


def _group_options(group: Mapping[str, Any]) -> Hashable:
    """What may differ between the groups of parameters of models that are stacked."""
    rate = group["lr"]
    return id(rate) if isinstance(rate, torch.Tensor) else rate, group["weight_decay"], len(group["params"])
