"""Fits the weights in a checkpoint file to a model, and transfers weights to a model with another head."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from warmstart_sim.errors import DataError, WarmstartError, unknown
from warmstart_sim.models.checkpoint_files import read_state_dicts
from warmstart_sim.types import Layout, StateDict

if TYPE_CHECKING:
    import torch
    from torch import nn

T = TypeVar("T")

# Module names that DataParallel, torch.compile, FSDP and activation checkpointing put between a model's own.
WRAPPER_NAMES = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
AVERAGED = ("ema", "swa", "averag", "teacher", "target")  # in names of weights that are running means of others
COUNTER = "num_batches_tracked"  # BatchNorm's, which older files lack; with a momentum nothing reads it
MOST_LISTED, SEPARATOR = 6, "\n  "  # entries in a message, a line each


def read_weights(
    source: Path | Mapping[str, Any],
    model: nn.Module,
    layout: Layout,
    which: str | None = None,
    prefix: str = "stream.",
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Reads a model's weights from a file, to the CPU, without executing code from it.

    The file is one that `torch.save` wrote, or safetensors. It may hold several state dicts, under any keys and next to
    anything else, and the names in it may have prefixes, or wrappers' names in the middle: the entries that fit the
    model best are taken. A head under another name is left out, and BatchNorm's counters may be missing.

    Args:
        source: The file, or the content of one, whose tensors stay on their devices.
        model: The model that the weights are for.
        layout: Its layout.
        which: The set of weights to take, where several fit equally well; None prefers those that are no running mean.
        prefix: In messages, what stands before the names of the settings `checkpoint` and `weights`.

    Returns:
        The weights under the model's names, and notes on what was not taken.

    Raises:
        DataError: The file does not exist, or does not contain a state dict, or not the set `which`.
    """
    state, name = model.state_dict(), source if isinstance(source, Path) else "the checkpoint"
    sets = read_state_dicts(source, f"{prefix}checkpoint")
    fits = [fit for label, weights in sets.items() for fit in _fits(label, weights, state, layout)]
    fits.sort(key=lambda fit: (-fit.count, any(word in fit.label.lower() for word in AVERAGED)))  # else the first
    if which is not None:
        known = list(dict.fromkeys(fit.label for fit in fits if fit.count))
        fits = [fit for fit in fits if fit.label == which]
        if not fits:
            raise DataError(f"{prefix}weights: {name}: {unknown('set of weights', which, known)}")
    best = fits[0]
    others = dict.fromkeys(fit.label for fit in fits[1:] if fit.count == best.count and fit.label != best.label)
    _add_tied(best.weights, model)
    weights, surplus_head = _without_other_head(best, state, layout)
    notes = []
    if others and best.count:
        notes.append(
            f"{name} holds several sets of weights that fit: '{best.label or 'at the top'}' was taken; "
            f"`{prefix}weights` takes another ({', '.join(others)})"
        )
    if unused := [*best.outside, *(entry.removeprefix(best.inside) for entry in surplus_head)]:
        notes.append(f"{name}: {_some([repr(entry) for entry in unused], 3)} of the file are not used")
    return weights, notes


@dataclass(frozen=True)
class _Fit:
    """A way to read a set of weights as the model's.

    Attributes:
        label: The keys, and the prefix of names, under which the file has them.
        weights: Under the model's names, as far as it has them.
        outside: The file's entries without the prefix.
        count: How many entries of the model there are, with the right shape; BatchNorm's counters do not count.
        inside: The prefix of the model's names to which the set was fitted.
    """

    label: str
    weights: dict[str, torch.Tensor]
    outside: list[str]
    count: int
    inside: str


def _fits(label: str, weights: StateDict, state: StateDict, layout: Layout) -> Iterator[_Fit]:
    """Fits a set of weights to the whole model, and to modules of it, with each prefix of the file."""
    named, own = _without_wrappers(weights), _without_wrappers({name: name for name in state})
    body = [name for name in own if not layout.in_head(own[name])]
    insides = [
        prefix for prefix in _prefixes(own) if prefix.count(".") < 2 or all(name.startswith(prefix) for name in body)
    ]
    for prefix, inside in itertools.product(_prefixes(named), insides):
        renamed = {inside + name.removeprefix(prefix): each for name, each in named.items() if name.startswith(prefix)}
        found = {own.get(name, name): each for name, each in renamed.items()}
        count = sum(
            name in state and each.shape == state[name].shape and not name.endswith(COUNTER)
            for name, each in found.items()
        )
        if count or prefix == inside == "":
            outside = [name for name in named if not name.startswith(prefix)]
            yield _Fit(".".join(filter(None, (label, prefix.rstrip(".")))), found, outside, count, inside)


def _without_wrappers(weights: Mapping[str, T]) -> dict[str, T]:
    """The same entries without wrappers' names and counters, unless two would then have the same name."""
    weights = {name: each for name, each in weights.items() if name != "n_averaged"}  # AveragedModel's counter
    named = {".".join(part for part in name.split(".") if part not in WRAPPER_NAMES): name for name in weights}
    return {short: weights[name] for short, name in named.items()} if len(named) == len(weights) else dict(weights)


