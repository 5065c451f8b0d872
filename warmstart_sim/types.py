"""The objects that pass between the layers: data, rounds, and what strategies, parts and probes get and give.

Importing this module never imports torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch.utils.hooks import RemovableHandle

StateDict = Mapping[str, "torch.Tensor"]
IntArray = NDArray[np.int64]

# The module within each block and the head that normalises its output, in models of strategies that insert one.
INSERTED_NORMALIZATION = "inserted_normalization"


def inserted_entries(block: str) -> tuple[str, str]:
    """Names in a state dict of the mean and the deviation of a block's inserted normalisation."""
    return f"{block}.{INSERTED_NORMALIZATION}.mean", f"{block}.{INSERTED_NORMALIZATION}.deviation"


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs and their labels, in memory; equal only to themselves.

    Attributes:
        inputs: uint8 pixels (n, channels, height, width), or float32 values (n, ...), or int64 tokens (n, length): a
            text's tokens first, then zeros up to the length.
        labels: int64 class indices, shape (n,). Given otherwise, as text for example, they are numbered when loaded.
            Or (n, length), for tokens without padding: the next token at each position.
    """

    inputs: NDArray[np.generic]
    labels: IntArray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: IntArray) -> Samples:
        """Some of them, in this order; copies."""
        return Samples(self.inputs[indices], self.labels[indices])


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

    @property
    def label_shape(self) -> tuple[int, ...]:
        """The shape of a sample's labels: () for a class, (length,) for the next token at each position."""
        return tuple(self.train.labels.shape[1:])

    def digest(self) -> str:
        """A digest of all inputs and labels."""
        digest = hashlib.blake2b(digest_size=8)
        for samples in (self.train, self.test):
            digest.update(np.ascontiguousarray(samples.inputs).data)
            digest.update(np.ascontiguousarray(samples.labels).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Round:
    """One training run of a stream: which samples have arrived by now. It holds indices, never copies.

    Attributes:
        index: 0 for the first round.
        train: Indices of all samples to train on, into the training set, the newest last. A duplicate is there twice.
        new: Indices of the samples that arrived with this round; a subset of `train`.
        classes: The classes that arrive with this round, if classes arrive one after another; else None.
        validation: Indices of the round's validation samples, into the training set; None for all that are held out.
        test: Indices of the test samples of the round's test accuracy, into the test set; None for all.
        like_new: Indices of the test samples that are like the round's new samples; None if all rounds have the same.
    """

    index: int
    train: IntArray
    new: IntArray
    classes: IntArray | None = None
    validation: IntArray | None = None
    test: IntArray | None = None
    like_new: IntArray | None = None


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


class ModelFunctions(Protocol):
    """Evaluates a model with given weights; `training.model_functions` implements it. See `RoundContext`."""

    def forward(self, weights: StateDict, inputs: torch.Tensor) -> torch.Tensor: ...  # noqa: D102
    def block_outputs(self, weights: StateDict, block: str, inputs: torch.Tensor) -> torch.Tensor: ...  # noqa: D102
    def block_inputs(self, weights: StateDict, block: str, inputs: torch.Tensor) -> torch.Tensor: ...  # noqa: D102
    def gradients(self, weights: StateDict, indices: IntArray) -> dict[str, torch.Tensor]: ...  # noqa: D102
    def samples(self, indices: IntArray) -> tuple[torch.Tensor, torch.Tensor]: ...  # noqa: D102
    def evaluate(self, weights: StateDict, split: Split | int) -> tuple[float | None, float | None]: ...  # noqa: D102


Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class RoundContext:
    """Everything that a strategy, a part or a probe may know about a round.

    Strategies and parts are called when the round starts, probes while it runs. What needs a pass through the model is
    computed only when a method asks for it, in evaluation mode (BatchNorm uses the running statistics in `weights`), on
    the device, with a copy of the model: the model that trains is never changed.

    Attributes:
        round: The round's index, 0 for the first.
        layout: Names of the model's parameters, blocks and head.
        generator: `generator(purpose)` returns a new CPU generator, seeded by (seed, purpose, round). With another
            round's index as a second argument it is that round's: `generator(purpose, 0)` is the same in every round.
        previous: The weights that the last round ended with; None in the first round.
        fresh: A new random initialisation, the same for all arms of a seed, another one in every round.
        initial: Returns the initialisation of round 0, from which the first training started.
        train: Indices of the samples to train on, int64 (n,), the oldest first.
        new: Indices of the samples that arrived with this round.
        chunks: Indices of `train` by the round in which they arrived, the oldest chunk first; none is empty.
        start: For parts and probes, the weights that the round starts from.
        trainable: For parts and probes, names of the parameters that train in the round; None for all.
        weights: For probes, the weights now: the model's own tensors, which must not be changed.
        epoch: For probes, how many epochs of the round are over.
        tested_rounds: Indices of all rounds of the cell, if they have test samples of their own; else empty.
        rows: For probes, the cell's rows of rounds.csv so far.
        functions: Evaluates the model for the methods below; None where there is no model, as in an example.
    """

    round: int
    layout: Layout
    generator: Callable[..., torch.Generator]
    previous: StateDict | None = None
    fresh: StateDict = field(default_factory=dict)
    initial: Callable[[], StateDict] = dict
    train: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    new: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    chunks: tuple[IntArray, ...] = ()
    start: StateDict | None = None
    trainable: Collection[str] | None = None
    weights: StateDict | None = None
    epoch: int = 0
    tested_rounds: tuple[int, ...] = ()
    rows: Sequence[Mapping[str, Any]] = ()
    functions: ModelFunctions | None = None

    @cached_property
    def old(self) -> IntArray:
        """Indices of the samples that earlier rounds trained on, the oldest first."""
        return self.train[~np.isin(self.train, self.new)]

    @cached_property
    def initial_norms(self) -> dict[str, float]:
        """The L2 norm of every floating-point tensor at the initialisation of round 0."""
        return {name: tensor.norm().item() for name, tensor in self.initial().items() if tensor.is_floating_point()}

    def forward(self, weights: StateDict, inputs: torch.Tensor) -> torch.Tensor:
        """The logits (n, classes) of the model with `weights` on normalised `inputs` (n, ...); no gradient flows.

        Where a sample has the next token of each position as its labels, they are (n, classes, length).
        """
        return self._functions.forward(weights, inputs)

    def block_outputs(
        self, weights: StateDict, block: str, inputs: torch.Tensor, *, normalized: bool = True
    ) -> torch.Tensor:
        """What the module `block`, one of `layout.blocks` or any other, puts out for normalised `inputs` (n, ...).

        With `normalized` false, it is what the block puts out before a normalisation that a strategy has inserted.
        """
        mean, deviation = inserted_entries(block)
        if not normalized and mean in weights:
            identity = {mean: weights[mean].new_zeros(()), deviation: weights[deviation].new_ones(())}
            weights = {**weights, **identity}
        return self._functions.block_outputs(weights, block, inputs)

    def block_inputs(self, weights: StateDict, block: str, inputs: torch.Tensor) -> torch.Tensor:
        """What the module `block` gets for normalised `inputs` (n, ...)."""
        return self._functions.block_inputs(weights, block, inputs)

    def head_inputs(self, weights: StateDict, inputs: torch.Tensor) -> torch.Tensor:
        """What the head gets for normalised `inputs` (n, ...)."""
        return self.block_inputs(weights, self.layout.head, inputs)

    def gradients(self, weights: StateDict, indices: IntArray) -> dict[str, torch.Tensor]:
        """The gradient of the mean cross-entropy over training samples, for every parameter, by its name."""
        return self._functions.gradients(weights, indices)

    def samples(self, indices: IntArray) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised inputs (n, ...) and labels (n,) of training samples, on the device."""
        return self._functions.samples(indices)

    def evaluate(self, weights: StateDict, split: Split | int) -> tuple[float | None, float | None]:
        """Accuracy and mean cross-entropy on the round's "train", "validation" or "test" samples; None if empty.

        With the index of one of `tested_rounds` it is on the test samples that are like that round's new samples.
        """
        return self._functions.evaluate(weights, split)

    def step_generator(self, purpose: str, step: int, device: str | torch.device = "cpu") -> torch.Generator:
        """A new generator for one optimiser step of the round, so that a resumed round draws the same."""
        import torch

        return torch.Generator(device).manual_seed(self.generator(f"{purpose} step {step}").initial_seed())

    def some(self, indices: IntArray, count: int, purpose: str) -> IntArray:
        """At most `count` of `indices`, drawn at random: the same ones throughout the round for the same purpose."""
        if len(indices) <= count:
            return indices
        import torch

        return indices[torch.randperm(len(indices), generator=self.generator(purpose))[:count].numpy()]

    @property
    def _functions(self) -> ModelFunctions:
        if self.functions is None:
            raise RuntimeError("this RoundContext was made without a model; pass `functions`")
        return self.functions


@dataclass(frozen=True)
class Start:
    """Where a round starts, for strategies that also choose which parameters train.

    Attributes:
        weights: The state dict to train from, with the keys of `fresh`.
        trainable: Names of the parameters that train in this round; None for all. The others stay as they are in
            `weights`: the optimiser does not hold them, and BatchNorm layers without a trainable parameter stay in
            evaluation mode. Parameters with `requires_grad=False` never train.
    """

    weights: StateDict
    trainable: Collection[str] | None = None


class Strategy(Protocol):
    """How a round starts: a pure function of state dicts. Neither `previous` nor `fresh` may be changed.

    A strategy is called from the second round on. One that needs something of the model, such as a block of some name,
    has a method `check_model(layout)`, which raises a `WarmstartError` before anything is trained. One that also acts
    before the first round has a method `prepare_first_round(fresh, context)`, which returns the same; a registered one
    says so with the trait "prepares_first_round", because arms that share their first round could not share it any
    more. The trait "ignores_previous" says that the start depends on nothing before its round; parts and probes have it
    too. Cells that differ only in what came before are then trained once. With the trait "inserts_normalization", the
    state dicts hold a mean and a deviation for each block and the head, see `models.insert_normalization`.
    """

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext, /) -> StateDict | Start:
        """The state dict to train from, with the same keys as `fresh`, or a `Start`."""
        ...


@dataclass(frozen=True)
class Batch:
    """A training batch as parts see it.

    Attributes:
        inputs: Inputs on the device, not normalised: pixels as float32 in [0, 1], or the data set's floats or tokens.
        labels: int64 class indices, shape (n,); or (n, length), the next token at each position, and logits are then
            (n, classes, length).
        generator: A generator on the device, seeded by (seed, "augment", round, epoch).
        index: The samples' indices in the training set, int64 (n,); None where a part is tried by hand.
        model_inputs: `inputs` as the model gets them, normalised; for `loss_term` only, None before.
        model: The model that trains, in training mode; for `loss_term` only, None before.
        logits_of: The logits of other inputs, not normalised, in the step's precision: `logits_of(inputs)`. Gradients
            flow, and BatchNorm's running statistics stay as they are. For `loss_term` only, None before.
        transformed: Whether a part of the arm transforms inputs, such as `augment`; for `loss_term` only.
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    generator: torch.Generator
    index: torch.Tensor | None = None
    model_inputs: torch.Tensor | None = None
    model: torch.nn.Module | None = None
    logits_of: Callable[[torch.Tensor], torch.Tensor] | None = None
    transformed: bool = False


@dataclass(frozen=True)
class Hooks:
    """What a part adds to a round; a hook that is absent costs nothing.

    Attributes:
        transform: Changes a batch before normalisation.
        loss_term: A scalar added to the loss: `loss_term(batch, logits)`, with the student's logits (n, classes).
        attach: Called when the round begins, as `attach(model)`: registers forward hooks on the model's modules, and
            returns their handles, which are removed before another round. Passes of `batch.logits_of` call them, too.
        before_step: Called between the backward pass and the optimiser's step, as `before_step(model)`; gradients are
            in `parameter.grad`.
        after_step: Called after every optimiser step as `after_step(model, optimizer)`. It may change weights and the
            optimiser's state, in place and under `torch.no_grad()`: for a reset unit, zero its moments too. It is not
            captured in a CUDA graph, so it may count steps and branch.
        after_epoch: Called after every epoch, as `after_epoch(model, optimizer)`.
        state: What the part has to remember, by name: tensors, numbers, text, and mappings of these. It is saved in
            checkpoints, and restored into the same mapping (into the same tensors where the shapes agree). Change its
            tensors in place: a captured CUDA graph holds their addresses, and numbers as they were. Where a hook that
            is captured comes with state that changes otherwise, steps run uncaptured, with a warning. All are captured
            but those after a step and after an epoch; what `attach` registers is captured as a part of the pass.
    """

    transform: Callable[[Batch], Batch] | None = None
    loss_term: Callable[[Batch, torch.Tensor], torch.Tensor] | None = None
    attach: Callable[[torch.nn.Module], Iterable[RemovableHandle]] | None = None
    before_step: Callable[[torch.nn.Module], None] | None = None
    after_step: Callable[[torch.nn.Module, torch.optim.Optimizer], None] | None = None
    after_epoch: Callable[[torch.nn.Module, torch.optim.Optimizer], None] | None = None
    state: dict[str, Any] | None = field(default=None, compare=False)


class Part(Protocol):
    """What changes training rather than the start. Called once a round, with the same arguments as a strategy.

    The trait "plain_loss_term" says that it brings a loss term alone, which reads neither `batch.inputs` nor
    `batch.logits_of`: Avalanche's loop can add it, too.
    """

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext, /) -> Hooks:
        """The hooks for this round. In the first round `previous` is `fresh`."""
        ...


class Probe(Protocol):
    """What is measured on a model while it trains: a pure function of the round's context.

    A probe is registered with its columns and their units, and with what it costs:
    `@PROBES.register("weight_norm", columns={"weight_norm": "L2 norm", "weight_norm_{block}": "L2 norm"}, cost="...")`,
    where a word in braces stands for any text, such as the name of a block. Its keyword-only parameters are its
    options.
    """

    def __call__(self, context: RoundContext, /) -> Mapping[str, float | None]:
        """Column names and their values; None leaves the cell empty."""
        ...
