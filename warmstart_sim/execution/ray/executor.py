"""The driver of a run on Ray: submits batches of cells as Ray tasks, and brings their results home."""

from __future__ import annotations

import contextlib
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from warmstart_sim import preemption
from warmstart_sim.errors import RunError, WarmstartError
from warmstart_sim.execution.ray import reasons
from warmstart_sim.execution.ray.cluster import Cluster, driver_paths
from warmstart_sim.execution.ray.files import Files, read_files, write_files
from warmstart_sim.execution.ray.options import import_ray
from warmstart_sim.execution.ray.worker import Job, Monitor, WorkerInfo, installed_versions, run_batch
from warmstart_sim.execution.scheduler import Scheduler
from warmstart_sim.execution.tasks import Task

if TYPE_CHECKING:
    from warmstart_sim.experiment.settings import ExecutionSettings

CHECK_SECONDS = 0.5  # how often the driver takes messages and looks whether it was asked to stop
PATIENCE_SECONDS = 30.0  # if no worker has started after this long, a user is told what the run waits for
BATCH_PER_SLOT = 4  # cells in a batch for each slot: a slot that is free takes the next one of its batch


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
        probe, cluster.options.ray_storage, execution, cluster.kinds, installed_versions(), digests, driver_paths(),
        ray.put(tasks),
    )  # fmt: skip
    monitor, task = _start_monitor(ray), cluster.remote(run_batch)
    executor = RayExecutor(cluster, scheduler, workers, execution.slots, say, ray.put(job), monitor, task)
    try:
        executor.run_cells()
    finally:
        probe.unlink(missing_ok=True)
        with contextlib.suppress(Exception):  # the cluster itself may be gone
            for reference in executor.running:
                ray.cancel(reference, force=True)
            ray.kill(monitor)


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
    """Submits batches, at most as many at a time as there are workers, and handles what their workers report.

    Attributes:
        running: The batches that were submitted and have not ended, by the reference to their Ray task.
        has_started: Whether any batch has ever started.
    """

    cluster: Cluster
    scheduler: Scheduler
    workers: int
    slots: int
    say: Callable[[str], None]
    job: Any
    monitor: Any
    task: Any
    running: dict[Any, Batch] = field(default_factory=dict)
    has_started: bool = False
    patience_ends: float = field(default_factory=lambda: time.monotonic() + PATIENCE_SECONDS)

    def run_cells(self) -> None:
        """Runs until no cell is left."""
        while self._submit():
            self._wait(list(self.running))
            if preemption.requested():
                self._stop()
            if not self.has_started and time.monotonic() > self.patience_ends:
                self.say(f"waiting for a free place in the cluster: a worker takes {self.cluster.needs}")
                self.patience_ends = math.inf

    def _submit(self) -> bool:
        """Submits batches while workers are free; returns whether anything is under way."""
        deaths = self.scheduler.deaths
        while self.scheduler.queue.ready and (free := self.workers - len(self.running)) > 0:
            batch = self._next_batch(free)
            # Ray tries a cell again. Of several, one may have killed the worker: `_next_batch` tries each again alone.
            retries = self.scheduler.retries - sum(deaths.get(each, 0) for each in batch) if len(batch) == 1 else 0
            files = import_ray().put(self._files(*batch.values()))
            task = self.task.options(max_retries=retries)
            self.running[task.remote(self.job, self.monitor, list(batch), [files])] = Batch(batch)
        return bool(self.running)

    def _next_batch(self, free: int) -> dict[str, Task]:
        """Takes a worker's share of the cells that are ready; a cell whose worker has died comes alone."""
        ready, deaths = self.scheduler.queue.ready, self.scheduler.deaths
        one_by_one = self.slots == 1 and self.cluster.device == "cpu"  # nothing is gained by more
        most = 1 if one_by_one else min(BATCH_PER_SLOT * self.slots, math.ceil(len(ready) / free))
        batch: dict[str, Task] = {}
        while ready and (not batch or (len(batch) < most and not deaths.keys() & {*batch, ready[0].id})):
            task = self.scheduler.take()
            assert task is not None
            batch[task.id] = task
        return batch

    def _files(self, *tasks: Task) -> Files:
        """Checkpoints of tasks, and the first phases that they start from, for workers that do not see the folder."""
        if self.cluster.options.ray_storage == "shared":
            return {}
        phases = [Task(task.cell.first_phase, first_phase=True) for task in tasks if task.cell.first_phase]
        return read_files(self.scheduler.queue.run, *tasks, *phases)

    def _wait(self, references: Sequence[Any]) -> None:
        """Waits a moment for batches to end, and handles what has happened."""
        ray = import_ray()
        over, _ = ray.wait(references, timeout=CHECK_SECONDS)
        try:
            messages = ray.get(self.monitor.receive.remote(stop=preemption.requested()))
        except ray.exceptions.RayError as error:
            raise RunError(f"--ray: the process that collects results was lost ({reasons.why(error)})") from None
        for task_id, happened, files in messages:
            found = [each for each in self.running.items() if task_id in each[1].tasks]
            if found and isinstance(happened, WorkerInfo):
                self._on_start(*found[0], happened)
            elif found:  # otherwise the cell was given up
                write_files(self.scheduler.queue.run, files)
                if happened.kind == "finished":
                    del found[0][1].tasks[task_id]
                self.scheduler.report(happened)
        for reference in over:
            self._on_end(reference, self.running.pop(reference))

    def _on_start(self, reference: Any, batch: Batch, worker: WorkerInfo) -> None:
        """A batch has started; if it had before, Ray tries its cell again because the worker died."""
        self.has_started = True
        before, batch.worker = batch.worker, worker
        if before is None:
            return
        ray = import_ray()
        alive = any(node["NodeID"] == before.node and node["Alive"] for node in ray.nodes())
        for task in batch.tasks.values():
            self._on_death(task, before, reasons.WORKER_KILLED if alive else reasons.MACHINE_LOST)
        if len(batch.tasks) == 1 and not batch.tasks.keys() & self.scheduler.failures.keys():
            self.scheduler.take()  # the same cell, which Ray has taken
        else:  # Ray itself sets no limit on deaths for lack of memory
            batch.tasks.clear()
            ray.cancel(reference, force=True)

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
                self._on_death(task, batch.worker, reason)

    def _on_death(self, task: Task, worker: WorkerInfo | None, why: str) -> None:
        self.scheduler.retry_or_fail(task, f"its Ray worker on {worker.host if worker else 'a machine'} died ({why})")

    def _stop(self) -> None:
        """Workers have been told to stop: waits for the batches that have started; others will not begin."""
        self._wait(list(self.running))
        while started := [reference for reference, batch in self.running.items() if batch.worker]:
            self._wait(started)
        raise preemption.Preempted
