"""On which device a tensor is said to be: a label on its storage, which all views of it share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

HOST = torch.device("cpu")


def storage(tensor: torch.Tensor) -> Any:
    """The memory of a tensor; it carries `device_label`, `is_pinned_memory`, `awaits_copy` and `use` as attributes."""
    return tensor.untyped_storage()


def label(tensor: torch.Tensor) -> torch.device | None:
    """Where it is; None for what a composite operator has made on its way, which takes the device of the others."""
    return getattr(storage(tensor), "device_label", None)


def place(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    storage(tensor).device_label = device
    return tensor


def on_cuda(tensor: torch.Tensor) -> bool:
    device = label(tensor)
    return device is not None and device.type == "cuda"


def is_pinned(tensor: torch.Tensor) -> bool:
    return hasattr(storage(tensor), "is_pinned_memory")


def pin(tensor: torch.Tensor) -> torch.Tensor:
    storage(tensor).is_pinned_memory = True
    return tensor


def name(tensor: torch.Tensor) -> str:
    """What a report calls it, such as "(32, 10) float32"."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype)[6:]}"


def leaves(tree: Any) -> list[Any]:
    """What nested arguments or results hold, in order."""
    if isinstance(tree, (tuple, list)):
        return [leaf for each in tree for leaf in leaves(each)]
    return leaves(list(tree.values())) if isinstance(tree, dict) else [tree]


def tensors(tree: Any) -> list[torch.Tensor]:
    """All tensors in nested arguments or results."""
    return [leaf for leaf in leaves(tree) if isinstance(leaf, torch.Tensor)]


def with_tensors(change: Callable[[torch.Tensor], torch.Tensor], tree: Any) -> Any:
    """The same arguments, with all tensors changed."""
    if isinstance(tree, (tuple, list)):
        return type(tree)(with_tensors(change, each) for each in tree)
    if isinstance(tree, dict):
        return {key: with_tensors(change, each) for key, each in tree.items()}
    return change(tree) if isinstance(tree, torch.Tensor) else tree
