"""What is to be done, by whom, and what becomes of what is lost: the same for every executor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from warmstart_sim.execution.tasks import Task, TaskQueue

if TYPE_CHECKING:
    from warmstart_sim.experiment.run_cell import Progress

RETRIES = 2  # of a task whose worker died


class ProgressListener(Protocol):
    """Is told how the run goes: the progress display, TensorBoard."""

    def started(self, task: Task) -> None:
        """A worker has taken a task."""

    def progress(self, task: Task, progress: Progress) -> None:
        """An epoch has ended (not every epoch is told)."""

    def lost(self, task: Task, reason: str) -> None:
        """The task's worker died, and the task will be taken again."""

    def ended(self, task: Task, error: str | None) -> None:
        """A task is complete, or has failed."""


@dataclass
class Scheduler:
    """What is to be done, what failed, and who is told.

    Args:
        queue: The tasks that are left.
        listener: Is told how it goes.
        retries: How often a task is tried again whose worker died.
    """

    queue: TaskQueue
    listener: ProgressListener
    retries: int = RETRIES
    failures: dict[str, str] = field(default_factory=dict)
    losses: dict[str, int] = field(default_factory=dict)

    def take(self, idle: bool) -> Task | None:
        """The next task that can run now."""
        if task := self.queue.take():
            self.listener.started(task)
        return task

    def progress(self, task: Task, progress: Progress) -> None:
        """An epoch of it has ended."""
        self.listener.progress(task, progress)

    def ended(self, task: Task, error: str | None) -> None:
        """It is complete, or has failed."""
        self.listener.ended(task, error)
        if error is None:
            self.queue.done(task)
            return
        self.failures[task.id] = error
        for orphan in self.queue.failed(task):
            self.failures[orphan.id] = f"its first phase failed: {error}"

    def lost(self, task: Task, reason: str) -> None:
        """Its worker died: it is put back, or has failed where that happened too often."""
        count = self.losses[task.id] = self.losses.get(task.id, 0) + 1
        folder = task.folder(self.queue.run)
        folder.lose(reason)
        if count <= self.retries:
            self.listener.lost(task, reason)
            self.queue.put_back(task)
            return
        tried = f"; tried {count} times" if count > 1 else ""
        folder.fail(f"{reason}{tried}")
        self.ended(task, f"{reason}{tried}")


class Worker(Protocol):
    """Another process, as the driver sees it."""

    @property
    def tasks(self) -> dict[str, Task]:
        """What it has been given and has not ended."""
        ...

    def give(self, task: Task) -> None:
        """Sends it a task."""


def assign_tasks(
    scheduler: Scheduler, workers: Sequence[Worker], slots: int, start: Callable[[], Worker | None] = lambda: None
) -> None:
    """Gives tasks to the least busy workers while there are both.

    A task whose worker has died is tried again alone: if it was at fault, it takes no others with it; if it was not,
    nothing else can take it again.

    Args:
        scheduler: Whose tasks.
        workers: All that there are.
        slots: How many tasks each takes.
        start: Starts one more worker for a task, or gives None.
    """

    def room(worker: Worker, alone: bool) -> bool:
        return len(worker.tasks) < (1 if alone or scheduler.losses.keys() & worker.tasks.keys() else slots)

    workers = list(workers)
    while scheduler.queue.ready:
        alone = scheduler.queue.ready[0].id in scheduler.losses
        worker = min(workers, key=lambda worker: len(worker.tasks), default=None)
        if (worker is None or worker.tasks) and (new := start()):
            workers.append(worker := new)
        if worker is None or not room(worker, alone):
            return
        task = scheduler.take(idle=False)
        assert task is not None
        worker.tasks[task.id] = task
        worker.give(task)
