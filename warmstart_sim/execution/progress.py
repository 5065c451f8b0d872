"""What a person sees while cells run: a live display on a terminal, plain lines in a pipe, or nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from warmstart_sim.execution.tasks import Task

if TYPE_CHECKING:
    from warmstart_sim.experiment.run_cell import Progress

ROUND_LINE_SECONDS = 5.0  # plain lines: the end of a round is told at most this often


class NoDisplay:
    """Says nothing."""

    def __enter__(self) -> NoDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def started(self, task: Task) -> None:
        """A worker has taken a task."""

    def progress(self, task: Task, progress: Progress) -> None:
        """An epoch has ended."""

    def lost(self, task: Task, reason: str) -> None:
        """A task's worker died; it will be taken again."""

    def ended(self, task: Task, error: str | None) -> None:
        """A task is over."""


class RemainingTime:
    """How much of the work is done, in cells, and how long the rest will take at the pace so far.

    Args:
        total: How many tasks there are.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.over = 0
        self._running: dict[str, float] = {}
        self._started = time.monotonic()

    def update(self, task: Task, done: float) -> None:
        """The share of a running task that is done."""
        self._running[task.id] = done

    def drop(self, task: Task) -> None:
        """The task is not running any more, and not over."""
        self._running.pop(task.id, None)

    def end(self, task: Task) -> None:
        """The task is over."""
        self._running.pop(task.id, None)
        self.over += 1

    @property
    def done(self) -> float:
        """In cells."""
        return self.over + sum(self._running.values())

    def remaining(self) -> str:
        """Such as "1:02:03", or "?" while nothing can be said."""
        done, elapsed = self.done, time.monotonic() - self._started
        return clock(elapsed * (self.total - done) / done) if done > 0.01 * self.total else "?"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> clock(3723.4), clock(59)
    ('1:02:03', '0:59')
    """
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


class LiveDisplay(NoDisplay):
    """A live display: all cells on one bar, and one line for each that runs.

    Args:
        tasks: All that is left to do, for the total.
        console: A terminal.
    """

    def __init__(self, tasks: Sequence[str], console: Console) -> None:
        self._estimate = RemainingTime(len(tasks))
        self._bars = Bars(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"), TextColumn("{task.fields[note]}"), TimeElapsedColumn(),
            console=console,
        )  # fmt: skip
        self._all = self._bars.add_task("all cells", total=len(tasks), note="")
        self._lines: dict[str, TaskID] = {}

    def __enter__(self) -> LiveDisplay:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def started(self, task: Task) -> None:
        """Adds the task's line."""
        self._lines[task.id] = self._bars.add_task(_title(task), total=1.0, note="starting")
        self._refresh()

    def progress(self, task: Task, progress: Progress) -> None:
        """Moves the task's line."""
        self._estimate.update(task, progress.done)
        accuracy = f"train {progress.epoch_row['running_train_accuracy']:.1%}"
        note = f"round {progress.round + 1}/{progress.rounds}  epoch {progress.epoch:<3}  {accuracy}"
        self._bars.update(self._lines[task.id], completed=progress.done, note=note)
        self._refresh()

    def lost(self, task: Task, reason: str) -> None:
        """Removes the task's line for now; what happened stays on the screen."""
        self._estimate.drop(task)
        self._bars.remove_task(self._lines.pop(task.id))
        self._bars.console.print(f"[yellow]tried again[/] {task.id}: {reason}", highlight=False)
        self._refresh()

    def ended(self, task: Task, error: str | None) -> None:
        """Removes the task's line; a failure stays on the screen."""
        self._estimate.end(task)
        self._bars.remove_task(self._lines.pop(task.id))
        if error:
            self._bars.console.print(f"[red]failed[/] {task.id}: {error}", highlight=False)
        self._refresh()

    def _refresh(self) -> None:
        note = f"{self._estimate.over}/{self._estimate.total} cells, {self._estimate.remaining()} left"
        self._bars.update(self._all, completed=self._estimate.done, note=note)


class PlainDisplay(NoDisplay):
    """A line for every cell that is over, and now and then one for a round.

    Args:
        tasks: All that is left to do, for the total.
        console: Where the lines go.
    """

    def __init__(self, tasks: Sequence[str], console: Console) -> None:
        self._estimate = RemainingTime(len(tasks))
        self._console = console
        self._last = time.monotonic()

    def progress(self, task: Task, progress: Progress) -> None:
        """Says how a round ended, if nothing was said for a while."""
        self._estimate.update(task, progress.done)
        row = progress.round_row
        if row is None or time.monotonic() - self._last < ROUND_LINE_SECONDS:
            return
        self._say(
            f"{_title(task)}: round {progress.round + 1}/{progress.rounds} {row['status']} after "
            f"{row['epochs']} epochs, {row['train_samples']} samples, {row['train_seconds']:.1f} s"
        )

    def lost(self, task: Task, reason: str) -> None:
        """Says that a task is tried again, and why."""
        self._estimate.drop(task)
        self._say(f"{_title(task)}: tried again: {reason}")

    def ended(self, task: Task, error: str | None) -> None:
        """Says that a task is over."""
        self._estimate.end(task)
        self._say(f"{_title(task)}: {f'failed: {error}' if error else 'done'}")

    def _say(self, text: str) -> None:
        self._last = time.monotonic()
        count = f"[{self._estimate.over}/{self._estimate.total}, {self._estimate.remaining()} left]"
        self._console.print(f"{count} {text}", markup=False, highlight=False, soft_wrap=True)


def _title(task: Task) -> str:
    cell = task.cell
    varied = "".join(f", {key.rpartition('.')[2]} {value}" for key, value in cell.varied.items() if value is not None)
    name = f"first phase on {cell.data.name}" if task.first_phase else cell.arm.label
    return f"{name}{varied}, seed {cell.seed}"
