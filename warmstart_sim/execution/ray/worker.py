"""A worker on a machine of a Ray cluster: what it finds there, the tasks it is given, the files it gives back.

`Cluster.worker` makes an actor of `RayWorker`. Tasks come in and messages go out by way of two queues, so that
the methods that Ray calls never wait for the training, which has a thread of its own.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import queue
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from warmstart_sim import preemption
from warmstart_sim.datasets.paths import data_root as find_data_root
from warmstart_sim.errors import WarmstartError
from warmstart_sim.execution.pickling import unpickled
from warmstart_sim.execution.progress import ProgressEvent
from warmstart_sim.execution.ray.files import Files, read_files, write_files
from warmstart_sim.execution.scheduler_proxy import SchedulerProxy
from warmstart_sim.execution.tasks import Task
from warmstart_sim.results.environment import device_name
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario import Cell

if TYPE_CHECKING:
    from warmstart_sim.experiment.settings import Batching, ExecutionSettings

Storage = Literal["auto", "shared", "returned"]
Message = tuple[str, str | None, Any]

# What has to be the same everywhere, or a cell's numbers would depend on where it ran.
PACKAGES = ("warmstart-sim", "torch", "torchvision", "numpy")
HEAR_SECONDS = 20.0  # a worker that has nothing to say answers after this long
# A file that another machine has just made in a network folder may take a moment to be seen.
SIGHT_SECONDS, SIGHT_PAUSE = 3.0, 0.1


@dataclass(frozen=True)
class Setup:
    """What a worker has to know of the run.

    Attributes:
        run: The run's folder on the driver's machine, absolute.
        probe: The name of a file in it, for a worker to see whether it has the same folder.
        storage: Whether results go into that folder, or back to the driver; "auto" looks for the probe.
        data_root: The driver's folder of data sets; where it does not exist, the worker's own is taken.
        device: What workers train on.
        paths: Where the driver finds modules.
    """

    run: Path
    probe: str
    storage: Storage
    data_root: Path
    device: str
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class WorkerInfo:
    """What a worker finds on its machine.

    Attributes:
        host: The machine's name.
        kind: Equal for machines that are equally fast.
        versions: Of the packages that decide numbers.
        shared: Whether it writes into the driver's folder.
    """

    host: str
    kind: str
    versions: Mapping[str, str]
    shared: bool


def kind_of_machine(device: str) -> str:
    """The processor, the number of cores, and on one with a GPU, where that is the device, what it is."""
    gpu = f", {device_name(device)}" if device != "cpu" else ""
    return f"{platform.machine()}, {os.cpu_count()} x {device_name('cpu')}{gpu}"


def versions() -> dict[str, str]:
    """Of the packages that decide numbers, as they are installed here."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    return found


