"""From a prepared scenario to its tables: plan the cells, check them, choose where they run, run them, write tables."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from warmstart_sim import preemption
from warmstart_sim import scenario as scenarios
from warmstart_sim.datasets.paths import data_root as find_data_root
from warmstart_sim.errors import RunError, WarmstartError
from warmstart_sim.execution.analyze import analyze_all, check_analyses
from warmstart_sim.execution.options import RunOptions
from warmstart_sim.execution.speed_notes import speed_notes
from warmstart_sim.experiment.copies import copy_results
from warmstart_sim.registry import DATASETS
from warmstart_sim.results.environment import environment, usable_cores
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario.cells import import_user_modules
from warmstart_sim.scenario.changes import changes_from_paper
from warmstart_sim.scenario.resolved import resolved_scenario

if TYPE_CHECKING:
    from warmstart_sim.execution.ray import Cluster
    from warmstart_sim.execution.scheduler import Scheduler
    from warmstart_sim.experiment.settings import ExecutionSettings

MAX_NOTES_SHOWN = 10  # on the terminal; the report shows all


@dataclass(frozen=True)
class RunOutcome:
    """The folder of a run, and the reason for every failed cell (by its id) and every failed analysis (by its name)."""

    folder: Path
    failures: Mapping[str, str] = field(default_factory=dict)
    failed_analyses: Mapping[str, str] = field(default_factory=dict)

    def raise_failures(self) -> None:
        """Raises the error that lists the failed cells, or else the failed analyses.

        Raises:
            RunError: A cell or an analysis has failed.
        """
        if self.failures:
            count = f"{len(self.failures)} of the cells failed; the others are complete."
            reasons = [f"  {cell}: {reason}" for cell, reason in self.failures.items()]
            raise RunError("\n".join([f"{count} The same command tries them again.", *reasons]))
        if self.failed_analyses:
            raise RunError("; ".join(f"analyze: {reason}" for reason in self.failed_analyses.values()))


def run_scenario(raw: Mapping[str, Any], where: str, options: RunOptions) -> RunOutcome:
    """Runs all cells of a prepared scenario that are not complete, and writes the tables.

    Args:
        raw: The scenario, as `prepare_scenario` returns it.
        where: Its name in errors.
        options: How to run it.

    Raises:
        WarmstartError: An error that concerns the whole run.
    """
    from warmstart_sim.scenario.splits import corrupted_labels, data_notes

    scenario, cells = scenarios.plan(raw, where)
    resolved = resolved_scenario(raw, scenario)
    suffix = "" if options.engine == "native" else f"-{options.engine}"
    run = RunFolder(Path(options.out or f"runs/{scenario.header.name}{suffix}"))
    data_root = find_data_root(options.data_root and Path(options.data_root))
    unfinished = _unfinished(cells, run, options.fresh)
    device = "cpu" if options.ray else choose_device(options.device)
    check_analyses(scenario.analyze, where)
    _check(unfinished, data_root, where, options)  # before a folder is made

    with _cluster(options, unfinished) as cluster, run.locked():
        device = cluster.device if cluster else device
        if options.batching == "streams" and not device.startswith("cuda"):
            raise WarmstartError("--batching streams: needs a GPU; on a CPU choose auto, stacked or separate")
        run.open(resolved, options.fresh)
        run.check_engine(options.engine)
        digests = _load_data(unfinished, data_root)
        run.check_data(digests)
        run.store_label_noise(corrupted_labels(unfinished, data_root, may_lose_classes=scenario.header.rehearsal))
        run_notes = [*_damage(unfinished, run), *data_notes(unfinished, data_root)]
        say = _print_notes if not options.quiet else lambda notes: None
        say(run_notes)

        room = cluster.size if cluster else 1 if device.startswith("cuda") else usable_cores()
        workers = min(options.workers or room, len(cells))
        to_train = [cell for cell in unfinished if cell.copy_of is None]
        if cluster is None:
            slots = options.slots not in (None, 1) and options.batching != "separate"
            say(list(speed_notes(to_train, device, slots=slots)))
        execution = _choose_execution(to_train, run, data_root, device, workers, options, cluster)
        about = environment(
            "cpu" if cluster else device,  # this machine need not have the cluster's device
            rehearsal=scenario.header.rehearsal, workers=workers, slots=execution.slots, batching=execution.batching,
            engine=options.engine,
        )  # fmt: skip
        run.describe(about | (cluster.about() if cluster else {}), run_notes)

        with _scheduler(cells, run, options) as scheduler:
            if cluster is not None:
                from warmstart_sim.execution import ray

                ray.run_cells(cluster, scheduler, execution, workers, digests, lambda text: say([text]))
            elif workers > 1:
                from warmstart_sim.execution.worker_pool import WorkerPool

                WorkerPool(scheduler, run, execution, workers).run_tasks()
            else:
                from warmstart_sim.execution.interleaved import run_slots

                run_slots(scheduler, run, execution)
        # The folder may hold other seeds and strategies too; `collect` then plans the cells of them all.
        stored = stored_scenario(run)
        if stored != resolved:
            _, cells = scenarios.plan(stored, str(run.path / "scenario.yaml"))
        collect(run.path, cells)
        failed = analyze_all(run, scenario.analyze, cells, execution) if not scheduler.failures else {}
    return RunOutcome(run.path, scheduler.failures, failed)


def collect(run_dir: Path, cells: Sequence[scenarios.Cell] | None = None) -> None:
    """Writes rounds.csv and epochs.csv of a run again, from its complete cells; a copy without cells keeps its own.

    Args:
        run_dir: The run's folder.
        cells: All cells of its scenario; None plans them.

    Raises:
        WarmstartError: The folder holds no run, or cells that are not in its scenario in this version.
    """
    run = RunFolder(run_dir)
    stored = stored_scenario(run)
    if stored.get("reproduces"):
        run.note(changes_from_paper=changes_from_paper(stored))
    if any(run_dir.glob("rounds.csv*")) and not (run_dir / "cells").is_dir():
        return  # a run that was published without its cells; its tables may be compressed
    if cells is None:
        _, cells = scenarios.plan(stored, str(run_dir / "scenario.yaml"))
    if unknown := run.complete_cells() - {cell.id for cell in cells}:
        raise WarmstartError(
            f"{run_dir}: {min(unknown)} is not one of the cells that scenario.yaml describes in this version of "
            "warmstart-sim, so the tables are left as they are; use the version in environment.json, or another --out"
        )
    copy_results(cells, run)
    run.write_tables(
        [
            (cell.id, {"scenario": cell.scenario, "strategy": cell.arm.label, "seed": cell.seed, **cell.varied})
            for cell in cells
        ]
    )


def stored_scenario(run: RunFolder) -> dict[str, Any]:
    """The scenario of a run's folder.

    Raises:
        WarmstartError: The folder holds no run.
    """
    stored = run.scenario()
    if stored is None:
        raise WarmstartError(f"{run.path}: holds no run; `warmstart-sim run SCENARIO --out {run.path}` makes one")
    return stored


def choose_device(device: str) -> str:
    """The device of `--device`: CUDA if it is available for "auto".

    Raises:
        WarmstartError: There is no such device.
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


