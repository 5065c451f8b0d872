"""Reads a run's tables from its folder."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml

from warmstart_sim.errors import WarmstartError
from warmstart_sim.results.columns import (
    EPOCH_COLUMNS,
    IDENTITY_COLUMNS,
    LATER_COLUMNS,
    MEASURED,
    ROUND_COLUMNS,
    column_of,
)
from warmstart_sim.results.files import read_yaml, write_text
from warmstart_sim.results.selection import is_selected, list_candidates, tuned_columns
from warmstart_sim.results.statistics import cells, summary


@dataclass(frozen=True)
class Run:
    """The content of a run folder.

    Attributes:
        scenario: The resolved scenario.
        environment: Versions, device, commit, date, command, and whether it was a rehearsal.
        rounds: One row for each cell and round, as stored; `strategy` has the order of the arms in the scenario.
        epochs: One row for each cell, round and epoch, in the same order.
        axes: The columns of varied values, such as ("lambda", "stream_fraction"); empty in arms that lack them.
            Columns of bundles hold labels, in the scenario's order.
        failures: For each cell that ended in an error, the name of its folder and the reason.
        columns: The probe and the unit of each column that a probe added; empty in runs of earlier versions.
        files: The name of each table's file, "epochs.csv.gz" if it is compressed.
        bands: What figures draw around means over seeds: their 95 % confidence intervals, or standard deviations.
        folder: The run's folder.
        every: The run with all settings, if `select` tunes some: this run then has only those that were selected, and
            no axes of tuned keys.
        candidates: All settings, with their validation accuracies: see `selection.list_candidates`.
    """

    scenario: Mapping[str, Any]
    environment: Mapping[str, Any]
    rounds: pd.DataFrame
    epochs: pd.DataFrame
    axes: tuple[str, ...]
    failures: Mapping[str, str]
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=lambda: {"rounds": "rounds.csv", "epochs": "epochs.csv"})
    bands: Literal["ci", "std"] = "ci"
    folder: Path = Path()
    every: Run | None = None
    candidates: pd.DataFrame | None = None

    @property
    def metric(self) -> str:
        """The column of the headline accuracy."""
        return str(self.scenario["metric"])

    @property
    def reference(self) -> str:
        """The arm that the others are compared with: the simplest arm of random init, or the first arm."""
        arms: dict[str, Mapping[str, Any]] = {name: arm or {} for name, arm in self.scenario["strategies"].items()}
        random = [name for name, arm in arms.items() if arm.get("start", name) == "random_init"]
        return min(random, key=lambda name: len(arms[name]), default=next(iter(arms)))

    @property
    def pretrained(self) -> bool:
        """Whether arms start from training on other data, so that a shared first round is on other data."""
        return "head" in self.scenario["stream"]  # only such streams have this setting

    @property
    def axis_keys(self) -> dict[str, list[str]]:
        """The keys in the scenario's `vary` of each column in `axes`: several if arms vary options of one name."""
        keys: dict[str, list[str]] = {}
        for key in self.scenario.get("vary") or {}:
            keys.setdefault(column_of(key, self.scenario["strategies"]), []).append(key)
        return keys

    @property
    def common_axes(self) -> list[str]:
        """The columns of varied values that all arms have, not options of one arm."""
        vary = self.scenario.get("vary") or {}
        return [axis for axis, keys in self.axis_keys.items() if not _is_of_one_arm(keys[0], vary[keys[0]])]

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row for each cell, with its state: see `statistics.cells`."""
        return cells(self.rounds, self.axes, self.metric)

    def by_setting(self, table: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
        """The rows of each combination of varied values, with these values."""
        if not self.axes:
            yield {}, table
            return
        for values, rows in table.groupby(list(self.axes), dropna=False, observed=True, sort=False):
            yield dict(zip(self.axes, values, strict=True)), rows

    def summary(self) -> pd.DataFrame:
        """One row for each arm and combination of varied values: see `statistics.summary`.

        Its first columns are scenario, metric and reference.
        """
        return self._summary.copy()

    @cached_property
    def _summary(self) -> pd.DataFrame:
        about = pd.DataFrame(
            {"scenario": [self.scenario.get("name")], "metric": self.metric, "reference": self.reference}
        )
        return about.merge(summary(self.rounds, self.axes, self.metric, self.reference), how="cross")

    def analysis(self, name: str) -> pd.DataFrame:
        """The table of an analysis, with all columns of varied values.

        Raises:
            WarmstartError: The run's folder has no such table, or the table has no arms.
        """
        path = self.folder / f"{name}.csv"
        if not path.exists():
            raise WarmstartError(f"{path.name} is missing; `warmstart-sim analyze {self.folder} {name}` makes it")
        table = _read_table(path, _orders(self.scenario)).rename(columns=column_of)
        if "strategy" not in table:
            raise WarmstartError(f"{path.name} has no column 'strategy', so it is not the table of an analysis")
        return table.assign(**{axis: np.nan for axis in self.axes if axis not in table})

    def probe_columns(self, table: Literal["rounds", "epochs"]) -> list[str]:
        """The numeric columns that probes added to a table."""
        varied = (self.every or self).axes
        standard = {*IDENTITY_COLUMNS, *varied, *ROUND_COLUMNS, *EPOCH_COLUMNS, *MEASURED}
        rows = self.rounds if table == "rounds" else self.epochs
        return [str(column) for column in rows.select_dtypes("number") if column not in standard]

    def column_info(self, column: str) -> Mapping[str, str]:
        """What is known of a probe's column: "probe" and "unit", where they were recorded."""
        return self.columns.get(column) or self.columns.get(column.removesuffix("_at_start"), {})


