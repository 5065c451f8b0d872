"""Evaluates a copy of the model with any weights: logits, block outputs, gradients, accuracy.

These are the lazy parts of a `RoundContext`. The model that trains is copied at the first call and never touched, so
neither its mode, its buffers nor its gradients can change.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from warmstart_sim.errors import WarmstartError
from warmstart_sim.training.batches import DeviceSamples
from warmstart_sim.training.evaluation import BATCH, evaluate
from warmstart_sim.training.flops import plain_kernels
from warmstart_sim.training.starts import freeze_all_but
from warmstart_sim.types import IntArray, Split, StateDict


class SampleSource(Protocol):
    """Where training samples are read: `DeviceSamples`, or Avalanche's data set behind the same method."""

    def batch(self, index: torch.Tensor, width: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised inputs and labels at `index`, an int64 tensor on the device."""
        ...


class FunctionalModel:
    """Implements `types.ModelFunctions` with a copy of a model.

    Args:
        model: The model that trains; it is copied when something is computed for the first time.
        source: The training samples.
        evaluation_sets: For `evaluate`: returns the samples and the indices of a split, or of the test samples of a
            round.
    """

    def __init__(
        self,
        model: nn.Module,
        source: SampleSource,
        evaluation_sets: Callable[[Split | int], tuple[DeviceSamples, torch.Tensor]] | None = None,
    ) -> None:
        self._trained = model
        self._source = source
        self._evaluation_sets = evaluation_sets
        self.device = next(model.parameters()).device

    @cached_property
    def _model(self) -> nn.Module:
        return copy.deepcopy(self._trained).eval()

    def forward(self, weights: StateDict, inputs: torch.Tensor) -> torch.Tensor:
        """Logits (n, classes)."""
        with torch.no_grad():
            logits: torch.Tensor = functional_call(self._model, self._own(weights), (inputs,))
        return logits

    def block_outputs(self, weights: StateDict, block: str, inputs: torch.Tensor) -> torch.Tensor:
        """The output of the module `block`."""
        return self._seen(weights, block, inputs)[1]

    def block_inputs(self, weights: StateDict, block: str, inputs: torch.Tensor) -> torch.Tensor:
        """The input of the module `block`, the first one if it has several."""
        return self._seen(weights, block, inputs)[0][0]

    def _seen(
        self, weights: StateDict, block: str, inputs: torch.Tensor
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """The arguments and the output of the module `block`."""
        seen: list[tuple[tuple[torch.Tensor, ...], torch.Tensor]] = []
        module = self._model.get_submodule(block)
        hook = module.register_forward_hook(lambda _, given, output: seen.append((given, output)))
        try:
            self.forward(weights, inputs)
        finally:
            hook.remove()
        return seen[-1]

    def gradients(self, weights: StateDict, indices: IntArray) -> dict[str, torch.Tensor]:
        """Gradients of the mean cross-entropy over the samples, added up batch by batch."""
        if len(indices) == 0:
            raise WarmstartError("gradients need at least one training sample, and the round has none")
        own = self._own(weights)
        parameters = {name: own[name].detach().requires_grad_() for name, _ in self._model.named_parameters()}
        sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
        with torch.enable_grad(), _kernels_with_backward(self._model):
            for index in self._on_device(indices).split(BATCH[self.device.type]):
                inputs, labels = self._source.batch(index)
                logits = functional_call(self._model, {**own, **parameters}, (inputs,))
                labels_each = labels[0].numel()
                loss = F.cross_entropy(logits.float(), labels, reduction="sum") / (len(indices) * labels_each)
                found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
                for name, gradient in zip(parameters, found, strict=True):
                    if gradient is not None:
                        sums[name] += gradient
        return sums

    def samples(self, indices: IntArray) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised inputs and labels of training samples."""
        return self._source.batch(self._on_device(indices))

    def evaluate(self, weights: StateDict, split: Split | int) -> tuple[float | None, float | None]:
        """Accuracy and mean cross-entropy of a split, or of a round's test samples; None twice if it is empty."""
        if self._evaluation_sets is None:
            return None, None
        samples, indices = self._evaluation_sets(split)
        if len(indices) == 0:
            return None, None
        self._model.load_state_dict(weights)
        return evaluate(self._model, samples, indices)

    def _own(self, weights: StateDict) -> dict[str, torch.Tensor]:
        """The entries that the model needs, tied parameters once."""
        names = [*dict(self._model.named_parameters()), *dict(self._model.named_buffers())]
        return {name: weights[name] for name in names if name in weights}

    def _on_device(self, indices: IntArray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(indices)).to(self.device)


def without_gradient(model: nn.Module, inputs: torch.Tensor, trains_by_default: frozenset[str]) -> frozenset[str]:
    """Names of the parameters that get no gradient.

    They have `requires_grad=False`, no layer uses them, or `forward` uses them under `torch.no_grad()`. A copy of the
    model runs in training mode, and in evaluation mode, in which no layer is dropped at random.

    Args:
        model: On any device.
        inputs: At least two normalised inputs.
        trains_by_default: Names of the parameters that train unless a start freezes them.
    """
    replica = copy.deepcopy(model)
    freeze_all_but(replica, None, trains_by_default)
    replica.zero_grad()
    cuda = [inputs.device] if inputs.is_cuda else []
    with torch.enable_grad(), _kernels_with_backward(replica), torch.random.fork_rng(devices=cuda):
        for training in (False, True):
            total = replica.train(training)(inputs).sum()
            if total.requires_grad:
                total.backward()
    return frozenset(name for name, each in replica.named_parameters(remove_duplicate=False) if each.grad is None)


def _kernels_with_backward(model: nn.Module) -> contextlib.AbstractContextManager[object]:
    """Kernels that have a backward pass in evaluation mode, which cuDNN's recurrent layers lack."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    on_cuda = next(model.parameters()).is_cuda
    return plain_kernels() if recurrent and on_cuda else contextlib.nullcontext()
