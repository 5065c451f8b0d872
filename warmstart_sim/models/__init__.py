"""Builds models by name or with the user's own function, and finds their blocks and head."""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from warmstart_sim.errors import WarmstartError, error_summary, unknown
from warmstart_sim.registry import MODELS
from warmstart_sim.types import INSERTED_NORMALIZATION, Layout

if TYPE_CHECKING:
    from torch import nn


def build(
    name: str | Callable[..., nn.Module],
    options: Mapping[str, Any],
    input_shape: tuple[int, ...],
    classes: int,
    vocabulary_size: int | None = None,
) -> nn.Module:
    """Builds a model with fresh weights on the CPU, drawn from torch's default generator.

    Lazy layers get their shapes and weights. A model of another dtype than float32 converts its inputs.

    Args:
        name: A registered name, `my_package.my_module:function`, or a function. All are called as
            `f(input_shape, classes, **options)`.
        options: The function's own options.
        input_shape: The shape of one input, such as (3, 32, 32).
        classes: The number of classes.
        vocabulary_size: For tokens: the number of tokens. It is passed to functions that have an option of this name,
            unless `options` sets it.

    Raises:
        WarmstartError: There is no such model, the function fails or does not return a `torch.nn.Module`, or a module
            grows with the classes.

    >>> build("logistic_regression", {}, (1, 8, 8), 10).head
    Linear(in_features=64, out_features=10, bias=True)
    """
    from torch import nn

    from warmstart_sim.models._interface import follow_dtype, initialize_lazy, two_ones

    factory = MODELS.get(name) if isinstance(name, str) else name
    label = name if isinstance(name, str) else getattr(name, "__qualname__", type(name).__name__)
    if isinstance(factory, nn.Module) or not callable(factory):
        raise WarmstartError(
            f"model '{label}' is a {type(factory).__name__}; pass a function f(input_shape, classes, **options) that "
            "builds the model, because every round and seed needs fresh weights"
        )
    try:
        takes_size = "vocabulary_size" in inspect.signature(factory).parameters
        if takes_size and vocabulary_size is not None and options.get("vocabulary_size") is None:
            options = {**options, "vocabulary_size": vocabulary_size}
        model = factory(input_shape, classes, **options)
    except WarmstartError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise WarmstartError(
            f"model '{label}' cannot be built for inputs of shape {tuple(input_shape)}: {error_summary(error)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise WarmstartError(f"model '{label}' returned a {type(model).__name__}, not a torch.nn.Module")
    # Avalanche's dynamic modules (growing or multiple heads) have this method. Its loop calls it; ours does not.
    if growing := next(
        (name for name, each in model.named_modules() if callable(getattr(each, "adaptation", None))), None
    ):
        raise WarmstartError(
            f"model '{label}': its module '{growing}' grows with the classes, but our engine trains one head that has "
            "all classes from the beginning; use torch.nn.Linear there, or Avalanche's own loop with StrategyPlugin"
        )
    follow_dtype(model)
    initialize_lazy(model, lambda: two_ones(input_shape, tokens=vocabulary_size is not None))
    return model


def check_output(
    model: nn.Module,
    input_shape: tuple[int, ...],
    classes: int,
    *,
    tokens: bool = False,
    label_shape: tuple[int, ...] = (),
) -> None:
    """Checks before training that a model accepts the inputs and returns logits of shape (n, classes).

    Where the logits are in a mapping, an object or a tuple, a forward hook makes the model return them alone.

    A copy of the model runs on two inputs of ones, in evaluation and in training mode. Models for tokens are also tried
    on shorter texts, because a batch is cut to its longest text. The model's weights, buffers and mode do not change.

    Args:
        model: A model on the CPU.
        input_shape: The shape of one input.
        classes: The number of classes.
        tokens: Whether inputs are int64 tokens rather than float32 values.
        label_shape: (length,) where labels are the next token at each position. Logits are then (n, classes, length),
            and no text is shorter.

    Raises:
        WarmstartError: The model fails on these inputs, returns something else, or has no parameter to train.
    """
    import torch

    from warmstart_sim.models._interface import ReadLogits, cannot_take, describe, logits_reader, two_ones

    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise WarmstartError("the model has no parameter that trains; set requires_grad_(True) on its head at least")
    shapes = [input_shape, ((input_shape[0] + 1) // 2,)] if tokens and not label_shape else [input_shape]
    wanted = (2, classes, *label_shape)
    reader: ReadLogits | None = None
    for shape, training in itertools.product(shapes, (False, True)):
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                output = copy.deepcopy(model).train(training)(two_ones(shape, tokens))
        except Exception as error:  # the user's own code may raise anything
            raise WarmstartError(cannot_take(shape, error)) from error
        logits = output
        if not isinstance(output, torch.Tensor):
            reader = logits_reader(output, wanted)
            logits = reader and reader.read(output)
        if not isinstance(logits, torch.Tensor) or logits.shape != wanted:
            raise WarmstartError(
                f"the model must return logits of shape {wanted} for two inputs, but it returned "
                f"{describe(output)}{_HOW_TO_WRAP if not isinstance(output, torch.Tensor) else ''}"
            )
    if reader:
        model.register_forward_hook(reader)


_HOW_TO_WRAP = (
    "; wrap it in a module whose forward returns the logits alone, such as `return self.model(inputs)[0]`, or return "
    "a dict with the key 'logits'"
)


def layout(model: nn.Module) -> Layout:
    """Finds a model's parameters, normalisation layers, blocks and head.

    Our models declare their blocks and head (`block_names`, `head_name`), and a user's model may do so too. Otherwise
    the head is the last linear layer (or, without one, the last layer with parameters), and the blocks are the largest
    modules with parameters that do not contain the head.

    Raises:
        WarmstartError: The model has no submodule that could be the head, or declares a module that does not exist.

    >>> layout(build("mlp", {"widths": (5,)}, (4,), 3)).blocks
    ('hidden1',)
    """
    head = getattr(model, "head_name", None) or _find_head(model)
    found = Layout(
        # Tied parameters are listed under all their names, as in the state dict.
        parameters=frozenset(name for name, _ in model.named_parameters(remove_duplicate=False)),
        norm_affine=frozenset(_norm_affine(model)),
        blocks=tuple(getattr(model, "block_names", None) or _find_blocks(model, head)),
        head=head,
    )
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in (*found.blocks, found.head):
        if name not in modules:
            raise WarmstartError(unknown("module of the model", name, filter(None, modules)))
    return found


def insert_normalization(model: nn.Module) -> None:
    """Makes each block and the head normalise its output by two scalars, x -> (x - mean) / deviation, in place.

    Both are buffers, BLOCK.inserted_normalization.mean and .deviation, so they are saved and loaded with the weights.
    They are 0 and 1 until a strategy such as layerwise sets them. What has them already stays as it is.

    Args:
        model: Whose blocks `layout` finds.

    >>> model = build("mlp", {"widths": (5,)}, (4,), 3)
    >>> insert_normalization(model)
    >>> [name for name, _ in model.named_buffers() if name.startswith("hidden1")]
    ['hidden1.inserted_normalization.mean', 'hidden1.inserted_normalization.deviation']
    """
    from torch import nn

    from warmstart_sim.models._layers import InsertedNormalization, apply_inserted_normalization

    found = layout(model)
    for name in (*found.blocks, found.head):
        block = model.get_submodule(name)
        if hasattr(block, INSERTED_NORMALIZATION):
            continue
        block.add_module(INSERTED_NORMALIZATION, InsertedNormalization())
        if type(block).forward is not nn.Sequential.forward:  # which calls its last module itself
            block.register_forward_hook(apply_inserted_normalization)


def takes_channels_last(model: nn.Module) -> bool:
    """Whether to use channels-last batches, which make convolutions faster, on CPUs too.

    A model without convolutions would have to copy them back. Strided 1x1 convolutions with fewer than 8 channels must
    not get them: on CPUs with AVX2, their backward pass writes outside its memory (oneDNN in torch 2.15).
    """
    from torch import nn

    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    unsafe = (each.in_channels < 8 and max(each.kernel_size) == 1 < max(each.stride) for each in convolutions)
    return bool(convolutions) and not any(unsafe)


def _norm_affine(model: nn.Module) -> Iterator[str]:
    from torch import nn

    # _NormBase is the base class of BatchNorm, SyncBatchNorm and InstanceNorm of any dimension.
    norms = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
    for prefix, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, norms):
            yield from (name for name, _ in module.named_parameters(prefix, recurse=False))


def _find_head(model: nn.Module) -> str:
    from torch import nn

    layers = {name: module for name, module in model.named_modules() if list(module.parameters(recurse=False))}
    linear = [name for name, module in layers.items() if isinstance(module, nn.Linear)]
    head: str = (linear or list(layers) or [""])[-1]
    if not head:
        raise WarmstartError(
            f"the model ({type(model).__name__}) has no submodule that could be its head; put a single layer into "
            "torch.nn.Sequential, which gives it a name"
        )
    return head


def _find_blocks(module: nn.Module, head: str, prefix: str = "") -> Iterator[str]:
    for child_name, child in module.named_children():
        name = prefix + child_name
        if head.startswith(name + "."):
            yield from _find_blocks(child, head, name + ".")
        elif name != head and list(child.parameters()):
            yield name
