"""The words and the columns of comparisons: of a run with published numbers, or with another run."""

from __future__ import annotations

import numpy as np

from warmstart_sim.errors import WarmstartError
from warmstart_sim.results.tables import Run

AGREES, DIFFERS, UNDECIDED, NO_CELL = "agrees", "differs", "too uncertain to say", "not in this run"
NOT_MEASURED, OTHER_MACHINE = "not measured", "time not comparable"
MARGIN = 2.0  # points: an interval that holds zero and is wider than this to either side says nothing
UNITS = {"percent": 0.01, "percentage points": 0.01, "fraction": 1.0, "minutes": 60.0, "seconds": 1.0, "hours": 3600.0}
COLUMNS = (
    "row", "condition", "metric", "unit", "published", "published_spread", "spread_kind", "published_seeds",
    "measured", "measured_std", "seeds", "failed", "difference", "low", "high", "verdict", "where", "note",
)  # fmt: skip


def is_rehearsal(run: Run) -> bool:
    """Whether a run is a rehearsal, whose numbers mean nothing."""
    return bool(run.environment.get("rehearsal") or run.scenario.get("rehearsal"))


def check_comparable(run: Run) -> None:
    """Refuses a rehearsal.

    Raises:
        WarmstartError: The run is one.
    """
    if is_rehearsal(run):
        raise WarmstartError("this run is a rehearsal on stand-in data; its numbers mean nothing beside others")


def verdict(difference: float, low: float, high: float, margin: float, seeds: int) -> str:
    """Whether two means agree, by the interval of their difference.

    Args:
        difference: The difference of the means.
        low: Lower end of its interval; NaN if there is none.
        high: Upper end.
        margin: How far an interval that holds zero may reach to either side of the difference.
        seeds: The number of runs behind the first mean.
    """
    if np.isnan(low):  # one seed, or no spread at all, as where every seed reaches 100 %
        return AGREES if difference == 0 and seeds > 1 else UNDECIDED
    if low > 0 or high < 0:
        return DIFFERS
    return AGREES if high - difference <= margin else UNDECIDED
