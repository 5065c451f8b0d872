"""The precision in which a processor can train a model."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import nn


def usable_precision(model: nn.Module, wanted: str) -> str:
    """`wanted`; or "float32", after a warning, where it is "bf16" and the CPU cannot train a recurrent layer in it.

    >>> usable_precision(nn.Linear(2, 2), "bf16")
    'bf16'
    """
    if wanted != "bf16" or next(model.parameters()).device.type != "cpu":
        return wanted
    try:
        for layer in model.modules():
            if isinstance(layer, nn.RNNBase):
                _train_in_bf16(layer)
    except RuntimeError as error:
        reason = str(error).split("\n", 1)[0]
        warnings.warn(
            f"training.precision: bf16: this processor cannot train the model's recurrent layers in it ({reason}); "
            "the model trains in float32",
            stacklevel=2,
        )
        return "float32"
    return wanted


def _train_in_bf16(layer: nn.RNNBase) -> None:
    """One forward and backward pass of a copy, on texts of two tokens."""
    replica = copy.deepcopy(layer).requires_grad_(True)
    with torch.enable_grad(), torch.random.fork_rng(devices=[]), torch.autocast("cpu", dtype=torch.bfloat16):
        states, _ = replica(torch.zeros(2, 2, layer.input_size))
        states.sum().backward()
