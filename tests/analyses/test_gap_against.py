"""The gap against a varied key, by hand on made-up tables."""

import numpy as np
import pytest
from scipy import stats

from tests.analyses.conftest import stored_run
from tests.report.fake_runs import write_run
from warmstart_sim.analyses.gap_against import gap_against
from warmstart_sim.errors import WarmstartError

VARY = {"stream.fraction": [0.3, 0.6]}


@pytest.fixture
def run(tmp_path):
    return stored_run(write_run(tmp_path / "run", "split", seeds=4, vary=VARY))


def by_hand(run, arm, fraction, reference="random_init"):
    rounds = run.tables.rounds
    last = rounds[(rounds["round"] == 1) & (rounds["stream_fraction"] == fraction)]
    values = last.pivot(index="seed", columns="strategy", values=run.tables.metric)
    return values[reference] - values[arm]


@pytest.mark.parametrize("reference", ["random_init", "warm_start"])
def test_it_is_the_mean_difference_within_a_seed_with_its_t_interval(run, reference):
    rows = list(gap_against(run, axis="stream.fraction", to=reference))
    assert [(row["strategy"], row["stream_fraction"]) for row in rows] == [
        (arm, fraction)
        for arm in ("random_init", "warm_start", "shrink_perturb")
        if arm != reference
        for fraction in (0.3, 0.6)
    ]
    for row in rows:
        gaps = by_hand(run, row["strategy"], row["stream_fraction"], reference)
        low, high = stats.t.interval(0.95, 3, gaps.mean(), stats.sem(gaps))
        assert row["pairs"] == 4
        np.testing.assert_allclose([row["gap"], row["gap_low"], row["gap_high"]], [gaps.mean(), low, high])


def test_the_first_varied_key_and_random_init_are_the_defaults(run):
    assert list(gap_against(run)) == list(gap_against(run, axis="stream.fraction", to="random_init"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axis": "stream.fractio"}, r"^gap_against.axis: unknown varied key 'stream.fractio'; did you mean"),
        ({"to": "random"}, r"^gap_against.to: unknown arm 'random'"),
    ],
)
def test_a_key_that_is_not_varied_and_an_arm_that_is_not_there_are_told(run, options, message):
    with pytest.raises(WarmstartError, match=message):
        list(gap_against(run, **options))


def test_a_run_that_varies_nothing_has_no_gap_against_it(tmp_path):
    with pytest.raises(WarmstartError, match="needs a varied key"):
        list(gap_against(stored_run(write_run(tmp_path / "run", "split", seeds=1))))
