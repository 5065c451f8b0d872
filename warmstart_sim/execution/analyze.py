"""Runs analyses on a run's folder, and writes their tables."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from warmstart_sim.errors import WarmstartError, error_summary
from warmstart_sim.registry import ANALYSES
from warmstart_sim.results.files import write_text
from warmstart_sim.results.store import FILES, RunFolder
from warmstart_sim.scenario import Cell, Component
from warmstart_sim.scenario.component import check_user_component

if TYPE_CHECKING:
    import pandas as pd

    from warmstart_sim.experiment.settings import ExecutionSettings


def analyze(run: RunFolder, analysis: Component, cells: Sequence[Cell], execution: ExecutionSettings) -> pd.DataFrame:
    """Runs an analysis, writes its table into the run's folder as NAME.csv, and returns the table.

    Args:
        run: The run's folder.
        analysis: The analysis with its options.
        cells: All cells of the run's scenario.
        execution: Where the data are, and the device to compute on.

    Raises:
        WarmstartError: The run lacks something that the analysis needs, or nothing is there to analyse.
    """
    import pandas as pd

    from warmstart_sim.experiment.stored_cell import HOW_TO_KEEP
    from warmstart_sim.experiment.stored_run import StoredRun
    from warmstart_sim.results.tables import load

    path = run.path / table_name(analysis.name)
    if ANALYSES.has_trait(analysis.name, "needs_weights") and not (run.path / "cells").is_dir():
        raise WarmstartError(f"{analysis.name} needs weights, and {run.path} has none: {HOW_TO_KEEP}")
    try:
        rows = list(analysis.make(ANALYSES)(StoredRun(run, load(run.path), cells, execution)))
    except WarmstartError:
        raise
    except Exception as error:  # the user's own code may raise anything
        if not analysis.is_user_defined:
            raise
        raise WarmstartError(f"analysis '{analysis.name}': {error_summary(error)}") from error
    if not rows:
        raise WarmstartError(f"{analysis.name}: {run.path} has no complete cell to analyse")
    table = pd.DataFrame(rows, columns=list(dict.fromkeys(itertools.chain.from_iterable(rows))))
    write_text(path, table.to_csv(index=False))
    return table


def analyze_all(
    run: RunFolder, analyses: Iterable[Component], cells: Sequence[Cell], execution: ExecutionSettings
) -> Mapping[str, str]:
    """Runs several analyses; returns the reason for each that cannot be made, by its name."""
    failures = {}
    for analysis in analyses:
        try:
            analyze(run, analysis, cells, execution)
        except WarmstartError as error:
            failures[analysis.name] = str(error)
    return failures


def check_analyses(analyses: Iterable[Component], where: str) -> None:
    """Checks a user's own analyses before training: they can be imported, accept their options, and have a table name.

    Raises:
        WarmstartError: One of this is not so.
    """
    for analysis in analyses:
        table_name(analysis.name)
        if analysis.is_user_defined:
            check_user_component(analysis, ANALYSES, where)


def table_name(analysis: str) -> str:
    """The file of an analysis: its name, without the module of a user's own.

    Raises:
        WarmstartError: A user's own analysis has the name of another table of a run.

    >>> table_name("gap_against"), table_name("my_module:sharpness")
    ('gap_against.csv', 'sharpness.csv')
    """
    name = f"{analysis.rpartition(':')[2].partition('#')[0]}.csv"
    if name in FILES:
        raise WarmstartError(f"analysis '{analysis}': a run already has a table {name}; rename the function")
    return name
