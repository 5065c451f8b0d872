"""From a prepared scenario to its tables: what is left of its cells is put somewhere, and run."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from warmstart_sim import preemption
from warmstart_sim import scenario as scenarios
from warmstart_sim.datasets.paths import data_root as find_data_root
from warmstart_sim.errors import WarmstartError
from warmstart_sim.registry import DATASETS
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario.cells import import_own, record

if TYPE_CHECKING:
    from warmstart_sim.execution.ray import Cluster
    from warmstart_sim.experiment.engine import Engine
    from warmstart_sim.experiment.settings import ExecutionSettings

EngineName = Literal["native", "avalanche"]

MOST_NOTES = 10  # on the terminal; the report has all


@dataclass(frozen=True)
class RunOptions:
    """How a scenario is run; nothing here changes its numbers, but for `deterministic` on CUDA.

    Attributes:
        out: The run's folder. Default `runs/NAME`.
        device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1".
        data_root: The folder of the data sets. Default `WARMSTART_SIM_DATA`, else the user's cache.
        workers: Processes that run cells side by side. Default: the cores on a CPU, one on a GPU.
        slots: Cells that each process trains at a time; "auto" measures how many are fastest. Default: "auto" on a GPU,
            and on a CPU 1, which gives the same bits however cells are spread.
        batching: How: "stacked" as one model, "streams" side by side on a GPU, "apart" one step after another. Default
            "auto": whichever is measured to be faster.
        fresh: Delete what the folder holds, and begin again.
        quiet: Show no progress.
        tensorboard: Write TensorBoard logs below the run's folder.
        deterministic: On CUDA, only kernels that give the same bits every time.
        engine: Whose training loop: "native" (default), or "avalanche", which does starts and stop rules only; its
            default folder is `runs/NAME-avalanche`.
        ray: Run the cells on Ray: "local" starts it on this machine, anything else is the address of a cluster.
            `workers` is then the number of its workers; default: as many as there are CPUs, or as fit on the GPUs.
        gpus_per_worker: On Ray: of one GPU, such as 0.25; 0 for none. Default: a whole one where there are GPUs.
        ray_storage: On Ray: whether workers write into the run's folder ("shared") or send results back ("returned").
            Default "auto": as each of them sees the folder or not.
        retries: How often a cell is tried again whose worker was killed or lost.
    """

    out: Path | None = None
    device: str = "auto"
    data_root: Path | None = None
    workers: int | None = None
    fresh: bool = False
    quiet: bool = False
    tensorboard: bool = False
    deterministic: bool = False
    slots: int | Literal["auto"] | None = None
    batching: Literal["auto", "stacked", "streams", "apart"] = "auto"
    engine: EngineName = "native"
    ray: str | None = None
    gpus_per_worker: float | None = None
    ray_storage: Literal["auto", "shared", "returned"] = "auto"
    retries: int = 2


@dataclass(frozen=True)
class RunOutcome:
    """What `run_scenario` leaves: the folder, and what failed."""

    folder: Path
    failures: Mapping[str, str] = field(default_factory=dict)


def run_scenario(raw: Mapping[str, Any], where: str, options: RunOptions, rehearsal: bool = False) -> RunOutcome:
    """Runs all cells of a prepared scenario that are not complete, and writes the tables.

    Raises:
        WarmstartError: Something that concerns the whole run.
    """
    from warmstart_sim.results.environment import environment
    from warmstart_sim.scenario.splits import all_training_sizes, notes

    scenario, cells = scenarios.plan(raw, where)
    name = scenario.header.name if options.engine == "native" else f"{scenario.header.name}-{options.engine}"
    run_folder = RunFolder(options.out or Path("runs") / name)
    # What is wrong with a user's own modules, or with how the stream fits the data, is said before a folder is made.
    fresh = options.fresh or not run_folder.path.is_dir()
    unfinished = [cell for cell in cells if fresh or not run_folder.cell(cell.id).complete]
    unfinished = [*scenarios.first_phases(unfinished), *unfinished]
    data_root = find_data_root(options.data_root)
    import_own(unfinished, where)
    all_training_sizes(unfinished, data_root, where)
    device = "cpu" if options.ray else choose_device(options.device)
    engine = _engine(options, unfinished)

    with _cluster(options, unfinished) as cluster, run_folder.locked():
        device = cluster.device if cluster else device
        if options.batching == "streams" and not device.startswith("cuda"):
            raise WarmstartError("--batching streams: streams are a GPU's; on a CPU choose auto, stacked or apart")
        run_folder.open(record(raw, scenario), options.fresh)
        run_folder.check_engine(options.engine)
        room = cluster.size if cluster else 1 if device.startswith("cuda") else _cores()
        workers = min(options.workers or room, len(cells))
        digests = _fetch_data(unfinished, data_root)
        run_folder.check_data(digests)
        found = [*_damage(unfinished, run_folder), *notes(unfinished, data_root)]
        if not options.quiet:
            _say(found)
        execution = _choose_parallelism(unfinished, run_folder, device, workers, options, engine, cluster)
        here = "cpu" if cluster else device  # on a cluster, this machine need not have the device
        about = environment(here, workers, rehearsal, execution.slots, execution.batching, options.engine)
        run_folder.describe(about | (cluster.about() if cluster else {}), found)
        failures = _run_cells(cells, run_folder, execution, workers, options, cluster, digests)
        # All cells of the folder, which may hold other seeds and arms than were asked for.
        collect(run_folder.path, cells if run_folder.scenario() == record(raw, scenario) else None)
    return RunOutcome(run_folder.path, failures)


def collect(run_dir: Path, cells: Sequence[scenarios.Cell] | None = None) -> None:
    """Writes rounds.csv and epochs.csv of a run again, from its complete cells; a copy without cells keeps its own.

    Args:
        run_dir: The run's folder.
        cells: Those that its scenario means, if they are known; None plans them.

    Raises:
        WarmstartError: The folder holds no run, or one of a version whose cells had other settings.
    """
    folder = RunFolder(run_dir)
    stored = stored_scenario(folder)
    if (run_dir / "rounds.csv").exists() and not (run_dir / "cells").is_dir():
        return
    if cells is None:
        _, cells = scenarios.plan(stored, str(run_dir / "scenario.yaml"))
    if strange := folder.complete_cells() - {cell.id for cell in cells}:
        raise WarmstartError(
            f"{run_dir}: {min(strange)} is none of the cells that scenario.yaml means to this version of "
            "warmstart-sim, so the tables are left as they are; use the version in environment.json, or another --out"
        )
    folder.write_tables([(cell.id, _identity(cell)) for cell in cells])


def stored_scenario(folder: RunFolder) -> dict[str, Any]:
    """The scenario of a run's folder.

    Raises:
        WarmstartError: The folder holds no run.
    """
    stored = folder.scenario()
    if stored is None:
        raise WarmstartError(f"{folder.path}: holds no run; `warmstart-sim run SCENARIO --out {folder.path}` makes one")
    return stored


def choose_device(device: str) -> str:
    """The device that "auto" means, or the one asked for if it is there.

    Raises:
        WarmstartError: No such device.
    """
    kind, _, index = device.partition(":")
    if device not in ("auto", "cpu", "cuda") and not (kind == "cuda" and index.isdecimal()):
        raise WarmstartError(f"--device {device}: expected auto, cpu, cuda or cuda:N")
    if device == "cpu":
        return "cpu"
    import torch

    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(index or 0) >= count:
        raise WarmstartError(
            f"--device {device}: this machine has {count or 'no'} CUDA device{'s' * (count != 1)}; use --device cpu"
        )
    return f"cuda:{int(index or 0)}"


def _cluster(options: RunOptions, cells: Sequence[scenarios.Cell]) -> contextlib.AbstractContextManager[Cluster | None]:
    """The Ray cluster that was asked for, while there is anything to run on it."""
    if options.ray is None:
        return contextlib.nullcontext()
    from warmstart_sim.execution.ray import RayOptions, connected

    wanted = RayOptions(options.ray, options.workers, options.device, options.gpus_per_worker, options.ray_storage)
    wanted.check()
    return connected(wanted, cells) if cells else contextlib.nullcontext()


def _engine(options: RunOptions, cells: Sequence[scenarios.Cell]) -> Engine | None:
    """What trains the cells in place of our own loop, after making sure that it can."""
    if options.engine == "native":
        return None
    if options.slots not in (None, 1) or options.batching not in ("auto", "apart"):
        raise WarmstartError(f"--engine {options.engine}: trains one cell at a time; leave --slots and --batching out")
    from warmstart_sim.avalanche.engine import avalanche_engine, check_supported

    check_supported(cells)
    return avalanche_engine


def _choose_parallelism(
    cells: Sequence[scenarios.Cell],
    run_folder: RunFolder,
    device: str,
    workers: int,
    options: RunOptions,
    engine: Engine | None,
    cluster: Cluster | None,
) -> ExecutionSettings:
    """Where and how the cells that are left run."""
    from warmstart_sim.execution.autotune import choose_parallelism
    from warmstart_sim.experiment.settings import ExecutionSettings

    execution = ExecutionSettings(
        find_data_root(options.data_root), device, tensorboard=options.tensorboard, deterministic=options.deterministic
    )
    if engine is not None:  # what a step of ours costs alone says nothing about a step of it
        return replace(execution, engine=engine, timing="isolated" if workers == 1 and not cluster else "shared")
    cuda, batching = device.startswith("cuda"), options.batching
    if batching == "auto" and options.deterministic and cuda:
        batching = "streams"  # stacked, the last bits of a cell would depend on its neighbours
    slots = options.slots or ("auto" if cuda else 1)
    arrange = cluster.choose_parallelism if cluster else choose_parallelism
    return arrange(execution, cells, run_folder, workers=workers, slots=slots, batching=batching)


def _run_cells(
    cells: Sequence[scenarios.Cell],
    run_folder: RunFolder,
    execution: ExecutionSettings,
    workers: int,
    options: RunOptions,
    cluster: Cluster | None,
    digests: Mapping[str, str],
) -> dict[str, str]:
    from warmstart_sim.execution.display import LiveDisplay, PlainDisplay
    from warmstart_sim.execution.local import run_local
    from warmstart_sim.execution.progress import ProgressListener, RunProgress
    from warmstart_sim.execution.scheduler import Scheduler
    from warmstart_sim.execution.status import StatusWriter
    from warmstart_sim.execution.tasks import TaskQueue

    queue = TaskQueue(cells, run_folder)
    run_progress = RunProgress(len(queue))
    listeners: list[ProgressListener] = [run_progress, StatusWriter(run_progress, run_folder)]
    with contextlib.ExitStack() as stack:
        if not options.quiet:
            console = Console(stderr=True)
            display: LiveDisplay | PlainDisplay
            display = (LiveDisplay if console.is_terminal else PlainDisplay)(run_progress, console)
            stack.enter_context(display)
            listeners.append(display)
        stack.enter_context(preemption.heeded())
        scheduler = Scheduler(queue, listeners, options.retries)
        if cluster is None:
            run_local(scheduler, execution, workers)
        else:
            from warmstart_sim.execution import ray

            say = (lambda text: None) if options.quiet else (lambda text: _say([text]))
            ray.run_cells(cluster, scheduler, execution, workers, digests, say)
    return scheduler.failures


def _fetch_data(cells: Sequence[scenarios.Cell], data_root: Path) -> dict[str, str]:
    """Loads each data set once before any worker starts: one download, and one error if it cannot be had.

    Returns:
        The digest of each, and of files of weights; for a data set that depends on the seed, with the first seed alone.
    """
    from warmstart_sim.models.weights import file_digest
    from warmstart_sim.scenario.splits import load_component

    digests = {}
    for cell in {str(cell.data.record()): cell for cell in reversed(cells)}.values():
        seed = "" if DATASETS.has_trait(cell.data.name, "same_for_every_seed") else f" seed {cell.seed}"
        digests[f"{cell.data.record()}{seed}"] = load_component(cell.data, cell.seed, data_root).digest()
    for path in {cell.pretraining.checkpoint for cell in cells if cell.pretraining and cell.pretraining.checkpoint}:
        digests[f"checkpoint {path}"] = file_digest(path)
    return digests


def _damage(cells: Sequence[scenarios.Cell], run_folder: RunFolder) -> list[str]:
    """What is wrong with files of cells that are not complete, a line each."""
    folders = [run_folder.first_phase(cell.id) for cell in scenarios.first_phases(cells)]
    folders += [run_folder.cell(cell.id) for cell in cells]
    found = (folder.damage() for folder in folders if folder.path.is_dir())
    return [f"{damage}; what was in it is computed again" for damage in found if damage]


def _say(found: Sequence[str]) -> None:
    """Tells a user what to know about the data, on stderr."""
    for note in found[:MOST_NOTES]:
        print(f"warmstart-sim: note: {note}", file=sys.stderr)
    if len(found) > MOST_NOTES:
        print(f"warmstart-sim: note: {len(found) - MOST_NOTES} more notes are in the report", file=sys.stderr)


def _identity(cell: scenarios.Cell) -> dict[str, Any]:
    return {"scenario": cell.scenario, "strategy": cell.arm.label, "seed": cell.seed, **cell.varied}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def failure_lines(outcome: RunOutcome) -> str:
    """What failed, a line each, and what to do."""
    lines = [
        f"{len(outcome.failures)} of the cells failed; the others are complete. The same command tries them again."
    ]
    return "\n".join([*lines, *(f"  {cell}: {reason}" for cell, reason in outcome.failures.items())])
