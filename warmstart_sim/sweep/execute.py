"""Executors on this machine: the cells run in this process, or in worker processes; both give the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from warmstart_sim.config import Cell
from warmstart_sim.results.store import RunFolder
from warmstart_sim.sweep.ledger import RETRIES, Ledger, Watcher
from warmstart_sim.sweep.pool import Pool
from warmstart_sim.sweep.tasks import Queue

if TYPE_CHECKING:
    from warmstart_sim.place import Place


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
        Pool(ledger, run, place, workers).execute()
    return ledger.failures


def _execute_here(ledger: Ledger, run: RunFolder, place: Place) -> None:
    import torch

    from warmstart_sim.sweep.slots import run_slots

    threads = torch.get_num_threads()  # cells set their own number; the process is the caller's
    try:
        run_slots(ledger, run, place)
    finally:
        torch.set_num_threads(threads)
