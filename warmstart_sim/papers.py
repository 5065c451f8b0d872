"""Every table and figure of the papers: the command that reproduces it, its cost, and what has been run so far."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import yaml

from warmstart_sim.errors import WarmstartError, unknown
from warmstart_sim.published import PAPERS, PaperRow, paper_rows, published_numbers
from warmstart_sim.report.beside_papers import describe_comparison
from warmstart_sim.report.wording import join_words
from warmstart_sim.results.files import read_yaml
from warmstart_sim.results.tables import load
from warmstart_sim.scenario.changes import changes_from_paper
from warmstart_sim.scenario.yaml_files import bundled_scenarios
from warmstart_sim.scenario.yaml_files import load as load_scenario

RUN_FOLDERS = (Path("runs"), Path("results"))
ELSEWHERE = {  # no experiments: a property, and what follows from published numbers
    "A-P1": ("pytest tests/models/test_proposition_1.py",),
    **dict.fromkeys(("D-T3", "D-F3"), ("python examples/published_comparison.py",)),
}


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
        scenarios: The bundled scenarios that reproduce it, or a part of it each.
        commands: What to type; nothing if there is no scenario yet.
        numbers: How many numbers the paper's text states for it.
        runs: Its runs, rehearsals last.
    """

    row: PaperRow
    scenarios: tuple[str, ...]
    commands: tuple[str, ...]
    numbers: int
    runs: list[PaperRun] = field(default_factory=list)

    @property
    def steps(self) -> int | None:
        """The most optimiser steps that its scenarios can take; None without one."""
        return sum(map(_most_steps, self.scenarios)) if self.scenarios else None

    @property
    def rehearsed(self) -> bool:
        """Whether a rehearsal is among its runs."""
        return any(run.rehearsal for run in self.runs)


@functools.cache
def _most_steps(scenario: str) -> int:
    from warmstart_sim.execution.size import scenario_size

    return scenario_size(load_scenario(scenario), scenario).steps


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
    scenarios: dict[str, list[str]] = {}
    for name in bundled_scenarios():
        for row in load_scenario(name).get("reproduces") or ():
            scenarios.setdefault(row, []).append(name)
    runs = find_runs(folders)
    return [
        Reproduction(
            row,
            tuple(found := scenarios.get(row.name, [])),
            (*(f"warmstart-sim run {name}" for name in found), *ELSEWHERE.get(row.name, ())),
            len(published_numbers(row.name)),
            runs.get(row.name, []),
        )
        for row in chosen
    ]


def find_runs(folders: Iterable[Path]) -> dict[str, list[PaperRun]]:
    """The runs in some folders, by the rows that they reproduce."""
    found: dict[str, list[PaperRun]] = {}
    for folder in folders:
        for path in sorted([*folder.glob("*/scenario.yaml"), *folder.glob("*/*/scenario.yaml")]):
            try:
                rows = (read_yaml(path) or {}).get("reproduces")
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
    changes = about.get("changes_from_paper")
    again = rounds.duplicated(["seed", "round", "train_seconds", "criterion_seconds"])
    once = rounds[~(rounds["shared"].astype(bool) & again)]  # a first phase has a row in each arm
    return PaperRun(
        folder,
        rehearsal=bool(about.get("rehearsal")),
        cells=len(rounds.loc[rounds["cell_complete"].astype(bool), ["strategy", *run.axes, "seed"]].drop_duplicates()),
        hours=float(once[["train_seconds", "criterion_seconds"]].sum().sum()) / 3600,
        device=str(about.get("device_name") or about.get("device") or ""),
        date=str(about.get("date", ""))[:10],
        changes=tuple(changes_from_paper(run.scenario) if changes is None else changes),
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


def page(found: Iterable[Reproduction], figures: Callable[[PaperRun], Sequence[tuple[str, str]]]) -> str:
    """The page "Reproducing the papers" in Markdown: a table for each paper, then each run with its first figures.

    Args:
        found: From `reproductions`.
        figures: The titles of a run's figures that the page shows, and their paths relative to it.
    """
    found = list(found)
    lines = ["# Reproducing the papers", "", INTRODUCTION]
    for paper, title in PAPERS.items():
        rows = [each for each in found if each.row.paper == paper]
        done = sum(bool(each.commands) for each in rows)
        lines += ["", f"## {title}", "", f"{done} of {len(rows)} rows have a command.", ""]
        lines += ["| row | shows | command | steps at most | numbers | runs |", "|---|---|---|---|---|---|"]
        lines += map(_table_row, rows)
    runs: dict[Path, list[str]] = {}  # the rows that each run reproduces
    about: dict[Path, PaperRun] = {}
    for each in found:
        for run in each.runs:
            if not run.rehearsal:
                runs.setdefault(run.folder, []).append(each.row.name)
                about[run.folder] = run
    lines += ["", "## Runs with their figures", "", *([] if runs else ["There is none yet."])]
    for folder, names in runs.items():
        run = about[folder]
        lines += [f"### {folder.name}", "", f"{join_words(names)}: {_run_words(run)}", ""]
        lines += [f"Settings that differ from the paper's: {'; '.join(run.changes)}.", ""] if run.changes else []
        for name, path in figures(run):
            lines += [f"![{name}]({path})", ""]
    return "\n".join(lines).rstrip() + "\n"


def first_figures(run: PaperRun, most: int = 2) -> list[tuple[str, Path]]:
    """The titles and the SVG files of the first figures of a run's report."""
    report = run.folder / "report.html"
    if not report.exists():
        return []
    pattern = r'<h3>([^<]*)</h3>(?:(?!<h3>).)*?href="figures/([^"/]+)\.svg"'
    titles = re.findall(pattern, report.read_text(encoding="utf-8"), flags=re.DOTALL)
    paths = [(title, run.folder / "figures" / f"{name}.svg") for title, name in titles]
    return [(title, path) for title, path in paths if path.exists()][:most]


def _table_row(each: Reproduction) -> str:
    command = "<br>".join(f"`{command}`" for command in each.commands) or "not yet"
    steps = "" if each.steps is None else f"{each.steps:,}"
    done = [run for run in each.runs if not run.rehearsal]
    runs = "<br>".join(f"[{run.folder.name}](#{run.folder.name.lower()}): {run.agreement or 'run'}" for run in done)
    return f"| {each.row.name} | {each.row.title} | {command} | {steps} | {each.numbers or ''} | {runs} |"


def _run_words(run: PaperRun) -> str:
    where = f"{run.device}, {run.date}" if run.device else run.date
    cells = f"{run.cells:,} cell{'' if run.cells == 1 else 's'}"
    return f"{cells}, {run.hours:.2g} h of training ({where}), in `{run.folder}`. {run.agreement}".strip()


INTRODUCTION = """\
`warmstart-sim papers` prints this list with the runs that it finds in `runs/` and `results/`;
`warmstart-sim papers A-T1` prints one row of it. Any command can be tried in a minute, without data and without a GPU:
add `--rehearse`.
`warmstart-sim compare RUN_DIR` shows a run beside [the paper's numbers](results_and_report.md#beside-the-papers).

In the tables, "steps at most" is the number of optimiser steps if every round reaches its cap, which most do not.
"Numbers" is how many the paper's text states for the row. Figures whose values it does not state have
[claims](results_and_report.md#claims) instead: sentences that are checked.

`tools/papers_page.py` writes this page."""
