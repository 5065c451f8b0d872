"""Checks claims about a run with paired statistics over seeds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from warmstart_sim.errors import WarmstartError, nearest
from warmstart_sim.results.claims import WITHIN_CELL, Claim, Side, parse_claim
from warmstart_sim.results.columns import plain
from warmstart_sim.results.statistics import COSTS, over_seeds
from warmstart_sim.results.tables import Run

Verdict = Literal["holds", "fails", "undecided"]


@dataclass(frozen=True)
class CheckedClaim:
    """A claim with its verdict and the numbers that it rests on.

    Attributes:
        claim: The claim.
        verdict: holds, fails or undecided: whether the 95 % interval over seeds lies on the claimed side.
        value: The mean over seeds of left minus right (of costs: the ratio left / right); where something grows, the
            mean change for one step to its next value (of a ratio: the factor).
        low: Lower end of its 95 % interval; NaN with one seed.
        high: Upper end.
        seeds: The number of seeds.
        unit: "points", "ratio", or empty for another column's unit.
        reason: Why nothing can be said; empty if there are numbers.
    """

    claim: Claim
    verdict: Verdict
    value: float = np.nan
    low: float = np.nan
    high: float = np.nan
    seeds: int = 0
    unit: str = ""
    reason: str = ""

    @property
    def evidence(self) -> str:
        """The numbers in words, such as "-4.1 points [-5.0, -3.2], 5 seeds"."""
        if self.reason:
            return self.reason
        scale = 100 if self.unit == "points" else 1
        digits = ".1f" if self.unit == "points" else ".3g"
        sign = "" if self.unit == "ratio" else "+"
        low, high = (f"{scale * end:{sign}{digits}}" for end in (self.low, self.high))
        interval = "" if np.isnan(self.low) else f" [{low}, {high}]"
        step = " a step" if self.claim.along else ""  # to the next value of what grows
        unit = f" {self.unit}" if self.unit else ""
        few = "one seed, which supports no interval" if self.seeds == 1 else f"{self.seeds} seeds"
        return f"{scale * self.value:{sign}{digits}}{unit}{step}{interval}, {few}"


def check_claims(run: Run) -> list[CheckedClaim]:
    """Evaluates the claims of a run's scenario.

    Raises:
        WarmstartError: A stored claim is not in the grammar.
    """
    try:
        claims = [parse_claim(text) for text in run.scenario.get("claims") or ()]
    except ValueError as error:  # written by hand, or by another version
        raise WarmstartError(f"claims: {error}") from None
    return [_checked(run, claim) for claim in claims]


def _checked(run: Run, claim: Claim) -> CheckedClaim:
    try:
        return check_claim(run, claim)
    except WarmstartError as error:  # a report goes on
        return CheckedClaim(claim, "undecided", reason=str(error))


def check_claim(run: Run, claim: Claim) -> CheckedClaim:
    """Evaluates one claim by paired differences within seeds.

    Both sides are paired by seed and by the varied values that both have; within a seed they are averaged over those
    values. A seed that lacks a value which another seed has is left out, so that all means are over the same values.
    The 95 % t-interval over seeds decides. Costs, and sides within N %, are compared by the logarithm of their
    ratio. A trend is the least-squares slope over the ranks of the values of `along`, within a seed.

    Raises:
        WarmstartError: The tables lack a column that it names.
    """
    is_gap = claim.relation in ("shrinks", "grows")
    right = claim.right or (Side(run.reference, claim.left.column) if is_gap else None)
    column = claim.left.column or run.metric
    ratio = claim.percent or (column in COSTS and right is not None and claim.relation != "within")
    table = _values(run, claim, claim.left)
    if right is not None:
        table = _paired(table, _values(run, claim, right), ratio, is_gap)
    table = _of_whole_seeds(table)
    if claim.along is not None:
        table = _slopes(table, claim.along)
    if table.empty:
        return CheckedClaim(claim, "undecided", reason="no seed has all the cells that it needs")
    each = table.groupby("seed", as_index=False)["value"].mean()
    found = over_seeds(each.assign(all=0), ["all"], "value").iloc[0]
    value, low, high = (float(found[name]) for name in ("mean", "low", "high"))
    verdict = _verdict(claim, low, high, 100.0 if _is_fraction(column) else 1.0)
    if ratio:
        value, low, high = np.exp([value, low, high])
    unit = "ratio" if ratio else "points" if _is_fraction(column) else ""
    return CheckedClaim(claim, verdict, value, low, high, int(found["seeds"]), unit)


def _verdict(claim: Claim, low: float, high: float, scale: float) -> Verdict:
    if np.isnan(low):
        return "undecided"
    if claim.relation == "within":
        margin = np.log1p(claim.number / 100) if claim.percent else claim.number / scale
        inside, outside = -margin <= low and high <= margin, low > margin or high < -margin
    elif claim.relation in ("below", "shrinks", "falls"):
        inside, outside = high < 0, low > 0
    else:
        inside, outside = low > 0, high < 0
    return "holds" if inside else "fails" if outside else "undecided"


def _is_fraction(column: str) -> bool:
    return column.endswith("accuracy")


def _values(run: Run, claim: Claim, side: Side) -> pd.DataFrame:
    """The values of one side: columns seed, the run's axes, `along` if it lies within cells, and value."""
    column = side.column or run.metric
    if claim.analysis is not None:
        return _values_of_analysis(run, claim, side, claim.analysis)
    by_round = claim.along in ("round", "train_samples")
    summed = column in COSTS and not (claim.by_epoch or by_round)
    place = claim.place or ("over all rounds" if summed else "in the last round")
    rows = run.epochs if claim.by_epoch else run.rounds
    if column not in (numbers := rows.select_dtypes("number")) or column in run.axes:
        raise WarmstartError(f"the tables have no column '{column}' of numbers{nearest(column, numbers.columns)}")
    keys = ["strategy", *run.axes, "seed"]
    rows = rows.merge(run.cells.loc[run.cells["state"] == "complete", keys], on=keys)
    rows = rows[rows["strategy"].astype(str) == side.arm]
    in_round = re.fullmatch(r"in round (\d+)", place)
    if not (in_round or place == "in the first round" or "round" in claim.where):
        rows = rows[~rows["shared"].astype(bool)]
    rows = _filtered(rows, claim, side)
    cell = rows.groupby(keys, dropna=False, observed=True)
    if in_round:
        rows = rows[rows["round"] == int(in_round[1])]
    elif place == "over all rounds":
        rows = (cell[column].sum() if column in COSTS else cell[column].mean()).reset_index()
    elif not by_round:
        rows = rows[rows["round"] == cell["round"].transform("min" if place == "in the first round" else "max")]
        if claim.place in ("in the first epoch", "in the last epoch"):
            ends = rows.groupby(keys, dropna=False, observed=True)["epoch"]
            rows = rows[rows["epoch"] == ends.transform("min" if "first" in place else "max")]
    along = [claim.along] if claim.along in WITHIN_CELL else []
    axes = [axis for axis in run.axes if axis not in side.setting and rows[axis].notna().any()]
    return rows[["seed", *axes, *along, column]].rename(columns={column: "value"}).dropna(subset="value")


