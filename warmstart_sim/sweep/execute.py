"""Executors: one cell after another in this process, or in worker processes; both give the same numbers."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Protocol

from warmstart_sim.config import Cell
from warmstart_sim.errors import RunError, WarmstartError
from warmstart_sim.results.store import RunFolder
from warmstart_sim.results.tensorboard import TensorBoardLog
from warmstart_sim.sweep.tasks import Queue, Task

if TYPE_CHECKING:
    from warmstart_sim.experiment import Notify, Place, Progress

NOTIFY_SECONDS = 0.2  # a worker says how it is going at most this often


class Watcher(Protocol):
    """Is told how the run goes: the progress display, TensorBoard."""

    def started(self, task: Task) -> None:
        """A worker has taken a task."""

    def progress(self, task: Task, progress: Progress) -> None:
        """An epoch has ended (not every epoch is told)."""

    def ended(self, task: Task, error: str | None) -> None:
        """A task is complete, or has failed."""


def execute(cells: Sequence[Cell], run: RunFolder, place: Place, workers: int, watcher: Watcher) -> dict[str, str]:
    """Runs all cells that are not complete yet.

    Args:
        cells: In the order in which they should run.
        run: The run's folder, locked by the caller.
        place: Where and how cells run.
        workers: With 1 everything happens in this process.
        watcher: Is told how it goes.

    Returns:
        The cells that failed, and why: an exception, a killed worker. The others are complete.

    Raises:
        WarmstartError: Something that no other cell would survive either: missing data, a full disk, a model that
            does not take the data.
    """
    queue = Queue(cells, run)
    if workers == 1:
        return _execute_here(queue, run, place, watcher)
    return _Pool(queue, run, place, workers, watcher).execute()


def perform(task: Task, run: RunFolder, place: Place, notify: Notify) -> str | None:
    """Does one task; an error that concerns this cell alone is recorded in its folder and returned.

    Raises:
        WarmstartError: An error that concerns the whole run.
    """
    from warmstart_sim.experiment import run_cell, run_first_phase

    log = TensorBoardLog(run.path / "tensorboard" / task.folder(run).path.name) if place.tensorboard else None

    def tell(progress: Progress) -> None:
        if log is not None:
            log.write(progress.total_epochs, progress.epoch_row, progress.round_row)
        notify(progress)

    try:
        (run_first_phase if task.first_phase else run_cell)(task.cell, run, place, tell)
    except WarmstartError:
        raise
    except OSError as error:
        raise RunError(
            f"{error.filename or run.path}: cannot be written or read ({error.strerror}); what is complete is kept: "
            "mend that and run the same command again"
        ) from error
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
        task.folder(run).fail(reason, traceback.format_exc())
        return reason
    finally:
        if log is not None:
            log.close()
    return None


def _execute_here(queue: Queue, run: RunFolder, place: Place, watcher: Watcher) -> dict[str, str]:
    import torch

    failures: dict[str, str] = {}
    threads = torch.get_num_threads()  # cells set their own number; the process is the caller's
    try:
        while task := queue.take():
            watcher.started(task)
            error = perform(task, run, place, functools.partial(watcher.progress, task))
            _settle(queue, task, error, failures, watcher)
    finally:
        torch.set_num_threads(threads)
    return failures


def _settle(queue: Queue, task: Task, error: str | None, failures: dict[str, str], watcher: Watcher) -> None:
    watcher.ended(task, error)
    if error is None:
        queue.done(task)
        return
    failures[task.id] = error
    for orphan in queue.failed(task):
        failures[orphan.id] = f"its first phase failed: {error}"


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    task: Task | None = None


@dataclass
class _Pool:
    """Worker processes, each with a pipe of its own, so that one that dies takes nothing with it but its cell."""

    queue: Queue
    run: RunFolder
    place: Place
    size: int
    watcher: Watcher
    workers: list[_Worker] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    def execute(self) -> dict[str, str]:
        try:
            while self._assign():
                for ready in wait([worker.connection for worker in self.workers if worker.task]):
                    self._hear(next(worker for worker in self.workers if worker.connection is ready))
        finally:
            for worker in self.workers:
                worker.process.kill() if worker.task else worker.connection.close()
            for worker in self.workers:
                worker.process.join()
        return self.failures

    def _assign(self) -> bool:
        """Hands tasks to idle workers, starting new ones up to the size; whether any worker is busy."""
        while self.queue.ready:
            idle = next((worker for worker in self.workers if worker.task is None), None)
            if idle is None:
                if len(self.workers) == self.size:
                    break
                idle = self._start()
            idle.task = self.queue.take()
            assert idle.task is not None
            idle.connection.send(idle.task)
            self.watcher.started(idle.task)
        return any(worker.task for worker in self.workers)

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self.run, self.place), daemon=True)
        with _interrupts_ignored():  # inherited: Ctrl-C is for the parent, also while a worker still imports torch
            process.start()
        theirs.close()
        self.workers.append(_Worker(process, ours))
        return self.workers[-1]

    def _hear(self, worker: _Worker) -> None:
        task = worker.task
        assert task is not None
        try:
            kind, content = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            self._bury(worker, task)
            return
        if kind == "progress":
            self.watcher.progress(task, content)
        elif kind == "fatal":
            raise content
        else:
            worker.task = None
            _settle(self.queue, task, content, self.failures, self.watcher)

    def _bury(self, worker: _Worker, task: Task) -> None:
        worker.process.join()
        code = worker.process.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        reason = f"its worker process died ({how}; a SIGKILL often means out of memory)"
        task.folder(self.run).fail(reason)
        self.workers.remove(worker)
        _settle(self.queue, task, reason, self.failures, self.watcher)


def _work(connection: Connection, run: RunFolder, place: Place) -> None:
    """The life of a worker: tasks come in, progress and ends go out. It never outlives its parent."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        notify = _throttled(lambda progress: connection.send(("progress", progress)))
        try:
            connection.send(("ended", perform(task, run, place, notify)))
        except WarmstartError as error:
            connection.send(("fatal", error))


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _throttled(send: Callable[[Progress], None]) -> Notify:
    """Passes on the ends of rounds, and of the epochs between them at most one every NOTIFY_SECONDS."""
    last = 0.0

    def notify(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if progress.round_row is not None or now - last >= NOTIFY_SECONDS:
            last = now
            send(progress)

    return notify
