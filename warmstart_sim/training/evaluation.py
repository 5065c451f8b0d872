"""Accuracy and loss in evaluation mode, and the train accuracy of the convergence criterion with an early exit."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional as F

from warmstart_sim.training.batches import DeviceSamples
from warmstart_sim.training.coroutine import PendingValues, TrainingCoroutine, arrived, run_to_end

# A CPU's cache holds the activations of small batches only: ResNet-18 needs 1.8 times as long for a sample in batches
# of 1,024 as in batches of 128. Smaller batches also let an early exit happen earlier.
BATCH = {"cpu": 128, "cuda": 512}
# Batches queued before the result of an earlier one has arrived, so that a GPU never idles.
AHEAD = {"cpu": 0, "cuda": 1}

# (index, width of the texts) -> (number of correct predictions, sum of losses), float64 of shape (2,) on the device.
BatchMetrics = Callable[[torch.Tensor, int | None], torch.Tensor]


def hits_and_loss(logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """(hits, sum of cross-entropies) as float64, shape (2,), over the samples in the bool `mask` (n,); None: all.

    Args:
        logits: (n, classes), or (n, classes, length) for labels (n, length).
        labels: Class indices.
        mask: Which samples count.
    """
    hits, losses = logits.argmax(1) == labels, F.cross_entropy(logits, labels, reduction="none").double()
    if mask is not None:
        mask = mask.view(-1, *[1] * (labels.ndim - 1))
        hits, losses = hits & mask, losses.where(mask, 0.0)
    return torch.stack((hits.sum().double(), losses.sum()))


def batch_metrics(model: Callable[[torch.Tensor], torch.Tensor], samples: DeviceSamples) -> BatchMetrics:
    """Returns a function that computes `hits_and_loss` for a batch of `samples`, in the mode that the model is in.

    `model` may be compiled.
    """

    def metrics(index: torch.Tensor, width: int | None) -> torch.Tensor:
        inputs, labels = samples.batch(index, width)
        with torch.no_grad():
            return hits_and_loss(model(inputs), labels)

    return metrics


def evaluate(model: nn.Module, samples: DeviceSamples, indices: torch.Tensor) -> tuple[float, float]:
    """(accuracy, mean cross-entropy) over `indices`, in evaluation mode on clean inputs, in float32.

    Accuracy is the share of labels, not a mean of batch accuracies. Without samples both are NaN. Modules return to
    the mode that they were in. Texts are batched by length, which needs little padding.
    """
    with _evaluation_mode(model):
        return run_to_end(evaluation_coroutine(batch_metrics(model, samples), samples, indices))


def train_accuracy(
    model: nn.Module, samples: DeviceSamples, indices: torch.Tensor, at_least: float | None = None
) -> float | None:
    """The train accuracy of the convergence criterion, or None as soon as `at_least` is out of reach.

    Deciding by `train_accuracy(...) >= at_least` is the same as after a full pass: None means below, and a number is
    exact. The newest samples, last in `indices`, are evaluated first, because most mistakes are among them.

    Args:
        model: In any mode; evaluated in evaluation mode.
        samples: The training samples.
        indices: int64 on the device, shape (n,), n at least 1.
        at_least: The threshold that matters, in [0, 1]; None for a full pass.
    """
    with _evaluation_mode(model):
        return run_to_end(train_accuracy_coroutine(batch_metrics(model, samples), samples, indices, at_least))


def evaluation_coroutine(
    metrics: BatchMetrics, samples: DeviceSamples, indices: torch.Tensor
) -> TrainingCoroutine[tuple[float, float]]:
    """`evaluate` as a coroutine; `metrics` evaluates a model on batches of `samples`, in evaluation mode."""
    if len(indices) == 0:
        return math.nan, math.nan
    total = torch.zeros(2, dtype=torch.float64, device=indices.device)
    for index, width in _batches(samples, samples.by_length(indices)):
        total += metrics(index, width)
    hits, loss = yield from arrived(PendingValues(total))
    labels = len(indices) * samples.labels_each
    return hits / labels, loss / labels


def train_accuracy_coroutine(
    metrics: BatchMetrics, samples: DeviceSamples, indices: torch.Tensor, at_least: float | None
) -> TrainingCoroutine[float | None]:
    """`train_accuracy` as a coroutine; `metrics` evaluates a model on batches of `samples`, in evaluation mode."""
    labels = len(indices) * samples.labels_each
    needed = -1 if at_least is None else fewest_correct(at_least, labels)
    missed = 0
    results = (
        (PendingValues(metrics(index, width)), len(index)) for index, width in _batches(samples, indices.flip(0))
    )
    under_way = deque(itertools.islice(results, 1 + AHEAD[indices.device.type]))
    while under_way:
        pending, size = under_way.popleft()
        hits, _ = yield from arrived(pending)
        missed += size * samples.labels_each - int(hits)
        if labels - missed < needed:
            return None
        under_way.extend(itertools.islice(results, 1))
    return (labels - missed) / labels


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


def _batches(samples: DeviceSamples, indices: torch.Tensor) -> Iterator[tuple[torch.Tensor, int | None]]:
    batches = indices.split(BATCH[indices.device.type])
    return zip(batches, samples.widths(indices, [len(index) for index in batches]), strict=True)


@contextlib.contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        model.train(modes[0][1])
        for module, training in modes:  # frozen BatchNorm is in evaluation mode all along
            module.training = training
