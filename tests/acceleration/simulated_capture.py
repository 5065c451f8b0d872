"""A stand-in for CUDA graphs on the CPU, as strict as they are: captured work is replayed on the same addresses.

A replay runs the same operators on the same memory with the same numbers. So whatever is frozen in a CUDA graph is
frozen here: a learning rate that is a Python number, an index that was not copied to where the graph reads it, new
weights that are other tensors. And whatever the captured work allocated itself holds garbage between two replays,
because another graph may use the same memory there. It refuses what a CUDA graph refuses: work that waits for the
device, and draws from generators that were not registered.

What it cannot see, because no operator is called: `tensor.tolist()` and `tensor.numpy()`, which wait for a GPU too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from warmstart_sim.acceleration.graph_capture import WARM_UPS

aten = torch.ops.aten
WAITS = {
    aten._local_scalar_dense, aten.item, aten.is_nonzero, aten.equal, aten.nonzero, aten.nonzero_static,
    aten.masked_select, aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.bincount,
    aten.repeat_interleave,
}  # fmt: skip
INDEXES = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


@dataclass(frozen=True)
class Call:
    """One call of an operator.

    Attributes:
        operator: What was called.
        arguments: (args, kwargs), each tensor an alias of the one it was called with: it stays at its address, whatever
            becomes of the tensor.
        in_grad_mode: Whether it was called in grad mode, in which some operators keep more for the backward pass.
        results: Aliases of the tensors that it gave, None for everything else.
    """

    operator: Any
    arguments: Any
    in_grad_mode: bool
    results: list[torch.Tensor | None]

    def again(self) -> None:
        """Calls it with the same arguments, and copies new results to the tensors of the captured call."""
        args, kwargs = self.arguments
        with torch.set_grad_enabled(self.in_grad_mode):
            results = self.operator(*args, **kwargs)
        for result, new in zip(self.results, tree_leaves(results), strict=True):
            # A view needs no copy, nor does what was written in place.
            if result is not None and new is not None and _address(new) != _address(result):
                result.copy_(new)


class _Log(TorchDispatchMode):
    """Logs all operators that are called: forward, backward (which a CPU runs in the same thread) and optimiser."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._generators = {generator._cdata for generator in (*generators, torch.default_generator)}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace != "aten":  # notes for profilers
            return func(*args, **kwargs)
        if func.overloadpacket in WAITS or (func.overloadpacket in INDEXES and _by_mask(args[1])):
            raise RuntimeError(f"{func} waits for the device, which is not permitted during a capture")
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, torch.Generator) and leaf._cdata not in self._generators:
                raise RuntimeError(f"{func} draws from a generator that was not registered")
        arguments = tree_map_only(torch.Tensor, torch.Tensor.detach, (args, kwargs))
        results = func(*args, **kwargs)
        leaves = [each.detach() if isinstance(each, torch.Tensor) else None for each in tree_leaves(results)]
        self.calls.append(Call(func, arguments, torch.is_grad_enabled(), leaves))
        return results


class SimulatedCapture:
    """A `GraphCapture` for the CPU. Unlike a CUDA graph, it also runs the work during the capture.

    Attributes:
        captures: The number of captures.
        replays: The number of replays, of all of them together.
    """

    def __init__(self) -> None:
        self.captures = 0
        self.replays = 0

    def __call__(self, work: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None]:
        """See `GraphCapture`."""
        for _ in range(WARM_UPS):
            work()
        with _Log(generators) as log:
            work()
        self.captures += 1
        own = list(_own(log.calls))
        _spoil(own)

        def replay() -> None:
            self.replays += 1
            with torch.no_grad():
                for call in log.calls:
                    call.again()
                _spoil(own)

        return replay


def _own(calls: Sequence[Call]) -> Iterator[torch.Tensor]:
    """The tensors that the captured work allocated."""
    foreign: set[int] = set()
    for call in calls:
        foreign.update(map(_address, _tensors(call.arguments)))
        for result in _tensors(call.results):
            if _address(result) not in foreign:
                yield result
                foreign.add(_address(result))  # once is enough; all of them are alive, so that addresses are unique


def _spoil(tensors: Sequence[torch.Tensor]) -> None:
    for tensor in tensors:
        tensor.fill_(torch.nan if tensor.is_floating_point() else 0)


def _by_mask(indices: Any) -> bool:
    return any(each.dtype in (torch.bool, torch.uint8) for each in _tensors(indices))


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
