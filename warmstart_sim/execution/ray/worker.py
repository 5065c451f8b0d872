"""What runs on the machines of a Ray cluster: the task that trains a batch of cells, and the monitor it reports to."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from warmstart_sim import preemption
from warmstart_sim.datasets.paths import data_root as find_data_root
from warmstart_sim.errors import WarmstartError
from warmstart_sim.execution.progress import ProgressEvent
from warmstart_sim.execution.ray.files import Files, read_files, write_files
from warmstart_sim.execution.scheduler_proxy import SchedulerProxy
from warmstart_sim.execution.tasks import Task
from warmstart_sim.results.environment import device_name
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario import Cell

if TYPE_CHECKING:
    from warmstart_sim.execution.autotune import Parallelism
    from warmstart_sim.experiment.settings import ExecutionSettings

# Packages whose versions must be equal everywhere, or a cell's numbers would depend on where it ran.
PACKAGES = ("warmstart-sim", "torch", "torchvision", "numpy")
# A file that another machine has just made in a network folder may take a moment to appear.
PROBE_SECONDS, PROBE_PAUSE = 3.0, 0.1
REPORT_SECONDS = 0.5  # how often a batch sends its messages, and asks whether to stop


@dataclass(frozen=True)
class Job:
    """What a worker needs to know about the run.

    Attributes:
        probe: A file in the driver's run folder, absolute, by which a worker knows that it sees the same folder.
        storage: Whether results go into that folder or back to the driver; "auto" looks for the probe.
        execution: How cells run.
        kinds: The kinds of machines for which the step times in `execution` hold.
        versions: The driver's versions of `PACKAGES`.
        digests: Digests of the driver's data sets, by their settings.
        paths: Where the driver finds modules.
        tasks: Reference to all tasks of the run, by id; loaded once the worker finds those modules.
    """

    probe: Path
    storage: Literal["auto", "shared", "returned"]
    execution: ExecutionSettings
    kinds: tuple[str, ...]
    versions: Mapping[str, str]
    digests: Mapping[str, str]
    paths: tuple[str, ...]
    tasks: Any


class WorkerInfo(NamedTuple):
    """Where a worker runs: the machine's name and Ray's id of it."""

    host: str
    node: str


# A task's id, what happened (a batch that has the task has started on a worker, or an event), and files for the driver.
Message = tuple[str, WorkerInfo | ProgressEvent, Files]


class Monitor:
    """An actor on the driver's machine that keeps the workers' messages for the driver, and tells workers to stop."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._stopping = False

    def send(self, messages: Sequence[Message]) -> bool:
        """Keeps a worker's messages; returns whether it is to stop."""
        self._messages += messages
        return self._stopping

    def receive(self, stop: bool) -> list[Message]:
        """Returns the messages since the last call. With `stop`, workers are told to stop from now on."""
        self._stopping = stop
        messages, self._messages = self._messages, []
        return messages


def run_batch(job: Job, monitor: Any, ids: Sequence[str], files: Sequence[Any]) -> Files:
    """Trains a batch of cells. This is the Ray task.

    Args:
        job: What to know about the run.
        monitor: The monitor's actor handle.
        ids: The ids of the cells or first phases.
        files: One reference to what the run folder holds for them, loaded by a worker that does not see the folder.

    Returns:
        The files of cells that were stopped at a checkpoint, unless they are in the driver's folder.

    Raises:
        WarmstartError: An error that concerns the whole run, such as other versions or other data on this machine.
    """
    import ray

    from warmstart_sim.execution.interleaved import run_slots

    worker = WorkerInfo(platform.node(), ray.get_runtime_context().get_node_id())
    if ray.get(monitor.send.remote([(ids[0], worker, {})])):
        return {}
    check_versions(job.versions)
    execution = on_this_machine(job.execution, job.paths)
    if kind_of_machine(execution.device) not in job.kinds:
        execution = replace(execution, step_times={})
    tasks = _fetch(job.tasks)
    with results_folder(job, files) as run, preemption.sigterm_requests_stop():
        channel = BatchChannel(monitor, [tasks[each] for each in ids], run, job, execution.data_root)
        with contextlib.suppress(preemption.Preempted), channel.reporting():
            try:
                run_slots(SchedulerProxy(channel), run, execution)
            except WarmstartError as error:
                raise type(error)(f"{platform.node()}: {error}") from error
        return channel.files(*channel.taken.values())


