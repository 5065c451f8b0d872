"""The loss of a batch, composed from what an arm's parts bring: inputs, forward pass, cross-entropy, further terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from warmstart_sim.training.batches import DeviceSamples
from warmstart_sim.types import Batch, Hooks

Forward = Callable[[torch.Tensor], torch.Tensor]  # from normalised inputs to logits
# From a batch's indices, and the length to which its texts are cut, to its loss, logits and labels.
BatchLoss = Callable[[torch.Tensor, int | None], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


def batch_loss(
    model: nn.Module,
    samples: DeviceSamples,
    hooks: Sequence[Hooks],
    generator: torch.Generator,
    precision: str,
    model_forward: Forward | None = None,
) -> BatchLoss:
    """A function that computes a batch's loss; the common case, without parts, has no branches in it.

    Args:
        model: On the samples' device.
        samples: The training samples.
        hooks: Of the arm's parts.
        generator: What transforms draw from.
        precision: "float32" or "tf32", or "bf16" for a forward pass under autocast.
        model_forward: The model's forward pass, compiled; None for the model itself.
    """
    transforms = [hook.transform for hook in hooks if hook.transform]
    loss_terms = [hook.loss_term for hook in hooks if hook.loss_term]
    passes: tuple[Forward, Forward] = (model if model_forward is None else model_forward, _without_side_effects(model))
    forward, forward_apart = map(_autocast, passes) if precision == "bf16" else passes

    def logits_of(inputs: torch.Tensor) -> torch.Tensor:
        return forward_apart(samples.normalized(inputs))

    def plain(index: torch.Tensor, width: int | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        inputs, labels = samples.batch(index, width)
        logits = forward(inputs)
        return F.cross_entropy(logits, labels), logits, labels

    def with_parts(index: torch.Tensor, width: int | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        batch = Batch(*samples.raw_batch(index, width), generator, index)
        for transform in transforms:
            batch = transform(batch)
        model_inputs = samples.normalized(batch.inputs)
        batch = replace(
            batch, model_inputs=model_inputs, model=model, logits_of=logits_of, transformed=bool(transforms)
        )
        logits = forward(model_inputs)
        loss = F.cross_entropy(logits, batch.labels)
        for term in loss_terms:
            loss = loss + term(batch, logits)
        return loss, logits, batch.labels

    # A hook after the step keeps the inputs of the step with parts: normalising in one pass rounds differently.
    has_parts = transforms or loss_terms or any(hook.after_step for hook in hooks)
    return with_parts if has_parts else plain


def _autocast(call: Forward) -> Forward:
    def forward(inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16):
            logits = call(inputs)
        return logits.float()

    return forward


def _without_side_effects(model: nn.Module) -> Forward:
    """A forward pass in the model's mode that leaves its buffers, such as running statistics, as they are."""

    def forward(inputs: torch.Tensor) -> torch.Tensor:
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        logits: torch.Tensor = functional_call(model, buffers, (inputs,))
        return logits

    return forward
