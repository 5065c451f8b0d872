"""Tables, figures and one self-contained page of a run; reads what is stored, and never imports torch."""

from __future__ import annotations

import logging
from pathlib import Path

# Matplotlib talks about its font cache when it is first imported; that is no concern of who reads a report.
logging.getLogger("matplotlib").setLevel(logging.ERROR)


def write(run_dir: Path) -> Path:
    """Writes summary.csv, figures/*.svg and *.png, and report.html into a run folder; the run may be unfinished.

    Every file is replaced all at once, report.html last.

    Returns:
        The path of report.html.

    Raises:
        WarmstartError: The folder holds no run, or one that cannot be read.
    """
    # Here, so that a command line that only offers this function stays quick.
    from warmstart_sim.report import html, style
    from warmstart_sim.report.figures import draw
    from warmstart_sim.results.files import write_bytes, write_text
    from warmstart_sim.results.tables import load, write_summary

    run_dir = Path(run_dir)
    summary = write_summary(run_dir)
    run = load(run_dir)
    charts = draw(run)
    drawings = {chart.name: style.svg(chart) for chart in charts}
    for chart in charts:
        write_text(run_dir / "figures" / f"{chart.name}.svg", drawings[chart.name])
        write_bytes(run_dir / "figures" / f"{chart.name}.png", style.png(chart))
    page = run_dir / "report.html"
    write_text(page, html.page(run, summary, charts, drawings))
    return page
