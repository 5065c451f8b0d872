"""A run beside the numbers of papers, or beside another run, and its claims: as tables of text and as a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from warmstart_sim.report.wording import NAMES, Table, is_empty, join_words, readable, signed
from warmstart_sim.results import agreement
from warmstart_sim.results.claim_checks import CheckedClaim
from warmstart_sim.results.columns import column_of

MOST_CHANGES = 12  # settings that differ, in a line
LAST_KEYS = ("strategy", "round")  # in the words of a condition these stand last


def comparison_table(comparison: pd.DataFrame, theirs: str = "published") -> Table:
    """The measured numbers beside the published ones, as text.

    Args:
        comparison: From `compare.compare_with_papers` or `compare.compare_runs`.
        theirs: The heading of the numbers that are not the run's.
    """
    found = comparison[comparison["measured"].notna() | (comparison["failed"] > 0)]
    rows = [
        [
            *([row["row"]] if row["row"] else []),
            condition_words(row["condition"]),
            _quantity(row["metric"], row["unit"]),
            _with_spread(row["published"], row["published_spread"], row["unit"]),
            _with_spread(row["measured"], row["measured_std"], row["unit"]),
            str(row["seeds"]) + (f" ({row['failed']} failed)" if row["failed"] else ""),
            _difference(row),
            row["verdict"],
        ]
        for row in found.to_dict("records")
    ]
    of_papers = ["row"] if (comparison["row"] != "").any() else []
    head = [*of_papers, "setting", "metric", theirs, "measured", "seeds", "difference", "verdict"]
    return Table(head, rows, numbers=len(of_papers) + 2)


def claims_table(claims: Sequence[CheckedClaim]) -> Table:
    """Each claim, its verdict and its evidence, as text."""
    return Table(["claim", "verdict", "evidence"], [[c.claim.text, c.verdict, c.evidence] for c in claims], numbers=3)


def claims_frame(claims: Sequence[CheckedClaim]) -> pd.DataFrame:
    """The same as numbers, as claims.csv holds them."""
    columns = ["claim", "verdict", "value", "low", "high", "seeds", "unit", "reason"]
    rows = [(c.claim.text, c.verdict, c.value, c.low, c.high, c.seeds, c.unit, c.reason) for c in claims]
    return pd.DataFrame(rows, columns=columns)


def describe_comparison(comparison: pd.DataFrame) -> str:
    """How many numbers agree, differ and so on, in a sentence.

    >>> describe_comparison(pd.DataFrame({"verdict": ["agrees", "agrees", "differs", "not in this run"]}))
    '2 numbers agree, 1 differs; 1 is not in this run.'
    """
    counts = comparison["verdict"].value_counts()
    judged = [_counted(counts.get(word, 0), *forms) for word, forms in _JUDGED.items() if counts.get(word, 0)]
    others = [_counted(counts.get(word, 0), *forms) for word, forms in _OTHERS.items() if counts.get(word, 0)]
    if judged:
        judged[0] = judged[0].replace(" ", " number " if judged[0].startswith("1 ") else " numbers ", 1)
    text = "; ".join(filter(None, [", ".join(judged), join_words(others)]))
    return f"{text}." if text else "The papers state no numbers for it."


_JUDGED = {
    agreement.AGREES: ("agrees", "agree"),
    agreement.DIFFERS: ("differs", "differ"),
    agreement.UNDECIDED: ("is too uncertain to say", "are too uncertain to say"),
}
_OTHERS = {
    agreement.OTHER_MACHINE: ("is a time that cannot be compared", "are times that cannot be compared"),
    agreement.NO_CELL: ("is not in this run", "are not in this run"),
    agreement.NOT_MEASURED: ("is not measured", "are not measured"),
}


def _counted(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"


def describe_changes(changes: Sequence[str]) -> str:
    """The settings that differ from the paper's, in a line; empty if none does."""
    if not changes:
        return ""
    more = f"; and {len(changes) - MOST_CHANGES} more" if len(changes) > MOST_CHANGES else ""
    return f"Settings that differ: {'; '.join(changes[:MOST_CHANGES])}{more}."


def condition_words(condition: str) -> str:
    """A condition in words, with the values that need no key first.

    >>> condition_words("data.name=cifar10; model.name=mlp; strategy=warm_start; round=1")
    'cifar10, mlp, warm start, round 1'
    """
    pairs = [(key.strip(), value.strip()) for key, _, value in (each.partition("=") for each in condition.split(";"))]
    pairs.sort(key=lambda pair: LAST_KEYS.index(pair[0]) if pair[0] in LAST_KEYS else -1)
    return ", ".join(_pair_words(key, value) for key, value in pairs if key)


def _pair_words(key: str, value: str) -> str:
    last = key.rpartition(".")[2]
    if last in ("name", "strategy", "pair", "network") or column_of(key).endswith("_name"):
        return readable(value)
    return f"{NAMES.get(last) or readable(last)} {value}"


def _quantity(metric: str, unit: str) -> str:
    if metric == "train_seconds":
        return f"train time ({unit})"
    return f"{readable(metric)} ({'%' if unit == 'percent' else unit})"


def _decimals(unit: str) -> int:
    return 3 if unit == "fraction" else 1


def _with_spread(mean: Any, spread: Any, unit: str) -> str:
    if is_empty(mean):
        return "–"
    digits = _decimals(unit)
    return f"{mean:z.{digits}f}" + ("" if is_empty(spread) else f" ± {spread:.{digits}f}")


def _difference(row: dict[Any, Any]) -> str:
    if is_empty(row["difference"]):
        return "–"
    digits = _decimals(row["unit"])
    interval = "" if is_empty(row["low"]) else f" [{signed(row['low'], digits)}, {signed(row['high'], digits)}]"
    return f"{signed(row['difference'], digits)}{interval}"