def _prefixes(names: Iterable[str]) -> list[str]:
    """All modules' prefixes, and the empty one first.

    >>> _prefixes(["a.b.weight", "a.c"])
    ['', 'a.', 'a.b.']
    """
    found = {"": None}
    for name in names:
        parts = name.split(".")[:-1]
        found.update(dict.fromkeys(".".join(parts[: k + 1]) + "." for k in range(len(parts))))
    return list(found)


def _without_other_head(fit: _Fit, state: StateDict, layout: Layout) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The weights without a head of another name: one module that is left when the model's whole body is there."""
    weights = dict(fit.weights)
    surplus = [name for name in weights if name not in state and not name.endswith(COUNTER)]
    tops = {fit.inside + name.removeprefix(fit.inside).partition(".")[0] for name in surplus}
    has_head = any(layout.in_head(name) for name in weights)
    body = [name for name in state if not layout.in_head(name) and not name.endswith(COUNTER)]
    has_body = not any(_mismatch(name, weights, state) for name in body)
    if len(tops) != 1 or has_head or not has_body or any(name.startswith(f"{min(tops)}.") for name in state):
        surplus = []
    return {name: each for name, each in weights.items() if name not in surplus}, surplus


def _add_tied(weights: dict[str, torch.Tensor], model: nn.Module) -> None:
    """Adds tied parameters that a file has under one of their names only."""
    state = model.state_dict(keep_vars=True)
    by_tensor = {id(tensor): weights[name] for name, tensor in state.items() if name in weights}
    for name, tensor in state.items():
        if name not in weights and id(tensor) in by_tensor:
            weights[name] = by_tensor[id(tensor)]


def transfer_weights(
    weights: StateDict,
    fresh: StateDict,
    layout: Layout,
    head: Literal["keep", "fresh", "grow"] = "keep",
    what: str = "the pre-trained weights",
) -> dict[str, torch.Tensor]:
    """Transfers weights trained on another task: all of the body, and the head if its shape agrees.

    If the head is missing, has another shape, or `head` is "fresh", the whole head comes from `fresh`. It is then the
    same as random init's with this seed (and shrink-perturb yields (lambda + sigma) times that head).

    Args:
        weights: The other task's state dict.
        fresh: A fresh state of the model.
        layout: Says which parameters belong to the head.
        head: "keep" or "fresh"; or "grow": the weights have the whole head but for its last classes, whose rows come
            from `fresh`.
        what: What to call the weights in the message.

    Raises:
        WarmstartError: The body has another architecture; the message names the entries that differ.
    """
    own_head = {name for name in fresh if layout.in_head(name)}
    grown = {name for name in own_head if head == "grow" and new_rows(name, weights, fresh)}
    head_agrees = all(name in weights and weights[name].shape == fresh[name].shape for name in own_head)
    taken_fresh = own_head if head == "fresh" or (head == "keep" and not head_agrees) else set()
    needed = [name for name in fresh if not name.endswith(COUNTER) and name not in grown]
    if head != "grow":
        needed = [name for name in needed if name not in own_head]
    surplus = [
        name for name in weights if name not in fresh and not layout.in_head(name) and not name.endswith(COUNTER)
    ]
    problems = [text for name in needed if (text := _mismatch(name, weights, fresh))]
    fitting = len(needed) - len(problems)
    problems += [f"they have '{name}' {tuple(weights[name].shape)}, which the model does not have" for name in surplus]
    if problems:
        of_model = "model" if head == "grow" else "model's body"
        raise WarmstartError(
            f"{what} have another architecture: {fitting} of the {len(needed)} entries of the {of_model} fit"
            f"\n  {_some(problems, MOST_LISTED, SEPARATOR)}"
        )
    transferred = {}
    for name, tensor in fresh.items():
        if name in taken_fresh or name in grown or name not in weights:
            transferred[name] = tensor.clone()
        else:
            transferred[name] = weights[name].to(tensor.device, tensor.dtype)
    for name in grown:
        transferred[name][: len(weights[name])] = weights[name]
    return transferred


def new_rows(name: str, weights: StateDict, fresh: StateDict) -> int:
    """How many rows the model's entry has beyond those of the weights; 0 if they differ in anything else."""
    if name not in weights or not fresh[name].ndim or weights[name].ndim != fresh[name].ndim:
        return 0
    if weights[name].shape[1:] != fresh[name].shape[1:]:
        return 0
    return max(0, len(fresh[name]) - len(weights[name]))


def _mismatch(name: str, weights: StateDict, fresh: StateDict) -> str:
    expected = tuple(fresh[name].shape)
    if name not in weights:
        return f"they lack '{name}' {expected}"
    found = tuple(weights[name].shape)
    return "" if found == expected else f"'{name}' is {found} there and {expected} in the model"


def _some(items: Sequence[str], most: int, separator: str = ", ") -> str:
    """At most so many items, and how many more there are.

    >>> _some(["a", "b", "c"], 2), _some(["a", "b"], 2)
    ('a, b, and 1 more', 'a, b')
    """
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return separator.join([*items[:most], *more])
