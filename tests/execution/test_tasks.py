"""The order of work: a first phase once, before the cells that start from it, and nothing that is done already."""

from __future__ import annotations

from typing import Any

import pytest

from warmstart_sim import scenario as scenarios
from warmstart_sim.execution.tasks import Task, TaskQueue
from warmstart_sim.results.store import RunFolder

PAIRS = {
    "digits to noisy": {"stream.source": "digits", "data": "noisy_digits"},
    "digits to synthetic": {"stream.source": "digits", "data": {"name": "synthetic", "like": "digits"}},
    "noisy to digits": {"stream.source": "noisy_digits", "data": "digits"},
}
SCENARIO: dict[str, Any] = {
    "name": "tiny",
    "stream": {"name": "pretrain"},
    "strategies": {"random_init": {}, "warm_start": {}},
    "vary": {"pair": PAIRS, "stream.fraction": [0.5, 1.0]},
    "seeds": [0, 1],
}


@pytest.fixture
def cells() -> list[scenarios.Cell]:
    return scenarios.plan(SCENARIO, "scenario")[1]


def complete(task: Task, run: RunFolder) -> None:
    task.folder(run).finish({}, [], [])


def release(queue: TaskQueue, task: Task) -> None:
    queue.put_first(*queue.pop_waiting(task.id))


def drained(queue: TaskQueue, run: RunFolder | None = None) -> list[Task]:
    order = []
    while task := queue.take():
        order.append(task)
        if run is not None:
            complete(task, run)
        release(queue, task)
    return order


def test_every_first_phase_comes_once_and_before_its_cells(cells, tmp_path):
    order = drained(TaskQueue(cells, RunFolder(tmp_path)))
    phases = [task.id for task in order if task.cell.is_first_phase]
    assert len(phases) == len(set(phases)) == 4  # two sources, two seeds
    assert sorted(task.id for task in order if not task.cell.is_first_phase) == sorted(cell.id for cell in cells)
    execution = {task.id: index for index, task in enumerate(order)}
    assert all(execution[cell.first_phase.id] < execution[cell.id] for cell in cells)


def test_a_phase_and_a_cell_never_share_an_id_and_lie_apart(cells, tmp_path):
    order = drained(TaskQueue(cells, RunFolder(tmp_path)))
    assert len({task.folder(RunFolder(tmp_path)).path for task in order}) == len(order) == 24 + 4


def test_cells_wait_for_their_own_first_phase_alone(cells, tmp_path):
    queue = TaskQueue(cells, RunFolder(tmp_path))
    assert [task.cell.is_first_phase for task in queue.ready] == [True] * 4
    first = queue.take()
    release(queue, first)
    freed = [task.cell.first_phase.id for task in queue.ready if not task.cell.is_first_phase]
    assert freed == [first.id] * 8  # two pairs share the source; two fractions, two arms


def test_a_first_phase_that_failed_takes_its_cells_with_it_and_no_others(cells, tmp_path):
    queue = TaskQueue(cells, RunFolder(tmp_path))
    first = queue.take()
    orphans = queue.pop_waiting(first.id)
    assert len(orphans) == 8
    assert all(task.cell.first_phase.id == first.id for task in orphans)
    assert len(drained(queue)) == 24 - 8 + 3


def test_what_is_complete_is_left_out(cells, tmp_path):
    run = RunFolder(tmp_path)
    queue = TaskQueue(cells, run)
    done = [queue.take() for _ in range(2)]
    for task in done:
        complete(task, run)
    again = TaskQueue(cells, run)
    assert len([task for task in again.ready if not task.cell.is_first_phase]) == sum(
        cell.first_phase.id in {task.id for task in done} for cell in cells
    )
    assert len(drained(again, run)) == 24 + 2
    assert drained(TaskQueue(cells, run)) == []


def test_cells_that_start_from_a_file_wait_for_nothing(tmp_path):
    raw = {**SCENARIO, "data": "digits", "stream": {"name": "pretrain", "checkpoint": "w.pt"}, "vary": None}
    queue = TaskQueue(scenarios.plan(raw, "scenario")[1], RunFolder(tmp_path))
    assert [task.cell.is_first_phase for task in queue.ready] == [False] * 4
    assert queue.waiting == {}
