"""The answer: which start to use, what the check has shown, and what would change it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from warmstart_sim.advise.halving import REFERENCE, Setting, cost
from warmstart_sim.advise.plan import Plan
from warmstart_sim.report.wording import (
    format_value,
    is_empty,
    margin_words,
    percent,
    points,
    readable,
    share_of_cost,
)
from warmstart_sim.results.inference import seeds_needed

FEWEST_SEEDS = 2  # for an interval


@dataclass(frozen=True)
class Advice:
    """What a question's runs have shown.

    Attributes:
        start: The start to use: "random_init", "warm_start" or "shrink_perturb".
        lam: Its lambda, if it has one.
        sigma: Its sigma.
        sentences: The answer: the start, what the check has shown, and what would change it.
        tried: What was tried, and what was left out, a line each.
        checked: The setting that was checked against random init; None if it did not come to that.
        row: What the check has shown of it, from `statistics.summary`; empty without a check.
        margin: The loss of accuracy that does not matter, as a fraction.
    """

    start: str
    lam: float | None
    sigma: float | None
    sentences: tuple[str, ...]
    tried: tuple[str, ...] = ()
    checked: Setting | None = None
    row: Mapping[str, Any] | None = None
    margin: float = 0.01

    @property
    def share(self) -> float:
        """The share of random init's training that the advice needs."""
        return 1.0 if self.start == REFERENCE or self.row is None else cost(dict(self.row))

    def to_dict(self) -> dict[str, Any]:
        """The advice as plain values, for advice.json."""
        keys = ("pairs", "final_accuracy", "difference", "difference_low", "difference_high", "difference_bound")
        measured = {key: float(self.row[key]) for key in keys} if self.row else {}
        return {
            "start": self.start, "lambda": self.lam, "sigma": self.sigma, "sentences": self.sentences,
            "tried": self.tried, "checked": self.checked.label if self.checked else None, "share": self.share,
            "margin": self.margin, **measured,
        }  # fmt: skip


def setting_words(setting: Setting) -> str:
    """A setting in a sentence.

    >>> setting_words(Setting("shrink_perturb", 0.6, 0.1))
    'shrink perturb (λ = 0.6, σ = 0.1)'
    """
    if setting.lam is None:
        return readable(setting.start)
    return f"{readable(setting.start)} (λ = {format_value(setting.lam)}, σ = {format_value(setting.sigma)})"


def with_interval(row: Mapping[str, Any], test_samples: int) -> dict[str, Any]:
    """The row of a check with the interval that is stated: where the difference will be in the next rounds.

    It reaches at least one test sample to either side: where seeds differ by less, a t-interval would be narrower than
    what can be measured. And where the difference changes from round to round, it reaches as far as it would come if it
    changed as much again, give or take the standard error of the change. The bound that decides takes the change alone.
    """
    least, difference = 1 / test_samples, row["difference"]
    half = (row["difference_high"] - row["difference_low"]) / 2
    half = least if is_empty(half) else max(half, least)
    bound = -np.inf if is_empty(row["difference_bound"]) else row["difference_bound"]
    change, error = row["trend"], 0.0 if is_empty(row["trend_error"]) else row["trend_error"]
    return {
        **row,
        "difference_low": difference - half + min(0.0, change - error),
        "difference_high": difference + half + max(0.0, change + error),
        "difference_bound": min(bound, difference - least) + min(0.0, change),
    }


