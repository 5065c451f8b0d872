"""Adjusted p-values, lower bounds, the choice of the best: against definitions, simulation, plain loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from warmstart_sim.results.inference import best_by_other_seeds, holm_factors, lower_bounds, seeds_needed

p_values = st.lists(st.floats(1e-6, 1), min_size=1, max_size=12)


@given(p_values)
def test_holm_rejects_what_its_step_down_procedure_rejects(p: list[float]):
    rejected = np.zeros(len(p), bool)
    for rank, index in enumerate(np.argsort(p, kind="stable")):
        if p[index] > 0.05 / (len(p) - rank):
            break
        rejected[index] = True
    assert list(holm_factors(np.array(p)) * p <= 0.05) == list(rejected)


@given(p_values)
def test_holm_keeps_the_order_and_changes_a_single_test_by_nothing(p: list[float]):
    factors = holm_factors(np.array(p))
    assert (factors >= 1 - 1e-12).all()
    assert (np.diff((factors * p)[np.argsort(p, kind="stable")]) >= -1e-12).all()
    assert holm_factors(np.array(p[:1])) == [1.0]


def pairs_of(differences: np.ndarray) -> pd.DataFrame:
    """Pairs of K settings and n seeds, from differences of shape (K, n)."""
    setting, seed = np.indices(differences.shape)
    values = differences.ravel()
    return pd.DataFrame(
        {"setting": setting.ravel(), "seed": seed.ravel(), "difference": values, "final_accuracy": values}
    )


@pytest.mark.parametrize("share", [0.0, 0.5], ids=["apart", "equal deviations"])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_bound_holds_in_95_of_100_runs(seeds: int, share: float):
    """Simulated differences of zero, of whose variance `share` is what the reference's cell did."""
    rng = np.random.default_rng(0)
    above = []
    for _ in range(200):
        reference, own = rng.normal(size=(1, seeds)), rng.normal(size=(10, seeds))
        differences = np.sqrt(share) * reference + np.sqrt(1 - share) * own
        above.append((lower_bounds(pairs_of(differences), ["setting"])["difference_bound"] > 0).mean())
    assert 0.03 < np.mean(above) < 0.075


@settings(max_examples=20)
@given(st.integers(1, 8), st.integers(6, 9))
def test_with_many_seeds_every_setting_has_its_own_deviation(settings: int, seeds: int):
    differences = np.random.default_rng(settings * 10 + seeds).normal(size=(settings, seeds))
    found = lower_bounds(pairs_of(differences), ["setting"])
    for own, bound in zip(differences, found["difference_bound"], strict=True):
        expected = stats.ttest_1samp(own, 0, alternative="greater").confidence_interval(0.95).low
        assert bound == pytest.approx(expected)


def test_the_common_deviation_is_the_mean_of_the_variances():
    differences = np.random.default_rng(1).normal(size=(7, 3))
    found = lower_bounds(pairs_of(differences), ["setting"])
    np.testing.assert_allclose(found["difference_bound_std"] ** 2, differences.var(axis=1, ddof=1).mean())


def test_a_setting_that_lacks_a_seed_has_no_bound():
    pairs = pairs_of(np.random.default_rng(1).normal(size=(4, 3))).drop(index=5)
    assert list(lower_bounds(pairs, ["setting"])["setting"]) == [0, 2, 3]
    assert lower_bounds(pairs[pairs["seed"] == 0], ["setting"]).empty


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 1000))
def test_the_best_by_other_seeds_is_that_of_a_plain_loop(settings: int, seeds: int, draw: int):
    differences = np.random.default_rng(draw).normal(size=(settings, seeds))
    found = []
    for seed in range(seeds):
        others = [np.mean([d for s, d in enumerate(own) if s != seed]) for own in differences]
        found.append(differences[int(np.argmax(others)), seed])
    assert best_by_other_seeds(pairs_of(differences), ["setting"]) == pytest.approx(np.mean(found))


def test_of_equal_settings_the_best_looks_better_than_it_is():
    rng = np.random.default_rng(0)
    runs = [rng.normal(size=(30, 3)) for _ in range(150)]
    chosen = np.mean([run.mean(axis=1).max() for run in runs])
    other = np.mean([best_by_other_seeds(pairs_of(run), ["setting"]) for run in runs])
    assert chosen > 1
    assert abs(other) < 0.2


@pytest.mark.parametrize("std", [0.004, 0.01, 0.03])
def test_so_many_seeds_are_needed_and_no_fewer(std: float):
    needed = seeds_needed(std)
    half = {n: stats.t.ppf(0.975, n - 1) * std / n**0.5 for n in (needed - 1, needed) if n > 1}
    assert half[needed] <= 0.01
    assert needed == 2 or half[needed - 1] > 0.01
