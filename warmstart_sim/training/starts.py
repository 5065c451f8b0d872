"""The start of a round: calls the strategy, checks what it returns, and keeps what does not train."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from warmstart_sim.errors import WarmstartError, unknown
from warmstart_sim.types import RoundContext, Start, StateDict


def start_of_round(strategy: Any, name: str, context: RoundContext, constant: Collection[str]) -> Start:
    """Where a round starts: `fresh` in the first round, afterwards what the strategy makes of `previous` and `fresh`.

    A strategy with a method `prepare_first_round` decides about the first round too. One with a method `check_model` is
    asked before the first round whether the model has what it needs.

    Args:
        strategy: A function of (previous, fresh, context), or an object that can be called so.
        name: What to call it in errors.
        context: The round's context.
        constant: Entries that no round trains (see `never_trained`); they keep the values of the last round.

    Raises:
        WarmstartError: The strategy does not fit the model, returns an incomplete state dict, or names a parameter that
            the model lacks.
    """
    if context.previous is None:
        if check := getattr(strategy, "check_model", None):
            check(context.layout)
        prepare = getattr(strategy, "prepare_first_round", None)
        result = prepare(context.fresh, context) if prepare else context.fresh
    else:
        result = strategy(context.previous, context.fresh, context)
    start = result if isinstance(result, Start) else Start(result)
    _check(start, name, context, constant)
    if context.previous is None:
        return start
    return Start({**start.weights, **{entry: context.previous[entry] for entry in constant}}, start.trainable)


def never_trained(model: nn.Module, without_gradient: frozenset[str]) -> frozenset[str]:
    """State-dict entries that no round trains: these parameters, and all of modules that have no others.

    Args:
        model: Any model.
        without_gradient: Names of parameters, from `model_functions.without_gradient`.
    """
    found = set(without_gradient)
    for prefix, module in model.named_modules(remove_duplicate=False):  # a shared module has several names
        parameters = {f"{prefix}.{name}" if prefix else name for name, _ in module.named_parameters()}
        if parameters and parameters <= without_gradient:
            found |= {f"{prefix}.{name}" if prefix else name for name in module.state_dict()}
    return frozenset(found)


def trains_by_default(model: nn.Module) -> frozenset[str]:
    """Names of the parameters with `requires_grad`, tied ones with all their names."""
    return frozenset(name for name, each in model.named_parameters(remove_duplicate=False) if each.requires_grad)


def freeze_all_but(model: nn.Module, trainable: frozenset[str] | None, by_default: frozenset[str]) -> None:
    """Sets `requires_grad` for a round.

    Args:
        model: The model that trains.
        trainable: Names of the parameters that train in the round; None for all that train by default.
        by_default: Names of the parameters that train when no strategy says otherwise.
    """
    names = by_default if trainable is None else by_default & trainable
    named = list(model.named_parameters(remove_duplicate=False))
    trains = {id(parameter) for name, parameter in named if name in names}  # a tied parameter has several names
    for _, parameter in named:
        parameter.requires_grad_(id(parameter) in trains)


def train_mode(model: nn.Module) -> None:
    """Training mode, but evaluation mode for normalisation layers with running statistics in which nothing trains.

    A layer without parameters of its own is frozen with the smallest module around it that has some.
    """
    model.train()
    if all(parameter.requires_grad for parameter in model.parameters()):
        return
    modules = dict(model.named_modules())
    for name, module in modules.items():
        if getattr(module, "running_mean", None) is None:
            continue
        around = name
        while around and not any(True for _ in modules[around].parameters()):
            around = around.rpartition(".")[0]
        if not any(parameter.requires_grad for parameter in modules[around].parameters()):
            module.eval()


def _check(start: Start, name: str, context: RoundContext, constant: Collection[str]) -> None:
    fresh: StateDict = context.fresh
    weights: Any = start.weights
    if not isinstance(weights, Mapping) or weights.keys() != fresh.keys():
        raise WarmstartError(
            f"strategy '{name}' must return a state dict with the keys of `fresh`, or a Start with one"
        )
    for entry, tensor in fresh.items():
        if not isinstance(weights[entry], torch.Tensor) or weights[entry].shape != tensor.shape:
            raise WarmstartError(f"strategy '{name}': entry '{entry}' must be a tensor of shape {tuple(tensor.shape)}")
    if start.trainable is None:
        return
    if not start.trainable:
        raise WarmstartError(f"strategy '{name}': `trainable` names no parameter, so nothing would train")
    if strange := sorted(set(start.trainable) - context.layout.parameters):
        raise WarmstartError(
            f"strategy '{name}': `trainable`: {unknown('parameter', strange[0], sorted(context.layout.parameters))}"
        )
    if set(start.trainable) <= set(constant):
        raise WarmstartError(
            f"strategy '{name}': `trainable` names only parameters with requires_grad=False, so nothing would train"
        )
