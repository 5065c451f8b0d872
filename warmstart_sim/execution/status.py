"""Writes status.json while a run is active; reads it, with the run's folder, for `warmstart-sim status`."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from warmstart_sim.execution.progress import ProgressEvent, RunProgress
from warmstart_sim.execution.tasks import Task
from warmstart_sim.results.files import write_text
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario import Cell, trained_cells

STATUS_FILE = "status.json"
WRITE_SECONDS = 2.0  # status.json is written at most this often


class StatusWriter:
    """Listener that writes status.json.

    Args:
        run_progress: Updated before this writer is called.
        run: The run's folder, locked by this process.
    """

    def __init__(self, run_progress: RunProgress, run: RunFolder) -> None:
        self._run_progress, self._path = run_progress, run.path / STATUS_FILE
        self._last_write = -WRITE_SECONDS

    def __call__(self, event: ProgressEvent) -> None:
        """Writes the file if the last write is long ago, or if all tasks are finished."""
        run = self._run_progress
        if time.monotonic() - self._last_write < WRITE_SECONDS and run.finished < run.total:
            return
        self._last_write = time.monotonic()
        running = {
            task_id: progress and {
                "round": progress.round + 1, "rounds": progress.rounds, "epoch": progress.epoch, "done": progress.done
            }
            for task_id, progress in run.running.items()
        }  # fmt: skip
        content = {
            "pid": os.getpid(), "host": platform.node(), "running": running, "remaining_seconds": run.remaining_seconds
        }  # fmt: skip
        write_text(self._path, json.dumps(content))


@dataclass(frozen=True)
class Status:
    """How far a run is. Shared first phases count as cells.

    Attributes:
        cells: The number of cells that are trained; copies of others do not count.
        complete: The number of cells that have a result.
        failed: The reason for every failed cell, by the name of its folder.
        running: The position of every running cell (round, rounds, epoch, done), or None before its first epoch ends.
        process: The process that runs the cells, as "pid 123 on host"; None if there is none.
        remaining_seconds: An estimate at the average pace so far; None if there is none yet.
        interrupted: The number of cells that are not running and have a checkpoint.
    """

    cells: int
    complete: int
    failed: Mapping[str, str]
    running: Mapping[str, Mapping[str, Any] | None]
    process: str | None
    remaining_seconds: float | None
    interrupted: int


def read_status(run: RunFolder, cells: Sequence[Cell]) -> Status:
    """Reads how far a run is, whether or not a process is working on it.

    Args:
        run: The run's folder.
        cells: All cells of its scenario.
    """
    tasks = [Task(cell) for cell in trained_cells(cells)]
    unfinished = {task.id: folder for task in tasks if not (folder := task.folder(run)).complete}
    live = _read_status_file(run) if run.is_locked() else {}
    running = {name: position for name, position in live.get("running", {}).items() if name in unfinished}
    waiting = {name: folder for name, folder in unfinished.items() if name not in running}
    return Status(
        cells=len(tasks),
        complete=len(tasks) - len(unfinished),
        failed={name: reason for name, folder in waiting.items() if (reason := folder.error())},
        running=running,
        process=f"pid {live['pid']} on {live['host']}" if live else None,
        remaining_seconds=live.get("remaining_seconds"),
        interrupted=sum(folder.has_checkpoint for folder in waiting.values()),
    )


def _read_status_file(run: RunFolder) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((run.path / STATUS_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content
