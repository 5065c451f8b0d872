"""The driver of a run on Ray: submits batches of cells as Ray tasks, and brings their results home."""

from __future__ import annotations

import contextlib
import math
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from warmstart_sim import preemption
from warmstart_sim.errors import RunError, WarmstartError
from warmstart_sim.execution.ray import reasons
from warmstart_sim.execution.ray.cluster import Cluster, driver_paths
from warmstart_sim.execution.ray.files import read_files, write_files
from warmstart_sim.execution.ray.options import import_ray
from warmstart_sim.execution.ray.worker import Job, Monitor, WorkerInfo, installed_versions, run_batch
from warmstart_sim.execution.scheduler import Scheduler
from warmstart_sim.execution.tasks import Task

if TYPE_CHECKING:
    from warmstart_sim.experiment.settings import ExecutionSettings

CHECK_SECONDS = 0.5  # how often the driver takes messages and looks whether it was asked to stop
PATIENCE_SECONDS = 30.0  # if no worker has started after this long, a user is told what the run waits for
MOST_PER_SLOT = 4  # cells that a batch has for each slot: a slot that is free takes the next one


def run_cells(
    cluster: Cluster,
    scheduler: Scheduler,
    execution: ExecutionSettings,
    workers: int,
    digests: Mapping[str, str],
    say: Callable[[str], None],
) -> None:
    """Runs all tasks of a scheduler on a cluster, as `run_local` does on this machine.

    Args:
        cluster: The cluster.
        scheduler: Its run folder is locked by the caller.
        execution: How cells run.
        workers: How many batches of cells run at a time.
        digests: Digests of the data sets by their settings, which workers compare with theirs.
        say: Tells a user something.

    Raises:
        WarmstartError: An error that concerns the whole run.
        Preempted: The process got SIGTERM, and all running cells are checkpointed.
    """
    ray = import_ray()
    queue = scheduler.queue
    probe = queue.run.path.absolute() / f".ray-{secrets.token_hex(8)}"
    probe.touch()
    tasks = {task.id: task for tasks in (queue.ready, *queue.waiting.values()) for task in tasks}
    execution = replace(execution, data_root=execution.data_root.absolute())
    job = Job(
        probe, cluster.options.storage, execution, cluster.kinds, installed_versions(), digests, driver_paths(),
        ray.put(tasks),
    )  # fmt: skip
    executor = RayExecutor(cluster, scheduler, workers, execution.slots, say, ray.put(job), _start_monitor(ray))
    try:
        executor.run_cells()
    finally:
        probe.unlink(missing_ok=True)
        with contextlib.suppress(Exception):  # the cluster itself may be gone
            for reference in executor.running:
                ray.cancel(reference, force=True)
            ray.kill(executor.monitor)