@dataclass
class BatchChannel:
    """Gives a batch's tasks to the training one after another, and sends its messages to the monitor.

    Args:
        monitor: The monitor's actor handle.
        waiting: The tasks.
        run: The run folder on this machine.
        job: What to know about the run.
        data_root: This machine's folder of data sets.

    Attributes:
        taken: The tasks that are under way, by id.
    """

    monitor: Any
    waiting: list[Task]
    run: RunFolder
    job: Job
    data_root: Path
    taken: dict[str, Task] = field(default_factory=dict)
    outbox: deque[Message] = field(default_factory=deque)

    def poll(self) -> bool:
        """Whether there is a task left."""
        return bool(self.waiting)

    def recv(self) -> Task:
        """Takes the next task; EOFError if there is none."""
        if not self.waiting:
            raise EOFError
        task = self.waiting.pop(0)
        check_data(task.cell, self.job.digests, self.data_root)
        self.taken[task.id] = task
        return task

    def send(self, event: ProgressEvent, /) -> None:
        """Puts an event into the next report; that of a task's end goes with the files."""
        files = self.files(self.taken.pop(event.task_id)) if event.kind == "finished" else {}
        self.outbox.append((event.task_id, event, files))

    def files(self, *tasks: Task) -> Files:
        """The files of tasks, unless they are in the driver's folder."""
        return {} if self.run.path == self.job.probe.parent else read_files(self.run, *tasks)

    @contextlib.contextmanager
    def reporting(self) -> Iterator[None]:
        """While inside, a thread sends reports, and passes on the order to stop; without a driver the process ends."""
        import ray

        over = threading.Event()

        def report() -> None:
            try:
                last = False
                while not last:
                    last = over.wait(REPORT_SECONDS)
                    messages = [self.outbox.popleft() for _ in range(len(self.outbox))]
                    if ray.get(self.monitor.send.remote(messages)) and not last:
                        preemption.request()
            except Exception:
                os._exit(1)

        thread = threading.Thread(target=report, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def measure_parallelism(
    paths: Sequence[str],
    cells: Sequence[Any],
    execution: ExecutionSettings,
    record: Mapping[str, Any],
    wanted: Parallelism,
) -> tuple[ExecutionSettings, dict[str, Any]]:
    """Runs `autotune.choose_parallelism` on a worker. This is a Ray task.

    Args:
        paths: Where the driver finds modules.
        cells: One reference to the cells, which is loaded once the worker finds those modules.
        execution: As in `choose_parallelism`.
        record: What the run's speed.json holds.
        wanted: As in `choose_parallelism`.

    Returns:
        The settings, and what speed.json is to hold.
    """
    from warmstart_sim.execution.autotune import choose_parallelism

    here = on_this_machine(execution, paths)
    with tempfile.TemporaryDirectory(prefix="warmstart-sim-") as folder:
        run = RunFolder(Path(folder))
        run.save_speed(record)
        chosen = choose_parallelism(here, _fetch(cells[0]), run, wanted)
        return replace(chosen, data_root=execution.data_root), run.speed()


def kind_of_machine(device: str) -> str:
    """The processor, the number of cores and, if that is the device, the GPU: equal for equally fast machines."""
    gpu = f", {device_name(device)}" if device != "cpu" else ""
    return f"{platform.machine()}, {os.cpu_count()} x {device_name('cpu')}{gpu}"


def installed_versions() -> dict[str, str]:
    """The versions of `PACKAGES` on this machine."""
    found = dict.fromkeys(PACKAGES, "none")
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def check_versions(expected: Mapping[str, str]) -> None:
    """Checks that this worker has the driver's versions.

    Raises:
        WarmstartError: It has others.
    """
    for name, version in installed_versions().items():
        if version != expected[name]:
            raise WarmstartError(
                f"--ray: {platform.node()} has {name} {version}, the driver {expected[name]}; install the same "
                "versions everywhere, or numbers would depend on where a cell runs"
            )


_checked: set[tuple[Path, str]] = set()  # data sets that this process has compared


def check_data(cell: Cell, digests: Mapping[str, str], data_root: Path) -> None:
    """Checks that a cell's data set on this machine is the driver's.

    Raises:
        WarmstartError: It is not.
    """
    from warmstart_sim.scenario.splits import load_component

    for key in (f"{cell.data.to_dict()}", f"{cell.data.to_dict()} seed {cell.seed}"):
        if key in digests and (data_root, digests[key]) not in _checked:
            if load_component(cell.data, cell.seed, data_root).digest() != digests[key]:
                raise WarmstartError(
                    f"data set {cell.data.name} in {data_root} is not the driver's; copy that, or remove it"
                )
            _checked.add((data_root, digests[key]))


def on_this_machine(execution: ExecutionSettings, paths: Sequence[str]) -> ExecutionSettings:
    """Adds the driver's module paths to this process's; takes this machine's data folder if there is no such one."""
    sys.path.extend(path for path in paths if path not in sys.path and os.path.isdir(path))
    return execution if execution.data_root.is_dir() else replace(execution, data_root=find_data_root())


@contextlib.contextmanager
def results_folder(job: Job, files: Sequence[Any]) -> Iterator[RunFolder]:
    """The driver's run folder if this machine sees it, otherwise a temporary one that holds the given files.

    Raises:
        WarmstartError: The folder must be shared, and is not.
    """
    import ray

    if job.storage != "returned" and is_visible(job.probe):
        yield RunFolder(job.probe.parent)
        return
    if job.storage == "shared":
        raise WarmstartError(
            f"--ray-storage shared: {platform.node()} does not see {job.probe.parent}, or may not write there; "
            "choose a folder that all machines share, or --ray-storage returned"
        )
    with tempfile.TemporaryDirectory(prefix="warmstart-sim-", ignore_cleanup_errors=True) as folder:
        run = RunFolder(Path(folder))
        write_files(run, ray.get(files[0]))
        yield run


@functools.cache
def is_visible(probe: Path) -> bool:
    """Whether this machine sees the driver's file, and may write beside it."""
    deadline = time.monotonic() + PROBE_SECONDS
    while not probe.exists():
        if not probe.parent.is_dir() or time.monotonic() > deadline:
            return False
        time.sleep(PROBE_PAUSE)
    return os.access(probe.parent, os.W_OK)


@functools.lru_cache(maxsize=1)
def _fetch(reference: Any) -> Any:
    """The object of a reference; loaded once in each process."""
    import ray

    return ray.get(reference)
