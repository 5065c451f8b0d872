"""Norms and inner products of state dicts. It imports torch, so probes import it only when they run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from warmstart_sim.types import Layout, StateDict


def norm(tensors: Iterable[torch.Tensor]) -> float:
    """The L2 norm of all tensors together, as one vector."""
    return float(torch.stack([tensor.double().norm() for tensor in tensors]).norm())


def dot(one: StateDict, other: StateDict) -> float:
    """The inner product of two mappings of tensors with the same names, each as one vector."""
    return sum((tensor.double() * other[name].double()).sum().item() for name, tensor in one.items())


def parameters(weights: StateDict, layout: Layout) -> dict[str, torch.Tensor]:
    """The parameters among the entries of a state dict, in a fixed order."""
    return {name: weights[name] for name in sorted(layout.parameters)}


def by_block(weights: StateDict, layout: Layout) -> Iterator[tuple[str, list[torch.Tensor]]]:
    """The parameters of each block and of the head, by the module's name."""
    for block in (*layout.blocks, layout.head):
        own = [t for name, t in parameters(weights, layout).items() if name == block or name.startswith(f"{block}.")]
        if own:
            yield block, own
