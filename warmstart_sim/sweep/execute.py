"""Executors: the cells run in this process, or in worker processes; both give the same numbers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Protocol

from warmstart_sim.config import Cell
from warmstart_sim.errors import WarmstartError
from warmstart_sim.results.store import RunFolder
from warmstart_sim.sweep.tasks import Queue, Task

if TYPE_CHECKING:
    from warmstart_sim.experiment import Place, Progress

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
        place: Where and how cells run, and how many at a time in each process.
        workers: With 1 everything happens in this process.
        watcher: Is told how it goes.

    Returns:
        The cells that failed, and why: an exception, a killed worker. The others are complete.

    Raises:
        WarmstartError: Something that no other cell would survive either: missing data, a full disk, a model that
            does not take the data.
    """
    ledger = Ledger(Queue(cells, run), watcher)
    if workers == 1:
        _execute_here(ledger, run, place)
    else:
        _Pool(ledger, run, place, workers).execute()
    return ledger.failures


@dataclass
class Ledger:
    """What is to be done, what failed, and who is told.

    Args:
        queue: The tasks that are left.
        watcher: Is told how it goes.
    """

    queue: Queue
    watcher: Watcher
    failures: dict[str, str] = field(default_factory=dict)

    def take(self, idle: bool) -> Task | None:
        """The next task that can run now."""
        if task := self.queue.take():
            self.watcher.started(task)
        return task

    def progress(self, task: Task, progress: Progress) -> None:
        """An epoch of it has ended."""
        self.watcher.progress(task, progress)

    def ended(self, task: Task, error: str | None) -> None:
        """It is complete, or has failed."""
        self.watcher.ended(task, error)
        if error is None:
            self.queue.done(task)
            return
        self.failures[task.id] = error
        for orphan in self.queue.failed(task):
            self.failures[orphan.id] = f"its first phase failed: {error}"


def _execute_here(ledger: Ledger, run: RunFolder, place: Place) -> None:
    import torch

    from warmstart_sim.sweep.slots import run_slots

    threads = torch.get_num_threads()  # cells set their own number; the process is the caller's
    try:
        run_slots(ledger, run, place)
    finally:
        torch.set_num_threads(threads)


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    tasks: dict[str, Task] = field(default_factory=dict)


@dataclass
class _Pool:
    """Worker processes, each with a pipe of its own, so that one that dies takes nothing with it but its cells."""

    ledger: Ledger
    run: RunFolder
    place: Place
    size: int
    workers: list[_Worker] = field(default_factory=list)

    def execute(self) -> None:
        try:
            while self._assign():
                busy = [worker.connection for worker in self.workers if worker.tasks]
                for ready in wait(busy):
                    self._hear(next(worker for worker in self.workers if worker.connection is ready))
        finally:
            for worker in self.workers:
                worker.process.kill() if worker.tasks else worker.connection.close()
            for worker in self.workers:
                worker.process.join()

    def _assign(self) -> bool:
        """Hands tasks to the least busy workers, starting new ones up to the size; whether any worker is busy."""
        while self.ledger.queue.ready:
            worker = min(self.workers, key=lambda worker: len(worker.tasks), default=None)
            if (worker is None or worker.tasks) and len(self.workers) < self.size:
                worker = self._start()
            if worker is None or len(worker.tasks) >= self.place.slots:
                break
            task = self.ledger.take(idle=False)
            assert task is not None
            worker.tasks[task.id] = task
            worker.connection.send(task)
        return any(worker.tasks for worker in self.workers)

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
        try:
            kind, task_id, content = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            self._bury(worker)
            return
        if kind == "progress":
            self.ledger.progress(worker.tasks[task_id], content)
        elif kind == "fatal":
            raise content
        else:
            self.ledger.ended(worker.tasks.pop(task_id), content)

    def _bury(self, worker: _Worker) -> None:
        worker.process.join()
        code = worker.process.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        reason = f"its worker process died ({how}; a SIGKILL often means out of memory)"
        self.workers.remove(worker)
        for task in worker.tasks.values():
            task.folder(self.run).fail(reason)
            self.ledger.ended(task, reason)


def _work(connection: Connection, run: RunFolder, place: Place) -> None:
    """The life of a worker: tasks come in, progress and ends go out. It never outlives its parent."""
    from warmstart_sim.sweep.slots import run_slots

    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        run_slots(_Parent(connection), run, place)
    except WarmstartError as error:
        connection.send(("fatal", None, error))


@dataclass
class _Parent:
    """The parent process as a source of tasks."""

    connection: Connection
    told: dict[str, float] = field(default_factory=dict)

    def take(self, idle: bool) -> Task | None:
        """The next task that was sent; an idle worker waits for it until the parent closes the pipe."""
        if not idle and not self.connection.poll():
            return None
        try:
            task: Task = self.connection.recv()
        except EOFError:
            return None
        return task

    def progress(self, task: Task, progress: Progress) -> None:
        """Passes on the ends of rounds, and of the epochs between them at most one every NOTIFY_SECONDS."""
        now = time.monotonic()
        if progress.round_row is not None or now - self.told.get(task.id, 0.0) >= NOTIFY_SECONDS:
            self.told[task.id] = now
            self.connection.send(("progress", task.id, progress))

    def ended(self, task: Task, error: str | None) -> None:
        """Tells the parent."""
        self.connection.send(("ended", task.id, error))


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
