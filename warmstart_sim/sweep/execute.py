"""Executors: the cells run in this process, or in worker processes; both give the same numbers.

What an executor on other machines needs too is public here: the ledger, handing out, the worker's end of a channel.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, Protocol

from warmstart_sim import preemption
from warmstart_sim.config import Cell
from warmstart_sim.errors import WarmstartError
from warmstart_sim.results.store import RunFolder
from warmstart_sim.sweep.parcels import packed, unpacked
from warmstart_sim.sweep.tasks import Queue, Task
from warmstart_sim.types import Dataset

if TYPE_CHECKING:
    from warmstart_sim.experiment import Progress
    from warmstart_sim.place import Place

NOTIFY_SECONDS = 0.2  # a worker says how it is going at most this often
LOOK_SECONDS = 0.5  # a driver that hears nothing looks this often whether it was asked to stop
RETRIES = 2  # of a task whose worker died


class Watcher(Protocol):
    """Is told how the run goes: the progress display, TensorBoard."""

    def started(self, task: Task) -> None:
        """A worker has taken a task."""

    def progress(self, task: Task, progress: Progress) -> None:
        """An epoch has ended (not every epoch is told)."""

    def lost(self, task: Task, reason: str) -> None:
        """The task's worker died, and the task will be taken again."""

    def ended(self, task: Task, error: str | None) -> None:
        """A task is complete, or has failed."""


def execute(
    cells: Sequence[Cell], run: RunFolder, place: Place, workers: int, watcher: Watcher, retries: int = RETRIES
) -> dict[str, str]:
    """Runs all cells that are not complete yet.

    Args:
        cells: In the order in which they should run.
        run: The run's folder, locked by the caller.
        place: Where and how cells run, and how many at a time in each process.
        workers: With 1 everything happens in this process.
        watcher: Is told how it goes.
        retries: How often a cell is tried again whose worker was killed. One that raises an exception is not.

    Returns:
        The cells that failed, and why: an exception, workers killed again and again. The others are complete.

    Raises:
        WarmstartError: Something that no other cell would survive either: missing data, a full disk, a model that
            does not take the data.
        Preempted: The process got SIGTERM (heeded by the caller), and what was under way is checkpointed.
    """
    ledger = Ledger(Queue(cells, run), watcher, retries)
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
        retries: How often a task is tried again whose worker died.
    """

    queue: Queue
    watcher: Watcher
    retries: int = RETRIES
    failures: dict[str, str] = field(default_factory=dict)
    losses: dict[str, int] = field(default_factory=dict)

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

    def lost(self, task: Task, reason: str) -> None:
        """Its worker died: it is put back, or has failed where that happened too often."""
        count = self.losses[task.id] = self.losses.get(task.id, 0) + 1
        folder = task.folder(self.queue.run)
        folder.lose(reason)
        if count <= self.retries:
            self.watcher.lost(task, reason)
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


def hand_out(
    ledger: Ledger, workers: Sequence[Worker], slots: int, start: Callable[[], Worker | None] = lambda: None
) -> None:
    """Gives tasks to the least busy workers while there are both.

    A task whose worker has died is tried again alone: if it was at fault, it takes no others with it; if it was not,
    nothing else can take it again.

    Args:
        ledger: Whose tasks.
        workers: All that there are.
        slots: How many tasks each takes.
        start: Starts one more worker for a task, or gives None.
    """

    def room(worker: Worker, alone: bool) -> bool:
        return len(worker.tasks) < (1 if alone or ledger.losses.keys() & worker.tasks.keys() else slots)

    workers = list(workers)
    while ledger.queue.ready:
        alone = ledger.queue.ready[0].id in ledger.losses
        worker = min(workers, key=lambda worker: len(worker.tasks), default=None)
        if (worker is None or worker.tasks) and (new := start()):
            workers.append(worker := new)
        if worker is None or not room(worker, alone):
            return
        task = ledger.take(idle=False)
        assert task is not None
        worker.tasks[task.id] = task
        worker.give(task)


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

    sent: set[int] = field(default_factory=set)

    def give(self, task: Task) -> None:
        datasets: dict[int, Dataset] = {}

        def keep(dataset: Dataset) -> int:
            datasets[id(dataset)] = dataset  # the cells that hold it outlive the worker, so that no other has this id
            return id(dataset)

        parcel = packed(task, keep)
        new = {key: dataset for key, dataset in datasets.items() if key not in self.sent}
        self.sent |= new.keys()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it is dead, which will be heard
            self.connection.send((parcel, new))


@dataclass
class _Pipe:
    """A worker's end of its pipe: tasks come in as parcels, data sets beside the first task that needs them."""

    connection: Connection
    datasets: dict[int, Dataset] = field(default_factory=dict)

    def poll(self) -> bool:
        return self.connection.poll()

    def recv(self) -> Task:
        parcel, new = self.connection.recv()
        self.datasets |= new
        task: Task = unpacked(parcel, self.datasets.__getitem__)
        return task

    def send(self, message: tuple[str, str | None, Any], /) -> None:
        self.connection.send(message)


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
                for ready in wait(busy, timeout=LOOK_SECONDS):
                    self._hear(next(worker for worker in self.workers if worker.connection is ready))
                if preemption.requested():
                    self._stop()
        finally:
            for worker in self.workers:
                worker.process.kill() if worker.tasks else worker.connection.close()
            for worker in self.workers:
                worker.process.join()

    def _assign(self) -> bool:
        """Hands out tasks, starting workers up to the size; whether any worker is busy."""
        hand_out(self.ledger, self.workers, self.place.slots, self._start)
        return any(worker.tasks for worker in self.workers)

    def _start(self) -> _Worker | None:
        if len(self.workers) == self.size:
            return None
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self.run, self.place), daemon=True)
        with _interrupts_ignored():  # inherited: Ctrl-C is for the parent, also while a worker still imports torch
            process.start()
        theirs.close()
        self.workers.append(_Worker(process, ours))
        return self.workers[-1]

    def _stop(self) -> None:
        """Asks the workers to checkpoint what they do, and waits for that."""
        for worker in self.workers:
            worker.process.terminate()
        for worker in self.workers:
            while worker.tasks:  # each says what it still completes, then its pipe closes
                self._hear(worker)
        raise preemption.Preempted

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
        lost, worker.tasks = worker.tasks, {}
        if preemption.requested():
            return
        code = worker.process.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self.workers.remove(worker)
        for task in lost.values():
            self.ledger.lost(task, f"its worker process died ({how}; a SIGKILL often means out of memory)")


def _work(connection: Connection, run: RunFolder, place: Place) -> None:
    """The life of a worker: tasks come in, progress and ends go out. It never outlives its parent."""
    from warmstart_sim.sweep.slots import run_slots

    threading.Thread(target=_die_with_parent, daemon=True).start()
    with preemption.heeded():
        try:
            run_slots(Driver(_Pipe(connection)), run, place)
        except WarmstartError as error:
            connection.send(("fatal", None, error))


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
class Driver:
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
