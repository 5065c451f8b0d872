"""Executors on this machine: the cells run in this process, or in worker processes; both give the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from warmstart_sim.execution.scheduler import RETRIES, ProgressListener, Scheduler
from warmstart_sim.execution.tasks import TaskQueue
from warmstart_sim.execution.worker_pool import WorkerPool
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario import Cell

if TYPE_CHECKING:
    from warmstart_sim.experiment.settings import ExecutionSettings


def run_cells(
    cells: Sequence[Cell],
    run: RunFolder,
    execution: ExecutionSettings,
    workers: int,
    listener: ProgressListener,
    retries: int = RETRIES,
) -> dict[str, str]:
    """Runs all cells that are not complete yet.

    Args:
        cells: In the order in which they should run.
        run: The run's folder, locked by the caller.
        execution: Where and how cells run, and how many at a time in each process.
        workers: With 1 everything happens in this process.
        listener: Is told how it goes.
        retries: How often a cell is tried again whose worker was killed. One that raises an exception is not.

    Returns:
        The cells that failed, and why: an exception, workers killed again and again. The others are complete.

    Raises:
        WarmstartError: Something that no other cell would survive either: missing data, a full disk, a model that
            does not take the data.
        Preempted: The process got SIGTERM (heeded by the caller), and what was under way is checkpointed.
    """
    scheduler = Scheduler(TaskQueue(cells, run), listener, retries)
    if workers == 1:
        _execute_here(scheduler, run, execution)
    else:
        WorkerPool(scheduler, run, execution, workers).run_cells()
    return scheduler.failures


def _execute_here(scheduler: Scheduler, run: RunFolder, execution: ExecutionSettings) -> None:
    import torch

    from warmstart_sim.execution.interleaved import run_slots

    threads = torch.get_num_threads()  # cells set their own number; the process is the caller's
    try:
        run_slots(scheduler, run, execution)
    finally:
        torch.set_num_threads(threads)