def advise_from_check(
    table: pd.DataFrame, setting: Setting, plan: Plan, margin: float, test_samples: int, tried: tuple[str, ...] = ()
) -> Advice:
    """The advice that a check supports.

    The setting is advised if it is clearly more accurate than random init, or if it is non-inferior (the one-sided 95 %
    lower bound of the difference is above -margin) and needs less training.

    Args:
        table: From `play.check`.
        setting: The setting that was checked.
        plan: What was played.
        margin: The loss of accuracy that does not matter, as a fraction.
        test_samples: How many test samples there are.
        tried: Lines on what was tried.
    """
    rows: dict[str, dict[str, Any]] = {str(row["strategy"]): row for row in table.to_dict("records")}  # type: ignore[misc]
    measured = rows[setting.label]
    failed = measured["gave_up"] + measured["diverged"]
    if measured["pairs"] < FEWEST_SEEDS or failed:
        why = f"{failed} of its seeds did not train" if failed else "one seed supports no advice"
        kept = f"Keep random init so far: {setting_words(setting)} is not checked, because {why}."
        return Advice(REFERENCE, None, None, (kept,), tried, setting, margin=margin)
    row = with_interval(measured, test_samples)
    better = row["difference_low"] > 0
    as_good = row["difference_bound"] > -margin
    if better:
        chosen, verdict = setting, "more accurate than random init"
    elif as_good and cost(row) < 1:
        chosen, verdict = setting, f"as accurate as random init to within {margin_words(margin)}"
    elif as_good:
        chosen, verdict = Setting(REFERENCE), f"is as accurate to within {margin_words(margin)}, but saves nothing"
    else:
        chosen, verdict = Setting(REFERENCE), f"is not shown to be as accurate to within {margin_words(margin)}"
    evidence = f"{points(row['difference'], row['difference_low'], row['difference_high'])} points"
    share = share_of_cost([row], "random init's")
    if chosen is setting:
        accuracy = percent(row["final_accuracy"])
        answer = f"Start with {setting_words(setting)}: {accuracy} test accuracy, {verdict} ({evidence}), at {share}."
    else:
        answer = (
            "Start with random init: no start is clearly better within the budget; the best other one, "
            f"{setting_words(setting)}, {verdict} ({evidence}, at {share})."
        )
    sentences = (answer, _rests_on(plan, row), _would_change(row, better, as_good, cost(row) < 1, margin))
    return Advice(chosen.start, chosen.lam, chosen.sigma, sentences, tried, setting, row, margin)


def _rests_on(plan: Plan, row: Mapping[str, Any]) -> str:
    later = plan.rounds - plan.first_later
    which = "the last" if later == 1 else f"the last {later}"
    return (
        f"This is the mean over {which} of {plan.rounds} rounds of {plan.chunk:,} samples, which took no part in "
        f"choosing, with {row['pairs']} seeds of their own; brackets are the 95 % interval of the paired difference, "
        f"widened by its change from the rounds before ({points(row['trend'])} ± {100 * row['trend_error']:.1f})."
    )


def _would_change(row: Mapping[str, Any], better: bool, as_good: bool, cheaper: bool, margin: float) -> str:
    """What would change the advice: another margin, less training, or more seeds."""
    limit = f"{max(0.0, -100 * row['difference_bound']):.2f} points"
    if better or (as_good and cheaper and row["difference_bound"] >= 0):
        change = "It holds at any margin"
    elif as_good and cheaper:
        change = f"It would be random init at a margin below {limit}"
    elif as_good:
        change = "It would be the other one if that needed less training"
    else:
        change = f"It would be the other one at a margin above {limit}"
    std = row["difference_bound_std"]
    needed = 0 if is_empty(std) else seeds_needed(std, margin)
    more = f"; {needed} seeds would tell the difference to ±{margin_words(margin)}" if needed > row["pairs"] else ""
    return f"{change}{more}. Other data, another model or another stop rule would need a check of their own."


def not_checked(setting: Setting | None, tried: tuple[str, ...], margin: float) -> Advice:
    """The advice before a check: the best setting so far is named, but not advised."""
    best = f"the best start so far, {setting_words(setting)}, is not checked in later rounds" if setting else ""
    sentences = (f"Keep random init so far: {best or 'nothing is shown yet'}.", "The same command goes on.")
    return Advice(REFERENCE, None, None, sentences, tried, setting, margin=margin)
