"""Chooses the tuned settings of each arm on validation data, as `select:` of a scenario asks for.

A candidate is an arm with one combination of varied values; candidates that differ only in the tuned keys compete. The
best is the one with the highest mean validation accuracy after the last round, among those of which every seed has
come to the end and none has failed; of equal ones, the one whose values come first in the scenario.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from warmstart_sim.results.columns import column_of
from warmstart_sim.results.statistics import FAILED, cells, over_seeds


def tuned_columns(scenario: Mapping[str, Any]) -> list[str]:
    """The columns of the keys that `select:` tunes; empty without it."""
    select = scenario.get("select") or {}
    return list(dict.fromkeys(column_of(key, scenario["strategies"]) for key in select.get("over", ())))


def list_candidates(scenario: Mapping[str, Any], rounds: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """One row for each candidate.

    Args:
        scenario: The resolved scenario, with `select`.
        rounds: All rows of rounds.csv.
        axes: Its columns of varied values, tuned or not.

    Returns:
        The columns strategy and `axes`, then `seeds`, the number of complete cells; `failed`, of cells that diverged or
        gave up; the accuracy, under the name of its column: the mean over the complete cells; and `selected`.
    """
    by, keys = str(scenario["select"]["by"]), ["strategy", *axes]
    tuned = tuned_columns(scenario)
    table = cells(rounds, axes, by)
    complete = table[table["state"] == "complete"]
    means = over_seeds(complete, keys, "final_accuracy")[[*keys, "seeds", "mean"]].rename(columns={"mean": by})
    failed = table[keys].assign(failed=table["state"].isin(FAILED))
    counts = failed.groupby(keys, dropna=False, observed=True, as_index=False)["failed"].sum()
    found = counts.merge(means, how="left", on=keys).fillna({"seeds": 0}).astype({"seeds": int})
    found = _in_file_order(scenario, found, axes)
    sound = found[(found["seeds"] == len(scenario["seeds"])) & (found["failed"] == 0) & found[by].notna()]
    competing = ["strategy", *(axis for axis in axes if axis not in tuned)]
    best = sound.sort_values(by, ascending=False, kind="stable").drop_duplicates(competing).index
    return found.assign(selected=found.index.isin(best))[[*keys, "seeds", "failed", by, "selected"]]


def _in_file_order(scenario: Mapping[str, Any], candidates: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """The candidates in the order of the arms, and of the values that `vary` lists."""
    orders: dict[str, dict[Any, int]] = {"strategy": {arm: rank for rank, arm in enumerate(scenario["strategies"])}}
    for key, values in scenario["vary"].items():
        plain = [str(value) if isinstance(value, (list, dict)) else value for value in values]
        orders[column_of(key, scenario["strategies"])] = {value: rank for rank, value in enumerate(plain)}
    ranks = pd.DataFrame(
        {
            column: [orders.get(column, {}).get(value, len(candidates)) for value in candidates[column]]
            for column in ("strategy", *axes)
        },
        candidates.index,
    )
    order = ranks.sort_values(["strategy", *axes], kind="stable").index
    return candidates.loc[order].reset_index(drop=True)


def is_selected(rows: pd.DataFrame, candidates: pd.DataFrame, axes: Sequence[str]) -> pd.Series[bool]:
    """Whether each row of a table of rounds or epochs is of a selected candidate."""
    keys = ["strategy", *axes]
    marked = rows[keys].merge(candidates[[*keys, "selected"]], how="left", on=keys)
    return marked["selected"].eq(True).set_axis(rows.index)
