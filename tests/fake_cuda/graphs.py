"""torch.cuda.CUDAGraph: a capture executes nothing, and a replay repeats its operators on the same addresses."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from tests.fake_cuda import operators
from tests.fake_cuda.call_log import CallLog, RealGenerator
from tests.fake_cuda.machine import Machine, Stream, Use
from tests.fake_cuda.placement import HOST, storage


class Pool:
    """The memory that some graphs share; one pool's graphs must not overlap."""

    def __init__(self, machine: Machine) -> None:
        self.use = Use(machine, "the memory that graphs share")
        self.graphs: weakref.WeakSet[Graph] = weakref.WeakSet()
        self._memory: list[weakref.ref[Any]] = []  # storages that the graphs have allocated

    @property
    def is_dead(self) -> bool:
        """Whether its graphs are gone, and some of their memory is not."""
        return not self.graphs and any(memory() is not None for memory in self._memory)

    def add(self, graph: Graph, memory: Iterable[torch.Tensor]) -> None:
        self.graphs.add(graph)
        self._memory += [weakref.ref(storage(each)) for each in memory]


class Graph:
    """A CUDA graph of the simulated machine."""

    def __init__(self, machine: Machine) -> None:
        self.is_broken = False  # an error has occurred during its capture
        self.stream: Stream | None = None
        self._machine = machine
        self._generators: list[torch.Generator] = []
        self._log = CallLog()
        self._uses_workspace = False
        self._before: dict[int, tuple[Any, Any]] = {}  # storages that the capture writes, and copies of them
        self._written: set[int] = set()  # ids of storages

    def register_generator_state(self, generator: torch.Generator) -> None:
        self._generators.append(generator)

    @contextlib.contextmanager
    def capturing(self, pool: Any, stream: Stream) -> Iterator[None]:
        """Logs what is called inside, and undoes it.

        Args:
            pool: Handle of the pool.
            stream: The stream that is captured.
        """
        machine = self._machine
        self._pool = machine.pools.setdefault(pool, Pool(machine))
        if self._pool.is_dead:
            raise RuntimeError("use_count > 0 INTERNAL ASSERT FAILED: memory of a pool's destroyed graphs is alive")
        self.stream, self._log = stream, CallLog(self._generators)
        drawn = [(each, RealGenerator.get_state(each)) for each in (*self._generators, torch.default_generator)]
        machine.capture = self
        try:
            yield
        finally:
            machine.capture = None
            with machine.paused(), torch.no_grad():
                for memory, copy in self._before.values():
                    memory.copy_(copy)
                for generator, state in drawn:
                    RealGenerator.set_state(generator, state)
                self._before.clear()
                self._log.close()
            if self.is_broken:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        self._pool.add(self, self._log.own.values())
        machine.captures += 1

    def run(self, operator: Any, args: Any, kwargs: Any, *, tf32: bool) -> Any:
        """Calls an operator in the capture: it computes, for shapes, and what it writes is put back at the end."""
        try:
            self._log.check_generators(operator, (args, kwargs))
        except RuntimeError:
            self.is_broken = True
            raise
        for each in operators.written(operator, args, kwargs):
            key = id(storage(each))
            if key not in self._log.own and key not in self._before:
                self._before[key] = storage(each), storage(each).clone()
            self._written.add(key)
        remembered = self._log.arguments((args, kwargs))
        results = operator(*args, **kwargs)
        self._log.add(operator, remembered, results, tf32)
        self._uses_workspace |= operator.overloadpacket in operators.PRODUCTS
        return results

    def replay(self) -> None:
        machine = self._machine
        assert self.stream is not None
        if machine.capture is not None:
            raise RuntimeError("a replay inside a capture")
        for address in self._log.freed():
            machine.report(f"a graph uses memory that was freed: {address.name}")
            raise RuntimeError("a graph uses memory that was freed")
        moment = machine.launch(self.stream.device)
        for key, address in self._log.foreign.items():
            if address.device != HOST:
                machine.used(machine.use_of(address.owner(), address.name), moment, writes=key in self._written)
        machine.used(self._pool.use, moment, writes=True)
        if self._uses_workspace:
            machine.used(machine.workspace(self.stream), moment, writes=True)
        with machine.paused():
            self._log.replay()
        machine.replays += 1
