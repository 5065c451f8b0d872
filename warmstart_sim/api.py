"""Runs scenarios from Python; the command line does the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart_sim import scenario as scenarios
from warmstart_sim.datasets.paths import data_root as find_data_root
from warmstart_sim.execution.launch import choose_device, run_scenario, stored_scenario
from warmstart_sim.execution.options import RunOptions, takes_run_options
from warmstart_sim.registry import ANALYSES
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario.cells import import_user_modules
from warmstart_sim.scenario.overrides import prepare_scenario

if TYPE_CHECKING:
    import pandas as pd

    from warmstart_sim.execution.status import Status
    from warmstart_sim.results.tables import Run


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
