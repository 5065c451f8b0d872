"""The state that a part keeps during a round (`Hooks.state`): copied, restored in place, and compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

Entry = tuple[str, Any]  # a name and its value


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


def entries(state: Mapping[str, Any], prefix: str = "") -> Iterator[Entry]:
    """Names and values of everything in a state: nested mappings are flattened, `{"a": {"b": 1}}` gives `a.b`."""
    for name, value in state.items():
        if isinstance(value, Mapping):
            yield from entries(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


class Watch:
    """Tells whether parts have replaced tensors in their states, or changed anything else; tensors may change in place.

    Args:
        states: The parts' states; what they hold now is what they are compared with.
    """

    def __init__(self, states: Sequence[Mapping[str, Any]]) -> None:
        self.states = states
        self._before = self._entries()

    def changed(self) -> bool:
        """Whether they have, since the watch was made."""
        now = self._entries()
        return len(now) != len(self._before) or any(
            name != other or (value is not held and (isinstance(held, torch.Tensor) or value != held))
            for (name, value), (other, held) in zip(now, self._before, strict=True)
        )

    def _entries(self) -> list[Entry]:
        return [entry for state in self.states for entry in entries(state)]


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return snapshot(value)
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
