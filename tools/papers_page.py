"""Writes docs/papers.md, "Reproducing the papers", and copies the figures that it shows into docs/figures/papers.

    python tools/papers_page.py

It takes the runs in results/. Counting the steps of all scenarios takes half a minute.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from warmstart_sim import papers

DOCS = Path(__file__).resolve().parent.parent / "docs"
FIGURES = Path("figures", "papers")


def main() -> None:
    """Writes the page and its figures; figures of runs that are gone are deleted."""
    shutil.rmtree(DOCS / FIGURES, ignore_errors=True)
    (DOCS / FIGURES).mkdir(parents=True)
    found = papers.reproductions(folders=[Path("results")])
    (DOCS / "papers.md").write_text(papers.page(found, _copied_figures), encoding="utf-8")


def _copied_figures(run: papers.PaperRun) -> list[tuple[str, str]]:
    shown = []
    for title, path in papers.first_figures(run):
        copied = FIGURES / f"{run.folder.name}_{path.name}"
        shutil.copyfile(path, DOCS / copied)
        shown.append((title, copied.as_posix()))
    return shown


if __name__ == "__main__":
    main()
