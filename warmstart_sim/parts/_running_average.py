"""A running average of a model's weights. It imports torch, so parts import it only when they are called."""

from __future__ import annotations

import torch
from torch import nn

from warmstart_sim.types import StateDict


def copied(weights: StateDict) -> dict[str, torch.Tensor]:
    """The average that begins at these weights: a copy of them."""
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


@torch.no_grad()
def update(average: StateDict, model: nn.Module, decay: float) -> None:
    """Average <- decay average + (1 - decay) weights, in place: parameters and buffers; integers are copied."""
    weights = model.state_dict()
    floats = [name for name, tensor in weights.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([average[name] for name in floats], [weights[name] for name in floats], 1 - decay)
    for name in weights.keys() - set(floats):
        average[name].copy_(weights[name])
