"""What differences within seeds support: adjusted p-values, lower bounds, the choice of the best, how many seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import stdtrit

LEVEL = 0.05
FEW_SEEDS = 6  # with fewer, settings of a grid share one estimate of their deviation


def holm_factors(p: np.ndarray) -> np.ndarray:
    """By how much Holm's method multiplies each p-value of a family (Holm 1979); 1 for a single one.

    The i-th smallest of m p-values counts as max over j <= i of (m - j + 1) p_j, so that the chance of any false claim
    is at most 5 %. Claims about intervals agree with it if the interval of p_i has the level 1 - 0.05 / factor_i.

    Args:
        p: The p-values, shape (m,), each in (0, 1]; none is empty.

    >>> holm_factors(np.array([0.04, 0.01, 0.03])).round(2)
    array([1.5, 3. , 2. ])
    """
    order = np.argsort(p, kind="stable")
    ordered = np.maximum(p[order], np.finfo(float).tiny)
    factors = np.empty(len(p))
    factors[order] = np.maximum.accumulate(ordered * np.arange(len(p), 0, -1)) / ordered
    return factors


def half_width(std: float, seeds: int, level: float = LEVEL) -> float:
    """Half of the t-interval of a mean: t(seeds - 1, 1 - level / 2) std / sqrt(seeds)."""
    return float(stdtrit(seeds - 1, 1 - level / 2) * std / np.sqrt(seeds))


def welch_interval(
    mean: float, std: float, count: int, other: float, other_std: float, other_count: int
) -> tuple[float, float]:
    """The 95 % interval of mean - other for two independent means with their own deviations (Welch 1947).

    half = t(0.975, df) sqrt(a + b) with a = std^2 / count, b = other_std^2 / other_count, and Satterthwaite's
    df = (a + b)^2 / (a^2 / (count - 1) + b^2 / (other_count - 1)). A mean of one run has no deviation of its own; its
    term then has the other's degrees of freedom.

    Returns:
        The ends; NaN with fewer than two runs here, or if neither side varies.
    """
    a, b = std**2 / count, other_std**2 / other_count
    if count < 2 or not a + b > 0:
        return np.nan, np.nan
    freedom = (a + b) ** 2 / (a**2 / (count - 1) + b**2 / (other_count - 1 if other_count > 1 else count - 1))
    half = float(stdtrit(freedom, 1 - LEVEL / 2) * np.sqrt(a + b))
    return mean - other - half, mean - other + half


def seeds_needed(std: float, half: float = 0.01) -> int:
    """The smallest number of seeds with a 95 % interval of at most +-`half` around the mean.

    >>> seeds_needed(0.01), seeds_needed(0.02)
    (7, 18)
    """
    seeds = 2
    while half_width(std, seeds) > half:
        seeds += 1
    return seeds


def lower_bounds(pairs: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """One-sided 95 % lower bounds of the mean difference of each setting, with a common deviation for few seeds.

    A setting has its own deviation from `FEW_SEEDS` seeds on. With fewer, all settings share one. They are compared
    with the same cells of the reference, so that their differences d_ks of setting k and seed s share what that cell
    did by chance. With MS_seed and MS_rest, the mean squares between seeds and of the rest of a two-way
    layout of K settings and n seeds,

        variance = MS_seed / K + (1 - 1 / K) MS_rest,

    which equals the mean of the settings' variances, has Satterthwaite's degrees of freedom

        variance^2 / ((MS_seed / K)^2 / (n - 1) + ((1 - 1 / K) MS_rest)^2 / ((K - 1) (n - 1))).

    It holds in about 95 of 100 runs if the cells of the reference vary as much as the settings', and in 92 to 95 if
    they vary much more.

    Args:
        pairs: Complete cells beside the same cells of the reference: see `statistics.paired`. Settings that lack a seed
            are left out.
        keys: The columns that make a setting.

    Returns:
        Columns `keys`, difference_bound and difference_bound_std; no rows if there are fewer than two seeds.
    """
    table = pairs.pivot_table(index=list(keys), columns="seed", values="difference", observed=True, dropna=False)
    table = table.dropna()
    settings, seeds = table.shape
    if seeds < 2 or not settings:
        return pd.DataFrame(columns=[*keys, "difference_bound", "difference_bound_std"])
    values = table.to_numpy()
    mean = values.mean(axis=1)
    variance, freedom = values.var(axis=1, ddof=1), float(seeds - 1)
    if seeds < FEW_SEEDS and settings > 1:
        rest = values - mean[:, None]
        of_seeds = rest.mean(axis=0)
        between = np.square(of_seeds).sum() / (seeds - 1)  # MS_seed / K
        within = np.square(rest - of_seeds).sum() / ((settings - 1) * (seeds - 1)) * (1 - 1 / settings)
        total = between + within
        freedom = total**2 / (between**2 + within**2 / (settings - 1)) * (seeds - 1) if total else freedom
        variance = np.full(settings, total)
    std = np.sqrt(variance)
    bound = mean - stdtrit(freedom, 1 - LEVEL) * std / np.sqrt(seeds)
    return table.index.to_frame(index=False).assign(difference_bound=bound, difference_bound_std=std)


def best_by_other_seeds(pairs: pd.DataFrame, keys: Sequence[str]) -> float:
    """The mean difference of the most accurate setting in a seed that did not take part in choosing it.

    For every seed the best setting is chosen by the mean of the others; the result is the mean of its differences in
    the seed that was left out. It is empty with one seed.

    Args:
        pairs: See `lower_bounds`.
        keys: The columns that make a setting.
    """
    accuracy, difference = (
        pairs.pivot_table(index=list(keys), columns="seed", values=value, observed=True, dropna=False)
        for value in ("final_accuracy", "difference")
    )
    complete = difference.notna().all(axis=1).to_numpy()
    accuracies, differences = accuracy.to_numpy()[complete], difference.to_numpy()[complete]
    if differences.shape[1] < 2 or not len(differences):
        return float("nan")
    by_others = (accuracies.sum(axis=1, keepdims=True) - accuracies).argmax(axis=0)
    return float(differences[by_others, np.arange(differences.shape[1])].mean())
