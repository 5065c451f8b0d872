"""Worker processes on this machine, each at the end of a pipe of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from warmstart_sim import preemption
from warmstart_sim.errors import WarmstartError
from warmstart_sim.execution.pickling import pickled, unpickled
from warmstart_sim.execution.progress import ProgressEvent
from warmstart_sim.execution.scheduler import Scheduler, assign_tasks
from warmstart_sim.execution.scheduler_proxy import SchedulerProxy
from warmstart_sim.execution.tasks import Task
from warmstart_sim.results.store import RunFolder
from warmstart_sim.types import Dataset

if TYPE_CHECKING:
    from warmstart_sim.experiment.settings import ExecutionSettings

LOOK_SECONDS = 0.5  # a driver that hears nothing looks this often whether it was asked to stop


@dataclass
class WorkerPool:
    """Worker processes, each with a pipe of its own, so that one that dies takes nothing with it but its cells."""

    scheduler: Scheduler
    run: RunFolder
    execution: ExecutionSettings
    size: int
    workers: list[_Worker] = field(default_factory=list)

    def run_cells(self) -> None:
        """Until nothing is left to do."""
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
        assign_tasks(self.scheduler, self.workers, self.execution.slots, self._start)
        return any(worker.tasks for worker in self.workers)

    def _start(self) -> _Worker | None:
        if len(self.workers) == self.size:
            return None
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self.run, self.execution), daemon=True)
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
            message: ProgressEvent | WarmstartError = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            self.on_worker_death(worker)
            return
        if isinstance(message, WarmstartError):
            raise message
        if message.kind == "finished":
            del worker.tasks[message.task_id]
        self.scheduler.report(message)

    def on_worker_death(self, worker: _Worker) -> None:
        """Puts a dead worker's tasks back into the queue."""
        worker.process.join()
        lost, worker.tasks = worker.tasks, {}
        if preemption.requested():
            return
        code = worker.process.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self.workers.remove(worker)
        for task in lost.values():
            self.scheduler.retry_or_fail(task, f"its worker process died ({how}; a SIGKILL often means out of memory)")


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

        parcel = pickled(task, keep)
        new = {key: dataset for key, dataset in datasets.items() if key not in self.sent}
        self.sent |= new.keys()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it is dead, which will be heard
            self.connection.send((parcel, new))


def _work(connection: Connection, run: RunFolder, execution: ExecutionSettings) -> None:
    """The life of a worker: tasks come in, progress and ends go out. It never outlives its parent."""
    from warmstart_sim.execution.interleaved import run_slots

    threading.Thread(target=_die_with_parent, daemon=True).start()
    with preemption.heeded():
        try:
            run_slots(SchedulerProxy(_Pipe(connection)), run, execution)
        except WarmstartError as error:
            connection.send(error)


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
        task: Task = unpickled(parcel, self.datasets.__getitem__)
        return task

    def send(self, event: ProgressEvent, /) -> None:
        self.connection.send(event)


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
