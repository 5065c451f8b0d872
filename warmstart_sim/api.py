"""Runs scenarios from Python; the command line does the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart_sim import scenario as scenarios
from warmstart_sim.datasets.paths import data_root as find_data_root
from warmstart_sim.execution.launch import choose_device, run_scenario, stored_scenario
from warmstart_sim.execution.options import RunOptions, takes_run_options
from warmstart_sim.execution.speed_notes import check_notes
from warmstart_sim.registry import ANALYSES, STREAMS
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario.cells import import_user_modules
from warmstart_sim.scenario.overrides import prepare_scenario

if TYPE_CHECKING:
    import pandas as pd

    from warmstart_sim.execution.status import Status
    from warmstart_sim.results.tables import Run
    from warmstart_sim.scenario.splits import RoundSize
    from warmstart_sim.training.settings import Training


Range = tuple[int, int]  # the least and the most


@takes_run_options(for_typer=False)
def run(
    scenario: str | Path | Mapping[str, Any] = "digits_online",
    *,
    strategies: Mapping[str, Any] | Sequence[Any] | None = None,
    model: Any = None,
    data: Any = None,
    seeds: Iterable[int] | None = None,
    set: Iterable[str] = (),
    rehearse: bool = False,
    **options: Any,
) -> Run:
    """Runs a scenario, or resumes it, and returns its tables; figures and report are in the run's folder.

    Args:
        scenario: A file, the name of a bundled scenario, or a mapping with the same keys.
        strategies: Instead of the scenario's: a list of names, functions and strategy objects, or a mapping of labels
            to them (or to whole arms, as in a file). A function `f(previous, fresh, context)` gets two state dicts and
            returns the one to train from. Names of the scenario's own arms are taken from there.
        model: Instead of the scenario's: a name, a mapping, or a function `f(input_shape, classes)` that builds a
            `torch.nn.Module`.
        data: Instead of the scenario's: a name, a mapping, or a `Dataset` of your own arrays.
        seeds: Instead of the scenario's.
        set: More settings, each "KEY=VALUE".
        rehearse: Run a reduced copy on stand-in data.
        **options: Every option of `warmstart-sim run` as a keyword argument: `out`, `device`, `workers`, `quiet`, `ray`
            and so on. See `RunOptions`. `workers` is 1 by default, which runs all cells in this process.

    Returns:
        The run's tables: `rounds`, `epochs`, and `summary()`.

    Raises:
        WarmstartError: Something is wrong with the scenario, the data, the options or the folder.
        RunError: Some cells failed; the others are complete.
    """
    raw, where = prepare_scenario(
        scenario, set=set, strategies=strategies, seeds=seeds, rehearse=rehearse, model=model, data=data
    )
    return _run_prepared(raw, where, RunOptions(**options))


@takes_run_options(for_typer=False)
def grid(
    scenario: str | Path | Mapping[str, Any] = "digits_online",
    *,
    lam: str | Iterable[float] | None = None,
    sigma: str | Iterable[float] | None = None,
    vary: Mapping[str, Iterable[Any]] | None = None,
    strategies: Mapping[str, Any] | Sequence[Any] | None = None,
    model: Any = None,
    data: Any = None,
    seeds: Iterable[int] | None = None,
    set: Iterable[str] = (),
    rehearse: bool = False,
    **options: Any,
) -> Run:
    """Runs shrink-perturb at every lambda with every sigma beside random init, as `warmstart-sim grid` does.

    The scenario's random init and its shrink-perturb arm, with their options, are what runs; either is added if the
    scenario lacks it. Its other arms are left out unless `strategies` names them. The default folder is
    `runs/NAME-grid`. At least one of `lam`, `sigma` and `vary` is needed.

    Args:
        scenario: As in `run`.
        lam: Values of lambda, or text as on the command line: "0:1:0.2" (with 1), "0,0.5,1".
        sigma: Values of sigma, or such text.
        vary: More axes: the dotted key of a setting, and its values.
        strategies: What else runs, as in `run`; of several shrink-perturb arms, the one named here is varied.
        model: As in `run`.
        data: As in `run`.
        seeds: As in `run`.
        set: As in `run`.
        rehearse: Run a reduced copy on stand-in data, with the ends of each axis.
        **options: As in `run`.

    Returns:
        The run's tables, with columns `lambda` and `sigma`.

    Raises:
        WarmstartError: As in `run`; or there is nothing to vary.
        RunError: Some cells failed; the others are complete.
    """
    from warmstart_sim.scenario.grid import prepare_grid

    raw, where = prepare_grid(
        scenario, lam=lam, sigma=sigma, vary=vary, strategies=strategies, model=model, data=data, seeds=seeds, set=set,
        rehearse=rehearse,
    )  # fmt: skip
    return _run_prepared(raw, where, RunOptions(**options))


def _run_prepared(raw: Mapping[str, Any], where: str, options: RunOptions) -> Run:
    from warmstart_sim import report
    from warmstart_sim.results import tables

    if options.workers is None and options.ray is None:
        options = replace(options, workers=1)
    outcome = run_scenario(raw, where, options)
    report.write(outcome.folder)
    outcome.raise_failures()
    return tables.load(outcome.folder)


@dataclass(frozen=True)
class Size:
    """The size of a scenario. Rounds and steps are those that are trained: shared first phases once, copies never.

    Attributes:
        streams: The sizes of the rounds of each stream: several, where its settings are varied.
        budgets: Where stages share a budget, the epochs and the steps of a cell of each arm. Cells of an arm differ
            where stages do not divide the budget, arms also where their batch sizes differ.
        notes: What the settings of its speed mean on this machine.
    """

    cells: int
    copies: int
    arms: int
    seeds: int
    first_phases: int
    rounds: int
    steps: int
    streams: tuple[tuple[RoundSize, ...], ...] = ()
    budgets: Mapping[str, tuple[Range, Range]] = field(default_factory=dict)
    notes: Sequence[str] = ()


def size(raw: Mapping[str, Any], where: str, data_root: Path | None = None) -> Size:
    """Counts cells, rounds and steps (if every round trains to its cap) of a prepared scenario, without torch.

    Raises:
        WarmstartError: Something is wrong with the scenario, or its stream does not fit its data.
    """
    from warmstart_sim.scenario.splits import checked_round_sizes

    scenario, cells = scenarios.plan(raw, where)
    phases = scenarios.first_phases(cells)
    rounds = steps = 0
    spent: dict[str, list[tuple[int, int]]] = {}
    work = [*phases, *cells]
    streams: dict[tuple[RoundSize, ...], None] = {}
    for cell, sizes in zip(work, checked_round_sizes(work, find_data_root(data_root), where), strict=True):
        if cell.seed == scenario.header.seeds[0] and not cell.is_first_phase:
            streams[tuple(sizes)] = None
        if cell.copy_of:
            continue
        first = 1 if cell.first_phase or cell.pretraining else 0
        if cell.shares_first_round:
            del sizes[0]
        rounds += len(sizes)
        of_rounds = [_most(cell.arm.training.in_round(first + n), each.train) for n, each in enumerate(sizes)]
        total = sum(epochs for epochs, _ in of_rounds), sum(steps for _, steps in of_rounds)
        steps += total[1]
        shares = STREAMS.has_trait(cell.stream.name, "shares_budget")
        if shares and any(cell.stream.options[rule] for rule in ("epochs", "steps")):
            spent.setdefault(cell.arm.label, []).append(total)
    copies = sum(cell.copy_of is not None for cell in cells)
    budgets = {
        label: ((min(epochs), max(epochs)), (min(of_steps), max(of_steps)))
        for label, each in spent.items()
        for epochs, of_steps in [tuple(zip(*each, strict=True))]
    }
    arms, seeds, notes = len(scenario.arms), len(scenario.header.seeds), check_notes(work, steps)
    return Size(len(cells), copies, arms, seeds, len(phases), rounds, steps, tuple(streams), budgets, notes)


def _most(training: Training, samples: int) -> tuple[int, int]:
    """The epochs and the steps of a round that trains to its cap."""
    in_epoch, anneal = math.ceil(samples / training.batch_size), training.schedule.anneal or 0
    steps = min(training.until.steps or math.inf, training.until.cap * in_epoch)
    return math.ceil(steps / in_epoch) + anneal, int(steps) + anneal * in_epoch


def analyze(
    run_dir: str | Path,
    analysis: str,
    options: Mapping[str, Any] | None = None,
    *,
    data_root: Path | None = None,
    device: str = "auto",
) -> pd.DataFrame:
    """Makes the table of an analysis from a finished run, as `warmstart-sim analyze` does.

    Args:
        run_dir: The run's folder, into which the table is written as NAME.csv.
        analysis: The name of an analysis, or your own as "module:function".
        options: Its options.
        data_root: The folder of data sets.
        device: As in `run`.

    Returns:
        The table.

    Raises:
        WarmstartError: No such analysis or option, or the run lacks something that it needs.
    """
    ANALYSES.get(analysis)
    folder = RunFolder(Path(run_dir))
    stored = {**stored_scenario(folder), "analyze": [{analysis: dict(options or {})}]}
    scenario, cells = scenarios.plan(stored, str(run_dir))
    import_user_modules(cells, str(run_dir))
    from warmstart_sim.execution.analyze import analyze as make_table
    from warmstart_sim.experiment.settings import ExecutionSettings

    execution = ExecutionSettings(find_data_root(data_root), choose_device(device))
    return make_table(folder, scenario.analyze[0], cells, execution)


def status(run_dir: Path) -> Status:
    """How far a run is, whether or not a process is working on it.

    Raises:
        WarmstartError: The folder holds no run.
    """
    from warmstart_sim.execution.status import read_status

    folder = RunFolder(run_dir)
    return read_status(folder, scenarios.plan(stored_scenario(folder), str(run_dir / "scenario.yaml"))[1])
