"""The driver of a run on Ray: it hands out tasks to workers, hears from them, and replaces those that die."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from warmstart_sim import preemption
from warmstart_sim.errors import RunError, WarmstartError
from warmstart_sim.execution.ray import reasons
from warmstart_sim.execution.ray.cluster import Cluster, Remote
from warmstart_sim.execution.ray.files import Files, write_files
from warmstart_sim.execution.ray.wanted import import_ray
from warmstart_sim.execution.ray.worker import HEAR_SECONDS, Message, WorkerInfo, versions
from warmstart_sim.execution.scheduler import Scheduler, assign_tasks
from warmstart_sim.execution.worker_pool import LOOK_SECONDS
from warmstart_sim.results.store import RunFolder

if TYPE_CHECKING:
    from warmstart_sim.experiment.settings import ExecutionSettings

PATIENCE_SECONDS = 30.0  # without any worker, a user is told after this long what is waited for
MAX_FAILED_STARTS = 3  # workers that died before they were ready, with none alive: something is wrong with all of them


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
        cluster: Whose workers run them.
        scheduler: Its run folder is locked by the caller.
        execution: Where and how cells run.
        workers: How many.
        digests: Of the data sets, by their settings, for workers to compare with theirs.
        say: Tells a user something.

    Raises:
        WarmstartError: Something that no other cell would survive either.
        Preempted: The process got SIGTERM, and what was under way is checkpointed.
    """
    RayExecutor(cluster, scheduler, scheduler.queue.run, execution, workers, digests, say).run_cells()


@dataclass
class RayExecutor:
    """The workers of a run, and what is heard from them."""

    cluster: Cluster
    scheduler: Scheduler
    run: RunFolder
    execution: ExecutionSettings
    size: int
    digests: Mapping[str, str]
    say: Callable[[str], None]
    failed_starts: int = 0
    ready_since: float = field(default_factory=time.monotonic)

    def run_cells(self) -> None:
        """Until nothing is left to do."""
        ray = import_ray()
        while self._assign():
            self._listen(ray)
            if preemption.requested():
                self._stop(ray)

    @property
    def workers(self) -> list[Remote]:
        """Those that were asked for and have not died."""
        return self.cluster.workers

    def _assign(self) -> bool:
        """Hands out tasks to the workers that are ready; whether there is anything to wait for."""
        queue = self.scheduler.queue
        wanted = min(self.size, len(queue.ready) + sum(len(worker.tasks) for worker in self.workers))
        while len(self.workers) < wanted:
            self.cluster.worker(self.run, self.execution)
        ready = [worker for worker in self.workers if worker.sight]
        assign_tasks(self.scheduler, ready, self.execution.slots)
        if not ready and time.monotonic() - self.ready_since > PATIENCE_SECONDS:
            self.say(f"waiting for a free place in the cluster: a worker takes {self.cluster.needs}")
            self.ready_since = float("inf")
        return bool(queue.ready) or any(worker.tasks for worker in self.workers)

    def _listen(self, ray: Any) -> None:
        """Hears whoever says something first, but does not wait for ever."""
        speakers = {worker.heard: worker for worker in self.workers}
        for reference in ray.wait(list(speakers), num_returns=1, timeout=LOOK_SECONDS)[0]:
            worker = speakers[reference]
            try:
                messages = ray.get(reference)
            except ray.exceptions.RayError as error:  # it died, or what it said was lost with its machine
                self.on_worker_death(ray, worker, reasons.why(error))
                continue
            worker.heard = worker.actor.hear.remote(HEAR_SECONDS)
            self.workers.append(self.workers.pop(self.workers.index(worker)))  # the others are listened to first
            for message in messages:
                self._hear(ray, worker, message)

    def _hear(self, ray: Any, worker: Remote, message: Message) -> None:
        kind, task_id, content = message
        if kind == "ready":
            self._welcome(worker, content)
        elif kind == "event" and task_id in worker.tasks:
            event, files = content
            self._store(files)
            if event.kind == "finished":
                del worker.tasks[task_id]
            self.scheduler.report(event)
        elif kind == "fatal":
            raise content
        elif kind == "broken":
            self.on_worker_death(ray, worker, content)
        elif kind == "stopped":
            self._store(content)
            worker.tasks.clear()

    def _welcome(self, worker: Remote, sight: WorkerInfo) -> None:
        """A worker is ready: it begins, if it computes what this machine would."""
        here = versions()
        for name, version in sight.versions.items():
            if version != here[name]:
                raise WarmstartError(
                    f"--ray: {sight.host} has {name} {version}, this machine {here[name]}; install the same versions "
                    "everywhere, or numbers would depend on where a cell runs"
                )
        if self.cluster.wanted.storage == "shared" and not sight.shared:
            raise WarmstartError(
                f"--ray-storage shared: {sight.host} does not see {self.run.path.absolute()}, or may not write there; "
                "choose a folder that all machines share, or --ray-storage returned"
            )
        execution = self.execution if sight.kind in self.cluster.kinds else replace(self.execution, step_times={})
        worker.sight = sight
        worker.actor.start.remote(execution, self.digests)
        self.failed_starts, self.ready_since = 0, float("inf")

    def _store(self, files: Files | None) -> None:
        try:
            write_files(self.run, files or {})
        except OSError as error:
            raise self.run.unusable(error) from error

    def on_worker_death(self, ray: Any, worker: Remote, why: str) -> None:
        """Lets a dead worker's tasks be done by others."""
        with contextlib.suppress(Exception):
            ray.kill(worker.actor)
        self.workers.remove(worker)
        lost, worker.tasks = worker.tasks, {}
        if preemption.requested():
            return
        if worker.sight is None:
            self.failed_starts += 1
            if self.failed_starts >= MAX_FAILED_STARTS and not any(each.sight for each in self.workers):
                raise RunError(f"--ray: no worker can be started: {why}")
        for task in lost.values():
            host = worker.sight.host if worker.sight else "a machine"
            self.scheduler.retry_or_fail(task, f"its Ray worker on {host} died ({why})")

    def _stop(self, ray: Any) -> None:
        """Asks the workers to checkpoint what they do, and waits for that."""
        for worker in self.workers:
            worker.actor.stop.remote()
        while any(worker.tasks for worker in self.workers):
            self._listen(ray)
        raise preemption.Preempted
