"""Every table and figure of the papers: the command that reproduces it, its cost, and what has been run so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import yaml

from warmstart_sim.errors import WarmstartError, unknown
from warmstart_sim.published import PAPERS, PaperRow, paper_rows, published_numbers
from warmstart_sim.report.beside_papers import describe_comparison
from warmstart_sim.results.tables import load
from warmstart_sim.scenario.yaml_files import bundled_scenarios
from warmstart_sim.scenario.yaml_files import load as load_scenario

RUN_FOLDERS = (Path("runs"), Path("results"))
ELSEWHERE = {"A-P1": "pytest tests/strategies/test_proposition.py"}  # a property, not an experiment


@dataclass(frozen=True)
class PaperRun:
    """A run that reproduces a table or a figure, or a part of it.

    Attributes:
        folder: The run's folder.
        rehearsal: Whether it is a rehearsal.
        cells: The number of complete cells.
        hours: Seconds of training and of the checks of stop rules, summed over all cells and first phases, in hours.
        device: The device's name.
        date: When it ran.
        changes: The settings that differ from the paper's.
        agreement: How many published numbers agree, and how many claims hold, in words; empty without either.
    """

    folder: Path
    rehearsal: bool
    cells: int
    hours: float
    device: str
    date: str
    changes: tuple[str, ...]
    agreement: str


@dataclass(frozen=True)
class Reproduction:
    """A table or figure of a paper, and how far it is reproduced.

    Attributes:
        row: The table or figure.
        scenario: The bundled scenario that reproduces it; None if there is none yet.
        command: What to type; None if there is nothing yet.
        numbers: How many numbers the paper's text states for it.
        runs: Its runs, rehearsals last.
    """

    row: PaperRow
    scenario: str | None
    command: str | None
    numbers: int
    runs: list[PaperRun] = field(default_factory=list)

    @property
    def steps(self) -> int | None:
        """The most optimiser steps that it can take; None without a scenario."""
        if self.scenario is None:
            return None
        from warmstart_sim import api

        return api.size(load_scenario(self.scenario), self.scenario).steps

    @property
    def rehearsed(self) -> bool:
        """Whether a rehearsal is among its runs."""
        return any(run.rehearsal for run in self.runs)


def reproductions(names: Iterable[str] = (), folders: Iterable[Path] = RUN_FOLDERS) -> list[Reproduction]:
    """Every table and figure of the papers with its scenario and its runs.

    Args:
        names: Rows such as A-T1, or papers such as A or ash_adams; all by default.
        folders: Folders that hold run folders.

    Raises:
        WarmstartError: No paper has such a row.
    """
    rows = paper_rows()
    wanted = list(names)
    groups = {row.name[0]: row.paper for row in rows.values()}
    for name in wanted:
        if name not in (*rows, *groups, *groups.values()):
            raise WarmstartError(unknown("row", name, [*rows, *groups.values()]))
    chosen = [row for row in rows.values() if not wanted or {row.name, row.name[0], row.paper} & set(wanted)]
    scenarios: dict[str, str] = {}
    for name in bundled_scenarios():
        for row in load_scenario(name).get("reproduces") or ():
            scenarios.setdefault(row, name)
    runs = find_runs(folders)
    return [
        Reproduction(
            row, scenarios.get(row.name),
            f"warmstart-sim run {scenarios[row.name]}" if row.name in scenarios else ELSEWHERE.get(row.name),
            len(published_numbers(row.name)), runs.get(row.name, []),
        )
        for row in chosen
    ]  # fmt: skip


def find_runs(folders: Iterable[Path]) -> dict[str, list[PaperRun]]:
    """The runs in some folders, by the rows that they reproduce."""
    found: dict[str, list[PaperRun]] = {}
    for folder in folders:
        for path in sorted([*folder.glob("*/scenario.yaml"), *folder.glob("*/*/scenario.yaml")]):
            try:
                rows = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("reproduces")
                if not rows:
                    continue
                run = _read(path.parent)
            except (OSError, AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError, WarmstartError):
                continue  # not a run of ours, a damaged one, or one that has written no tables yet
            for row in [rows] if isinstance(rows, str) else rows:
                found.setdefault(row, []).append(run)
    return {row: sorted(runs, key=lambda run: run.rehearsal) for row, runs in found.items()}


def _read(folder: Path) -> PaperRun:
    run = load(folder)
    rounds, about = run.rounds, run.environment
    again = rounds.duplicated(["seed", "round", "train_seconds", "criterion_seconds"])
    once = rounds[~(rounds["shared"].astype(bool) & again)]  # a first phase has a row in each arm
    return PaperRun(
        folder,
        rehearsal=bool(about.get("rehearsal")),
        cells=len(rounds.loc[rounds["cell_complete"].astype(bool), ["strategy", *run.axes, "seed"]].drop_duplicates()),
        hours=float(once[["train_seconds", "criterion_seconds"]].sum().sum()) / 3600,
        device=str(about.get("device_name") or about.get("device") or ""),
        date=str(about.get("date", ""))[:10],
        changes=tuple(about.get("changes_from_paper") or ()),
        agreement=" ".join(filter(None, [_agreement(folder), _claims(folder)])),
    )


def _agreement(folder: Path) -> str:
    path = folder / "comparison.csv"
    return describe_comparison(pd.read_csv(path)) if path.exists() else ""


def _claims(folder: Path) -> str:
    """How many claims hold, such as "3 of 4 claims hold, 1 is undecided."."""
    path = folder / "claims.csv"
    if not path.exists():
        return ""
    verdicts = Counter(pd.read_csv(path)["verdict"])
    count = sum(verdicts.values())
    others = [f"{verdicts[word]} {word}" for word in ("fails", "undecided") if verdicts[word]]
    return f"{verdicts['holds']} of {count} claims hold{''.join(f', {each}' for each in others)}."


def page(found: Iterable[Reproduction]) -> str:
    """The page "Reproducing the papers" in Markdown: a table for each paper, then each run with its differences."""
    found = list(found)
    lines = ["# Reproducing the papers", "", INTRODUCTION]
    for paper, title in PAPERS.items():
        rows = [each for each in found if each.row.paper == paper]
        done = sum(each.command is not None for each in rows)
        lines += ["", f"## {title}", "", f"{done} of {len(rows)} tables and figures have a command.", ""]
        lines += ["| row | shows | command | steps at most | numbers | runs |", "|---|---|---|---|---|---|"]
        for each in rows:
            runs = "; ".join(_run_words(run) for run in each.runs if not run.rehearsal)
            steps = "" if each.steps is None else f"{each.steps:,}"
            command = f"`{each.command}`" if each.command else "not yet"
            lines.append(
                f"| {each.row.name} | {each.row.title} | {command} | {steps} | {each.numbers or ''} | {runs} |"
            )
    return "\n".join([*lines, ""])


def _run_words(run: PaperRun) -> str:
    differs = f"; differs: {', '.join(run.changes)}" if run.changes else ""
    return f"`{run.folder}` ({run.date}, {run.device}, {run.hours:.2g} h{differs}): {run.agreement}"


INTRODUCTION = """\
`warmstart-sim papers` prints this list with the runs that it finds in `runs/` and `results/`. A command can be tried
without data and GPU in a minute: add `--rehearse`. `warmstart-sim compare RUN_DIR` shows a run beside the numbers of
the paper. "Steps at most" is the number of optimiser steps if every round reaches its cap; "numbers" counts those that
the text of the paper states for the row. Figures without stated values have claims: sentences that are checked."""
