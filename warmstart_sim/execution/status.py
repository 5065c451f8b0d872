"""How a run goes, for who looks in from outside: written by the driver every few seconds, read by `status`."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from warmstart_sim.execution.tasks import Task
from warmstart_sim.results.files import write_text
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario import Cell, first_phases

if TYPE_CHECKING:
    from warmstart_sim.execution.scheduler import ProgressListener
    from warmstart_sim.experiment.run_cell import Progress

FILE = "status.json"
EVERY_SECONDS = 2.0


class StatusWriter:
    """A watcher that writes down how the run goes, and passes all on to another.

    Args:
        listener: Who else wants to know.
        run: The run's folder, locked by this process.
        total: How many tasks are left at the start.
    """

    def __init__(self, listener: ProgressListener, run: RunFolder, total: int) -> None:
        self._watcher, self._path, self._total = listener, run.path / FILE, total
        self._began, self._written = time.time(), 0.0
        self._over = 0
        self._running: dict[str, dict[str, Any]] = {}

    def started(self, task: Task) -> None:
        """A worker has taken a task."""
        self._running[task.id] = {"done": 0.0}
        self._write()
        self._watcher.started(task)

    def progress(self, task: Task, progress: Progress) -> None:
        """An epoch has ended."""
        self._running[task.id] = {
            "round": progress.round + 1, "rounds": progress.rounds, "epoch": progress.epoch, "done": progress.done,
        }  # fmt: skip
        self._write()
        self._watcher.progress(task, progress)

    def lost(self, task: Task, reason: str) -> None:
        """A task's worker died; it will be taken again."""
        self._running.pop(task.id, None)
        self._write()
        self._watcher.lost(task, reason)

    def ended(self, task: Task, error: str | None) -> None:
        """A task is over."""
        self._running.pop(task.id, None)
        self._over += 1
        self._write(now=self._over == self._total)
        self._watcher.ended(task, error)

    def _write(self, now: bool = False) -> None:
        if not now and time.time() - self._written < EVERY_SECONDS:
            return
        self._written = time.time()
        record = {
            "pid": os.getpid(), "host": platform.node(), "began": self._began, "written": self._written,
            "over": self._over, "total": self._total, "running": self._running,
        }  # fmt: skip
        write_text(self._path, json.dumps(record))


@dataclass(frozen=True)
class Status:
    """How far a run is. First phases that cells share count as cells.

    Attributes:
        cells: How many its scenario means.
        complete: How many have their result.
        failed: Why those that failed did, by the names of their folders.
        running: Those under way, if a process is at work: round, rounds, epoch, and the share that is done.
        process: "pid 123 on host"; None if none is at work.
        remaining_seconds: At the pace so far; None if nothing can be said.
        interrupted: How many have a checkpoint to go on from.
    """

    cells: int
    complete: int
    failed: Mapping[str, str]
    running: Mapping[str, Mapping[str, Any]]
    process: str | None
    remaining_seconds: float | None
    interrupted: int


def status_of(run: RunFolder, cells: Sequence[Cell]) -> Status:
    """Reads how far a run is, whether or not a process is at work on it.

    Args:
        run: The run's folder.
        cells: Those that its scenario means.
    """
    tasks = [Task(phase, True) for phase in first_phases(cells)] + [Task(cell, False) for cell in cells]
    folders = {task.id: task.folder(run) for task in tasks}
    complete = {name for name, folder in folders.items() if folder.complete}
    left = {name: folder for name, folder in folders.items() if name not in complete}
    failed = {name: reason for name, folder in left.items() if (reason := folder.error())}
    live = _read(run) if run.is_locked() else {}
    running = {name: each for name, each in live.get("running", {}).items() if name in left}
    return Status(
        len(tasks), len(complete), {name: reason for name, reason in failed.items() if name not in running}, running,
        f"pid {live['pid']} on {live['host']}" if live else None, _remaining(live),
        sum(folder.has_checkpoint for name, folder in left.items() if name not in running),
    )  # fmt: skip


def _read(run: RunFolder) -> dict[str, Any]:
    try:
        stored: dict[str, Any] = json.loads((run.path / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return stored


def _remaining(live: Mapping[str, Any]) -> float | None:
    """Seconds, as the tasks so far have taken them."""
    if not live:
        return None
    done = live["over"] + sum(each["done"] for each in live["running"].values())
    elapsed = live["written"] - live["began"]
    return elapsed * (live["total"] - done) / done if done > 0.01 * live["total"] else None
