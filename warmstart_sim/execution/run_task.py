"""Runs one task; an error of its cell is recorded, so that the other cells can finish."""

from __future__ import annotations

import traceback

from warmstart_sim.acceleration.device_cache import DeviceCache
from warmstart_sim.errors import WarmstartError, error_summary
from warmstart_sim.execution.progress import ProgressListener
from warmstart_sim.execution.tasks import Task
from warmstart_sim.experiment.engine import Engine
from warmstart_sim.experiment.recorder import Progress
from warmstart_sim.experiment.run_cell import cell_coroutine, first_phase_coroutine
from warmstart_sim.experiment.settings import EngineName, ExecutionSettings
from warmstart_sim.results.store import RunFolder
from warmstart_sim.results.tensorboard import TensorBoardLog
from warmstart_sim.training.coroutine import TrainingCoroutine


def run_task(
    task: Task, run: RunFolder, cache: DeviceCache, execution: ExecutionSettings, listener: ProgressListener
) -> TrainingCoroutine[str | None]:
    """Runs a task as a coroutine. An error that concerns its cell alone is recorded in the cell's folder and returned.

    Args:
        task: A cell, or a first phase.
        run: Where results go.
        cache: Samples and steppers that this process keeps from task to task.
        execution: Where and how it runs.
        listener: Gets an event after every epoch.

    Raises:
        WarmstartError: An error that concerns the whole run.
    """
    log = TensorBoardLog(run.path / "tensorboard" / task.folder(run).path.name) if execution.tensorboard else None

    def notify(progress: Progress) -> None:
        if log is not None:
            log.write(progress.total_epochs, progress.epoch_row, progress.round_row)
        listener(task.event("epoch", progress=progress))

    try:
        coroutine = first_phase_coroutine if task.first_phase else cell_coroutine
        yield from coroutine(task.cell, run, cache, execution, notify, find_engine(execution.engine))
    except WarmstartError:
        raise
    except OSError as error:
        raise run.unusable(error) from error
    except Exception as error:
        reason = error_summary(error)
        task.folder(run).fail(reason, traceback.format_exc())
        return reason
    finally:
        if log is not None:
            log.close()
    return None


def find_engine(name: EngineName) -> Engine | None:
    """The training loop of a name; None for ours."""
    if name == "native":
        return None
    from warmstart_sim.avalanche.engine import avalanche_engine

    return avalanche_engine