def _start_monitor(ray: Any) -> Any:
    """Starts the monitor on the driver's machine, so that it is lost only with the driver."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Monitor).options(num_cpus=0, scheduling_strategy=here).remote()


@dataclass
class Batch:
    """Cells that one Ray task trains.

    Attributes:
        tasks: Those that have not ended, by id.
        worker: Where it started last; None while it waits for a place in the cluster.
    """

    tasks: dict[str, Task]
    worker: WorkerInfo | None = None


@dataclass
class RayExecutor:
    """The batches that are under way, by the reference to their Ray task."""

    cluster: Cluster
    scheduler: Scheduler
    workers: int
    slots: int
    say: Callable[[str], None]
    job: Any
    monitor: Any
    running: dict[Any, Batch] = field(default_factory=dict)
    phase_files: dict[str, Any] = field(default_factory=dict)
    has_started: bool = False
    patience_ends: float = field(default_factory=lambda: time.monotonic() + PATIENCE_SECONDS)

    def run_cells(self) -> None:
        """Runs until no cell is left."""
        while self._submit():
            self._wait(self.running)
            if preemption.requested():
                self._stop()
            if not self.has_started and time.monotonic() > self.patience_ends:
                self.say(f"waiting for a free place in the cluster: a worker takes {self.cluster.needs}")
                self.patience_ends = math.inf

    def _submit(self) -> bool:
        """Submits batches while workers are free; returns whether anything is under way."""
        while self.scheduler.queue.ready and len(self.running) < self.workers:
            tasks = self._next_batch()
            # Ray tries a cell again whose worker died. Of several cells, each is tried again alone, because one of them
            # may be at fault.
            retries = self.scheduler.retries - self.scheduler.deaths.get(tasks[0].id, 0) if len(tasks) == 1 else 0
            files = [file for task in tasks for file in self._files(task)]
            remote = self.cluster.remote(run_batch, max_retries=retries)
            reference = remote.remote(self.job, self.monitor, [task.id for task in tasks], files)
            self.running[reference] = Batch({task.id: task for task in tasks})
        return bool(self.running)

    def _next_batch(self) -> list[Task]:
        """Takes cells for a worker: one, or several for slots or for a process that starts anew for each batch.

        As many as fill the slots of all free workers evenly; more while many are left, so that slots stay filled.
        """
        ready, deaths = self.scheduler.queue.ready, self.scheduler.deaths
        free = self.workers - len(self.running)
        most = 1 if self.slots == 1 and self.cluster.device == "cpu" else MOST_PER_SLOT * self.slots
        size = min(most, max(math.ceil(len(ready) / self.workers), min(self.slots, math.ceil(len(ready) / free))))
        batch: list[Task] = []
        while ready and len(batch) < size:
            if ready[0].id in deaths and batch:
                break
            task = self.scheduler.take()
            assert task is not None
            batch.append(task)
            if task.id in deaths:
                break
        return batch

    def _files(self, task: Task) -> Iterable[Any]:
        """References to what the run folder holds for a task, for a worker that does not see the folder."""
        ray = import_ray()
        if self.cluster.options.storage == "shared":
            return
        if files := read_files(self.scheduler.queue.run, task):
            yield ray.put(files)
        if phase := task.cell.first_phase:
            if phase.id not in self.phase_files:  # stored in the cluster once
                self.phase_files[phase.id] = ray.put(
                    read_files(self.scheduler.queue.run, Task(phase, first_phase=True))
                )
            yield self.phase_files[phase.id]

    def _wait(self, references: Iterable[Any]) -> None:
        """Waits a moment for batches to end, and handles what has happened."""
        ray = import_ray()
        over, _ = ray.wait(list(references), timeout=CHECK_SECONDS)
        try:
            messages = ray.get(self.monitor.receive.remote(stop=preemption.requested()))
        except ray.exceptions.RayError as error:
            raise RunError(f"--ray: the process that collects results was lost ({reasons.why(error)})") from None
        for task_id, happened, files in messages:
            batch = next((each for each in self.running.values() if task_id in each.tasks), None)
            if batch is None:  # of a cell that has ended or was given up
                continue
            if isinstance(happened, WorkerInfo):
                self._on_start(batch, happened)
                continue
            write_files(self.scheduler.queue.run, files)
            if happened.kind == "finished":
                del batch.tasks[task_id]
            self.scheduler.report(happened)
        for reference in over:
            self._on_end(reference, self.running.pop(reference))

    def _on_start(self, batch: Batch, worker: WorkerInfo) -> None:
        """A batch has started; if it had before, Ray tries its cell again because the worker died."""
        self.has_started = True
        before, batch.worker = batch.worker, worker
        if before is None:
            return
        alive = before.node in _alive()
        (task,) = batch.tasks.values()
        self._lost(task, before, reasons.WORKER_KILLED if alive else reasons.MACHINE_LOST)
        if task.id in self.scheduler.failures:  # Ray counts no deaths for want of memory
            batch.tasks.clear()
            reference = next(reference for reference, each in self.running.items() if each is batch)
            import_ray().cancel(reference, force=True)
        else:
            again = self.scheduler.take()
            assert again is task

    def _on_end(self, reference: Any, batch: Batch) -> None:
        """A Ray task has ended: stores checkpoints of cells that were stopped, and handles a death."""
        ray = import_ray()
        try:
            write_files(self.scheduler.queue.run, ray.get(reference))
            reason = "it was asked to stop"
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, (WarmstartError, ImportError)):
                raise reasons.cause(error) from None
            reason = reasons.why(error)
        except ray.exceptions.RayError as error:
            reason = reasons.why(error)
            if not self.has_started:
                raise RunError(f"--ray: no worker can be started: {reason}") from None
        if not preemption.requested():
            for task in batch.tasks.values():
                self._lost(task, batch.worker, reason)

    def _lost(self, task: Task, worker: WorkerInfo | None, why: str) -> None:
        self.scheduler.retry_or_fail(task, f"its Ray worker on {worker.host if worker else 'a machine'} died ({why})")

    def _stop(self) -> None:
        """Asks workers to checkpoint, and waits for those that have started; others will not begin."""
        self._wait(self.running)
        while started := [ref for ref, batch in self.running.items() if batch.worker and batch.worker.node in _alive()]:
            self._wait(started)
        raise preemption.Preempted


def _alive() -> set[str]:
    return {node["NodeID"] for node in import_ray().nodes() if node["Alive"]}
