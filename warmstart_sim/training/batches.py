"""Samples on the device, and the batches of an epoch: slices of a permutation, none dropped."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from warmstart_sim.seeding import torch_generator
from warmstart_sim.types import Samples

Normalize = Literal["train", "cifar10", "imagenet", "half", "none"]

# Channel means and deviations of pixels in [0, 1].
CONSTANTS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5,), (0.5,)),
}


# Inputs whose float32 copy has at most so many bytes are normalised once rather than batch by batch. On a GPU all cells
# share the copy; on a CPU every worker holds one.
MAX_NORMALIZED_BYTES = {"cpu": 2**28, "cuda": 2**32}
# The same for uint8 pixels. On a CPU the copy must fit its cache: from main memory, rows of a random batch take longer
# to read as floats than to read as pixels, which are a quarter as long, and to normalise.
MAX_NORMALIZED_PIXELS = {"cpu": 2**24, "cuda": 2**32}


@dataclass(frozen=True)
class Normalization:
    """x -> x * scale + shift for each channel (or feature), as float32.

    Attributes:
        scale: 1 / deviation, broadcastable to a batch of inputs.
        shift: -mean / deviation, likewise.
        pixels: Whether inputs are uint8 pixels, which count as numbers in [0, 1], rather than floats.
    """

    scale: torch.Tensor
    shift: torch.Tensor
    pixels: bool

    @cached_property
    def _stored_scale(self) -> torch.Tensor:
        return self.scale / 255 if self.pixels else self.scale

    def apply_to_stored(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalises inputs as they are stored, uint8 pixels or floats; floats are overwritten."""
        # On a CPU two passes in place cost half of one addcmul, which does not vectorise over broadcast channels.
        return inputs.float().mul_(self._stored_scale).add_(self.shift)

    def apply_to_floats(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalises floats: pixels in [0, 1] that were augmented."""
        return (inputs * self.scale).add_(self.shift)

    def of_rows(self, shape: Sequence[int], permuted: bool) -> Normalization:
        """The same with a number for each element of a sample, so that whole rows of a batch are normalised.

        Args:
            shape: The shape of a sample.
            permuted: Whether samples are stored with their channels last.
        """
        rows = (each.expand(1, *shape) for each in (self.scale, self.shift))
        scale, shift = (each.permute(0, 2, 3, 1) if permuted else each for each in rows)
        return Normalization(scale.contiguous(), shift.contiguous(), self.pixels)


def normalization(kind: Normalize, train_inputs: NDArray[np.generic]) -> Normalization | None:
    """The normalisation called `kind`; None when inputs go to the model as they are (tokens, floats with "none").

    Args:
        kind: "train": mean and deviation of each channel over all training images (of each feature for flat inputs;
            one that is constant is only centred); "cifar10", "imagenet" or "half": fixed constants for pixels;
            "none": pixels are read as numbers in [0, 1], floats stay as they are.
        train_inputs: The training inputs, shape (n, channels, height, width) or (n, features).
    """
    pixels = train_inputs.dtype == np.uint8
    if np.issubdtype(train_inputs.dtype, np.signedinteger) or (kind == "none" and not pixels):
        return None
    if kind == "train":
        mean, deviation = _channel_statistics(train_inputs)
    elif kind == "none":
        mean, deviation = np.zeros(1), np.ones(1)
    else:
        mean, deviation = (np.asarray(values) for values in CONSTANTS[kind])
        if len(mean) not in (1, train_inputs.shape[1]):  # three-channel constants on grey images: their average
            mean, deviation = mean.mean(keepdims=True), deviation.mean(keepdims=True)
    deviation = np.where(deviation > 0, deviation, 1)
    shape = (1, -1, *[1] * (train_inputs.ndim - 2))
    scale, shift = (torch.from_numpy(v).float().reshape(shape) for v in (1 / deviation, -mean / deviation))
    return Normalization(scale, shift, pixels)


def _channel_statistics(inputs: NDArray[np.generic]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if inputs.dtype == np.uint8:  # exact, from each channel's histogram, without a float copy of the images
        values = np.arange(256) / 255
        means, deviations = [], []
        for channel in range(inputs.shape[1]):
            share = np.bincount(inputs[:, channel].reshape(-1), minlength=256) / inputs[:, channel].size
            means.append(share @ values)
            deviations.append(np.sqrt(share @ (values - means[-1]) ** 2))
        return np.array(means), np.array(deviations)
    axes = (0, *range(2, inputs.ndim))
    return inputs.mean(axis=axes, dtype=np.float64), inputs.std(axis=axes, dtype=np.float64)


class DeviceSamples:
    """Inputs and labels on the device, read in normalised or unnormalised batches.

    Args:
        samples: The samples in memory, which stay as they are. On the CPU, at most a copy for batches is added.
        normalize: From `normalization`, or None.
        device: Where the copies are.
        channels_last: Whether image batches have that memory format.

    Attributes:
        source: The samples in memory.
        lengths: For texts, the number of tokens of each, int64 (n,) on the CPU; a text without any keeps one padding.
            None for other inputs, and for tokens without padding, whose labels are the next tokens.
        labels_each: How many labels a sample has: 1, or the length where they are the next tokens.
    """

    def __init__(
        self, samples: Samples, normalize: Normalization | None, device: torch.device, channels_last: bool = False
    ) -> None:
        self.source = samples
        self.inputs = _as_tensor(samples.inputs).to(device)
        self.labels = _as_tensor(samples.labels).to(device)
        self.labels_each = self.labels[:1].numel() if len(self.labels) else 1
        texts = self.inputs.dtype == torch.int64 and self.labels.ndim == 1
        self.lengths = (self.inputs != 0).sum(1).clamp(min=1).cpu() if texts else None
        self._format = torch.channels_last if channels_last and self.inputs.ndim == 4 else torch.preserve_format
        self._normalize = normalize and Normalization(
            normalize.scale.to(device), normalize.shift.to(device), normalize.pixels
        )
        pixels, float_bytes = self.inputs.dtype == torch.uint8, 4 * self.inputs.numel()
        # Stored in the batches' memory format where that takes little more memory; with one channel both are the same.
        images = self._format == torch.channels_last and self.inputs.shape[1] > 1
        self._permuted = images and (pixels or float_bytes <= MAX_NORMALIZED_BYTES.get(device.type, 0))
        self._stored = self.inputs.permute(0, 2, 3, 1).contiguous() if self._permuted else self.inputs
        self._normalize_rows: Normalization | None = None  # of what is stored; None where that needs none
        if self._normalize is not None:
            rows = self._normalize.of_rows(self.inputs.shape[1:], self._permuted)
            most = MAX_NORMALIZED_PIXELS if pixels else MAX_NORMALIZED_BYTES
            if float_bytes <= most.get(device.type, 0):
                self._stored = rows.apply_to_stored(self._stored.to(torch.float32, copy=True))
            else:
                self._normalize_rows = rows

    def __len__(self) -> int:
        return len(self.labels)

    def with_labels_of(self, samples: Samples) -> DeviceSamples:
        """The same inputs on the device with the labels of `samples`, whose inputs are the same."""
        other = copy.copy(self)
        other.source, other.labels = samples, _as_tensor(samples.labels).to(self.labels.device)
        return other

    @property
    def mean_length(self) -> int | None:
        """The mean number of tokens of a text, rounded; None for other inputs."""
        return None if self.lengths is None else round(self.lengths.double().mean().item())

    def widths(self, indices: torch.Tensor, sizes: Sequence[int]) -> list[int] | list[None]:
        """The length of the longest text of each batch, to which the others are padded; None for other inputs.

        It copies the indices from the device once before a pass, so that the pass itself never waits.

        Args:
            indices: int64, the samples of all batches, concatenated.
            sizes: The batch sizes.
        """
        if self.lengths is None:
            return [None] * len(sizes)
        return [int(lengths.max()) for lengths in self.lengths[indices.cpu()].split(list(sizes))]

    def by_length(self, indices: torch.Tensor) -> torch.Tensor:
        """The indices sorted by the length of their texts, the shortest first; other inputs keep their order."""
        if self.lengths is None:
            return indices
        return indices[self.lengths[indices.cpu()].argsort(stable=True).to(indices.device)]

    def batch(self, index: torch.Tensor, width: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised inputs and labels at `index`, an int64 tensor on the device; texts are cut to `width` tokens."""
        inputs = _take(self._stored, index, width)
        if self._normalize_rows is not None:
            inputs = self._normalize_rows.apply_to_stored(inputs)
        inputs = inputs.permute(0, 3, 1, 2) if self._permuted else inputs
        return inputs.contiguous(memory_format=self._format), self.labels.index_select(0, index)

    def raw_batch(self, index: torch.Tensor, width: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Unnormalised inputs (pixels as float32 in [0, 1]) and labels at `index`, for augmentation."""
        inputs = _take(self.inputs, index, width)
        if inputs.dtype == torch.uint8:
            inputs = inputs.float().div_(255)
        return inputs, self.labels.index_select(0, index)

    def normalized(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalises inputs from `raw_batch`."""
        if self._normalize is not None:
            inputs = self._normalize.apply_to_floats(inputs)
        return inputs.contiguous(memory_format=self._format)


def _take(inputs: torch.Tensor, index: torch.Tensor, width: int | None) -> torch.Tensor:
    return (inputs if width is None else inputs[:, :width]).index_select(0, index)


def _as_tensor(array: NDArray[np.generic]) -> torch.Tensor:
    with warnings.catch_warnings():  # data sets are read-only arrays, and no code writes to these tensors
        warnings.filterwarnings("ignore", "The given NumPy array is not writ", UserWarning)
        return torch.from_numpy(array)


def batch_sizes(count: int, batch_size: int) -> list[int]:
    """Batch sizes of an epoch. A last batch of one sample, which BatchNorm cannot normalise, joins the one before it.

    >>> batch_sizes(300, 128), batch_sizes(257, 128), batch_sizes(1, 128)
    ([128, 128, 44], [128, 129], [1])
    """
    full, rest = divmod(count, batch_size)
    if rest == 1 and full:
        return [batch_size] * (full - 1) + [batch_size + 1]
    return [batch_size] * full + ([rest] if rest else [])


def epoch_order(count: int, seed: int, round_index: int, epoch: int) -> torch.Tensor:
    """An epoch's permutation, drawn on the CPU: the same on every device and for every arm."""
    return torch.randperm(count, generator=torch_generator(seed, "order", round_index, epoch))


def bucket_by_length(
    order: torch.Tensor, sizes: Sequence[int], lengths: torch.Tensor, bucketing: int, generator: torch.Generator
) -> tuple[torch.Tensor, list[int]]:
    """An epoch's order and batch sizes with texts of similar length in each batch, which need little padding.

    Each group of `bucketing` consecutive batches is sorted by length and split again; then all batches are shuffled.

    Args:
        order: A permutation of the n training texts, on the CPU.
        sizes: Batch sizes, from `batch_sizes`.
        lengths: Lengths of the training texts, (n,).
        bucketing: Batches in a group, at least 1; with 1 only the order of the batches changes.
        generator: Draws the order of the batches.

    >>> lengths = torch.tensor([5, 1, 9, 2, 8, 1])
    >>> order, sizes = bucket_by_length(torch.arange(6), [2, 2, 2], lengths, 3, torch.Generator().manual_seed(0))
    >>> sorted(batch.tolist() for batch in lengths[order].split(sizes))
    [[1, 1], [2, 5], [8, 9]]
    """
    group = np.repeat(np.arange(len(sizes)) // bucketing, sizes)
    by_group_and_length = np.lexsort((lengths[order].numpy(), group))  # stable: equal lengths stay in random order
    batches = order[by_group_and_length].split(list(sizes))
    shuffled = [batches[k] for k in torch.randperm(len(sizes), generator=generator)]
    return torch.cat(shuffled), [len(batch) for batch in shuffled]
