"""The driver of a run on Ray: submits batches of cells as Ray tasks, and brings their results home."""

from __future__ import annotations

import contextlib
import math
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from warmstart_sim import preemption
from warmstart_sim.execution.ray import reasons
from warmstart_sim.execution.ray.cluster import Cluster, import_ray
from warmstart_sim.execution.ray.files import Files, read_files, write_files
from warmstart_sim.execution.ray.worker import Job, Monitor, installed_versions, run_batch
from warmstart_sim.execution.scheduler import Scheduler, assign_tasks
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
    """Runs all tasks of a scheduler on a cluster, as `run_slots` does in this process.

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
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray, queue = import_ray(), scheduler.queue
    probe = queue.run.path.absolute() / f".ray-{secrets.token_hex(8)}"
    probe.touch()
    # The monitor is on the driver's machine, so that it is lost only with the driver.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    monitor = ray.remote(Monitor).options(num_cpus=0, scheduling_strategy=here).remote()
    tasks = {task.id: task for tasks in (queue.ready, *queue.waiting.values()) for task in tasks}
    execution = replace(execution, data_root=execution.data_root.absolute())
    job = Job(monitor, tasks, execution, probe, cluster.options.ray_storage, installed_versions(), {**digests})
    one_by_one = execution.slots == 1 and cluster.device == "cpu"  # nothing is gained by more
    batch_size = 1 if one_by_one else BATCH_PER_SLOT * execution.slots
    task = cluster.remote(run_batch)
    executor = RayExecutor(cluster, scheduler, workers, batch_size, say, monitor, ray.put(job), task)
    try:
        executor.run_cells()
    finally:
        probe.unlink(missing_ok=True)
        with contextlib.suppress(Exception):  # the cluster itself may be gone
            for reference in executor.running:
                ray.cancel(reference, force=True)
            ray.kill(monitor)


@dataclass
class Batch:
    """Cells that one Ray task trains.

    Attributes:
        tasks: Those that have not ended, by id.
        host: The machine that it started on last; None while it waits for a place in the cluster.
    """

    tasks: dict[str, Task] = field(default_factory=dict)
    host: str | None = None

    def give(self, task: Task) -> None:
        """Does nothing: the batch is submitted as a whole."""


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
    batch_size: int
    say: Callable[[str], None]
    monitor: Any
    job: Any
    task: Any
    running: dict[Any, Batch] = field(default_factory=dict)
    has_started: bool = False

    def run_cells(self) -> None:
        """Runs until no cell is left."""
        patience_ends = time.monotonic() + PATIENCE_SECONDS
        while self._submit():
            self._wait()
            if preemption.requested():
                self._stop()
            if not self.has_started and time.monotonic() > patience_ends:
                gpus = f" and {self.cluster.gpus:g} of a GPU" if self.cluster.gpus else ""
                self.say(f"waiting for a free place in the cluster: a worker takes 1 CPU{gpus}")
                patience_ends = math.inf

    def _submit(self) -> bool:
        """Submits batches while workers are free; returns whether anything is under way."""
        batches: list[Batch] = []

        def new_batch() -> Batch | None:
            if len(self.running) + len(batches) == self.workers:
                return None
            batches.append(Batch())
            return batches[-1]

        assign_tasks(self.scheduler, [], self.batch_size, new_batch)
        for batch in batches:
            # Ray tries a cell again. Of several, one may have killed the worker: the scheduler tries each again alone.
            deaths = sum(self.scheduler.deaths.get(each, 0) for each in batch.tasks)
            retries = self.scheduler.retries - deaths if len(batch.tasks) == 1 else 0
            files = import_ray().put(self._files(*batch.tasks.values()))
            self.running[self.task.options(max_retries=retries).remote([self.job], list(batch.tasks), [files])] = batch
        return bool(self.running)

    def _files(self, *tasks: Task) -> Files:
        """Checkpoints of tasks, and the first phases that they start from, for workers that do not see the folder."""
        if self.cluster.options.ray_storage == "shared":
            return {}
        phases = [Task(task.cell.first_phase) for task in tasks if task.cell.first_phase]
        return read_files(self.scheduler.queue.run, *tasks, *phases)

    def _wait(self) -> None:
        """Waits a moment for batches to end, and handles what has happened."""
        ray = import_ray()
        over, _ = ray.wait(list(self.running), timeout=CHECK_SECONDS)
        try:
            messages = ray.get(self.monitor.receive.remote())
        except ray.exceptions.RayError as error:
            raise reasons.run_error(error, "the process that collects results was lost") from None
        for task_id, happened, files in messages:
            found = [each for each in self.running.items() if task_id in each[1].tasks]
            if found and isinstance(happened, str):
                self._on_start(*found[0], host=happened)
            elif found:  # otherwise the cell was given up
                write_files(self.scheduler.queue.run, files)
                if happened.kind == "finished":
                    del found[0][1].tasks[task_id]
                self.scheduler.report(happened)
        for reference in over:
            self._on_end(reference, self.running.pop(reference))

    def _on_start(self, reference: Any, batch: Batch, host: str) -> None:
        """Notes where a batch has started; if it had before, its worker was lost, and Ray tries its cell again."""
        self.has_started = True
        if batch.host is not None:
            self._on_death(batch, "it was killed or its machine was lost")
            if batch.tasks.keys() & self.scheduler.failures.keys():  # Ray tries without limit if memory runs out
                batch.tasks.clear()
                import_ray().cancel(reference, force=True)
            else:
                self.scheduler.take()  # the same cell, which Ray has taken
        batch.host = host

    def _on_end(self, reference: Any, batch: Batch) -> None:
        """A Ray task has ended: stores checkpoints of cells that were stopped, and handles a death."""
        ray = import_ray()
        try:
            write_files(self.scheduler.queue.run, ray.get(reference))
            reason = "it was asked to stop"
        except ray.exceptions.RayError as error:
            if reasons.concerns_run(error) or not (self.has_started or preemption.requested()):
                raise reasons.run_error(error, "no worker can be started") from None
            reason = reasons.why(error)
        if not preemption.requested():
            self._on_death(batch, reason)

    def _on_death(self, batch: Batch, why: str) -> None:
        for task in batch.tasks.values():
            self.scheduler.retry_or_fail(task, f"its Ray worker on {batch.host or 'a machine'} died ({why})")

    def _stop(self) -> None:
        """Asks workers to stop at a checkpoint, and waits until they have; a batch without a worker ends at once."""
        for reference in self.running:
            import_ray().cancel(reference, recursive=False)  # the sending of messages is a task too
        while self.running:
            self._wait()
        raise preemption.Preempted
