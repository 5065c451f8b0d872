"""Fits a user's model to the training loop: lazy layers, the dtype of its inputs, and where its logits are.

It imports torch, so it is imported only when a model is built. A model that takes float32 and returns logits gets no
hooks, so that its steps cost what they cost in a plain loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from warmstart_sim.errors import WarmstartError, error_summary


def follow_dtype(model: nn.Module) -> None:
    """Makes a model whose first parameter is float64 or bfloat16, say, convert its inputs to this dtype."""
    found = next((each.dtype for each in model.parameters() if each.is_floating_point()), torch.float32)
    if found != torch.float32:
        model.register_forward_pre_hook(ConvertInputs(found))


@dataclass(frozen=True)
class ConvertInputs:
    """A forward pre-hook that converts floating-point inputs to the model's dtype; tokens stay integers."""

    dtype: torch.dtype

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """The converted inputs."""
        return tuple(each.to(self.dtype) if each.is_floating_point() else each for each in inputs)


def two_ones(shape: tuple[int, ...], tokens: bool) -> torch.Tensor:
    """Two inputs of ones to try a model with; zeros would be texts of padding only."""
    return torch.ones(2, *shape, dtype=torch.int64 if tokens else torch.float32)


def initialize_lazy(model: nn.Module, make_inputs: Callable[[], torch.Tensor]) -> None:
    """Gives lazy layers (`nn.LazyLinear` and the like) their shapes and weights by a pass in evaluation mode.

    Their weights are drawn from torch's default generator. The modules' modes and other buffers do not change.

    Raises:
        WarmstartError: The model fails on these inputs, or does not use one of its lazy layers.
    """
    if not _lazy_names(model):
        return
    inputs = make_inputs()
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad():
            model.eval()(inputs)
    except Exception as error:  # the user's own code may raise anything
        raise WarmstartError(cannot_take(inputs.shape[1:], error)) from error
    for module, training in modes:
        module.training = training
    if unused := _lazy_names(model):
        raise WarmstartError(
            f"the model's lazy parameter '{unused[0]}' has no shape, because its forward pass does not use it; remove "
            "the layer, or give it its size"
        )


def _lazy_names(model: nn.Module) -> list[str]:
    return [name for name, each in (*model.named_parameters(), *model.named_buffers()) if is_lazy(each)]


def cannot_take(shape: Sequence[int], error: Exception) -> str:
    """The message for a model that fails on inputs of this shape."""
    return f"the model cannot take inputs of shape {tuple(shape)}: {error_summary(error)}"


@dataclass(frozen=True)
class ReadLogits:
    """A forward hook that replaces a model's output by the logits in it; outputs that are tensors stay.

    Attributes:
        read: Returns the logits in an output of another type.
    """

    read: Callable[[Any], Any]

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        """The logits."""
        return output if isinstance(output, torch.Tensor) else self.read(output)


def logits_reader(output: Any, shape: tuple[int, ...]) -> ReadLogits | None:
    """How to read logits of this shape from an output that is not a tensor; None if there is not exactly one reading.

    A mapping has the key "logits", an object the attribute, or only a tuple's first element has the shape.

    >>> features, logits = torch.zeros(2, 5), torch.zeros(2, 3)
    >>> logits_reader({"logits": logits, "features": features}, (2, 3)).read
    operator.itemgetter('logits')
    >>> logits_reader((logits, features), (2, 3)).read, logits_reader((logits, logits), (2, 3))
    (operator.itemgetter(0), None)
    """
    if isinstance(output, Mapping):
        return ReadLogits(itemgetter("logits")) if "logits" in output else None
    if hasattr(output, "logits"):
        return ReadLogits(attrgetter("logits"))
    if (
        isinstance(output, (tuple, list))
        and [getattr(each, "shape", None) == shape for each in output].count(True) == 1
    ):
        return ReadLogits(itemgetter(0)) if getattr(output[0], "shape", None) == shape else None
    return None


def describe(output: Any) -> str:
    """What a model returned, for an error message.

    >>> describe(torch.zeros(2, 3)), describe((torch.zeros(2, 3), None)), describe({"out": torch.zeros(2, 3)})
    ('(2, 3)', 'a tuple of (2, 3), NoneType', 'a dict of out: (2, 3)')
    """
    if isinstance(output, torch.Tensor):
        return str(tuple(output.shape))
    if isinstance(output, Mapping):
        parts = [f"{key}: {describe(value)}" for key, value in output.items()]
    elif isinstance(output, (tuple, list)):
        parts = [describe(each) for each in output]
    else:
        return type(output).__name__
    return f"a {type(output).__name__} of {', '.join(parts)}"
