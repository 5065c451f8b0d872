"""Redraws entries of weights, and makes an optimiser forget them. It imports torch: parts import it when called."""

from __future__ import annotations

from typing import Any

import torch


def redrawn(like: torch.Tensor, fresh: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """New entries of a weight for the shape of `like`, each drawn from those of the weight's fresh initialisation.

    So they have the initialisation's distribution, whatever it is, and two draws in a round differ.

    Args:
        like: Any tensor; it is not changed.
        fresh: The whole weight of a fresh initialisation.
        generator: On the CPU, so that every device sees the same.
    """
    chosen = torch.randint(fresh.numel(), like.shape, generator=generator)
    return fresh.reshape(-1)[chosen.to(fresh.device)].to(like)


def forget(optimizer: torch.optim.Optimizer, parameter: torch.Tensor, index: Any) -> None:
    """Sets an optimiser's moments of `parameter[index]` to zero; Adam's count of steps stays."""
    for moment in optimizer.state.get(parameter, {}).values():
        if isinstance(moment, torch.Tensor) and moment.shape == parameter.shape:
            moment[index] = 0
