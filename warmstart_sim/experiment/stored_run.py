"""A run that is over, as analyses see it. Importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from warmstart_sim.errors import WarmstartError

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
        """The complete cells that have not diverged, one after another; each is valid until the next one.

        Raises:
            WarmstartError: The samples that a cell's model has chosen were not kept.
        """
        from warmstart_sim.acceleration.device_cache import DeviceCache
        from warmstart_sim.experiment.active_learning import model_chooses, restore_choices
        from warmstart_sim.experiment.cell_trainer import CellTrainer
        from warmstart_sim.experiment.stored_cell import StoredCell

        cache = DeviceCache(self.execution.device)
        for cell in self.planned:
            result = cell.folder(self.folder).result()
            if result is None or result["rounds"][-1]["status"] == "diverged":
                continue
            trainer = CellTrainer(cell, self.execution, cache)
            if model_chooses(trainer):
                if (chunks := cell.folder(self.folder).arrival()) is None:
                    raise WarmstartError(
                        f"{cell.folder(self.folder).path} lacks arrival.csv, the samples of each round"
                    )
                restore_choices(trainer, chunks)
            yield StoredCell(self.folder, trainer, result["rounds"][-1])
            trainer.close()