class RayWorker:
    """One worker. Its driver calls `hear` again and again; the first message is ("ready", None, Sight).

    The other messages are ("event", task, (ProgressEvent, files or None)), ("fatal", None, error),
    ("broken", None, reason), and at the end of everything ("stopped", None, files of what is checkpointed).

    Args:
        setup: What to know of the run.
    """

    def __init__(self, setup: Setup) -> None:
        sys.path.extend(path for path in setup.paths if path not in sys.path and os.path.isdir(path))
        self._mail = _Mail(self._unpickled, self._collected)
        self._objects: dict[str, Any] = {}
        self._unpack: Callable[[str], Any] = self._objects.__getitem__
        self._digests: dict[str, str] = {}
        self._folder: Path | None = None
        shared = setup.storage != "returned" and _sees(setup)
        if not shared:
            self._folder = Path(tempfile.mkdtemp(prefix="warmstart-sim-"))
        self._run = RunFolder(self._folder or setup.run)
        self._data_root = setup.data_root if setup.data_root.is_dir() else find_data_root()
        self._mail.outbox.put(
            ("ready", None, WorkerInfo(platform.node(), kind_of_machine(setup.device), versions(), shared))
        )

    def hear(self, seconds: float) -> list[Message]:
        """All messages since the last call; waits for one, but not for ever."""
        messages = []
        try:
            messages.append(self._mail.outbox.get(timeout=seconds))
            while True:
                messages.append(self._mail.outbox.get_nowait())
        except queue.Empty:
            return messages

    def start(self, execution: ExecutionSettings, digests: Mapping[str, str]) -> None:
        """Begins to take tasks.

        Args:
            execution: Where and how they run, on the driver's machine.
            digests: Of the content of the driver's data sets, by their settings.
        """
        self._digests.update(digests)
        execution = replace(execution, data_root=self._data_root)
        threading.Thread(target=self._work, args=(execution,), daemon=True).start()

    def give(self, parcel: bytes, objects: Mapping[str, Any], files: Sequence[Any]) -> None:
        """Takes a task.

        Args:
            parcel: The packed task.
            objects: References to the large objects in it.
            files: What the run's folder holds for it: references to `Files`, or such themselves.
        """
        import ray

        if self._folder is not None:
            for each in files:
                write_files(self._run, each if isinstance(each, dict) else ray.get(each))
        for key, reference in objects.items():
            if key not in self._objects:
                self._objects[key] = ray.get(reference)
        self._mail.inbox.put(parcel)

    def measure(
        self,
        parcel: bytes,
        objects: Mapping[str, Any],
        execution: ExecutionSettings,
        record: Mapping[str, Any],
        workers: int,
        slots: int | Literal["auto"],
        batching: Batching | Literal["auto"],
    ) -> tuple[ExecutionSettings, dict[str, Any]]:
        """`arrange.arranged` on this machine: the place, and what speed.json is to hold."""
        import ray

        from warmstart_sim.execution.autotune import choose_parallelism

        self._objects.update((key, ray.get(reference)) for key, reference in objects.items())
        cells: list[Cell] = unpickled(parcel, self._unpack)
        here = replace(execution, data_root=self._data_root)
        with tempfile.TemporaryDirectory(prefix="warmstart-sim-") as folder:
            run = RunFolder(Path(folder))
            run.save_speed(record)
            found = choose_parallelism(here, cells, run, workers=workers, slots=slots, batching=batching)
            return replace(found, data_root=execution.data_root), run.speed()

    def stop(self) -> None:
        """Asks for everything to be checkpointed at the next borders of epochs."""
        preemption.request()
        self._mail.inbox.put(None)

    def close(self) -> None:
        """Removes what it kept on its machine."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _work(self, execution: ExecutionSettings) -> None:
        """The life of the thread that trains."""
        from warmstart_sim.execution.interleaved import run_slots

        send = self._mail.outbox.put
        try:
            run_slots(SchedulerProxy(self._mail), self._run, execution)
        except preemption.Preempted:
            pass
        except WarmstartError as error:
            send(("fatal", None, type(error)(f"{platform.node()}: {error}")))
        except BaseException as error:
            send(("broken", None, f"{type(error).__name__}: {error}".partition("\n")[0]))
        files: Files = {}
        for task in self._mail.taken.values():
            files |= self._collected(task) or {}
        send(("stopped", None, files))

    def _unpickled(self, parcel: bytes) -> Task:
        task: Task = unpickled(parcel, self._unpack)
        self._check_data(task.cell)
        return task

    def _collected(self, task: Task) -> Files | None:
        """The files of a task, which are not needed here any more, or None where the driver has them already."""
        if self._folder is None:
            return None
        files = read_files(self._run, task)
        if not task.first_phase:
            shutil.rmtree(task.folder(self._run).path, ignore_errors=True)
        return files

    def _check_data(self, cell: Cell) -> None:
        """Makes sure that a data set here is the driver's."""
        from warmstart_sim.scenario.splits import load_component

        for key in (f"{cell.data.record()}", f"{cell.data.record()} seed {cell.seed}"):
            if digest := self._digests.get(key):
                if load_component(cell.data, cell.seed, self._data_root).digest() != digest:
                    raise WarmstartError(
                        f"data set {cell.data.name} in {self._data_root} is not the driver's; copy that, or remove it"
                    )
                del self._digests[key]  # once is enough


@dataclass
class _Mail:
    """The channel between the thread that trains and the methods that Ray calls.

    Args:
        unpack: Makes a task of what came in.
        collect: The files that go back with a task that has ended.
    """

    unpack: Callable[[bytes], Task]
    collect: Callable[[Task], Files | None]
    inbox: queue.SimpleQueue[bytes | None] = field(default_factory=queue.SimpleQueue)
    outbox: queue.SimpleQueue[Message] = field(default_factory=queue.SimpleQueue)
    taken: dict[str, Task] = field(default_factory=dict)

    def poll(self) -> bool:
        return not self.inbox.empty()

    def recv(self) -> Task:
        parcel = self.inbox.get()
        if parcel is None:
            raise EOFError
        task = self.unpack(parcel)
        self.taken[task.id] = task
        return task

    def send(self, event: ProgressEvent, /) -> None:
        files = self.collect(self.taken.pop(event.task_id)) if event.kind == "finished" else None
        self.outbox.put(("event", event.task_id, (event, files)))


def _sees(setup: Setup) -> bool:
    """Whether the run's folder here is the driver's."""
    if not setup.run.is_dir():
        return False
    until = time.monotonic() + SIGHT_SECONDS
    while not (setup.run / setup.probe).exists():
        if time.monotonic() > until:
            return False
        time.sleep(SIGHT_PAUSE)
    return os.access(setup.run, os.W_OK)
