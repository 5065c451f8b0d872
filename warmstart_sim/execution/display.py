"""Progress displays: bars on a terminal, plain lines in a pipe. Both are listeners of progress events."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from warmstart_sim.execution.progress import ProgressEvent, RunProgress, clock

ROUND_LINE_SECONDS = 5.0  # PlainDisplay prints the end of a round at most this often


class LiveDisplay:
    """One bar for the whole run, and one for each running task.

    Args:
        run_progress: Updated before this display is called.
        console: A terminal.
    """

    def __init__(self, run_progress: RunProgress, console: Console) -> None:
        self._run_progress = run_progress
        self._bars = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"), TextColumn("{task.fields[note]}"), TimeElapsedColumn(),
            console=console,
        )  # fmt: skip
        self._total_bar = self._bars.add_task("all cells", total=run_progress.total, note="")
        self._task_bars: dict[str, TaskID] = {}

    def __enter__(self) -> LiveDisplay:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def __call__(self, event: ProgressEvent) -> None:
        """Updates the bars; failures and retries are printed above them and stay."""
        if event.kind == "started":
            self._task_bars[event.task_id] = self._bars.add_task(event.title, total=1.0, note="starting")
        elif event.progress:
            progress = event.progress
            accuracy = f"train {progress.epoch_row['running_train_accuracy']:.1%}"
            note = f"round {progress.round + 1}/{progress.rounds}  epoch {progress.epoch:<3}  {accuracy}"
            self._bars.update(self._task_bars[event.task_id], completed=progress.done, note=note)
        else:
            if event.task_id in self._task_bars:  # a task whose first phase failed has never started
                self._bars.remove_task(self._task_bars.pop(event.task_id))
            if event.error:
                label = "[yellow]tried again[/]" if event.kind == "retried" else "[red]failed[/]"
                self._bars.console.print(f"{label} {event.task_id}: {event.error}", highlight=False)
        run = self._run_progress
        note = f"{run.finished}/{run.total} cells, {clock(run.remaining_seconds)} left"
        self._bars.update(self._total_bar, completed=run.done, note=note)


class PlainDisplay:
    """One line for every task that finishes or is retried, and now and then one for a round.

    Args:
        run_progress: Updated before this display is called.
        console: Where the lines go.
    """

    def __init__(self, run_progress: RunProgress, console: Console) -> None:
        self._run_progress, self._console = run_progress, console
        self._last_print = time.monotonic()

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __call__(self, event: ProgressEvent) -> None:
        """Prints a line unless the event is a start, an epoch within a round, or a round soon after the last line."""
        if event.progress:
            row = event.progress.round_row
            if row and time.monotonic() - self._last_print >= ROUND_LINE_SECONDS:
                self._print(
                    f"{event.title}: round {event.progress.round + 1}/{event.progress.rounds} {row['status']} after "
                    f"{row['epochs']} epochs, {row['train_samples']} samples, {row['train_seconds']:.1f} s"
                )
        elif event.kind == "retried":
            self._print(f"{event.title}: tried again: {event.error}")
        elif event.kind == "finished":
            self._print(f"{event.title}: {f'failed: {event.error}' if event.error else 'done'}")

    def _print(self, text: str) -> None:
        self._last_print = time.monotonic()
        run = self._run_progress
        counts = f"[{run.finished}/{run.total}, {clock(run.remaining_seconds)} left]"
        self._console.print(f"{counts} {text}", markup=False, highlight=False, soft_wrap=True)
