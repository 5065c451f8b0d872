"""Plans keep to their budget, and say what fits when nothing does."""

import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstart_sim.advise.plan import CHOOSING, Pace, cells_of, make_plan, rungs, shapes
from warmstart_sim.errors import WarmstartError

PACES = st.builds(Pace, st.floats(1e-6, 1e-2), st.floats(1, 100))


@given(count=st.integers(30, 100_000), pace=PACES, minutes=st.floats(0.5, 600), workers=st.integers(1, 8))
def test_a_plan_fits_its_budget_and_a_refusal_names_one_that_suffices(count, pace, minutes, workers):
    try:
        plan = make_plan(count, pace, 60 * minutes, workers)
    except WarmstartError as error:
        enough = int(re.search(r"--minutes (\d+), fewer", str(error))[1])
        assert enough > minutes
        plan, minutes = make_plan(count, pace, 60 * enough, workers), enough
    speed = 1 if workers == 1 else 0.85 * workers
    choosing = cells_of(plan.rungs) * pace.cell_seconds(plan.choosing_sizes) / speed
    check = 2 * plan.check_seeds * pace.cell_seconds(plan.check_sizes) / speed
    assert choosing <= CHOOSING * 60 * minutes * 1.0001
    assert check <= (1 - CHOOSING) * 60 * minutes * 1.0001
    assert 1 < plan.first_later < plan.rounds
    assert plan.rounds * plan.chunk == plan.samples <= count
    assert plan.choosing_sizes[-1] < plan.check_sizes[plan.first_later - 1]  # some of the past is held out


@given(pace=PACES, minutes=st.floats(1, 60))
def test_a_larger_budget_never_trains_less(pace, minutes):
    try:
        small = make_plan(1000, pace, 60 * minutes)
    except WarmstartError:
        return
    large = make_plan(1000, pace, 6000 * minutes)
    assert (large.samples, large.rungs) >= (small.samples, ()) or len(large.rungs) > len(small.rungs)


@pytest.mark.parametrize("settings", range(2, 10))
def test_halving_trains_half_of_the_settings_with_twice_the_seeds(settings):
    stages = rungs(settings)
    assert stages[0] == (settings, 2)
    for (before, few), (after, many) in itertools.pairwise(stages):
        assert (after, many) == (math.ceil(before / 2), 2 * few)
    trained = {
        (k, seed) for kept, seeds in stages for k in range(kept + 1) for seed in range(seeds)
    }  # k = 0: reference
    assert cells_of(stages) == len(trained)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((100, 2, None), "--rounds 2: at least 3 rounds are needed"),
        ((100, None, 60), "--chunk 60: the 100 training samples are 1 round of that size; at least 3 rounds"),
        ((100, None, 200), "--chunk 200: the 100 training samples are fewer than one round of that size"),
        ((100, 9, 20), "--chunk 20: the 100 training samples are 5 rounds of that size; --rounds asks for 9"),
        ((5, None, None), "5 training samples are too few for 3 rounds"),
    ],
)
def test_too_few_samples_are_refused(arguments, message):
    with pytest.raises(WarmstartError, match=message):
        list(shapes(*arguments))


def test_the_users_rounds_and_chunks_are_kept():
    assert set(shapes(1000, rounds=7)) == {(count - count % 7, 7) for count in (1000, 500, 250)}
    assert list(shapes(1000, chunk=120)) == [(960, 8), (720, 6), (600, 5), (480, 4), (360, 3)]
    assert list(shapes(1000, rounds=4, chunk=120)) == [(480, 4)]
