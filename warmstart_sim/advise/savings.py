"""What an advice saves in a year, and the costs that RetrainOpt decides by: when to retrain, beside how to start."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from warmstart_sim.advise.answer import Advice
from warmstart_sim.advise.halving import REFERENCE
from warmstart_sim.errors import WarmstartError, unknown
from warmstart_sim.results.statistics import counted_seconds

HOURS = {"hour": 1, "day": 24, "week": 24 * 7, "month": 24 * 365 / 12, "quarter": 24 * 365 / 4, "year": 24 * 365}


def times_a_year(every: str) -> float:
    """How often a year has an interval such as "week", "day" or "3 days".

    Raises:
        WarmstartError: It is none.

    >>> round(times_a_year("week")), round(times_a_year("2 weeks")), round(times_a_year("month"))
    (52, 26, 12)
    """
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?) ?)?([a-z]+?)s?", every.strip().lower())
    if not found or found[2] not in HOURS or (found[1] and float(found[1]) == 0):
        raise WarmstartError(f"--every {every}: {unknown('interval', found[2] if found else every, HOURS)}")
    return HOURS["year"] / (float(found[1] or 1) * HOURS[found[2]])


def savings(advice: Advice, rounds: pd.DataFrame, every: str) -> str:
    """A sentence on what the share of the training time means over a year; empty if random init is advised.

    Args:
        advice: The answer.
        rounds: Those of the check.
        every: How often a run is trained.
    """
    if advice.start == REFERENCE or advice.row is None:
        return ""
    rows = counted_seconds(rounds)
    last = rows[(rows["round"] == rows["round"].max()) & (rows["strategy"].astype(str) == REFERENCE)]
    hours = last["compared_seconds"].mean() / 3600 * times_a_year(every)
    device = next(iter(last["device_name"].dropna()), "this device")
    size = int(last["train_samples"].mean())
    return (
        f"At one run every {every}, {times_a_year(every):.0f} a year, random init on {size:,} samples takes "
        f"{_hours(hours)} of {device} a year, and this start {_hours(hours * advice.share)}; multiply by how much "
        "longer a run of yours takes."
    )


def _hours(hours: float) -> str:
    return f"{hours:,.0f} h" if hours >= 10 else f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.2g} min"


def cost_table(rounds: pd.DataFrame) -> dict[str, Any]:
    """The costs of retraining in each round, for each start, as RetrainOpt's planner takes them.

    The candidate (t, n) is the model that was trained in round t on its n samples. Its losses are the share of the test
    samples that it gets wrong, the same in every later round, because the test samples do not change. The model of
    round 0 is the initial one, at no cost. Numbers are means over seeds.

    Args:
        rounds: Those of the check.

    Returns:
        By start: `num_steps`, and `models`, each with `step`, `n_samples`, `training_cost` (seconds) and
        `future_losses` by step. `examples/when_and_how.py` gives them to RetrainOpt.
    """
    rows = counted_seconds(rounds[rounds["cell_complete"].astype(bool)])
    rows = rows.assign(strategy=rows["strategy"].astype(str), loss=1 - rows["test_accuracy"])
    table: dict[str, Any] = {}
    for start, own in rows.groupby("strategy"):
        means = own.groupby("round")[["train_samples", "compared_seconds", "loss"]].mean()
        steps = len(means) - 1  # step t is round t + 1
        models = [
            {
                "step": -1,
                "n_samples": 0,
                "training_cost": 0.0,
                "future_losses": _constant(means["loss"].iloc[0], 0, steps),
            }
        ]
        models += [
            {
                "step": step, "n_samples": int(row["train_samples"]), "training_cost": float(row["compared_seconds"]),
                "future_losses": _constant(row["loss"], step, steps),
            }
            for step, (_, row) in enumerate(means.iloc[1:].iterrows())
        ]  # fmt: skip
        table[str(start)] = {"num_steps": steps, "models": models}
    return table


def _constant(loss: float, first: int, steps: int) -> dict[str, float]:
    return {str(step): float(loss) for step in range(first, steps)}
