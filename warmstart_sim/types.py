"""The objects that pass between the layers. Importing this module never imports torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

StateDict = Mapping[str, "torch.Tensor"]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs and their labels, in memory; equal only to themselves.

    Attributes:
        inputs: uint8 pixels (n, channels, height, width), or float32 values (n, ...), or int64 tokens (n, length): a
            text's tokens first, then zeros up to the length.
        labels: int64 class indices, shape (n,).
    """

    inputs: NDArray[np.generic]
    labels: IntArray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """One data set: what may be trained on, and a test set that never is.

    Attributes:
        name: The registered name, or the user's.
        train: Samples that streams deal out (held-out validation data come from here as well).
        test: Samples for test accuracy only; may be empty.
        classes: The number of classes; labels are 0 to classes - 1.
        vocabulary_size: For tokens: they are 0 (padding) to vocabulary_size - 1. None for other inputs.
        notes: What a user should be told about these data, a line each, such as texts that came out empty.
    """

    name: str
    train: Samples
    test: Samples
    classes: int
    vocabulary_size: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input, such as (3, 32, 32)."""
        return tuple(self.train.inputs.shape[1:])

    def digest(self) -> str:
        """A digest of all inputs and labels."""
        digest = hashlib.blake2b(digest_size=8)
        for samples in (self.train, self.test):
            digest.update(np.ascontiguousarray(samples.inputs).data)
            digest.update(np.ascontiguousarray(samples.labels).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Round:
    """One training run in a stream: which samples there are by now. It holds indices, never copies.

    Attributes:
        index: 0 for the first round.
        train: Indices into the training samples of all there is to train on, the newest last.
        new: Those that arrived with this round.
    """

    index: int
    train: IntArray
    new: IntArray


@dataclass(frozen=True)
class Layout:
    """Where things are in a model's state dict.

    Attributes:
        parameters: Names of the parameters (the other entries are buffers).
        norm_affine: Names of the parameters of normalisation layers (weight and bias of BatchNorm and its kin).
        blocks: Module names from input to output, such as ("stem", "layer1", ...); the head is not among them.
        head: The module name of the head.
    """

    parameters: frozenset[str]
    norm_affine: frozenset[str]
    blocks: tuple[str, ...]
    head: str

    def in_head(self, name: str) -> bool:
        """Whether the state-dict entry `name` belongs to the head."""
        return name == self.head or name.startswith(self.head + ".")


@dataclass(frozen=True)
class RoundContext:
    """What a strategy or a part may know when a round starts.

    Attributes:
        round: The round's index; strategies are first called in round 1.
        layout: Names of parameters, blocks and head.
        generator: `generator(purpose)` is a fresh CPU generator for that purpose in this round and seed.
    """

    round: int
    layout: Layout
    generator: Callable[[str], torch.Generator]


class Strategy(Protocol):
    """How a round starts: a pure function of state dicts. Neither `previous` nor `fresh` may be changed."""

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext, /) -> StateDict:
        """The state dict to train from, with the same keys as `fresh`."""
        ...


@dataclass(frozen=True)
class Batch:
    """What a part's `transform` sees.

    Attributes:
        inputs: Unnormalised inputs on the device: pixels as float32 in [0, 1], or the data set's own floats or tokens.
        labels: int64 class indices, shape (n,).
        generator: A generator on the device, made from (seed, "augment", round, epoch).
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    generator: torch.Generator


@dataclass(frozen=True)
class Hooks:
    """What a part adds to a round; a hook that is absent costs nothing.

    Attributes:
        transform: Changes a batch before normalisation.
        loss_term: A scalar added to the loss: `loss_term(batch, logits)`.
        after_step: Called after every optimiser step with the model.
        after_epoch: Called after every epoch with the model.
    """

    transform: Callable[[Batch], Batch] | None = None
    loss_term: Callable[[Batch, torch.Tensor], torch.Tensor] | None = None
    after_step: Callable[[torch.nn.Module], None] | None = None
    after_epoch: Callable[[torch.nn.Module], None] | None = None


class Part(Protocol):
    """What changes training rather than the start. Called once a round, with the same arguments as a strategy."""

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext, /) -> Hooks:
        """The hooks for this round."""
        ...
