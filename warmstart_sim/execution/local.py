"""Runs cells on this machine: in this process, or in worker processes; both give the same numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warmstart_sim.execution.scheduler import Scheduler
from warmstart_sim.execution.worker_pool import WorkerPool

if TYPE_CHECKING:
    from warmstart_sim.experiment.settings import ExecutionSettings


def run_local(scheduler: Scheduler, execution: ExecutionSettings, workers: int = 1) -> None:
    """Runs all tasks of a scheduler, which collects the failures.

    Args:
        scheduler: Its run folder is locked by the caller.
        execution: Where and how cells run, and how many at a time in each process.
        workers: The number of processes; 1 for this process.

    Raises:
        WarmstartError: An error that concerns the whole run: missing data, a full disk, a model that does not take the
            data.
        Preempted: The process got SIGTERM (handled by the caller), and all running tasks are checkpointed.
    """
    run = scheduler.queue.run
    if workers > 1:
        WorkerPool(scheduler, run, execution, workers).run_tasks()
        return
    import torch

    from warmstart_sim.execution.interleaved import run_slots

    threads = torch.get_num_threads()  # cells set their own number; the process is the caller's
    try:
        run_slots(scheduler, run, execution)
    finally:
        torch.set_num_threads(threads)