def _unfinished(cells: Sequence[scenarios.Cell], run: RunFolder, fresh: bool) -> list[scenarios.Cell]:
    """The cells that are not complete, after the first phases that they start from."""
    fresh = fresh or not run.path.is_dir()
    unfinished = [cell for cell in cells if fresh or not run.cell(cell.id).complete]
    return [*scenarios.first_phases(unfinished), *unfinished]


def _check(cells: Sequence[scenarios.Cell], data_root: Path, where: str, options: RunOptions) -> None:
    """Checks a user's own modules, that the stream fits the data, and that the engine can train the cells."""
    from warmstart_sim.scenario.round_sizes import checked_round_sizes

    import_user_modules(cells, where)
    checked_round_sizes(cells, data_root, where)
    if options.engine == "avalanche":
        if options.slots not in (None, 1) or options.batching not in ("auto", "separate"):
            raise WarmstartError("--engine avalanche: trains one cell at a time; leave --slots and --batching out")
        from warmstart_sim.avalanche.engine import check_supported

        check_supported(cells)


def _cluster(options: RunOptions, cells: Sequence[scenarios.Cell]) -> contextlib.AbstractContextManager[Cluster | None]:
    """The Ray cluster of `--ray`; None if there is nothing to run on it."""
    if options.ray is None:
        return contextlib.nullcontext()
    from warmstart_sim.execution.ray import check_options, connected

    check_options(options)
    return connected(options, cells) if cells else contextlib.nullcontext()


