"""Task queue shared by all executors: assignment, failures, retries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from warmstart_sim.execution.progress import ProgressEvent, ProgressListener
from warmstart_sim.execution.tasks import Task, TaskQueue

RETRIES = 2  # of a task whose worker died


@dataclass
class Scheduler:
    """Hands out tasks, records failures, and passes progress events on.

    Attributes:
        queue: The tasks to run.
        listeners: Called with every progress event.
        retries: How often a task is tried again after its worker died. A task that raised an exception is not.
        failures: The reason for every failed task, by its id.
        deaths: How often a task's worker died, by the task's id.
    """

    queue: TaskQueue
    listeners: Sequence[ProgressListener] = ()
    retries: int = RETRIES
    failures: dict[str, str] = field(default_factory=dict)
    deaths: dict[str, int] = field(default_factory=dict)

    def take(self, idle: bool = False) -> Task | None:
        """The next task that can run now."""
        if task := self.queue.take():
            self.report(task.event("started"))
        return task

    def report(self, event: ProgressEvent) -> None:
        """Passes an event on; after a task has finished, the tasks that wait for it become ready, or fail with it."""
        for listener in self.listeners:
            listener(event)
        if event.kind != "finished":
            return
        waiting = self.queue.pop_waiting(event.task_id)
        if event.error is None:
            self.queue.put_first(*waiting)  # so that the arms of a seed finish close together
            return
        self.failures[event.task_id] = event.error
        for task in waiting:
            self.report(task.event("finished", error=f"its first phase failed: {event.error}"))

    def retry_or_fail(self, task: Task, reason: str) -> None:
        """Handles the death of a task's worker: the task goes back into the queue, or fails after too many deaths."""
        count = self.deaths[task.id] = self.deaths.get(task.id, 0) + 1
        folder = task.folder(self.queue.run)
        folder.lose(reason)
        if count <= self.retries:
            self.report(task.event("retried", error=reason))
            self.queue.put_first(task)  # other tasks may be waiting for it
            return
        error = f"{reason}; tried {count} times" if count > 1 else reason
        folder.fail(error)
        self.report(task.event("finished", error=error))


class Worker(Protocol):
    """A worker process, as the main process sees it."""

    @property
    def tasks(self) -> dict[str, Task]:
        """The tasks that it was given and has not finished."""
        ...

    def give(self, task: Task) -> None:
        """Sends it a task."""


def assign_tasks(
    scheduler: Scheduler, workers: Sequence[Worker], slots: int, start: Callable[[], Worker | None] = lambda: None
) -> None:
    """Gives tasks to the least busy workers until no task or no free slot is left.

    A task whose worker has died runs alone on its worker: if it caused the death, no other task dies with it; if it did
    not, no other task can take it down again.

    Args:
        scheduler: Hands out the tasks.
        workers: The running workers.
        slots: The number of tasks that each worker runs at a time.
        start: Starts one more worker, or returns None.
    """

    def has_room(worker: Worker, alone: bool) -> bool:
        return len(worker.tasks) < (1 if alone or scheduler.deaths.keys() & worker.tasks.keys() else slots)

    workers = list(workers)
    while scheduler.queue.ready:
        alone = scheduler.queue.ready[0].id in scheduler.deaths
        worker = min(workers, key=lambda worker: len(worker.tasks), default=None)
        if (worker is None or worker.tasks) and (new := start()):
            workers.append(worker := new)
        if worker is None or not has_room(worker, alone):
            return
        task = scheduler.take()
        assert task is not None
        worker.tasks[task.id] = task
        worker.give(task)
