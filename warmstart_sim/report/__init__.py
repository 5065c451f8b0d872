"""The report of a run: tables, figures and one self-contained page. It reads stored results and never imports torch."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd

    from warmstart_sim.results.claim_checks import CheckedClaim
    from warmstart_sim.results.tables import Run

# Matplotlib logs that it builds its font cache when it is first imported, which does not concern a user of the report.
logging.getLogger("matplotlib").setLevel(logging.ERROR)


def write(run_dir: Path, margin: float = 0.01, bands: Literal["ci", "std"] = "ci") -> Path:
    """Writes summary.csv, figures/*.svg and *.png, and report.html into a run folder; the run may be unfinished.

    Every file is replaced atomically, report.html last.

    Args:
        run_dir: The run folder.
        margin: The loss of accuracy that does not matter when a start is recommended, as a fraction.
        bands: What figures draw around means over seeds: "ci", the 95 % confidence interval of the mean, or "std", one
            standard deviation to each side, as in Ash & Adams.

    Returns:
        The path of report.html.

    Raises:
        WarmstartError: The folder holds no run, or one that cannot be read.
    """
    # Imported here, so that the command line starts quickly when it only offers this function.
    from warmstart_sim.published.compare import published_points
    from warmstart_sim.report import html, style
    from warmstart_sim.report.figures import draw_figures
    from warmstart_sim.results.files import write_bytes, write_text
    from warmstart_sim.results.tables import load, write_summary

    run_dir = Path(run_dir)
    summary = write_summary(run_dir)
    run = replace(load(run_dir), bands=bands)
    figures = draw_figures(run, published_points(run))
    svgs = {figure.name: style.to_svg(figure) for figure in figures}
    for figure in figures:
        write_text(run_dir / "figures" / f"{figure.name}.svg", svgs[figure.name])
        write_bytes(run_dir / "figures" / f"{figure.name}.png", style.to_png(figure))
    comparison, claims = write_comparison(run_dir, run)
    page = run_dir / "report.html"
    write_text(page, html.render_page(run, summary, figures, svgs, margin, comparison, claims))
    return page


def write_comparison(run_dir: Path, run: Run, margin: float = 2.0) -> tuple[pd.DataFrame | None, list[CheckedClaim]]:
    """Writes comparison.csv and claims.csv of a run that reproduces something, or that has claims; not of a rehearsal.

    Args:
        run_dir: The run folder.
        run: Its content.
        margin: See `published.compare.compare_with_papers`.

    Returns:
        From `published.compare.compare_with_papers`, None if the papers state no number for the run, and from
        `results.claims.check_claims`.
    """
    from warmstart_sim.published import published_numbers
    from warmstart_sim.published.compare import compare_with_papers
    from warmstart_sim.report.beside_papers import claims_frame
    from warmstart_sim.results.agreement import is_rehearsal
    from warmstart_sim.results.claim_checks import check_claims
    from warmstart_sim.results.files import write_text

    if is_rehearsal(run) or run.rounds.empty:
        return None, []
    has_numbers = any(published_numbers(row) for row in run.scenario.get("reproduces") or ())
    comparison = compare_with_papers(run, margin) if has_numbers else None
    if comparison is not None:
        write_text(run_dir / "comparison.csv", comparison.to_csv(index=False))
    if claims := check_claims(run):
        write_text(run_dir / "claims.csv", claims_frame(claims).to_csv(index=False))
    return comparison, claims