def load(run_dir: Path) -> Run:
    """Reads a run folder; the run may be unfinished.

    Raises:
        WarmstartError: The folder holds no run, or a file of it cannot be read.
    """
    run_dir = Path(run_dir)
    try:
        scenario = read_yaml(run_dir / "scenario.yaml")
        environment = json.loads((run_dir / "environment.json").read_text(encoding="utf-8"))
        orders = _orders(scenario)
        paths = {name: _table_path(run_dir, name) for name in ("rounds", "epochs")}
        rounds, epochs = (_read_table(path, orders) for path in paths.values())
        errors = sorted(run_dir.glob("*/*/error.json"))
        failures = {path.parent.name: str(json.loads(path.read_text(encoding="utf-8"))["reason"]) for path in errors}
        header = list(rounds.columns)
        axes = {name: column_of(name) for name in header[header.index("seed") + 1 : header.index("round")]}
        files = {name: path.name for name, path in paths.items()}
        measured_by = run_dir / "columns.json"
        columns = json.loads(measured_by.read_text(encoding="utf-8")) if measured_by.exists() else {}
        # Tables of earlier versions have fewer columns, dots in their names, and another word for concurrent cells.
        rounds, epochs = rounds.rename(columns=axes), epochs.rename(columns=axes)
        rounds = rounds.assign(**{name: np.nan for name in LATER_COLUMNS if name not in rounds})
        rounds["cell_complete"] = rounds["cell_complete"].ne(False)  # only complete cells had rows
        rounds["timing"] = rounds["timing"].replace("shared", "concurrent")
    except FileNotFoundError as error:
        name = Path(error.filename).name
        raise WarmstartError(
            f"{run_dir} holds no run: {name} is missing; `warmstart-sim run SCENARIO --out {run_dir}` makes one"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise WarmstartError(f"the run in {run_dir} cannot be read: {reason}") from error
    run = Run(scenario, environment, rounds, epochs, tuple(axes.values()), failures, columns, files, folder=run_dir)
    return _with_selected_settings(run) if scenario.get("select") else run


def _with_selected_settings(run: Run) -> Run:
    """The run with only those settings of each arm that `select` chooses."""
    candidates = list_candidates(run.scenario, run.rounds, run.axes)
    tuned = tuned_columns(run.scenario)
    return replace(
        run,
        rounds=run.rounds[is_selected(run.rounds, candidates, run.axes)],
        epochs=run.epochs[is_selected(run.epochs, candidates, run.axes)],
        axes=tuple(axis for axis in run.axes if axis not in tuned),
        every=run,
        candidates=candidates,
    )


def _orders(scenario: Mapping[str, Any]) -> dict[str, list[str]]:
    """The columns of text whose values have an order: arms, and the labels of bundles."""
    return {"strategy": list(scenario["strategies"]), **bundles(scenario)}


def _is_of_one_arm(key: str, values: Any) -> bool:
    """Whether an axis of `vary` belongs to one arm: an option below it, or a bundle of such options."""
    if isinstance(values, Mapping):
        key = next(iter(next(iter(values.values()))))
    return key.startswith("strategies.")


def bundles(scenario: Mapping[str, Any]) -> dict[str, list[str]]:
    """The varied keys whose values are labels of several settings each, and their labels in order."""
    vary = scenario.get("vary") or {}
    return {key: list(values) for key, values in vary.items() if isinstance(values, Mapping)}


def _table_path(run_dir: Path, name: str) -> Path:
    """The file of a table, which may be compressed by gzip."""
    plain, zipped = run_dir / f"{name}.csv", run_dir / f"{name}.csv.gz"
    return zipped if zipped.exists() and not plain.exists() else plain


def _read_table(path: Path, orders: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Reads a table. The columns in `orders` are read as text, even "1.0" or "nan", with this order of their values."""
    gaps = {column: ["", "nan"] for column in pd.read_csv(path, nrows=0).columns if column not in orders}
    table = pd.read_csv(path, keep_default_na=False, na_values=gaps, dtype=dict.fromkeys(orders, str))
    for column, order in orders.items():
        if column not in table:
            continue
        found = [name for name in table[column].unique() if name not in order]
        table[column] = pd.Categorical(table[column], [*order, *found], ordered=True)
    return table


def missing_cells(run: Run) -> list[dict[str, Any]]:
    """The cells of the scenario that have not finished any round of their own."""
    run = run.every or run
    own = run.rounds[~run.rounds["shared"].astype(bool)]
    keys = ["strategy", *run.axes, "seed"]
    found = {tuple(map(comparable, row)) for row in own[keys].itertuples(index=False)}
    asked = (
        {"strategy": arm, **varied, "seed": seed}
        for arm in run.scenario["strategies"]
        for varied in _combinations(arm, run.scenario.get("vary") or {})
        for seed in run.scenario["seeds"]
    )
    return [cell for cell in asked if tuple(comparable(cell.get(key)) for key in keys) not in found]


def _combinations(arm: str, vary: Mapping[str, Collection[Any]]) -> Iterator[dict[str, Any]]:
    """The varied values of one arm's cells, those of a bundle by label.

    Only one arm has the column of a key `strategies.ARM.option`.
    """
    own = f"strategies.{arm}."
    mine = {key: values for key, values in vary.items() if key.startswith(own) or not key.startswith("strategies.")}
    columns = [column_of(key, [arm]) for key in mine]
    return (dict(zip(columns, values, strict=True)) for values in itertools.product(*mine.values()))


def comparable(value: object) -> object:
    """Converts a varied value from YAML or from a CSV file to one form: None or text.

    >>> comparable(1), comparable(1.0), comparable("svhn"), comparable(float("nan"))
    ('1', '1', 'svhn', None)
    """
    if value is None or value != value:
        return None
    return f"{float(value):.12g}" if isinstance(value, (int, float, np.number, np.bool_)) else str(value)


def write_summary(run_dir: Path) -> pd.DataFrame:
    """Writes summary.csv into a run folder, atomically, and returns it; and selection.csv if settings are tuned."""
    run = load(run_dir)
    table = run.summary()
    write_text(Path(run_dir) / "summary.csv", table.to_csv(index=False))
    if run.candidates is not None:
        write_text(Path(run_dir) / "selection.csv", run.candidates.to_csv(index=False))
    return table
