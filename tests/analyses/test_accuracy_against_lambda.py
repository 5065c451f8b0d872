"""Accuracy of shrunk weights: what must stay the same by theory, and what the tables of the run say."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from warmstart_sim.analyses.accuracy_against_lambda import (
    accuracy,
    accuracy_against_lambda,
    batch_norms,
    estimate_again,
    multiplied,
    use_batch_statistics,
)


def batches(count=3, size=40):
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(size, 6, generator=generator, dtype=torch.float64), torch.randint(4, (size,), generator=generator))
        for _ in range(count)
    ]


def network(batch_norm=True, bias=False):
    torch.manual_seed(0)
    norm = [nn.BatchNorm1d(20)] if batch_norm else []
    model = nn.Sequential(nn.Linear(6, 20, bias=bias), *norm, nn.ReLU(), nn.Linear(20, 4, bias=bias)).double()
    for layer in batch_norms(model):
        layer.eps = 1e-30  # else it adds up to something beside a variance that lambda has made small
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    return model


LAMBDAS = [1e-3, 0.1, 0.5, 1.0, 3.0]


def test_a_relu_network_without_biases_predicts_the_same_for_every_lambda():
    """Proposition 1 of Ash & Adams; one with biases does not."""
    without, with_biases = network(batch_norm=False), network(batch_norm=False, bias=True)
    assert len({accuracy(multiplied(without, lam), batches()) for lam in LAMBDAS}) == 1
    assert len({accuracy(multiplied(with_biases, lam), batches()) for lam in LAMBDAS}) > 1


@pytest.mark.parametrize("way", ["estimated_again", "of_batch"])
def test_with_new_statistics_batchnorm_undoes_lambda_in_front_of_it_and_kept_ones_do_not(way):
    """Behind it, lambda scales the logits: norm(lambda x) = norm(x), and scale, shift and head times lambda."""
    found = set()
    for lam in LAMBDAS:
        model = multiplied(network(), lam)
        if way == "estimated_again":
            estimate_again(model, batches())
        else:
            use_batch_statistics(model)
        found.add(accuracy(model, batches()))
    assert len(found) == 1
    assert len({accuracy(multiplied(network(), lam), batches()) for lam in LAMBDAS}) > 1


def test_estimated_again_is_the_mean_of_the_batches_statistics():
    model = network()
    estimate_again(model, batches())
    hidden = [model[0](inputs) for inputs, _ in batches()]
    torch.testing.assert_close(model[1].running_mean, torch.stack([each.mean(0) for each in hidden]).mean(0))
    torch.testing.assert_close(model[1].running_var, torch.stack([each.var(0) for each in hidden]).mean(0))


def test_of_batch_normalises_in_evaluation_mode_as_in_training_mode():
    model, (inputs, _) = network(), batches()[0]
    norm = model[1]
    expected = F.batch_norm(inputs[:, :1].expand(-1, 20), None, None, norm.weight, norm.bias, training=True, eps=1e-30)
    use_batch_statistics(model)
    torch.testing.assert_close(model.eval()[1](inputs[:, :1].expand(-1, 20)), expected)


def test_at_lambda_one_with_kept_statistics_it_is_the_accuracy_of_the_tables(run):
    rows = list(accuracy_against_lambda(run, lambdas=(0.5, 1.0)))
    assert len(rows) == 3 * 3 * 2  # arms, ways, lambdas
    last = run.tables.rounds[run.tables.rounds["round"] == 1].set_index("strategy")
    for row in rows:
        if (row["weights_times"], row["statistics"]) == (1.0, "kept"):
            for column in ("validation_accuracy", "test_accuracy"):
                assert row[column] == pytest.approx(last.loc[row["strategy"], column])
    assert len({row["test_accuracy"] for row in rows}) > 1


def test_a_model_without_running_statistics_has_rows_of_kept_alone():
    assert batch_norms(network(batch_norm=False)) == []
    assert batch_norms(nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False))) == []
