"""Correlations against scipy's, and the starts that they are taken to."""

import numpy as np
import pytest
import torch
from scipy import stats

from warmstart_sim.analyses.correlation_with_start import as_vector, correlation_with_start, correlations

RNG = np.random.default_rng(0)


def test_they_are_those_of_scipy_with_ties_too():
    one, other = RNG.normal(1, 1, 500), RNG.integers(0, 5, 500).astype(float)
    other[:250] += one[:250]
    found = correlations(one, other)
    assert found["pearson"] == pytest.approx(stats.pearsonr(one, other).statistic)
    assert found["spearman"] == pytest.approx(stats.spearmanr(one, other).statistic)
    assert found["cosine"] == pytest.approx(one @ other / np.sqrt((one @ one) * (other @ other)))


def test_multiples_correlate_fully_and_constants_not_at_all():
    one = RNG.normal(size=50)
    assert correlations(one, -3 * one) == pytest.approx({"pearson": -1, "spearman": -1, "cosine": -1})
    assert correlations(one, np.full(50, 2.0))["pearson"] is None
    assert correlations(one, np.zeros(50)) == {"pearson": None, "spearman": None, "cosine": None}


def test_starts_are_made_again_from_the_seed_and_the_first_phase(run):
    """Warm start's is the first phase's end, random init's a fresh one, and the mixture's is made of both."""
    starts, fresh, phases = {}, {}, {}
    for cell in run.cells():
        arm = cell.identity["strategy"]
        starts[arm], fresh[arm] = cell.start(), cell.trainer.fresh_weights(1)
        phases[arm] = cell.trainer.cell.first_phase.folder(run.folder).weights()
    assert all(torch.equal(tensor, phases["warm_start"][name]) for name, tensor in starts["warm_start"].items())
    assert all(torch.equal(tensor, fresh["random_init"][name]) for name, tensor in starts["random_init"].items())
    head = starts["mixed"]["head.weight"]
    torch.testing.assert_close(head, 0.5 * phases["mixed"]["head.weight"] + 0.01 * fresh["mixed"]["head.weight"])


def test_its_rows_are_the_correlations_of_all_parameters_beside_the_accuracy_of_the_tables(run):
    rows = {row["strategy"]: row for row in correlation_with_start(run)}
    assert rows.keys() == {"random_init", "warm_start", "mixed"}
    last = run.tables.rounds[run.tables.rounds["round"] == 1].set_index("strategy")
    for cell in run.cells():
        row = rows[cell.identity["strategy"]]
        now, start = as_vector(cell.weights, cell), as_vector(cell.start(), cell)
        assert len(now) == sum(parameter.numel() for parameter in cell.model().parameters())
        assert row["pearson"] == pytest.approx(np.corrcoef(now, start)[0, 1])
        assert row["test_accuracy"] == last.loc[row["strategy"], "test_accuracy"]
