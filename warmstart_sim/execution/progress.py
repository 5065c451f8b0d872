"""Progress of a run: the event that every listener gets, and the counts and the estimate that are made from events."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from warmstart_sim.experiment.recorder import Progress


@dataclass(frozen=True)
class ProgressEvent:
    """Something that happened to a task. Picklable: workers send it to the main process.

    Attributes:
        kind: "started"; "epoch" after an epoch; "retried" after the task's worker died; "finished".
        task_id: The task's id.
        title: The task's name for users.
        progress: The task's position and its latest rows; set if kind is "epoch".
        error: Why the task is retried or has failed; None for a task that finished well.
    """

    kind: Literal["started", "epoch", "retried", "finished"]
    task_id: str
    title: str
    progress: Progress | None = None
    error: str | None = None


ProgressListener = Callable[[ProgressEvent], None]


class RunProgress:
    """Listener that counts finished tasks, tracks the running ones, and estimates the remaining time.

    Args:
        total: The number of tasks to run.

    Attributes:
        total: The same.
        finished: The number of tasks that are complete or have failed.
        running: The latest progress of each running task by its id; None before its first epoch ends.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.finished = 0
        self.running: dict[str, Progress | None] = {}
        self._started = time.monotonic()

    def __call__(self, event: ProgressEvent) -> None:
        """Counts the event."""
        if event.kind in ("started", "epoch"):
            self.running[event.task_id] = event.progress
        else:
            self.running.pop(event.task_id, None)
            self.finished += event.kind == "finished"

    @property
    def done(self) -> float:
        """The work that is done, in tasks: a task that is half done counts 0.5."""
        return self.finished + sum(progress.done for progress in self.running.values() if progress)

    @property
    def remaining_seconds(self) -> float | None:
        """The time that the rest takes at the average pace so far; None until 1 % is done."""
        done = self.done
        if done <= 0.01 * self.total:
            return None
        return (time.monotonic() - self._started) * (self.total - done) / done


def clock(seconds: float | None) -> str:
    """Hours, minutes and seconds; "?" for None.

    >>> clock(3723.4), clock(59), clock(None)
    ('1:02:03', '0:59', '?')
    """
    if seconds is None:
        return "?"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
