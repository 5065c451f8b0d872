"""What runs on the machines of a Ray cluster: the task that trains a batch of cells, and the monitor it reports to."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from warmstart_sim import preemption
from warmstart_sim.datasets.paths import data_root as find_data_root
from warmstart_sim.errors import DeviceLost, WarmstartError
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

# A task's id, what happened (the batch that has the task has started on a host, or an event), and the task's files.
Message = tuple[str, str | ProgressEvent, Files]


class Monitor:
    """An actor on the driver's machine that keeps the workers' messages until the driver takes them."""

    def __init__(self) -> None:
        self._messages: list[Message] = []

    def send(self, message: Message) -> None:
        """Keeps a worker's message."""
        self._messages.append(message)

    def receive(self) -> list[Message]:
        """Returns the messages since the last call."""
        messages, self._messages = self._messages, []
        return messages


@dataclass(frozen=True)
class Job:
    """What a worker needs to know about the run.

    Attributes:
        monitor: The monitor's actor handle.
        tasks: All tasks of the run, by id.
        execution: How cells run.
        probe: A file in the driver's run folder, absolute, by which a worker knows that it sees the same folder.
        storage: Whether results go into that folder or back to the driver; "auto" looks for the probe.
        versions: The driver's versions of `PACKAGES`.
        digests: Digests of the driver's data sets, by their settings. A worker removes those that it has compared.
    """

    monitor: Any
    tasks: Mapping[str, Task]
    execution: ExecutionSettings
    probe: Path
    storage: Literal["auto", "shared", "returned"]
    versions: Mapping[str, str]
    digests: dict[str, str]


def run_batch(job_reference: Sequence[Any], ids: Sequence[str], files: Sequence[Any]) -> Files:
    """Trains a batch of cells. This is the Ray task; `ray.cancel` asks it to stop at a checkpoint.

    Args:
        job_reference: One reference to the job.
        ids: The ids of the cells or first phases.
        files: One reference to what the run folder holds for them, loaded by a worker that does not see the folder.

    Returns:
        The files of cells that were stopped at a checkpoint, unless they are in the driver's folder.

    Raises:
        WarmstartError: An error that concerns the whole run, such as other versions or other data on this machine.
    """
    import ray

    from warmstart_sim.execution.interleaved import run_slots

    job = load_job(job_reference[0])
    ray.get(job.monitor.send.remote((ids[0], platform.node(), {})))  # it arrives even if a cell kills this process
    with results_folder(job, files) as run, preemption.sigterm_requests_stop():
        signal.signal(signal.SIGINT, lambda *_: preemption.request())  # this is how `ray.cancel` reaches the task
        channel = BatchChannel(job, run, [job.tasks[each] for each in ids])
        with contextlib.suppress(preemption.Preempted):
            try:
                run_slots(SchedulerProxy(channel), run, job.execution)
            except DeviceLost as error:  # the death of the process: the scheduler tries its cells alone, in new ones
                print(error, file=sys.stderr, flush=True)
                os._exit(1)
            except WarmstartError as error:
                raise type(error)(f"{platform.node()}: {error}") from error
        return channel.files(*channel.taken.values())


@functools.lru_cache(maxsize=1)
def load_job(reference: Any) -> Job:
    """Loads and checks the job, once in each process."""
    import ray

    job: Job = ray.get(reference)
    check_versions(job.versions)
    return replace(job, execution=on_this_machine(job.execution))


@dataclass
class BatchChannel:
    """Gives a batch's tasks to the training one after another, and sends its messages to the monitor.

    Attributes:
        job: What to know about the run.
        run: The run folder on this machine.
        waiting: The tasks that have not been taken.
        taken: The tasks that are under way, by id.
    """

    job: Job
    run: RunFolder
    waiting: list[Task]
    taken: dict[str, Task] = field(default_factory=dict)

    def poll(self) -> bool:
        """Whether there is a task left."""
        return bool(self.waiting)

    def recv(self) -> Task:
        """Takes the next task; EOFError if there is none."""
        if not self.waiting:
            raise EOFError
        task = self.waiting.pop(0)
        check_data(task.cell, self.job.digests, self.job.execution.data_root)
        self.taken[task.id] = task
        return task

    def send(self, event: ProgressEvent, /) -> None:
        """Sends an event. That of a task's end goes with its files, and is waited for, so that no kill can lose it."""
        import ray

        finished = event.kind == "finished"
        files = self.files(self.taken.pop(event.task_id)) if finished else {}
        sent = self.job.monitor.send.remote((event.task_id, event, files))
        if finished:
            ray.get(sent)

    def files(self, *tasks: Task) -> Files:
        """The files of tasks, unless they are in the driver's folder."""
        return {} if self.run.path == self.job.probe.parent else read_files(self.run, *tasks)


def measure_parallelism(
    execution: ExecutionSettings, cells: Sequence[Cell], record: Mapping[str, Any], wanted: Parallelism
) -> tuple[ExecutionSettings, dict[str, Any]]:
    """Runs `autotune.choose_parallelism` on a worker: a Ray task that takes and returns what speed.json holds."""
    from warmstart_sim.execution.autotune import choose_parallelism

    with tempfile.TemporaryDirectory(prefix="warmstart-sim-") as folder:
        run = RunFolder(Path(folder))
        run.save_speed(record)
        chosen = choose_parallelism(on_this_machine(execution), cells, run, wanted)
        measured_on = {"measured_on": device_name(execution.device)}
        return replace(chosen, data_root=execution.data_root), measured_on | run.speed()


def on_this_machine(execution: ExecutionSettings) -> ExecutionSettings:
    """Takes this machine's data folder if the driver's does not exist here."""
    return execution if execution.data_root.is_dir() else replace(execution, data_root=find_data_root())


def installed_versions() -> dict[str, str]:
    """The versions of `PACKAGES` on this machine."""
    return {each.name: each.version for each in importlib.metadata.distributions() if each.name in PACKAGES}


def check_versions(expected: Mapping[str, str]) -> None:
    """Checks that this worker has the driver's versions.

    Raises:
        WarmstartError: It has others.
    """
    found = installed_versions()
    for name in PACKAGES:
        here, there = found.get(name, "none"), expected.get(name, "none")
        if here != there:
            raise WarmstartError(
                f"--ray: {platform.node()} has {name} {here}, the driver {there}; install the same versions "
                "everywhere, or numbers would depend on where a cell runs"
            )


def check_data(cell: Cell, digests: dict[str, str], data_root: Path) -> None:
    """Checks that a cell's data set on this machine is the driver's, and removes the digest that was compared.

    Raises:
        WarmstartError: It is not.
    """
    from warmstart_sim.scenario.splits import load_component

    for key in (f"{cell.data.to_dict()}", f"{cell.data.to_dict()} seed {cell.seed}"):
        if key in digests and load_component(cell.data, cell.seed, data_root).digest() != digests[key]:
            raise WarmstartError(
                f"data set {cell.data.name} in {data_root} is not the driver's; copy that, or remove it"
            )
        digests.pop(key, None)


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
