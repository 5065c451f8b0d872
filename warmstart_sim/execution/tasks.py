"""Tasks of a run, and the order in which they can run: a shared first phase before the cells that start from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from warmstart_sim.execution.progress import ProgressEvent
from warmstart_sim.results.cell_folder import CellFolder
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario import Cell


@dataclass(frozen=True)
class Task:
    """A cell to run, or a cell that is the first phase of others."""

    cell: Cell

    @property
    def id(self) -> str:
        """Unique in a run."""
        return self.cell.id

    @property
    def title(self) -> str:
        """The task's name for users, such as "shrink_perturb, lambda 0.6, seed 0"."""
        cell = self.cell
        varied = [f"{key.rpartition('.')[2]} {value}" for key, value in cell.varied.items() if value is not None]
        name = f"first phase on {cell.data.name}" if cell.is_first_phase else cell.arm.label
        return ", ".join([name, *varied, f"seed {cell.seed}"])

    def folder(self, run: RunFolder) -> CellFolder:
        """The folder of the task's results."""
        return self.cell.folder(run)

    def event(self, kind: Literal["started", "epoch", "retried", "finished"], **details: Any) -> ProgressEvent:
        """A progress event of this task, with `progress` or `error`."""
        return ProgressEvent(kind, self.id, self.title, **details)


@dataclass
class TaskQueue:
    """Tasks that have not been taken yet. A cell becomes ready when the first phase that it needs is complete.

    Args:
        cells: In the order in which they should run.
        run: The run's folder; tasks that are complete there are left out.
    """

    cells: Sequence[Cell]
    run: RunFolder
    ready: list[Task] = field(init=False)
    waiting: dict[str, list[Task]] = field(init=False)  # by the id of the first phase that they wait for

    def __post_init__(self) -> None:
        self.ready, self.waiting = [], {}
        for cell in self.cells:
            task = Task(cell)
            if task.folder(self.run).complete:
                continue
            queue = self.ready
            phase = cell.first_phase and Task(cell.first_phase)
            if phase and not phase.folder(self.run).complete:
                if phase.id not in self.waiting:
                    self.waiting[phase.id] = []
                    self.ready.append(phase)
                queue = self.waiting[phase.id]
            if cell.copy_of is None:  # a copy needs its first phase only
                queue.append(task)

    def __len__(self) -> int:
        return len(self.ready) + sum(map(len, self.waiting.values()))

    def take(self) -> Task | None:
        """The next task that can run now."""
        return self.ready.pop(0) if self.ready else None

    def put_first(self, *tasks: Task) -> None:
        """Makes tasks the next ones."""
        self.ready[:0] = tasks

    def pop_waiting(self, task_id: str) -> list[Task]:
        """Removes and returns the tasks that wait for a first phase."""
        return self.waiting.pop(task_id, [])
