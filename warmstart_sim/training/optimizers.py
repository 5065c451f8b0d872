"""Optimisers of the parameters that train: made, set back to new, and restored, in place where graphs hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from warmstart_sim.training.settings import Optimizer

NamedState = Mapping[str, Mapping[str, Any]]  # an optimiser's state by the names of the parameters


def make_optimizer(model: nn.Module, settings: Optimizer, *, captured: bool = False) -> torch.optim.Optimizer:
    """A new optimiser over the parameters that train. Fused: one kernel for all tensors, on CPUs too.

    Args:
        model: Its parameters are on their device.
        settings: Name, rate, momentum, weight decay.
        captured: Whether its steps are captured: the learning rate is then a tensor, which a replay reads anew.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rate = torch.tensor(settings.lr, device=parameters[0].device) if captured else settings.lr
    groups = _decay_groups(parameters, settings)
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, fused=True)
    adam = torch.optim.Adam if settings.name == "adam" else torch.optim.AdamW
    optimizer = adam(groups, lr=rate, fused=True, capturable=captured)
    optimizer._warned_capturable_if_run_uncaptured = True  # the warm-up before a capture is meant to run uncaptured
    return optimizer


def _decay_groups(parameters: Sequence[nn.Parameter], settings: Optimizer) -> list[dict[str, Any]]:
    """The parameters in one group, or those with weight decay (two dimensions or more) apart from those without."""
    if settings.decay_biases is not False or not settings.weight_decay:
        return [{"params": list(parameters), "weight_decay": settings.weight_decay}]
    groups = [
        {"params": [each for each in parameters if each.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [each for each in parameters if each.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def quick_step(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """Returns a function that does what `optimizer.step` does, with the same numbers, but without its bookkeeping.

    On a CPU, that bookkeeping takes a quarter of a small model's `optimizer.step`.
    """

    def step() -> None:
        for group in optimizer.param_groups:
            parameters = [each for each in group["params"] if each.grad is not None]
            states = [optimizer.state[each] or new_state(group, each, optimizer.state[each]) for each in parameters]
            fused_step(group, parameters, [each.grad for each in parameters], states)

    return step


def new_state(group: Mapping[str, Any], parameter: torch.Tensor, state: dict[str, Any]) -> dict[str, Any]:
    """Fills an empty state of a parameter as the first step of its optimiser does."""
    if "betas" in group:
        state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
    elif group["momentum"]:
        state["momentum_buffer"] = torch.zeros_like(parameter)  # the first step makes it the gradient
    return state


def fused_step(
    group: Mapping[str, Any],
    parameters: list[torch.Tensor],
    gradients: list[torch.Tensor],
    states: list[dict[str, Any]],
) -> None:
    """A step of some parameters by torch's fused kernel.

    Args:
        group: The options: one of the `param_groups` of Adam, AdamW or SGD.
        parameters: They change in place.
        gradients: Their gradients.
        states: Their states in the optimiser, which change in place; see `new_state`.
    """
    with torch.no_grad():
        if "betas" in group:
            means, squares, steps = ([state[key] for state in states] for key in ("exp_avg", "exp_avg_sq", "step"))
            beta1, beta2 = group["betas"]
            adam(
                parameters, gradients, means, squares, [], steps, fused=True, capturable=group["capturable"],
                decoupled_weight_decay=group["decoupled_weight_decay"], amsgrad=False, beta1=beta1, beta2=beta2,
                lr=group["lr"], weight_decay=group["weight_decay"], eps=group["eps"], maximize=False,
            )  # fmt: skip
        else:
            sgd(
                parameters, gradients, [state.get("momentum_buffer") for state in states], fused=True,
                weight_decay=group["weight_decay"], momentum=group["momentum"], lr=group["lr"], dampening=0.0,
                nesterov=False, maximize=False,
            )  # fmt: skip


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> bool:
    """Sets the rate of the next steps, in place where it is a tensor; returns whether a number was replaced instead."""
    replaced = False
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        elif group["lr"] != rate:
            group["lr"], replaced = rate, True
    return replaced


def state_tensors(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """All tensors of an optimiser's state: momentum, squares of gradients, steps."""
    return [value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]


def set_to_zero(optimizer: torch.optim.Optimizer) -> None:
    """Makes the state that of a new optimiser, in place: Adam's and SGD's state starts with zeros."""
    for tensor in state_tensors(optimizer):
        tensor.zero_()


def state_by_name(model: nn.Module, optimizer: torch.optim.Optimizer) -> NamedState:
    """A copy of the optimiser's state, by the names of the model's parameters."""
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: {
            key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in values.items()
        }
        for parameter, values in optimizer.state.items()
    }


def keep_state(model: nn.Module, optimizer: torch.optim.Optimizer, named: NamedState) -> None:
    """Gives an optimiser that is as good as new the state of the last round, in place where it has tensors.

    The last round's may have held other parameters. One that did not train then gets zeros, which is a new state.

    Args:
        model: Its parameters have names.
        optimizer: Of some of them.
        named: From `state_by_name`; not empty.
    """
    held = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    some = next(iter(named.values()))
    for name, parameter in model.named_parameters():
        if parameter not in held:
            continue
        own = optimizer.state[parameter]
        tensors = {key: value for key, value in named.get(name, some).items() if isinstance(value, torch.Tensor)}
        for key, value in tensors.items():
            if own.get(key) is None:  # fused kernels need state that is laid out like the weights
                like = parameter if value.ndim else value  # Adam's count of steps is a scalar
                own[key] = torch.zeros_like(like, dtype=value.dtype, device=parameter.device)
            if name in named:
                own[key].copy_(value)


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Gives an optimiser the state of an interrupted round, in new tensors.

    The state may come from a run without capturing, or from stacked steps: the options stay as they are here.
    """
    optimizer.load_state_dict({**state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, values in optimizer.state.items():
        for name, value in values.items():  # fused kernels need state that is laid out like the weights
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
