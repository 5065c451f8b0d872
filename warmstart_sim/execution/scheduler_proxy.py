"""The driver as a worker in another process sees it: where tasks come from, and who is told how they go."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from warmstart_sim.execution.tasks import Task

if TYPE_CHECKING:
    from warmstart_sim.experiment.run_cell import Progress

NOTIFY_SECONDS = 0.2  # a worker says how it is going at most this often


class Channel(Protocol):
    """A worker's way to its driver and back."""

    def poll(self) -> bool:
        """Whether there is something to receive."""
        ...

    def recv(self) -> Any:
        """The next task; EOFError when there will be none."""

    def send(self, message: tuple[str, str | None, Any], /) -> None:
        """Tells (what, the task's id, more about it)."""


@dataclass
class SchedulerProxy:
    """The driver as a worker sees it: a source of tasks."""

    channel: Channel
    told: dict[str, float] = field(default_factory=dict)

    def take(self, idle: bool) -> Task | None:
        """The next task that was sent; an idle worker waits for it until the driver closes the channel."""
        if not idle and not self.channel.poll():
            return None
        try:
            task: Task = self.channel.recv()
        except EOFError:
            return None
        return task

    def progress(self, task: Task, progress: Progress) -> None:
        """Passes on the ends of rounds, and of the epochs between them at most one every NOTIFY_SECONDS."""
        now = time.monotonic()
        if progress.round_row is not None or now - self.told.get(task.id, 0.0) >= NOTIFY_SECONDS:
            self.told[task.id] = now
            self.channel.send(("progress", task.id, progress))

    def ended(self, task: Task, error: str | None) -> None:
        """Tells the driver."""
        self.told.pop(task.id, None)
        self.channel.send(("ended", task.id, error))
