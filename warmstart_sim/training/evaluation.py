"""Accuracy and loss in evaluation mode, counted in samples; and whether a train accuracy is reached."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F

from warmstart_sim.training.batches import DeviceSamples

# A CPU's cache holds the activations of small batches only: in batches of 1,024 ResNet-18 takes 1.8 times as long for a
# sample as in batches of 128. And the smaller the batch, the earlier an early exit.
BATCH = {"cpu": 128, "cuda": 2048}


def evaluate(model: nn.Module, samples: DeviceSamples, indices: torch.Tensor) -> tuple[float, float]:
    """(accuracy, mean cross-entropy) over `indices`, in evaluation mode on clean inputs, in float32.

    Accuracy is the share of samples, not a mean of batch accuracies. The model's mode is put back afterwards.
    With no samples both are NaN. Texts are taken by length, which leaves little padding to compute.
    """
    if len(indices) == 0:
        return math.nan, math.nan
    correct = torch.zeros((), dtype=torch.int64, device=indices.device)
    loss = torch.zeros((), dtype=torch.float64, device=indices.device)
    for logits, labels in _predictions(model, samples, samples.by_length(indices)):
        correct += (logits.argmax(1) == labels).sum()
        loss += F.cross_entropy(logits, labels, reduction="sum")
    return correct.item() / len(indices), loss.item() / len(indices)


def train_accuracy(
    model: nn.Module, samples: DeviceSamples, indices: torch.Tensor, at_least: float | None = None
) -> float | None:
    """The train accuracy of the convergence criterion, or None as soon as `at_least` is out of reach.

    The decision `train_accuracy(...) >= at_least` is that of a full pass: None means below, any number is exact.
    The newest samples, which stand last in `indices`, are looked at first: they are wrong most often.

    Args:
        model: In any mode; evaluated in evaluation mode.
        samples: Where the indices point.
        indices: int64 on the device, shape (n,), n at least 1.
        at_least: The threshold that matters, in [0, 1]; None for a full pass.
    """
    count = len(indices)
    needed = -1 if at_least is None else fewest_correct(at_least, count)
    correct = seen = 0
    for logits, labels in _predictions(model, samples, indices.flip(0)):
        correct += int((logits.argmax(1) == labels).sum())
        seen += len(labels)
        if correct + (count - seen) < needed:
            return None
    return correct / count


def fewest_correct(threshold: float, count: int) -> int:
    """The smallest k with k / count >= threshold, decided in the same floating-point numbers as the comparison.

    >>> fewest_correct(0.99, 100), fewest_correct(0.99, 101)
    (99, 100)
    """
    k = math.floor(threshold * count)  # at most one off, on either side
    while k > 0 and (k - 1) / count >= threshold:
        k -= 1
    while k / count < threshold:
        k += 1
    return k


def _predictions(
    model: nn.Module, samples: DeviceSamples, indices: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    was_training = model.training
    model.eval()
    batches = indices.split(BATCH[indices.device.type])
    widths = samples.widths(indices, [len(index) for index in batches])
    try:
        for index, width in zip(batches, widths, strict=True):
            inputs, labels = samples.batch(index, width)
            with torch.no_grad():
                logits = model(inputs)
            yield logits, labels
    finally:
        model.train(was_training)
