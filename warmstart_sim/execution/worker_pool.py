"""Worker processes on this machine, each connected by its own pipe."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

import cloudpickle

from warmstart_sim import preemption
from warmstart_sim.errors import DeviceLost, RunError, WarmstartError, error_summary
from warmstart_sim.execution.progress import ProgressEvent
from warmstart_sim.execution.scheduler import Scheduler, assign_tasks
from warmstart_sim.execution.scheduler_proxy import SchedulerProxy
from warmstart_sim.execution.tasks import Task
from warmstart_sim.registry import register_entries, user_entries
from warmstart_sim.results.store import RunFolder
from warmstart_sim.types import Dataset

if TYPE_CHECKING:
    from warmstart_sim.experiment.settings import ExecutionSettings

CHECK_SECONDS = 0.5  # how often the main process checks for SIGTERM while no worker sends anything


@dataclass
class WorkerPool:
    """Worker processes with a pipe each, so that a worker that dies takes only its own tasks with it."""

    scheduler: Scheduler
    run: RunFolder
    execution: ExecutionSettings
    size: int
    workers: list[WorkerProcess] = field(default_factory=list)

    def run_tasks(self) -> None:
        """Runs all tasks of the scheduler."""
        try:
            while self._assign():
                busy = {worker.connection: worker for worker in self.workers if worker.tasks}
                for connection in wait(list(busy), timeout=CHECK_SECONDS):
                    self._receive(busy[connection])  # type: ignore[index]
                if preemption.requested():
                    self._stop()
        finally:
            for worker in self.workers:
                worker.process.kill() if worker.tasks else worker.connection.close()
            for worker in self.workers:
                worker.process.join()

    def _assign(self) -> bool:
        """Gives tasks to workers and starts workers up to the size; returns whether any worker is busy."""
        assign_tasks(self.scheduler, self.workers, self.execution.slots, self._start)
        return any(worker.tasks for worker in self.workers)

    def _start(self) -> WorkerProcess | None:
        if len(self.workers) == self.size:
            return None
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        errors, stderr = context.Pipe(duplex=False)
        arguments = (theirs, stderr, cloudpickle.dumps(user_entries()), self.run, self.execution)
        process = context.Process(target=_work, args=arguments, daemon=True)
        # Ignored signals are inherited: Ctrl-C is for the main process, also while a worker imports torch.
        with _interrupts_ignored(), _main_module_hidden():
            process.start()
        theirs.close()
        stderr.close()
        self.workers.append(WorkerProcess(process, ours, WorkerStderr(errors)))
        return self.workers[-1]

    def _stop(self) -> None:
        """Tells the workers to checkpoint their tasks, and waits until they have."""
        for worker in self.workers:
            worker.process.terminate()
        for worker in self.workers:
            while worker.tasks:  # it reports the tasks that it still completes, then its pipe closes
                self._receive(worker)
        raise preemption.Preempted

    def _receive(self, worker: WorkerProcess) -> None:
        try:
            message: ProgressEvent | WarmstartError | None = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            self._on_worker_death(worker)
            return
        if isinstance(message, WarmstartError):
            raise message
        if message is None:  # its first message: it has started
            worker.stderr.show()
            return
        if message.kind == "finished":
            del worker.tasks[message.task_id]
        self.scheduler.report(message)

    def _on_worker_death(self, worker: WorkerProcess) -> None:
        """Lets the scheduler retry the tasks of a dead worker; a worker that could not start ends the run."""
        worker.process.join()
        tasks, worker.tasks = worker.tasks, {}
        if preemption.requested():
            return
        code = worker.process.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if code == -signal.SIGKILL:
            how += ", which often means out of memory"
        elif said := worker.stderr.last_line():
            how += f": {said}"
        if code >= 0 and not worker.stderr.shown:
            raise RunError(f"a worker process could not start ({how}); with --workers 1, cells run in this process")
        self.workers.remove(worker)
        for task in tasks.values():
            self.scheduler.retry_or_fail(task, f"its worker process died ({how})")


@dataclass
class WorkerStderr:
    """What a worker writes to stderr: held back until the worker has started, then shown at once.

    Attributes:
        pipe: The main process's end.
        shown: Whether the worker has started.
        lines: What is held back; once shown, the last line.
    """

    pipe: Connection
    shown: bool = False
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def show(self) -> None:
        """Shows what was held back, and from now on every line."""
        with self._lock:
            self.shown = True
            sys.stderr.writelines(self.lines)

    def last_line(self) -> str:
        """The last line that a worker, now dead, wrote."""
        self._thread.join(timeout=1)  # its own child processes may hold the pipe open
        return next((line.strip() for line in reversed(self.lines) if line.strip()), "")

    def _read(self) -> None:
        with self.pipe, open(self.pipe.fileno(), errors="replace", closefd=False) as stream:
            for line in stream:
                with self._lock:
                    if self.shown:
                        sys.stderr.write(line)
                        self.lines = [line]
                    else:
                        self.lines.append(line)


@dataclass
class WorkerProcess:
    """A worker process, as the main process sees it.

    Attributes:
        process: The process.
        connection: The main process's end of the pipe.
        stderr: What it writes there.
        tasks: The tasks that it was given and has not finished.
        sent: The ids of the data sets that it has. The cells that hold them outlive it, so no id is used twice.
    """

    process: BaseProcess
    connection: Connection
    stderr: WorkerStderr
    tasks: dict[str, Task] = field(default_factory=dict)
    sent: set[int] = field(default_factory=set)

    def give(self, task: Task) -> None:
        """Sends a task with the code of what the user's script defines, and the data sets that the worker lacks.

        Raises:
            WarmstartError: It holds an object that cannot be sent.
        """
        content, datasets = io.BytesIO(), {}

        def name_dataset(value: Any) -> int | None:
            if not isinstance(value, Dataset):
                return None
            datasets[id(value)] = value
            return id(value)

        pickler: Any = cloudpickle.Pickler(content)
        pickler.persistent_id = name_dataset
        try:
            pickler.dump(task)
        except Exception as error:  # raised by the user's object, or by pickle
            raise WarmstartError(
                f"{task.title}: cannot be sent to a worker process ({error_summary(error)}); use one worker, or let "
                "your function make that object itself"
            ) from error
        new = {key: dataset for key, dataset in datasets.items() if key not in self.sent}
        self.sent |= new.keys()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a dead worker; `_receive` will notice
            self.connection.send((content.getvalue(), new))


@dataclass
class WorkerChannel:
    """The worker's end of its pipe.

    Attributes:
        connection: The end.
        datasets: The data sets that were received, by their ids in the main process.
    """

    connection: Connection
    datasets: dict[int, Dataset] = field(default_factory=dict)

    def poll(self) -> bool:
        """Whether a task has arrived."""
        return self.connection.poll()

    def recv(self) -> Task:
        """The next task; EOFError when there will be none."""
        content, new = self.connection.recv()
        self.datasets |= new
        unpickler: Any = pickle.Unpickler(io.BytesIO(content))
        unpickler.persistent_load = self.datasets.__getitem__
        task: Task = unpickler.load()
        return task

    def send(self, event: ProgressEvent, /) -> None:
        """Sends an event."""
        self.connection.send(event)


def _work(
    connection: Connection, stderr: Connection, entries: bytes, run: RunFolder, execution: ExecutionSettings
) -> None:
    """The main function of a worker process."""
    os.dup2(stderr.fileno(), 2)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    with preemption.sigterm_requests_stop():
        try:
            from warmstart_sim.execution.interleaved import run_slots

            register_entries(pickle.loads(entries))
            connection.send(None)
            run_slots(SchedulerProxy(WorkerChannel(connection)), run, execution)
        except DeviceLost as error:  # a new process takes over what this one has not finished
            sys.exit(str(error))
        except WarmstartError as error:
            connection.send(error)


@contextlib.contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Keeps new processes from running the user's script again; tasks carry the code of what it defines."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


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


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
