"""Ranking, advice and savings on tables whose truth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.advise.made_rounds import made_rounds
from warmstart_sim.advise.answer import advise_from_check
from warmstart_sim.advise.halving import REFERENCE, Setting, compare, ranked, trend
from warmstart_sim.advise.plan import Plan
from warmstart_sim.advise.savings import cost_table, savings, times_a_year
from warmstart_sim.errors import WarmstartError

PLAN = Plan(samples=400, rounds=4, rungs=((2, 2),), check_seeds=5, seconds=1.0)
SHRUNK = Setting("shrink_perturb", 0.6, 0.1)


def noise(seed: int, size: float = 0.002) -> float:
    """Noise of a seed that is shared by no two seeds."""
    return float(size * np.random.default_rng(seed).standard_normal())


def advice(gap, seeds=6, share=0.5, margin=0.01, test_samples=10_000, spread=0.002, status=None):
    rounds = made_rounds(
        {
            REFERENCE: lambda seed, index: 0.8 + noise(100 + seed),
            SHRUNK.label: lambda seed, index: 0.8 + noise(100 + seed) + gap + noise(seed, spread),
        },
        seeds, seconds={SHRUNK.label: share}, status=status and {SHRUNK.label: status},
    )  # fmt: skip
    return advise_from_check(checked(rounds, PLAN.first_later), SHRUNK, PLAN, margin, test_samples)


def checked(rounds, first):
    """The table of a check, as `play.checked` makes it."""
    change, error = trend(rounds, SHRUNK.label, first)
    return compare(rounds, first).assign(trend=change, trend_error=error)


@given(first=st.integers(0, 3), seeds=st.integers(2, 6))
def test_the_difference_is_the_mean_over_later_rounds_with_its_paired_t_interval(first, seeds):
    values = np.random.default_rng(0).uniform(size=(2, 6, 4))
    rounds = made_rounds({REFERENCE: lambda s, r: values[0, s, r], "other": lambda s, r: values[1, s, r]}, seeds)
    row = compare(rounds, first).set_index("strategy").loc["other"]
    differences = (values[1] - values[0])[:seeds, first:].mean(axis=1)
    low, high = stats.t.interval(0.95, seeds - 1, differences.mean(), stats.sem(differences))
    assert row["difference"] == pytest.approx(differences.mean())
    assert (row["difference_low"], row["difference_high"]) == (pytest.approx(low), pytest.approx(high))
    assert row["final_accuracy"] == pytest.approx(values[1, :seeds, first:].mean())


def test_the_quickest_of_the_non_inferior_comes_first_and_failed_settings_never():
    gaps = {"quick": -0.001, "slow": 0.001, "bad": -0.05, "failed": 0.1}
    rounds = made_rounds(
        {REFERENCE: lambda s, r: 0.8, **{k: lambda s, r, g=g: 0.8 + g + noise(s, 1e-4) for k, g in gaps.items()}},
        seeds=2, seconds={"quick": 0.3, "slow": 0.6, "bad": 0.1, "failed": 0.1}, status={"failed": "diverged"},
    )  # fmt: skip
    assert ranked(compare(rounds, 1), margin=0.01) == ["quick", "slow", "bad"]


def test_an_accurate_start_that_saves_time_is_advised_with_its_numbers():
    found = advice(gap=0.001)
    assert (found.start, found.lam, found.sigma, found.share) == ("shrink_perturb", 0.6, 0.1, pytest.approx(0.5))
    first, second, third = found.sentences
    assert first.startswith("Start with shrink perturb (λ = 0.6, σ = 0.1): 80.")
    assert "as accurate as random init to within 1 point (" in first
    assert first.endswith("at 50 % of random init's training time (timed alone).")
    assert "the mean over the last of 4 rounds of 100 samples" in second
    assert "with 6 seeds" in second
    assert "It would be random init at a margin below" in third or "holds at any margin" in third


def test_a_clearly_better_start_is_advised_at_any_cost_and_margin():
    found = advice(gap=0.02, share=3.0)
    assert "more accurate than random init" in found.sentences[0]
    assert found.sentences[2].startswith("It holds at any margin")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gap": -0.03}, "is not shown to be as accurate to within 1 point (−3"),
        ({"gap": 0.0, "spread": 0.03}, "is not shown to be as accurate to within 1 point"),
        ({"gap": 0.0, "share": 1.2}, "is as accurate to within 1 point, but saves nothing"),
    ],
)
def test_no_start_is_clearly_better_is_an_answer(options, words):
    found = advice(**options)
    assert (found.start, found.share) == (REFERENCE, 1.0)
    assert found.sentences[0].startswith("Start with random init: no start is clearly better within the budget; the b")
    assert words in found.sentences[0]
    if "spread" in options:
        assert "seeds would tell the difference to ±1 point" in found.sentences[2]


@pytest.mark.parametrize(("options", "why"), [({"seeds": 1}, "one seed"), ({"status": "diverged"}, "6 of its seeds")])
def test_a_start_that_cannot_be_judged_is_not_advised(options, why):
    found = advice(gap=0.05, **options)
    assert found.start == REFERENCE
    assert why in found.sentences[0]


def test_equal_accuracies_in_all_seeds_give_an_interval_of_one_test_sample():
    found = advice(gap=0.0, spread=0.0, test_samples=50)
    assert found.row["difference_low"] == pytest.approx(-0.02)
    assert found.start == REFERENCE  # one sample in 50 is more than the margin
    assert advice(gap=0.0, spread=0.0, test_samples=500).start == "shrink_perturb"


@pytest.mark.parametrize("slope", [-0.01, 0.0, 0.01])
def test_a_difference_that_changes_from_round_to_round_widens_the_interval_to_where_it_goes(slope):
    spread = np.random.default_rng(1).normal(0, 0.001, size=(6, 4))
    rounds = made_rounds(
        {REFERENCE: lambda s, r: 0.8, SHRUNK.label: lambda s, r: 0.8 + slope * r + spread[s, r]}, seeds=6
    )  # fmt: skip
    changes = slope + spread[:, 3] - spread[:, 2]
    assert trend(rounds, SHRUNK.label, 3) == pytest.approx((changes.mean(), stats.sem(changes)))
    found = advise_from_check(checked(rounds, 3), SHRUNK, PLAN, 0.01, 10_000)
    next_round = 4 * slope
    assert found.row["difference_low"] <= next_round <= found.row["difference_high"]
    low, high = stats.t.interval(0.95, 5, slope * 3 + spread[:, 3].mean(), stats.sem(spread[:, 3]))
    assert found.row["difference_low"] == pytest.approx(low + min(0, changes.mean() - stats.sem(changes)))
    assert found.row["difference_high"] == pytest.approx(high + max(0, changes.mean() + stats.sem(changes)))
    assert "widened by its change from the rounds before (" in found.sentences[1]


@pytest.mark.parametrize(("every", "times"), [("day", 365), ("week", 52.14), ("2 weeks", 26.07), ("6 hours", 1460)])
def test_intervals_of_a_year(every, times):
    assert times_a_year(every) == pytest.approx(times, rel=1e-3)


@pytest.mark.parametrize("every", ["", "fortnight", "0 weeks", "weak"])
def test_other_intervals_are_refused(every):
    with pytest.raises(WarmstartError, match="--every"):
        times_a_year(every)


def test_savings_are_hours_of_the_last_round_a_year():
    rounds = made_rounds({REFERENCE: lambda s, r: 0.8}, seeds=2, seconds={REFERENCE: 3600.0})
    text = savings(advice(gap=0.001), rounds, "day")
    assert "365 a year, random init on 400 samples takes 365 h of made a year, and this start 182 h" in text
    assert savings(advice(gap=-0.05), rounds, "day") == ""


def test_costs_cover_every_later_step_once_as_the_planner_requires():
    rounds = made_rounds({REFERENCE: lambda s, r: 0.5 + 0.1 * r}, seeds=2, seconds={REFERENCE: 7.0})
    table = cost_table(rounds)[REFERENCE]
    assert table["num_steps"] == 3
    initial, *models = table["models"]
    assert initial == {
        "step": -1, "n_samples": 0, "training_cost": 0.0, "future_losses": dict.fromkeys("012", pytest.approx(0.5)),
    }  # fmt: skip
    assert [(each["step"], each["n_samples"], each["training_cost"]) for each in models] == [
        (0, 200, 7.0), (1, 300, 7.0), (2, 400, 7.0),
    ]  # fmt: skip
    assert [list(each["future_losses"]) for each in models] == [["0", "1", "2"], ["1", "2"], ["2"]]
    assert models[2]["future_losses"]["2"] == pytest.approx(0.2)
