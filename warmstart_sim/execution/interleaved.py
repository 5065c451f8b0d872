"""Trains many cells in one process: every slot has a cell, all slots step together, a free slot takes the next cell.

A slot whose epoch has ended checks its stop rule and starts its next epoch, round or cell before the others make their
next step (on a CPU), or while the steps of the others are still running (on a GPU with streams).
"""

from __future__ import annotations

import contextlib
import functools
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from warmstart_sim.acceleration.device_cache import DeviceCache
from warmstart_sim.acceleration.stacked_layers import Unstackable
from warmstart_sim.acceleration.stacking import Stack, stackable
from warmstart_sim.execution.progress import ProgressEvent
from warmstart_sim.execution.tasks import Task
from warmstart_sim.experiment.cell_trainer import TorchFlags
from warmstart_sim.experiment.engine import Engine
from warmstart_sim.experiment.recorder import Progress
from warmstart_sim.experiment.run_cell import cell_coroutine
from warmstart_sim.experiment.settings import EngineName, ExecutionSettings
from warmstart_sim.preemption import Preempted, requested, stop_if_requested
from warmstart_sim.results.store import RunFolder
from warmstart_sim.training.coroutine import PendingValues, TrainingCoroutine, TrainingRequest, run_to_end
from warmstart_sim.training.stepper import StepRequest

KEPT_STACKS = 8  # of all kinds together; those that have made no step for longest are dropped


class TaskSource(Protocol):
    """Gives tasks and gets progress events: the scheduler, or a worker's proxy of it."""

    def take(self, idle: bool) -> Task | None:
        """The next task, or None; an idle caller waits for it, so that None means that there are no more tasks."""

    def report(self, event: ProgressEvent) -> None:
        """Takes a progress event."""


@dataclass
class RunningTask:
    """A task in a slot.

    Attributes:
        task: The task.
        coroutine: Its training.
        stream: The CUDA stream that its work is queued in; None for the default one.
        request: What the coroutine waits for; None before its first request and after its step was made.
        error: The error of its last step, which `advance` raises inside the coroutine.
        flags: Its thread count and precision; None before it has set them.
    """

    task: Task
    coroutine: TrainingCoroutine[str | None]
    stream: torch.cuda.Stream | None
    request: TrainingRequest | None = None
    error: Exception | None = None
    flags: TorchFlags | None = None

    def advance(self) -> None:
        """Continues the coroutine to its next request; StopIteration at its end."""
        error, self.error = self.error, None
        with self.active():
            try:
                self.request = next(self.coroutine) if error is None else self.coroutine.throw(error)
            finally:
                self.flags = TorchFlags.now()

    def step(self) -> None:
        """Makes the requested step."""
        assert isinstance(self.request, StepRequest)
        try:
            with self.active():
                self.request.run()
        except Exception as error:
            self.error = error

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Inside, work is queued in the task's stream, with its thread count and precision."""
        if self.flags is not None:
            self.flags.set()
        with torch.cuda.stream(self.stream) if self.stream else contextlib.nullcontext():
            yield


def run_slots(source: TaskSource, run: RunFolder, execution: ExecutionSettings) -> None:
    """Runs tasks until there are none, `execution.slots` at a time.

    Args:
        source: Gives tasks and gets progress events.
        run: The run's folder.
        execution: Where and how cells run.

    Raises:
        WarmstartError: An error that concerns the whole run.
        Preempted: The process was asked to stop, and all running tasks are checkpointed.
    """
    cache = DeviceCache(execution.device, captures_steps=execution.batching != "stacked")
    engine = find_engine(execution.engine)

    def start(task: Task) -> TrainingCoroutine[str | None]:
        def notify(progress: Progress) -> None:
            source.report(task.event("epoch", progress=progress))

        return cell_coroutine(task.cell, run, cache, execution, notify, engine)

    device = torch.device(execution.device)
    flags = TorchFlags.now()  # cells set their own; the process is the caller's
    try:
        # Pinned memory and new streams belong to the current device.
        with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
            if execution.slots > 1:
                _run_interleaved(source, start, execution, cache)
                return
            while task := source.take(idle=True):
                source.report(task.event("finished", error=run_to_end(start(task))))
                stop_if_requested()
    finally:
        flags.set()


def _run_interleaved(
    source: TaskSource,
    start: Callable[[Task], TrainingCoroutine[str | None]],
    execution: ExecutionSettings,
    cache: DeviceCache,
) -> None:
    """`run_slots` for several slots; `start` makes the coroutine of a task."""
    device = torch.device(execution.device)
    use_streams = execution.batching == "streams"
    free_streams = [torch.cuda.Stream(device) if use_streams else None for _ in range(execution.slots)]
    step = StackedStep(cache) if execution.batching == "stacked" else separate_steps
    running: list[RunningTask] = []
    # Every epoch seeds torch's default generators and restores them; epochs that overlap cannot, so it is done here.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), contextlib.ExitStack() as stack:
        stack.callback(_close, running)
        while True:
            while free_streams and not requested() and (task := source.take(idle=not running)):
                running.append(RunningTask(task, start(task), free_streams.pop()))
            if not running:
                stop_if_requested()
                return
            for each in step_together(running, step, source, wait=not use_streams):
                running.remove(each)
                free_streams.append(each.stream)


