"""The operators of a capture, called again at each replay on the same addresses."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from tests.fake_cuda.operators import rounded_as_tf32
from tests.fake_cuda.placement import HOST, label, leaves, name, storage, tensors, with_tensors

RealGenerator = torch.Generator  # fake_cuda replaces it


class Address:
    """Memory that a graph uses without owning it.

    Attributes:
        owner: The storage, weakly: like CUDA, a graph does not notice that memory was freed.
        device: Where it is.
        name: Shape and type of the tensor by which the memory was found.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self.owner = weakref.ref(storage(tensor))
        self.device, self.name = label(tensor), name(tensor)
        size = storage(tensor).nbytes()
        if size == 0:
            self._memory: Any = storage(tensor)
        else:
            block = (ctypes.c_byte * size).from_address(storage(tensor).data_ptr())
            self._memory = torch.frombuffer(block, dtype=torch.uint8).untyped_storage()

    def seen_as(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor of this shape in the memory, which does not keep it alive."""
        alias = torch.empty(0, dtype=tensor.dtype)
        return alias.set_(self._memory, tensor.storage_offset(), tensor.size(), tensor.stride())


@dataclass(frozen=True)
class Call:
    """One call of an operator.

    Attributes:
        operator: What was called.
        arguments: (args, kwargs).
        in_grad_mode: Whether in grad mode, in which some operators keep more for the backward pass.
        tf32: Whether products were rounded.
        results: Aliases of the tensors that it gave, None for everything else.
    """

    operator: Any
    arguments: Any
    in_grad_mode: bool
    tf32: bool
    results: list[torch.Tensor | None]

    def again(self) -> None:
        """Calls it with the same arguments, and copies new results to the tensors of the captured call."""
        args, kwargs = self.arguments
        args = rounded_as_tf32(args) if self.tf32 else args
        with torch.set_grad_enabled(self.in_grad_mode):
            results = self.operator(*args, **kwargs)
        for result, new in zip(self.results, leaves(results), strict=True):
            # A view needs no copy, nor does what was written in place.
            if result is not None and new is not None and _start(new) != _start(result):
                with torch.no_grad():
                    result.copy_(new)


class CallLog:
    """The calls of one capture.

    Args:
        generators: Those that may be drawn from, beside torch's default one.

    Attributes:
        own: Memory that the calls have allocated, by the id of its storage.
        foreign: Memory that was allocated before the capture, by the id of its storage.
    """

    def __init__(self, generators: Iterable[torch.Generator] = ()) -> None:
        self.calls: list[Call] = []
        self.own: dict[int, torch.Tensor] = {}
        self.foreign: dict[int, Address] = {}
        self._held: list[Any] = []  # so that no id is used twice during the capture
        self._generators = {_identity(each) for each in (*generators, torch.default_generator)}

    def check_generators(self, operator: Any, arguments: Any) -> None:
        """Refuses draws from generators that were not registered."""
        for leaf in leaves(arguments):
            if isinstance(leaf, RealGenerator) and _identity(leaf) not in self._generators:
                raise RuntimeError(f"{operator} draws from a generator that was not registered")

    def arguments(self, tree: Any) -> Any:
        """What a call has to remember of its arguments, taken before it is made."""
        return with_tensors(self._remembered, tree)

    def add(self, operator: Any, arguments: Any, results: Any, tf32: bool = False) -> None:
        """Adds a call that was made with these remembered arguments."""
        for each in tensors(results):
            if id(storage(each)) not in self.foreign:
                self.own.setdefault(id(storage(each)), each.detach())
        kept = [each.detach() if isinstance(each, torch.Tensor) else None for each in leaves(results)]
        # What was written in place is foreign, and its alias must not keep it alive.
        kept = [None if each is not None and id(storage(each)) in self.foreign else each for each in kept]
        self.calls.append(Call(operator, arguments, torch.is_grad_enabled(), tf32, kept))

    def close(self) -> None:
        """Ends the capture: from now on, foreign memory can be freed, and own memory holds garbage."""
        self._held.clear()
        self.spoil()

    def freed(self) -> Iterator[Address]:
        """Foreign memory that was freed since the capture."""
        return (each for each in self.foreign.values() if each.owner() is None)

    def replay(self) -> None:
        """Makes all calls again; only what they have written to foreign memory can be read afterwards."""
        for call in self.calls:
            call.again()
        self.spoil()

    def spoil(self) -> None:
        """Fills the graph's own memory with garbage, because another graph may use it between two replays."""
        with torch.no_grad():
            for each in self.own.values():
                each.fill_(torch.nan if each.is_floating_point() else 0)

    def _remembered(self, tensor: torch.Tensor) -> torch.Tensor:
        if label(tensor) == HOST:  # a number on the host is frozen
            return tensor.detach().clone()
        key = id(storage(tensor))
        if key in self.own:
            return tensor.detach()
        if key not in self.foreign:
            self.foreign[key] = Address(tensor)
            self._held.append(storage(tensor))
        return self.foreign[key].seen_as(tensor)


def _identity(generator: torch.Generator) -> int:
    return generator._cdata  # operators get another Python object for the same generator


def _start(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