def _values_of_analysis(run: Run, claim: Claim, side: Side, analysis: str) -> pd.DataFrame:
    """The same from the table of an analysis, averaged over the columns that the claim does not name."""
    column = side.column or run.metric
    rows = run.analysis(analysis)
    for name in filter(None, (column, claim.along)):
        if name not in rows:
            raise WarmstartError(f"{analysis}.csv has no column '{name}'{nearest(name, rows.columns)}")
    rows = _filtered(rows[rows["strategy"].astype(str) == side.arm], claim, side).dropna(subset=column)
    axes = [axis for axis in run.axes if axis not in side.setting and rows[axis].notna().any()]
    keys = [*dict.fromkeys(["seed", *axes, *filter(None, [claim.along])])]
    return rows.groupby(keys, observed=True)[column].mean().rename("value").reset_index()


def _filtered(rows: pd.DataFrame, claim: Claim, side: Side) -> pd.DataFrame:
    """The rows with the values that the claim and its side name."""
    for key, value in {**claim.where, **side.setting}.items():
        if key not in rows:
            raise WarmstartError(f"the tables have no column '{key}'{nearest(key, rows.columns)}")
        of_other_arms = rows[key].isna() & (key not in side.setting)  # an axis that this arm does not have
        rows = rows[of_other_arms | (rows[key].map(plain) == plain(value))]
    return rows


def _paired(left: pd.DataFrame, right: pd.DataFrame, ratio: bool, gap: bool) -> pd.DataFrame:
    """Left minus right (of costs: the log ratio) for each pair; a gap is right minus left."""
    if ratio:
        left, right = (side.assign(value=np.log(side["value"].where(side["value"] > 0))) for side in (left, right))
    on = [column for column in left if column in right and column != "value"]
    pairs = left.merge(right, on=on, suffixes=("", "_right"))
    difference = pairs["value"] - pairs["value_right"]
    settings = pairs.drop(columns=["value", "value_right"])
    return settings.assign(value=-difference if gap else difference).dropna(subset="value")


def _of_whole_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of those seeds that have every combination of varied values that any seed has."""
    varied = [column for column in table if column not in ("seed", "value", *WITHIN_CELL)]
    if not varied:
        return table
    present = table[["seed", *varied]].drop_duplicates()
    whole = present["seed"].value_counts() == len(present[varied].drop_duplicates())
    return table[table["seed"].isin(whole.index[whole])]


def _slopes(table: pd.DataFrame, along: str) -> pd.DataFrame:
    """For each seed and each combination of the other columns: the slope of value over the ranks of `along`."""
    if along not in table:
        return table.iloc[:0]
    ranks = table[along].rank(method="dense") if table[along].dtype != "category" else table[along].cat.codes
    table = table.assign(rank=ranks.astype(float))
    others = [column for column in table if column not in (along, "value", "rank")]
    groups = table.groupby(others, dropna=False, observed=True)
    centred = table["rank"] - groups["rank"].transform("mean")
    parts = table.assign(above=centred * table["value"], below=centred**2)
    sums = parts.groupby(others, dropna=False, observed=True)[["above", "below"]].sum().reset_index()
    return sums[sums["below"] > 0].assign(value=lambda each: each["above"] / each["below"])