def _load_data(cells: Sequence[scenarios.Cell], data_root: Path) -> dict[str, str]:
    """Loads every data set before a worker starts, so that it is downloaded once and a missing one is one error.

    Returns:
        The digest of each data set and each file of weights; for a data set that depends on the seed, of the first
        seed only.
    """
    from warmstart_sim.models.checkpoint_files import file_digest
    from warmstart_sim.scenario.splits import load_component

    digests = {}
    for cell in {str(cell.data.to_dict()): cell for cell in reversed(cells)}.values():
        seed = "" if DATASETS.has_trait(cell.data.name, "same_for_every_seed") else f" seed {cell.seed}"
        digests[f"{cell.data.to_dict()}{seed}"] = load_component(cell.data, cell.seed, data_root).digest()
    for path in {cell.pretraining.checkpoint for cell in cells if cell.pretraining and cell.pretraining.checkpoint}:
        digests[f"checkpoint {path}"] = file_digest(path)
    return digests


def _choose_execution(
    cells: Sequence[scenarios.Cell],
    run: RunFolder,
    data_root: Path,
    device: str,
    workers: int,
    options: RunOptions,
    cluster: Cluster | None,
) -> ExecutionSettings:
    """The settings for all cells; slots and batching are measured if they are not given."""
    from warmstart_sim.execution.autotune import Parallelism, choose_parallelism
    from warmstart_sim.experiment.settings import ExecutionSettings

    execution = ExecutionSettings(
        data_root, device, tensorboard=options.tensorboard, deterministic=options.deterministic, engine=options.engine
    )
    if options.engine != "native":  # it trains one cell at a time, and the cost of our steps says nothing about its
        return replace(execution, timing="isolated" if workers == 1 and not cluster else "concurrent")
    cuda, batching = device.startswith("cuda"), options.batching
    if batching == "auto" and options.deterministic and cuda:
        batching = "streams"  # in a stack, the last bits of a cell depend on the other cells
    slots: int | Literal["auto"] = options.slots or ("auto" if cuda else 1)
    choose = cluster.choose_parallelism if cluster else choose_parallelism
    return choose(execution, cells, run, Parallelism(workers, slots, batching))


@contextlib.contextmanager
def _scheduler(cells: Sequence[scenarios.Cell], run: RunFolder, options: RunOptions) -> Iterator[Scheduler]:
    """A scheduler of the unfinished cells, with listeners for status.json and the terminal; SIGTERM is handled."""
    from warmstart_sim.execution.display import LiveDisplay, PlainDisplay
    from warmstart_sim.execution.progress import ProgressListener, RunProgress
    from warmstart_sim.execution.scheduler import Scheduler
    from warmstart_sim.execution.status import StatusWriter
    from warmstart_sim.execution.tasks import TaskQueue

    queue = TaskQueue(cells, run)
    run_progress = RunProgress(len(queue))
    listeners: list[ProgressListener] = [run_progress, StatusWriter(run_progress, run)]
    with contextlib.ExitStack() as stack:
        if not options.quiet:
            console = Console(stderr=True)
            display: LiveDisplay | PlainDisplay
            display = LiveDisplay(run_progress, console) if console.is_terminal else PlainDisplay(run_progress, console)
            stack.enter_context(display)
            listeners.append(display)
        stack.enter_context(preemption.sigterm_requests_stop())
        yield Scheduler(queue, listeners, options.retries)


def _damage(cells: Sequence[scenarios.Cell], run: RunFolder) -> list[str]:
    """A note for every damaged file of cells that are not complete."""
    folders = (cell.folder(run) for cell in cells)
    damages = (folder.damage() for folder in folders if folder.path.is_dir())
    return [f"{damage}; what was in it is computed again" for damage in damages if damage]


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes[:MAX_NOTES_SHOWN]:
        print(f"warmstart-sim: note: {note}", file=sys.stderr)
    if len(notes) > MAX_NOTES_SHOWN:
        print(f"warmstart-sim: note: {len(notes) - MAX_NOTES_SHOWN} more notes are in the report", file=sys.stderr)
