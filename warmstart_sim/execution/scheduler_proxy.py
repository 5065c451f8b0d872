"""The scheduler of the main process as its workers see it, over a channel."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from warmstart_sim.execution.progress import ProgressEvent
from warmstart_sim.execution.tasks import Task

EVENT_SECONDS = 0.2  # for each task, epoch events within a round are sent at most this often


class Channel(Protocol):
    """A worker's connection to the main process."""

    def poll(self) -> bool:
        """Whether there is something to receive."""
        ...

    def recv(self) -> Any:
        """The next task; EOFError when there will be none."""

    def send(self, event: ProgressEvent, /) -> None:
        """Sends an event."""


@dataclass
class SchedulerProxy:
    """Takes tasks from a channel, and sends progress events to it."""

    channel: Channel
    last_sent: dict[str, float] = field(default_factory=dict)

    def take(self, idle: bool) -> Task | None:
        """The next task; an idle worker waits for it until the main process closes the channel."""
        if not idle and not self.channel.poll():
            return None
        try:
            task: Task = self.channel.recv()
        except EOFError:
            return None
        return task

    def report(self, event: ProgressEvent) -> None:
        """Sends an event, but drops epochs within a round that follow each other quickly."""
        now = time.monotonic()
        within_round = event.progress is not None and event.progress.round_row is None
        if within_round and now - self.last_sent.get(event.task_id, 0.0) < EVENT_SECONDS:
            return
        self.last_sent[event.task_id] = now
        self.channel.send(event)