def find_engine(name: EngineName) -> Engine | None:
    """The training loop of a name; None for ours."""
    if name == "native":
        return None
    from warmstart_sim.avalanche.engine import avalanche_engine

    return avalanche_engine


def step_together(
    running: Sequence[RunningTask],
    step: Callable[[Sequence[RunningTask]], None],
    source: TaskSource,
    wait: bool,
) -> list[RunningTask]:
    """Continues all tasks to their next steps, and makes these unless tasks have ended; returns those.

    Args:
        running: The tasks.
        step: Makes the steps of several tasks.
        source: Gets the events of tasks that have ended.
        wait: Whether to wait for pending values of the device; if not, a task stays where it is until they are there.
    """
    ended = [each for each in running if _advance_to_step(each, source, wait)]
    if ended:
        return ended  # the next tasks make their first step together with the others
    if ready := [each for each in running if isinstance(each.request, StepRequest)]:
        step(ready)
        for each in ready:
            each.request = None
    elif running and isinstance(running[0].request, PendingValues):
        running[0].request.run()
    return []


def _advance_to_step(running: RunningTask, source: TaskSource, wait: bool) -> bool:
    """Continues a task until it requests a step; returns whether it has ended instead.

    Args:
        running: The task.
        source: Gets the event of its end.
        wait: Whether to wait for pending values of the device; if not, the task stays where it is until they are there.
    """
    try:
        while not isinstance(running.request, StepRequest):
            if isinstance(running.request, PendingValues) and not running.request.ready:
                if not wait:
                    return False
                running.request.run()
            running.advance()
        return False
    except StopIteration as end:
        source.report(running.task.event("finished", error=end.value))
        return True
    except Preempted:  # it is checkpointed; the others continue to the ends of their epochs
        return True


def _close(running: Sequence[RunningTask]) -> None:
    """Closes the tasks that an error or an interrupt has left running, so that they restore what they changed."""
    for task in running:
        task.coroutine.close()


def separate_steps(tasks: Sequence[RunningTask]) -> None:
    """Makes the step of every task, one after another; on a GPU in streams, they overlap."""
    for task in tasks:
        task.step()


class StackedStep:
    """Makes the steps of all tasks, stacking those whose models are alike; the others make separate steps.

    Args:
        cache: Gives the device and the graph capture of the stacks.

    Attributes:
        unstackable: The kinds of steppers that could not be stacked.
    """

    def __init__(self, cache: DeviceCache) -> None:
        self._cache = cache
        self._stacks: OrderedDict[Hashable, Stack] = OrderedDict()
        self.unstackable: set[Hashable] = set()

    def __call__(self, tasks: Sequence[RunningTask]) -> None:
        """Makes all steps; every task has requested one."""
        for kind, group in _by_kind(tasks).items():
            if len(group) == 1 or kind in self.unstackable or not self._stacked(kind, group):
                separate_steps(group)

    def _stacked(self, kind: Hashable, group: Sequence[RunningTask]) -> bool:
        """`_step`, again with more memory if there was too little."""
        with group[0].active():  # tasks of a kind have the same precision
            try:
                return self._step(kind, group)
            except torch.OutOfMemoryError:
                pass  # what the error's traceback holds is freed first
            self._stacks.clear()
            self._cache.free_memory()
            try:
                return self._step(kind, group)
            except torch.OutOfMemoryError:
                self.unstackable.add(kind)
                return False

    def _step(self, kind: Hashable, group: Sequence[RunningTask]) -> bool:
        """Makes a stacked step; returns whether it succeeded, and changes nothing if not.

        Raises:
            OutOfMemoryError: There is too little memory on the device.
        """
        requests = {id(task.request.stepper): task.request for task in group if isinstance(task.request, StepRequest)}
        found = self._stacks.pop(kind, None)
        try:
            if found is not None and {id(stepper) for stepper in found.steppers} == requests.keys():
                stack = found
            else:
                steppers = [request.stepper for request in requests.values()]
                stack = Stack(steppers, self._cache.graph_capture())
            stack.step([requests[id(stepper)] for stepper in stack.steppers])
        except torch.OutOfMemoryError:
            raise
        except (Unstackable, RuntimeError):  # no stacked form; a separate step may work, or raises again
            self.unstackable.add(kind)
            return False
        except Exception:  # from a user's part in one of the tasks
            return False
        self._stacks[kind] = stack  # as the most recent one
        if stack is not found:
            drop_oldest = functools.partial(self._stacks.popitem, last=False)
            if len(self._stacks) > KEPT_STACKS:
                drop_oldest()
            self._cache.keep_to_budget(self._stacks, drop_oldest)
        return True


def _by_kind(tasks: Sequence[RunningTask]) -> dict[Hashable, list[RunningTask]]:
    groups: dict[Hashable, list[RunningTask]] = {}
    for task in tasks:
        assert isinstance(task.request, StepRequest)
        stepper = task.request.stepper
        kind = (stepper.kind, None) if stackable(stepper) else (stepper.kind, id(stepper))
        groups.setdefault(kind, []).append(task)
    return groups
