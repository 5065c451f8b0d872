"""Many cells in one process: each slot trains one, all make a step together, and a slot that is free takes the next.

A slot whose epoch is over checks its stop rule, starts its next round or its next cell, and is back with a minibatch
before the others make their next step (on a CPU), or while theirs are still running (on a GPU, in streams of its own).
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from warmstart_sim.acceleration.device_cache import DeviceCache
from warmstart_sim.acceleration.stacked_layers import Unstackable
from warmstart_sim.acceleration.stacking import Stack, stackable
from warmstart_sim.execution.progress import ProgressEvent
from warmstart_sim.execution.run_task import run_task
from warmstart_sim.execution.tasks import Task
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.preemption import Preempted, requested, stop_if_requested
from warmstart_sim.results.store import RunFolder
from warmstart_sim.training.coroutine import PendingValues, TrainingCoroutine, TrainingRequest, run_to_end
from warmstart_sim.training.stepper import StepRequest


class TaskSource(Protocol):
    """Gives tasks and gets progress events: the scheduler, or a worker's proxy of it."""

    def take(self, idle: bool) -> Task | None:
        """The next task; None when there is none now, or, if the caller is idle and can wait, none will ever come."""

    def report(self, event: ProgressEvent) -> None:
        """Takes a progress event."""


@dataclass
class RunningTask:
    """A task under way.

    Attributes:
        turns: Its training.
        turn: What it waits for; None before the first, and once its minibatch is stepped.
        stream: Where its work is queued; None for the default one.
        error: What went wrong with its last step, to be told to the training.
    """

    task: Task
    coroutine: TrainingCoroutine[str | None]
    stream: torch.cuda.Stream | None
    request: TrainingRequest | None = None
    error: Exception | None = None

    def advance(self) -> None:
        """Lets the training go on to its next turn; StopIteration when it is over."""
        error, self.error = self.error, None
        with self.queue():
            self.request = next(self.coroutine) if error is None else self.coroutine.throw(error)

    def step(self) -> None:
        """Makes its step alone."""
        assert isinstance(self.request, StepRequest)
        try:
            with self.queue():
                self.request.run()
        except Exception as error:
            self.error = error

    def queue(self) -> contextlib.AbstractContextManager[object]:
        """The stream that takes its work."""
        return torch.cuda.stream(self.stream) if self.stream else contextlib.nullcontext()


def run_slots(source: TaskSource, run: RunFolder, execution: ExecutionSettings) -> None:
    """Runs tasks until there are none, `place.slots` at a time.

    Args:
        source: Gives tasks, and is told how they go.
        run: Where results go.
        execution: Where and how cells run.

    Raises:
        WarmstartError: An error that concerns the whole run.
        Preempted: The process was asked to stop, and tasks that it had taken are checkpointed.
    """
    cache = DeviceCache(execution.device, captures_steps=execution.batching != "stacked")

    def started(task: Task) -> TrainingCoroutine[str | None]:
        return run_task(task, run, cache, execution, source.report)

    if execution.slots == 1:
        while task := source.take(idle=True):
            source.report(task.event("finished", error=run_to_end(started(task))))
            stop_if_requested()
        return
    device = torch.device(execution.device)
    streams = execution.batching == "streams"
    free = [torch.cuda.Stream(device) if streams else None for _ in range(execution.slots)]
    step = StackedStep(cache) if execution.batching == "stacked" else separate_steps
    slots: list[RunningTask] = []
    # Epochs seed torch's default generators while they run; here they overlap, so that none can put back what was.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), contextlib.ExitStack() as ending:
        ending.callback(_close, slots)
        while True:
            while free and not requested() and (task := source.take(idle=not slots)):
                slots.append(RunningTask(task, started(task), free.pop()))
            if not slots:
                stop_if_requested()
                return
            over = [slot for slot in slots if _is_over(slot, source, wait=not streams)]
            for slot in over:
                slots.remove(slot)
                free.append(slot.stream)
            if over:
                continue  # the next cell is to make its first step with the others
            if ready := [slot for slot in slots if isinstance(slot.request, StepRequest)]:
                step(ready)
                for slot in ready:
                    slot.request = None
            elif slots and isinstance(slots[0].request, PendingValues):
                slots[0].request.run()


def _is_over(slot: RunningTask, source: TaskSource, wait: bool) -> bool:
    """Lets a slot go on until it has a minibatch, or has to wait for a number; whether it came to its end."""
    try:
        while not isinstance(slot.request, StepRequest):
            if isinstance(slot.request, PendingValues) and not slot.request.ready:
                if not wait:
                    return False
                slot.request.run()
            slot.advance()
        return False
    except StopIteration as end:
        source.report(slot.task.event("finished", error=end.value))
        return True
    except Preempted:  # it is checkpointed; the others go on to the ends of their epochs
        return True


def _close(slots: Sequence[RunningTask]) -> None:
    """Ends trainings that an error or an interrupt has left under way, so that they put back what they changed."""
    for slot in slots:
        slot.coroutine.close()


def separate_steps(slots: Sequence[RunningTask]) -> None:
    """A step of every slot, each by itself (on a GPU in its own stream, so that they run side by side)."""
    for slot in slots:
        slot.step()


class StackedStep:
    """A step of every slot, those whose models are alike as one stack; what cannot be stacked is stepped apart.

    Args:
        cache: Whose device the stacks are on.

    Attributes:
        unstackable: The kinds of steppers for which it did not work.
    """

    def __init__(self, cache: DeviceCache) -> None:
        self._cache = cache
        self._stacks: dict[Hashable, Stack] = {}
        self.unstackable: set[Hashable] = set()

    def __call__(self, slots: Sequence[RunningTask]) -> None:
        """Steps all; each has a minibatch."""
        for kind, group in _by_kind(slots).items():
            if len(group) == 1 or kind in self.unstackable or not self._step(kind, group):
                separate_steps(group)

    def _step(self, kind: Hashable, group: list[RunningTask]) -> bool:
        """Whether it could be done; if not, nothing has changed."""
        coroutine = {id(slot.request.stepper): slot.request for slot in group if isinstance(slot.request, StepRequest)}
        stack = self._stacks.get(kind)
        try:
            if stack is None or {id(stepper) for stepper in stack.steppers} != coroutine.keys():
                steppers = [request.stepper for request in coroutine.values()]
                stack = self._stacks[kind] = Stack(steppers, self._cache.graph_capture())
            stack.step([coroutine[id(stepper)] for stepper in stack.steppers])
        except (Unstackable, RuntimeError):  # no stacked form, no memory: by themselves they go on, or say why not
            self.unstackable.add(kind)
            self._stacks.pop(kind, None)
            return False
        except Exception:  # what a user's part does to one of them
            return False
        return True


def _by_kind(slots: Sequence[RunningTask]) -> dict[Hashable, list[RunningTask]]:
    groups: dict[Hashable, list[RunningTask]] = {}
    for slot in slots:
        assert isinstance(slot.request, StepRequest)
        stepper = slot.request.stepper
        kind = (stepper.kind, None) if stackable(stepper) else (stepper.kind, id(stepper))
        groups.setdefault(kind, []).append(slot)
    return groups
