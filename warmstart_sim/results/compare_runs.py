"""Compares two runs, setting by setting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from warmstart_sim.errors import WarmstartError
from warmstart_sim.results.agreement import COLUMNS, MARGIN, OTHER_MACHINE, UNITS, check_comparable, verdict
from warmstart_sim.results.cell_settings import known
from warmstart_sim.results.inference import welch_interval
from warmstart_sim.results.tables import Run

SAME_TIME = 0.1  # of the other run's seconds: the same for times on one kind of device


def compare_runs(run: Run, other: Run, margin: float = MARGIN) -> pd.DataFrame:
    """Two runs side by side: the metric after the last round and the train seconds, for every setting of both.

    Seconds get a verdict if both are of one kind (`statistics.counted_seconds`) and from devices of one name. An axis
    that only one run has tells settings apart, each of which is compared with the same setting of the other run.

    Args:
        run: The run.
        other: What it is compared with; its numbers are in the columns `published...`.
        margin: In points of accuracy; as in `agreement.verdict`.

    Raises:
        WarmstartError: One is a rehearsal, or they have no arm, no varied value or no metric in common.
    """
    check_comparable(run)
    check_comparable(other)
    if run.metric != other.metric:
        raise WarmstartError(f"the two runs have different metrics: {run.metric} and {other.metric}")
    both = ["strategy", *(axis for axis in run.axes if axis in other.axes)]
    theirs = _by_values(other)
    rows: list[dict[str, Any]] = []
    for values, mine in _by_values(run):
        for other_values, yours in theirs:
            if all(values.get(key) == other_values.get(key) for key in both):
                condition = "; ".join(f"{key}={value}" for key, value in {**values, **other_values}.items())
                rows += (
                    {"condition": condition, **beside} for beside in _run_beside_run(run.metric, mine, yours, margin)
                )
    if not rows:
        raise WarmstartError("the two runs have no strategy with the same varied values in common")
    return pd.DataFrame(rows).assign(row="", spread_kind="std", failed=0, where="", note="")[list(COLUMNS)]


def _by_values(run: Run) -> list[tuple[dict[str, str], pd.DataFrame]]:
    """The arm and the varied values of each setting, by column, and its complete cells, with the run's metric."""
    complete = run.cells[run.cells["state"] == "complete"].rename(columns={"final_accuracy": run.metric})
    keys = ["strategy", *run.axes]
    groups = complete.groupby(keys, dropna=False, observed=True)
    return [(known(zip(keys, values, strict=True)), rows) for values, rows in groups]


def _run_beside_run(metric: str, mine: pd.DataFrame, yours: pd.DataFrame, margin: float) -> Iterator[dict[str, Any]]:
    """The metric and the train seconds of one setting in two runs."""
    both = pd.concat([mine, yours])
    same_clock = all(both[each].nunique() == 1 and "mixed" not in set(both[each]) for each in ("device_name", "timing"))
    for column, name, unit in ((metric, metric, "percent"), ("compared_seconds", "train_seconds", "seconds")):
        a, b = (each[column].dropna() / UNITS[unit] for each in (mine, yours))
        low, high = np.nan, np.nan
        if len(b) > 1:
            low, high = welch_interval(a.mean(), a.std(), len(a), b.mean(), b.std(), len(b))
        difference = a.mean() - b.mean()
        word = verdict(difference, low, high, margin if unit == "percent" else SAME_TIME * b.mean(), len(a))
        yield {
            "metric": name, "unit": unit, "published": b.mean(), "published_spread": b.std(), "published_seeds": len(b),
            "measured": a.mean(), "measured_std": a.std(), "seeds": len(a), "difference": difference,
            "low": low, "high": high, "verdict": word if unit == "percent" or same_clock else OTHER_MACHINE,
        }  # fmt: skip
