"""Proposition 1 of Ash & Adams 2020: shrinking a ReLU network without biases leaves every prediction as it is."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from warmstart_sim.analyses.accuracy_against_lambda import multiplied

POOLING = {"none": nn.Identity, "max": lambda: nn.MaxPool2d(2), "average": lambda: nn.AvgPool2d(2)}
INPUT = (2, 8, 8)

lambdas = st.floats(1e-6, 1e6)
convolutions = st.lists(
    st.tuples(st.integers(1, 6), st.sampled_from([1, 3]), st.sampled_from(sorted(POOLING))), max_size=3
)  # channels, kernel size, pooling
widths = st.lists(st.integers(1, 12), max_size=3)
seeds = st.integers(0, 2**32 - 1)


def network(convolutions=(), widths=(), bias=False, classes=4, seed=0):
    """A float64 network of convolutions with ReLU and pooling, then linear layers with ReLU, then a linear head."""
    layers: list[nn.Module] = []
    channels, size, _ = INPUT
    for channels_out, kernel, pooling in convolutions:
        layers += [nn.Conv2d(channels, channels_out, kernel, padding=kernel // 2, bias=bias), nn.ReLU()]
        layers.append(POOLING[pooling]())
        channels, size = channels_out, size if pooling == "none" else size // 2
    layers.append(nn.Flatten())
    sizes = [channels * size * size, *widths]
    for units_in, units in itertools.pairwise(sizes):
        layers += [nn.Linear(units_in, units, bias=bias), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(sizes[-1], classes, bias=bias)).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
    return model


def inputs(seed=0):
    return torch.randn(16, *INPUT, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1))


@settings(max_examples=60)
@given(lam=lambdas, convolutions=convolutions, widths=widths, seed=seeds)
def test_logits_become_lambda_to_the_number_of_layers_times_as_large_and_predictions_stay(
    lam, convolutions, widths, seed
):
    model = network(convolutions, widths, seed=seed)
    with torch.no_grad():
        before, after = model(inputs(seed)), multiplied(model, lam)(inputs(seed))
    layers = len(convolutions) + len(widths) + 1
    scale = before.abs().amax(1, keepdim=True)  # sums in another order round relative to their largest terms
    assert ((after / lam**layers - before).abs() <= 1e-9 * scale).all()
    first, second = before.topk(2).values.T
    decided = first - second > 1e-9 * scale[:, 0]  # of a network that is silent on an input all logits are zero
    assert torch.equal(after.argmax(1)[decided], before.argmax(1)[decided])


@pytest.mark.parametrize("convolutions", [(), [(4, 3, "max")]], ids=["fully connected", "convolutional"])
def test_with_biases_it_does_change_predictions(convolutions):
    model = network(convolutions, [8], bias=True)
    with torch.no_grad():
        assert not torch.equal(multiplied(model, 0.01)(inputs()).argmax(1), model(inputs()).argmax(1))
