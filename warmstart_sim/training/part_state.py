"""The state that a part keeps during a round (`Hooks.state`): copies it, restores it in place, lists what it holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch


def snapshot(state: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a part's state, tensors included."""
    return {name: _copy(value) for name, value in state.items()}


def restore(state: dict[str, Any], saved: Mapping[str, Any], device: torch.device) -> None:
    """Writes saved values into a part's state; tensors and mappings are changed in place, because hooks hold them.

    Args:
        state: The mapping that the part's hooks use.
        saved: From `snapshot` or from a checkpoint, whose tensors are on the CPU.
        device: Where tensors go that `state` does not have yet.
    """
    for name in state.keys() - saved.keys():
        del state[name]
    for name, value in saved.items():
        present = state.get(name)
        if isinstance(present, dict) and isinstance(value, Mapping):
            restore(present, value, device)
        elif not isinstance(value, torch.Tensor):
            state[name] = value
        elif isinstance(present, torch.Tensor) and (present.shape, present.dtype) == (value.shape, value.dtype):
            with torch.no_grad():
                present.copy_(value)
        else:
            state[name] = value.to(present.device if isinstance(present, torch.Tensor) else device)


def entries(state: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values of everything in a state: nested mappings are flattened, `{"a": {"b": 1}}` gives `a.b`."""
    for name, value in state.items():
        if isinstance(value, Mapping):
            yield from entries(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return snapshot(value)
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
