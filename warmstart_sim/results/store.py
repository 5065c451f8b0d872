"""The folder of a run: its scenario, its environment, its tables, and a folder for every cell.

    RUN/scenario.yaml  environment.json  rounds.csv  epochs.csv  columns.json  summary.csv  figures/  report.html
    RUN/data.json  speed.json  digests of the data, and the measured speed of the machine
    RUN/label_noise/       the training labels that are noise, a table for each data set, share and seed
    RUN/cells/ID/          weights.pt and result.json when it is complete, before that checkpoint.pt and rows.json
                           (its finished rounds); error.json; arrival.csv, the samples that a model has chosen
    RUN/first_phases/ID/   the same, for a first phase that several cells share, settings.json, and
                           weights_epoch20.pt where cells start from the weights after 20 epochs
    lost.json in either    why workers that trained the cell died

`result.json` is written last, in one rename: if it exists, the cell is complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from warmstart_sim.errors import RunError, WarmstartError
from warmstart_sim.registry import ANALYSES
from warmstart_sim.results.cell_folder import CellFolder
from warmstart_sim.results.columns import EPOCH_COLUMNS, IDENTITY_COLUMNS, ROUND_COLUMNS, column_of
from warmstart_sim.results.files import read_yaml, to_yaml, write_text
from warmstart_sim.types import IntArray

# Marks a folder that we made, whose files may be deleted; a user's own folder may hold a scenario.yaml too.
MARKER = ".warmstart-sim"
# Keys of a scenario that change no cell; those of a later command hold.
SHOWN = ("title", "reproduces", "analyze", "claims", "select", "figures", "standard_figures")
LOCK_ATTEMPTS, LOCK_SECONDS = 10, 0.1
# What a run writes at the top of its folder; scenario.yaml is deleted last.
FILES = (
    "rounds.csv",
    "epochs.csv",
    "columns.json",
    "summary.csv",
    "comparison.csv",
    "claims.csv",
    "report.html",
    "environment.json",
    "data.json",
    "status.json",
    "speed.json",
    "scenario.yaml",
)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    def cell(self, cell_id: str) -> CellFolder:
        """The folder of one cell."""
        return CellFolder(self.path / "cells" / cell_id)

    def complete_cells(self) -> set[str]:
        """The ids of all cells that have a result."""
        return {path.parent.name for path in (self.path / "cells").glob("*/result.json")}

    def first_phase(self, phase_id: str, kept_epochs: tuple[int, ...] = ()) -> CellFolder:
        """The folder of one shared first phase, which keeps its weights after these epochs."""
        return CellFolder(self.path / "first_phases" / phase_id, kept_epochs)

    def unusable(self, error: OSError) -> RunError:
        """The error for a file that cannot be written or read, such as on a full disk."""
        return RunError(
            f"{error.filename or self.path}: cannot be written or read ({error.strerror}); what is complete is kept: "
            "mend that and run the same command again"
        )

    def scenario(self) -> dict[str, Any] | None:
        """The resolved scenario of this run, or None for a new folder.

        Raises:
            WarmstartError: scenario.yaml cannot be read.
        """
        path = self.path / "scenario.yaml"
        try:
            stored = read_yaml(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise WarmstartError(f"{path}: cannot be read as the record of a run ({type(error).__name__})") from None
        if not isinstance(stored, dict):
            raise WarmstartError(f"{path}: is not the record of a run")
        return stored

    def open(self, scenario: Mapping[str, Any], fresh: bool = False) -> None:
        """Makes the folder, or resumes the run that it holds; seeds and strategies may be added.

        Args:
            scenario: The resolved scenario.
            fresh: Delete what the folder holds first.

        Raises:
            WarmstartError: The folder cannot be written, holds other files, or holds the run of another scenario.
        """
        self._check_writable()
        holds_work = self._holds_work()
        if not holds_work and not (self.path / MARKER).exists():  # never touch a folder that we did not make
            strangers = sorted(path.name for path in self.path.iterdir() if not path.name.startswith("."))
            if strangers:
                raise WarmstartError(
                    f"--out {self.path}: the folder holds other files ({strangers[0]} ...); choose another"
                )
        if fresh or not holds_work:  # without work, the first command failed before it trained anything
            self._clear()
        before = self.scenario()
        merged = dict(scenario) if before is None else _merge(before, scenario, self.path)
        write_text(self.path / MARKER, "")
        write_text(self.path / "scenario.yaml", to_yaml(merged))

    def check_engine(self, engine: str) -> None:
        """Checks that one engine trains all cells of this run; otherwise their seconds could not be compared.

        Raises:
            WarmstartError: Another engine has trained some of them.
        """
        path = self.path / "environment.json"
        before = json.loads(path.read_text(encoding="utf-8")).get("engine", "native") if path.exists() else engine
        if before != engine and self._holds_work():
            raise WarmstartError(
                f"--engine {engine}: {self.path} holds cells trained by engine '{before}'; choose another --out"
            )

    def describe(self, environment: Mapping[str, Any], notes: Sequence[str] = ()) -> None:
        """Writes environment.json.

        Args:
            environment: Versions, device, commit and so on of the current command.
            notes: Notes on the data for the user; those of earlier commands are kept.
        """
        path = self.path / "environment.json"
        before = json.loads(path.read_text(encoding="utf-8")).get("notes", []) if path.exists() else []
        merged = {**environment, "notes": list(dict.fromkeys([*before, *notes]))}
        write_text(path, json.dumps(merged, indent=1, ensure_ascii=False))

    def note(self, **facts: Any) -> None:
        """Adds facts to environment.json, or replaces them."""
        path = self.path / "environment.json"
        stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        write_text(path, json.dumps({**stored, **facts}, indent=1, ensure_ascii=False))

    def speed(self) -> dict[str, Any]:
        """What was measured before cells were run side by side; empty if nothing was."""
        try:
            stored: dict[str, Any] = json.loads((self.path / "speed.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return stored

    def save_speed(self, measured: Mapping[str, Any]) -> None:
        """Replaces it."""
        write_text(self.path / "speed.json", json.dumps(measured, indent=1))

    def is_locked(self) -> bool:
        """Whether a run is active here, by a shared lock: it needs no write access and allows many readers at once."""
        try:
            with open(self.path / ".lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder for this process. The kernel releases the lock when the process ends, also by kill -9.

        Raises:
            WarmstartError: Another process holds it.
        """
        self._check_writable()
        with open(self.path / ".lock", "w") as lock:
            for attempt in range(LOCK_ATTEMPTS):  # `is_locked` holds it for a moment
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if attempt == LOCK_ATTEMPTS - 1:
                        raise WarmstartError(
                            f"--out {self.path}: another warmstart-sim is running in this folder"
                        ) from None
                    time.sleep(LOCK_SECONDS)
            yield

    def write_tables(self, cells: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Writes rounds.csv and epochs.csv from the finished rounds of all cells, and columns.json if there are probes.

        If `select` tunes settings, the column `selected` tells those that it chooses.

        Args:
            cells: (cell id, identifying columns: scenario, strategy, seed and the varied ones), in the table's order.
        """
        import pandas as pd

        from warmstart_sim.results.selection import is_selected, list_candidates

        results = []
        for cell_id, identity in cells:
            folder = self.cell(cell_id)
            result = folder.result()
            if found := result or folder.finished_rounds():
                found["rounds"] = [{**row, "cell_complete": result is not None} for row in found["rounds"]]
                results.append(({column_of(key): value for key, value in identity.items()}, found))
        identity_columns = [column_of(key) for key in cells[0][1]] if cells else []
        tables = {}
        for name, columns in (("rounds", ROUND_COLUMNS), ("epochs", EPOCH_COLUMNS)):
            rows = [{**identity, **row} for identity, result in results for row in result[name]]
            measured = dict.fromkeys(column for row in rows for column in row)  # with those of probes
            everything = dict.fromkeys([*identity_columns, *columns, *measured])
            tables[name] = pd.DataFrame(rows, columns=list(everything))
        scenario = self.scenario() or {}
        if select := scenario.get("select"):
            axes = [column for column in identity_columns if column not in IDENTITY_COLUMNS]
            rounds = tables["rounds"].astype({select["by"]: float})
            candidates = list_candidates(scenario, rounds, axes)
            tables = {
                name: table.assign(selected=is_selected(table, candidates, axes)) for name, table in tables.items()
            }
        for name, table in tables.items():
            write_text(self.path / f"{name}.csv", table.to_csv(index=False))
        if measured_by := {name: each for _, result in results for name, each in result.get("columns", {}).items()}:
            write_text(self.path / "columns.json", json.dumps(measured_by, indent=1))

    def store_label_noise(self, corrupted: Mapping[str, IntArray]) -> None:
        """Writes label_noise/NAME.csv for each name: index in the training set, label and true label, shape (n, 3)."""
        for name, rows in corrupted.items():
            (self.path / "label_noise").mkdir(exist_ok=True)
            lines = ["index,label,true_label", *(",".join(map(str, row)) for row in rows.tolist()), ""]
            write_text(self.path / "label_noise" / f"{name}.csv", "\n".join(lines))

    def check_data(self, digests: Mapping[str, str]) -> None:
        """Checks that the data sets have not changed since the run began.

        Args:
            digests: A digest of the content of each data set, by its settings.

        Raises:
            WarmstartError: One has changed.
        """
        path = self.path / "data.json"
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        for name, digest in digests.items():
            if before.get(name, digest) != digest:
                what = name if name.startswith("checkpoint") else f"data set {name}"
                raise WarmstartError(
                    f"--out {self.path}: the content of the {what} has changed since this run began; "
                    "choose another --out, or pass --fresh to delete what is there"
                )
        write_text(path, json.dumps({**before, **digests}, indent=1))

    def _holds_work(self) -> bool:
        return any(self.path.glob("*/*/result.json")) or any(self.path.glob("*/*/checkpoint.pt"))

    def _check_writable(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.path / ".writable", "")
            (self.path / ".writable").unlink()
        except OSError as error:
            raise WarmstartError(f"--out {self.path}: cannot be written ({error.strerror})") from None

    def _clear(self) -> None:
        """Removes a run's files; the caller has checked that we made the folder."""
        for name in ("cells", "first_phases", "label_noise", "figures", "tensorboard"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in (*(f"{name}.csv" for name in ANALYSES.names()), *FILES):
            (self.path / name).unlink(missing_ok=True)


def drop_none(settings: Any) -> Any:
    """Settings without those that are None, so that a new option that is off does not change a cell's identity.

    >>> drop_none({"lr": 0.1, "decay": None, "until": {"epochs": 5, "steps": None}})
    {'lr': 0.1, 'until': {'epochs': 5}}
    """
    if isinstance(settings, dict):
        return {key: drop_none(value) for key, value in settings.items() if value is not None}
    return [drop_none(each) for each in settings] if isinstance(settings, (list, tuple)) else settings


def _merge(before: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The scenario of a folder to which a run adds seeds or strategies: the union of both."""
    advice = "choose another --out, or pass --fresh to delete what is there"
    for key in sorted({*before, *now} - {"seeds", "strategies", *SHOWN}):
        if drop_none(before.get(key)) != drop_none(now.get(key)):
            raise WarmstartError(
                f"--out {path}: holds a run with other settings "
                f"({_difference(key, before.get(key), now.get(key))}); {advice}"
            )
    for label in before["strategies"].keys() & now["strategies"].keys():
        if drop_none(before["strategies"][label]) != drop_none(now["strategies"][label]):
            there, here = before["strategies"][label], now["strategies"][label]
            raise WarmstartError(
                f"--out {path}: holds a run with another strategy of that name "
                f"({_difference(f'strategies.{label}', there, here)}); {advice}"
            )
    seeds = [*before["seeds"], *(seed for seed in now["seeds"] if seed not in before["seeds"])]
    kept = {key: value for key, value in before.items() if key not in SHOWN}
    shown = {key: now[key] for key in SHOWN if key in now}
    return {**kept, "strategies": {**before["strategies"], **now["strategies"]}, "seeds": seeds, **shown}


def _difference(key: str, there: Any, here: Any) -> str:
    """The first place where two settings differ, such as "training.batch_size: 128 there, 64 here"."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for name in {**there, **here}:
            if drop_none(there.get(name)) != drop_none(here.get(name)):
                return _difference(f"{key}.{name}", there.get(name), here.get(name))
    return f"{key}: {there} there, {here} here"
