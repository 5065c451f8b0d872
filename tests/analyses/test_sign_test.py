"""The exact binomial test between methods, by hand on made-up tables."""

import itertools
from math import comb

import numpy as np
import pandas as pd
import pytest

from tests.analyses.conftest import stored_run
from tests.report.fake_runs import write_run
from warmstart_sim.analyses.sign_test import sign_test
from warmstart_sim.errors import WarmstartError
from warmstart_sim.results.sign_tests import sign_tests

VARY = {"stream.fraction": [0.2, 0.4, 0.6, 0.8], "training.batch_size": [32, 64]}


def two_sided(wins: int, losses: int) -> float:
    """Twice the probability of the larger count or more, by counting sequences."""
    n, most = wins + losses, max(wins, losses)
    return min(1.0, 2 * sum(comb(n, k) for k in range(most, n + 1)) / 2**n)


def test_wins_ties_and_p_are_those_of_a_fair_coin():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.integers(0, 3, (17, 3)), columns=["a", "b", "c"])
    for row in sign_tests(table):
        one, other = table[row["strategy"]], table[row["versus"]]
        assert (row["wins"], row["ties"], row["losses"]) == (
            (one > other).sum(), (one == other).sum(), (one < other).sum()
        )  # fmt: skip
        assert row["p"] == pytest.approx(two_sided(row["wins"], row["losses"]))


def test_holm_corrects_within_the_tests_of_one_method_and_only_the_winner_is_marked():
    table = pd.DataFrame({"new": [9] * 8, "old": [1] * 7 + [9], "worst": [0] * 8, "even": [8, 10] * 4})
    found = {(row["strategy"], row["versus"]): row for row in sign_tests(table)}
    assert [found["new", other]["p"] for other in ("worst", "old", "even")] == [2 / 2**8, 2 / 2**7, 1]
    assert found["new", "worst"]["p_holm"] == 3 * 2 / 2**8
    assert found["new", "old"]["p_holm"] == 2 * 2 / 2**7
    assert [found["new", other]["significance"] for other in ("worst", "old", "even")] == [2, 2, 0]
    assert found["worst", "new"]["significance"] == 0
    assert all(
        found[one, other]["p"] == found[other, one]["p"] for one, other in itertools.permutations(table, 2)
    )  # fmt: skip
    star = pd.DataFrame({"new": [1] * 6, "old": [0] * 6, "even": [0, 2] * 3})
    marks = {row["versus"]: row["significance"] for row in sign_tests(star) if row["strategy"] == "new"}
    assert marks == {"old": 1, "even": 0}, "p = 0.031, and twice that after correction"


def test_seeds_of_a_setting_count_once_and_empty_accuracies_do_not():
    table = pd.DataFrame(
        {"a": [3.0, 1.0, 5.0, 7.0], "b": [1.0, 2.0, 5.0, np.nan]}, index=pd.Index([0, 0, 1, 2], name="setting")
    )
    row = next(sign_tests(table))
    assert (row["wins"], row["ties"], row["losses"], row["p"]) == (1, 1, 0, 1.0)


def test_a_run_counts_each_combination_of_varied_values(tmp_path):
    run = stored_run(write_run(tmp_path / "run", "split", seeds=3, vary=VARY))
    rounds = run.tables.rounds
    last = rounds[rounds["round"] == 1]
    means = last.pivot_table(
        index=["stream_fraction", "training_batch_size"], columns="strategy", values=run.tables.metric, observed=True
    )
    rows = list(sign_test(run))
    assert len(rows) == 6
    for row in rows:
        wins = int((means[row["strategy"]] > means[row["versus"]]).sum())
        assert (row["wins"], row["losses"]) == (wins, 8 - wins)
    each = list(sign_test(run, per="training.batch_size"))
    assert [row["training_batch_size"] for row in each] == [32] * 6 + [64] * 6
    assert all(row["wins"] + row["losses"] == 4 for row in each)


@pytest.mark.parametrize(
    ("vary", "options", "message"),
    [
        (None, {}, r"arms are compared over settings, and this run has one; vary a key"),
        (VARY, {"per": "stream.fractio"}, r"^sign_test.per: unknown varied key 'stream.fractio'; did you mean"),
        (VARY | {"strategies.shrink_perturb.lambda": [0.2, 0.6]}, {}, r"^lambda: varied for some arms only, so that"),
    ],
)
def test_what_cannot_be_tested_is_told(tmp_path, vary, options, message):
    with pytest.raises(WarmstartError, match=message):
        list(sign_test(stored_run(write_run(tmp_path / "run", "split", seeds=1, vary=vary)), **options))
