"""A run that is over, as analyses see it. Importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warmstart_sim.experiment.settings import ExecutionSettings
    from warmstart_sim.experiment.stored_cell import StoredCell
    from warmstart_sim.results.store import RunFolder
    from warmstart_sim.results.tables import Run
    from warmstart_sim.scenario import Cell


@dataclass(frozen=True)
class StoredRun:
    """A run that is over.

    Attributes:
        folder: Its folder.
        tables: Its tables.
        planned: All cells of its scenario.
        execution: Where the data are, and the device to compute on.
    """

    folder: RunFolder
    tables: Run
    planned: Sequence[Cell]
    execution: ExecutionSettings

    def cells(self) -> Iterator[StoredCell]:
        """The complete cells that have not diverged, one after another; each is valid until the next one."""
        from warmstart_sim.acceleration.device_cache import DeviceCache
        from warmstart_sim.experiment.cell_trainer import CellTrainer
        from warmstart_sim.experiment.stored_cell import StoredCell

        cache = DeviceCache(self.execution.device)
        for cell in self.planned:
            result = cell.folder(self.folder).result()
            if result is None or result["rounds"][-1]["status"] == "diverged":
                continue
            trainer = CellTrainer(cell, self.execution, cache)
            yield StoredCell(self.folder, trainer, result["rounds"][-1])
            trainer.close()
