"""What the simulation puts in the place of torch.cuda, and the few other things of torch that know of devices."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch

from tests.fake_cuda.call_log import RealGenerator
from tests.fake_cuda.graphs import Graph
from tests.fake_cuda.machine import Event, Machine, Stream
from tests.fake_cuda.modes import Functions, Operators
from tests.fake_cuda.placement import label

RealAutocast = torch.autocast


@contextlib.contextmanager
def fake_cuda(devices: int = 1) -> Iterator[Machine]:
    """Inside, there are CUDA devices; torch's precision flags are as before afterwards."""
    machine = Machine(devices)
    with contextlib.ExitStack() as stack:
        stack.callback(setattr, machine, "is_over", True)
        stack.enter_context(_flags_restored())
        for name, value in _torch_cuda(machine).items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        for owner, name, value in _elsewhere(machine):
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(Functions(machine))
        stack.enter_context(Operators(machine))
        yield machine


def _torch_cuda(machine: Machine) -> dict[str, Any]:
    """The members of torch.cuda, by name."""

    @contextlib.contextmanager
    def stream_context(stream: Stream | None) -> Iterator[None]:
        if stream is None:
            yield
            return
        index = stream.device.index
        before = machine.current_device, machine.current_streams[index]
        machine.current_device, machine.current_streams[index] = index, stream
        try:
            yield
        finally:
            machine.current_device, machine.current_streams[index] = before

    class Device(contextlib.ContextDecorator):
        """torch.cuda.device"""

        def __init__(self, device: Any) -> None:
            self.idx = machine.index(device)

        def __enter__(self) -> None:
            self._before, machine.current_device = machine.current_device, self.idx

        def __exit__(self, *error: Any) -> None:
            machine.current_device = self._before

    @contextlib.contextmanager
    def graph(
        graph: Graph, pool: Any = None, stream: Stream | None = None, capture_error_mode: str = "global"
    ) -> Iterator[None]:
        machine.synchronize()
        pool = object() if pool is None else pool
        with stream_context(stream or machine.new_stream()), graph.capturing(pool, machine.stream()):
            yield

    def set_rng_state(state: torch.Tensor, device: Any = "cuda") -> None:
        if machine.capture is not None:
            machine.wait("set_rng_state")
        torch.default_generator.set_state(state)

    def set_device(device: Any) -> None:
        machine.current_device = machine.index(device)

    handles = itertools.count()
    memory = 2**36
    return {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: machine.devices,
        "get_device_name": lambda device=None: "a simulated GPU",
        "current_device": lambda: machine.current_device,
        "set_device": set_device,
        "device": Device,
        "synchronize": machine.synchronize,
        "Stream": lambda device=None, priority=0: machine.new_stream(device),
        "stream": stream_context,
        "current_stream": machine.stream,
        "default_stream": lambda device=None: machine.default_streams[machine.index(device)],
        "Event": lambda **options: Event(machine),
        "CUDAGraph": lambda: Graph(machine),
        "graph": graph,
        "graph_pool_handle": lambda: next(handles),
        # One generator stands for all devices' and for the CPU's, so that a run draws what it does on the CPU.
        "manual_seed": lambda seed: torch.default_generator.manual_seed(seed),
        "get_rng_state": lambda device="cuda": torch.default_generator.get_state(),
        "set_rng_state": set_rng_state,
        "empty_cache": lambda: None,
        "mem_get_info": lambda device=None: (memory, memory),
        "memory_allocated": lambda device=None: 0,
        "memory_reserved": lambda device=None: 0,
        "max_memory_allocated": lambda device=None: 0,
        "reset_peak_memory_stats": lambda device=None: None,
    }


def _elsewhere(machine: Machine) -> list[tuple[Any, str, Any]]:
    """(owner, name, value) of what else is replaced."""

    class Generator(RealGenerator):
        """A generator of the CPU that says it is on a device."""

        def __new__(cls, device: Any = "cpu") -> Generator:
            made = super().__new__(cls)
            made._said = machine.device(device)
            return made

        @property
        def device(self) -> torch.device:
            return self._said

        def manual_seed(self, seed: int) -> Generator:
            self._check()
            return super().manual_seed(seed)

        def set_state(self, state: torch.Tensor) -> Generator:
            self._check()
            return super().set_state(state)

        def _check(self) -> None:
            if self._said.type == "cuda" and machine.capture is not None:
                machine.wait("the state of a generator")

    class Autocast(RealAutocast):
        """Autocast of the CPU, whatever the device."""

        def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
            super().__init__("cpu", *args, **kwargs)

    grouped = torch.optim.Optimizer._group_tensors_by_device_and_dtype  # in C++, which sees no labels

    def grouped_by_label(lists: Any, with_indices: bool = False) -> Any:
        found = grouped(lists, with_indices)
        return {(label(value[0][0][0]) or key[0], key[1]): value for key, value in found.items()}

    return [
        (torch, "Generator", Generator),
        (torch, "autocast", Autocast),
        (torch.accelerator, "current_stream", machine.stream),
        (torch.optim.Optimizer, "_group_tensors_by_device_and_dtype", staticmethod(grouped_by_label)),
        (torch.backends.cudnn, "is_acceptable", lambda tensor: False),
    ]


@contextlib.contextmanager
def _flags_restored() -> Iterator[None]:
    backends: Any = torch.backends
    libraries = backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn
    precisions = [each.fp32_precision for each in libraries]
    benchmark, deterministic = backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        backends.cudnn.benchmark = benchmark
        torch.use_deterministic_algorithms(deterministic)
        for library, precision in zip(libraries, precisions, strict=True):
            library.fp32_precision = precision
