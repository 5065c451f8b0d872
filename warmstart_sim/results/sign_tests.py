"""Exact binomial tests between methods over many settings."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from warmstart_sim.results.columns import Row
from warmstart_sim.results.inference import LEVEL, holm_factors
from warmstart_sim.results.statistics import NOISE_DIGITS


def sign_tests(accuracies: pd.DataFrame) -> Iterator[Row]:
    """The tests of every method against every other, as rows of the analysis `sign_test`.

    Args:
        accuracies: A column for each method and a row for each setting, which the index names. Rows with the same index
            are seeds of one setting. Empty where there is no accuracy.

    >>> table = pd.DataFrame({"new": [2, 2, 2, 2, 2, 2, 0], "old": [1, 1, 1, 1, 1, 1, 0]})
    >>> next(sign_tests(table))["p"]  # six wins and a tie: 2 / 2^6
    0.03125
    """
    for method in accuracies:
        rows = [_against(accuracies, str(method), str(other)) for other in accuracies if other != method]
        p = np.array([row["p"] for row in rows])
        for row, corrected in zip(rows, np.minimum(p * holm_factors(p), 1), strict=True):
            passed = int(row["p"] < LEVEL) + int(corrected < LEVEL) if row["wins"] > row["losses"] else 0
            yield {**row, "p_holm": float(corrected), "significance": passed}


def _against(accuracies: pd.DataFrame, method: str, other: str) -> Row:
    from scipy.stats import binomtest

    differences = (accuracies[method] - accuracies[other]).dropna()
    means = differences.groupby(differences.index).mean().round(NOISE_DIGITS)
    wins, ties, losses = (int(each.sum()) for each in (means > 0, means == 0, means < 0))
    p = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    return {"strategy": method, "versus": other, "wins": wins, "ties": ties, "losses": losses, "p": p}
