"""The report of a run: tables, figures and one self-contained page. It reads stored results and never imports torch."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Literal

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
    from warmstart_sim.report import html, style
    from warmstart_sim.report.figures import draw_figures
    from warmstart_sim.results.files import write_bytes, write_text
    from warmstart_sim.results.tables import load, write_summary

    run_dir = Path(run_dir)
    summary = write_summary(run_dir)
    run = replace(load(run_dir), bands=bands)
    figures = draw_figures(run)
    svgs = {figure.name: style.to_svg(figure) for figure in figures}
    for figure in figures:
        write_text(run_dir / "figures" / f"{figure.name}.svg", svgs[figure.name])
        write_bytes(run_dir / "figures" / f"{figure.name}.png", style.to_png(figure))
    page = run_dir / "report.html"
    write_text(page, html.render_page(run, summary, figures, svgs, margin))
    return page
