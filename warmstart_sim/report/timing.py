"""Which seconds a figure of time draws: those of one kind, and a caption that counts the others."""

from __future__ import annotations

import pandas as pd

from warmstart_sim.report.wording import TIMING
from warmstart_sim.results.tables import Run


def timed_alike(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The rows whose seconds are of the most common kind, and that kind; no rows where all are mixed.

    Args:
        frame: Of `statistics.cells`, or of rounds from `statistics.timed`.
    """
    counts = frame["timing"].value_counts()
    kind = max(TIMING, key=lambda each: counts.get(each, 0))
    return frame[frame["timing"] == kind], kind


def left_out(frame: pd.DataFrame, alike: pd.DataFrame, what: str) -> str:
    """A caption's note on the rows, called `what`, that `timed_alike` leaves out, or nothing."""
    count = len(frame) - len(alike)
    return f" {count} {what} that were timed otherwise are left out." if count else ""


def train_time_name(run: Run) -> str:
    """What the sum over an arm's own rounds is called: a first phase that all arms share is not in it."""
    return "train time after the first phase" if run.rounds["shared"].any() else "train time of all rounds"
