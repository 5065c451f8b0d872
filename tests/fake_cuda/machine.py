"""The simulated machine: devices, the order of their streams, who uses which memory, and what went wrong."""

from __future__ import annotations

import collections
import contextlib
import itertools
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from tests.fake_cuda.placement import storage

if TYPE_CHECKING:
    from tests.fake_cuda.graphs import Graph

STREAMS = 32  # of a device's pool, dealt out in turn, as CUDA's
LATENCY = 2  # how often an event answers "not yet"

Moment = tuple["Stream", int]  # a stream, and how many kernels it has launched


class Clock(dict["Stream", int]):
    """How far each stream is known to have come."""

    def include(self, other: Clock) -> None:
        """Moves forward to where `other` is."""
        for stream, count in other.items():
            if self.get(stream, 0) < count:
                self[stream] = count

    def reaches(self, other: Clock) -> bool:
        return all(self.get(stream, 0) >= count for stream, count in other.items())


class Machine:
    """Devices, streams and their clocks, and what was seen.

    A stream's clock says which work of all streams comes before its next kernel; the host's clock, which work the host
    knows to be done. Two uses of one memory are in order if the later one's clock includes the earlier one.

    Attributes:
        reports: What would give wrong numbers on a GPU, with the line of code; it should be empty at the end.
        waits: How often the host waited for the device, by reason and line.
        launches: Kernels that were launched one by one, beside replays.
        captures: The number of captured graphs.
        replays: The number of replays, of all graphs together.
    """

    def __init__(self, devices: int) -> None:
        self.reports: collections.Counter[str] = collections.Counter()
        self.waits: collections.Counter[str] = collections.Counter()
        self.launches = self.captures = self.replays = 0
        self.devices = devices
        self.current_device = 0
        self.default_streams = [Stream(self, index, "default") for index in range(devices)]
        self.current_streams = list(self.default_streams)
        self.capture: Graph | None = None
        self.pools: dict[Any, Any] = {}
        self.is_paused = False
        self.is_over = False
        self._clocks: dict[Stream, Clock] = collections.defaultdict(Clock)
        self._host = Clock()
        self._numbers = [itertools.count() for _ in range(devices)]
        self._workspaces: dict[Stream, Use] = {}
        self._copies: list[tuple[Moment, torch.Tensor, torch.Tensor]] = []  # under way to pinned memory

    # Devices and streams

    def device(self, wanted: Any) -> torch.device:
        """The device with its index: that of `wanted`, or the current one."""
        if wanted is None:
            return torch.device("cuda", self.current_device)
        device = torch.device("cuda", wanted) if isinstance(wanted, int) else torch.device(wanted)
        return torch.device("cuda", self.current_device) if device.type == "cuda" and device.index is None else device

    def index(self, wanted: Any) -> int:
        """The index of `device(wanted)`."""
        index = self.device(wanted).index
        if index >= self.devices:
            raise RuntimeError("CUDA error: invalid device ordinal")
        return index

    def stream(self, device: Any = None) -> Stream:
        """The current stream of a device."""
        return self.current_streams[self.index(device)]

    def new_stream(self, device: Any = None) -> Stream:
        index = self.index(device)
        return Stream(self, index, next(self._numbers[index]) % STREAMS)

    # Order

    def launch(self, device: torch.device) -> Moment:
        """A kernel is queued in the device's current stream."""
        stream = self.stream(device)
        clock = self._clocks[stream]
        clock.include(self._host)
        clock[stream] = clock.get(stream, 0) + 1
        return stream, clock[stream]

    def clock(self, stream: Stream) -> Clock:
        """What an event holds that is recorded in the stream now."""
        clock = Clock(self._host)
        clock.include(self._clocks[stream])
        return clock

    def make_wait(self, stream: Stream, clock: Clock) -> None:
        """What is queued in the stream from now on comes after everything that the clock says."""
        self._clocks[stream].include(clock)

    def is_done(self, clock: Clock) -> bool:
        """Whether the host knows that."""
        return self._host.reaches(clock)

    def reach(self, clock: Clock) -> None:
        """The host has waited for this; copies into pinned memory that are done by then deliver their values."""
        self._host.include(clock)
        for copy in [each for each in self._copies if self._host.get(each[0][0], 0) >= each[0][1]]:
            self._copies.remove(copy)
            _, target, values = copy
            with self.paused(), torch.no_grad():
                target.copy_(values)
            del storage(target).awaits_copy

    def wait(self, what: str, stream: Stream | None = None) -> None:
        """The host waits for a stream, by default the current one; a capture does not survive it."""
        if self.capture is not None:
            self.capture.is_broken = True
            raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({what}, {line()})")
        self.waits[f"{what} [{line()}]"] += 1
        self.reach(self.clock(stream or self.stream()))

    def synchronize(self, device: Any = None) -> None:
        """The host waits for all streams of a device."""
        self.wait("synchronize the device")
        index = self.index(device)
        for stream in [each for each in self._clocks if each.device.index == index]:
            self.reach(self._clocks[stream])

    # Memory

    def use_of(self, memory: Any, name: str) -> Use:
        """Who has used a storage on a device; what is allocated in a capture belongs to the graph."""
        if not hasattr(memory, "use"):
            memory.use = Use(self, name, self.stream(memory.device_label) if self.capture is None else None)
        return memory.use

    def workspace(self, stream: Stream) -> Use:
        """cuBLAS keeps one workspace for each stream, also for graphs that were captured in it."""
        return self._workspaces.setdefault(stream, Use(self, "a workspace of cuBLAS"))

    def used(self, memory: Use, moment: Moment, *, writes: bool) -> None:
        """A kernel at that moment reads or writes the memory."""
        stream, count = moment
        clock = self._clocks[stream]
        for other, then in memory.before(writes):
            if other != stream and clock.get(other, 0) < then:
                how = "written" if writes else "read"
                self.report(f"race: {memory.name} is {how} in {stream}, but {other} may still use it")
        memory.note(stream, count, writes)

    def copy_to_pinned(self, target: torch.Tensor, source: torch.Tensor, moment: Moment) -> None:
        """Queues a copy into pinned memory, which holds garbage until the host knows that the copy is done."""
        with self.paused(), torch.no_grad():
            self._copies.append((moment, target.detach(), source.detach().clone()))
            target.detach().fill_(torch.nan if target.is_floating_point() else -(2**30))
        storage(target).awaits_copy = True

    # What was seen

    def report(self, text: str) -> None:
        if not self.is_over:
            self.reports[f"{text} [{line()}]"] += 1

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, torch's operators are the CPU's: the simulation itself computes."""
        before, self.is_paused = self.is_paused, True
        try:
            yield
        finally:
            self.is_paused = before


class Use:
    """Who has used some memory; it is an attribute of the memory, and is freed with it.

    Attributes:
        name: For reports.
        stream: In which it was allocated, and may be given away as soon as it is freed.
    """

    def __init__(self, machine: Machine, name: str, stream: Stream | None = None) -> None:
        self.name = name
        self.stream = stream
        self._machine = machine
        self._write: Moment | None = None
        self._reads: dict[Stream, int] = {}

    def before(self, writes: bool) -> list[Moment]:
        """Uses that the next one must come after: a write, and if it writes itself also reads."""
        return [*([self._write] if self._write else []), *(self._reads.items() if writes else ())]

    def note(self, stream: Stream, count: int, writes: bool) -> None:
        if writes:
            self._write, self._reads = (stream, count), {}
        else:
            self._reads[stream] = count

    def __del__(self) -> None:
        """The memory is freed: the caching allocator gives it to the next kernels of its own stream at once."""
        if self.stream is None or self._machine.is_over:
            return
        clock = self._machine.clock(self.stream)
        for other, then in self.before(writes=True):
            if other != self.stream and clock.get(other, 0) < then:
                self._machine.report(f"freed in use: {self.name} of {self.stream}, while {other} may still use it")


class Stream:
    """A stream of a device; those with the same number are the same."""

    def __init__(self, machine: Machine, index: int, number: int | str) -> None:
        self.device = torch.device("cuda", index)
        self._machine = machine
        self._key = index, number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"stream {self._key[1]} of {self.device}"

    def wait_stream(self, other: Stream) -> None:
        self._machine.make_wait(self, self._machine.clock(other))

    def wait_event(self, event: Event) -> None:
        self._machine.make_wait(self, event.clock)

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event(self._machine)
        event.record(self)
        return event

    def synchronize(self) -> None:
        self._machine.wait("synchronize a stream", self)

    def is_capturing(self) -> bool:
        capture = self._machine.capture
        return capture is not None and capture.stream == self


class Event:
    """An event: what the host or a stream knows once it has waited for it."""

    def __init__(self, machine: Machine) -> None:
        self.clock = Clock()
        self._machine = machine
        self._asked = 0
        self._recorded = 0.0

    def record(self, stream: Stream | None = None) -> None:
        """In the current stream of the current device, wherever the tensors of interest are."""
        self.clock = self._machine.clock(stream or self._machine.stream())
        self._asked = 0
        self._recorded = time.perf_counter()

    def elapsed_time(self, later: Event) -> float:
        """Milliseconds; both events must have happened."""
        if not (self._machine.is_done(self.clock) and self._machine.is_done(later.clock)):
            raise RuntimeError("CUDA error: device not ready")
        return (later._recorded - self._recorded) * 1000

    def query(self) -> bool:
        """Whether it has happened; at first it has not."""
        if self._machine.capture is not None:
            self._machine.wait("query an event")
        self._asked += 1
        if self._asked > LATENCY:
            self._machine.reach(self.clock)
        return self._machine.is_done(self.clock)

    def synchronize(self) -> None:
        if not self._machine.is_done(self.clock):
            self._machine.waits[f"wait for an event [{line()}]"] += 1
        self._machine.reach(self.clock)


def line() -> str:
    """The line of the package that is being run."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if "/warmstart_sim/" in path and "site-packages" not in path:
            return f"{path.rpartition('/warmstart_sim/')[2]}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"
