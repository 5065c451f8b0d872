"""The order in which cells can run: a shared first phase before the cells that start from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from warmstart_sim.results.cell_folder import CellFolder
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario import Cell


@dataclass(frozen=True)
class Task:
    """One thing for a worker to do: a cell, or a cell that is the first phase of others."""

    cell: Cell
    first_phase: bool

    @property
    def id(self) -> str:
        """Unique in a run."""
        return self.cell.id

    def folder(self, run: RunFolder) -> CellFolder:
        """Where its result goes."""
        return run.first_phase(self.cell.id) if self.first_phase else run.cell(self.cell.id)


@dataclass
class TaskQueue:
    """What is left to do. A cell becomes ready when the first phase that it needs is done.

    Args:
        cells: In the order in which they should run.
        run: What is complete there is left out.
    """

    cells: Sequence[Cell]
    run: RunFolder
    ready: list[Task] = field(init=False)
    waiting: dict[str, list[Task]] = field(init=False)

    def __post_init__(self) -> None:
        self.ready, self.waiting = [], {}
        for cell in self.cells:
            task = Task(cell, first_phase=False)
            if task.folder(self.run).complete:
                continue
            phase = cell.first_phase and Task(cell.first_phase, first_phase=True)
            if not phase or phase.folder(self.run).complete:
                self.ready.append(task)
            elif phase.id in self.waiting:
                self.waiting[phase.id].append(task)
            else:
                self.waiting[phase.id] = [task]
                self.ready.append(phase)

    def take(self) -> Task | None:
        """The next task that can run now."""
        return self.ready.pop(0) if self.ready else None

    def done(self, task: Task) -> None:
        """Frees the cells that waited for `task`; they go first, so that a seed's arms end close together."""
        self.ready[:0] = self.waiting.pop(task.id, [])

    def put_back(self, task: Task) -> None:
        """A task that was taken is to be done again, before all others: cells may be waiting for it."""
        self.ready.insert(0, task)

    def failed(self, task: Task) -> list[Task]:
        """The tasks that cannot run because `task` failed."""
        return self.waiting.pop(task.id, [])
