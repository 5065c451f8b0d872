"""Shrink-perturb against its formula, and its exact identities with warm start and random init."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from warmstart_sim import models
from warmstart_sim.seeding import scoped_torch_seed, torch_generator
from warmstart_sim.strategies.basic import RandomInit, WarmStart
from warmstart_sim.strategies.shrink_perturb import ShrinkPerturb
from warmstart_sim.types import RoundContext


def network(seed: int) -> torch.nn.Module:
    """A small network with BatchNorm, no parameter at zero, and buffers that are not those of a fresh one."""
    with scoped_torch_seed(seed, "test"):
        model = models.build("small_cnn", {"channels": (3, 4)}, (1, 8, 8), 10)
        model.train()(torch.randn(16, 1, 8, 8))
        for parameter in model.parameters():
            parameter.data.add_(torch.randn(parameter.shape))
    return model


PREVIOUS, FRESH = network(1), network(2)
LAYOUT = models.layout(FRESH)
CONTEXT = RoundContext(round=1, layout=LAYOUT, generator=lambda purpose: torch_generator(0, purpose, 1))
BUFFERS = set(FRESH.state_dict()) - LAYOUT.parameters


def start(strategy, previous=None):
    return strategy(previous or PREVIOUS.state_dict(), FRESH.state_dict(), CONTEXT)


def same_bits(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("affine", ["shrink", "keep"])
def test_lambda_one_sigma_zero_is_warm_start_to_the_bit(affine):
    assert same_bits(start(ShrinkPerturb(1, 0, affine=affine)), start(WarmStart()))


@pytest.mark.parametrize("affine", ["shrink", "fresh"])
@pytest.mark.parametrize("buffers", ["keep", "fresh"])
def test_lambda_zero_sigma_one_is_random_init_to_the_bit_buffers_included(buffers, affine):
    assert same_bits(start(ShrinkPerturb(0, 1, buffers=buffers, affine=affine)), start(RandomInit()))


def test_lambda_one_with_fresh_buffers_equals_warm_start_in_parameters_only():
    state, warm, fresh = start(ShrinkPerturb(1, 0, buffers="fresh")), start(WarmStart()), start(RandomInit())
    assert all(torch.equal(state[name], warm[name]) for name in LAYOUT.parameters)
    assert all(torch.equal(state[name], fresh[name]) for name in BUFFERS)
    assert not same_bits(warm, fresh)


@given(lam=st.floats(0.01, 1), sigma=st.floats(0, 10))
def test_parameters_follow_the_formula(lam, sigma):
    state, previous, fresh = start(ShrinkPerturb(lam, sigma)), PREVIOUS.state_dict(), FRESH.state_dict()
    for name in LAYOUT.parameters:
        expected = lam * previous[name].double() + sigma * fresh[name].double()
        assert torch.allclose(state[name].double(), expected, rtol=1e-5, atol=1e-6)
    for name in BUFFERS:
        assert torch.equal(state[name], previous[name])


def test_a_zero_coefficient_never_revives_a_diverged_model():
    diverged = {
        name: torch.full_like(tensor, torch.nan) if tensor.is_floating_point() else tensor
        for name, tensor in PREVIOUS.state_dict().items()
    }
    assert same_bits(start(ShrinkPerturb(0, 1), diverged), start(RandomInit()))
    assert all(torch.isfinite(tensor).all() for tensor in start(ShrinkPerturb(0, 0), diverged).values())


@pytest.mark.parametrize("part", ["head", "body"])
def test_only_the_named_part_changes_and_the_rest_stays_as_it_was(part):
    state, previous = start(ShrinkPerturb(0.5, 0.1, parameters=part)), PREVIOUS.state_dict()
    for name in state:
        selected = LAYOUT.in_head(name) == (part == "head") and name in LAYOUT.parameters
        assert torch.equal(state[name], previous[name]) != selected, name


@pytest.mark.parametrize(("affine", "source"), [("keep", PREVIOUS), ("fresh", FRESH)])
def test_affine_parameters_of_normalisation_are_an_explicit_choice(affine, source):
    state = start(ShrinkPerturb(0.5, 0.1, affine=affine))
    assert LAYOUT.norm_affine
    assert all(torch.equal(state[name], source.state_dict()[name]) for name in LAYOUT.norm_affine)


def test_gaussian_noise_has_the_deviation_that_sigma_says_and_comes_from_the_seed():
    state = {"w": torch.zeros(200, 200)}
    layout = models.layout(FRESH).__class__(frozenset({"w"}), frozenset(), (), "head")
    draws = []
    for seed in (0, 0, 1):
        context = RoundContext(1, layout, lambda purpose, seed=seed: torch_generator(seed, purpose, 1))
        draws.append(ShrinkPerturb(0.5, 0.1, noise="gaussian")(state, state, context)["w"])
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert draws[0].std().item() == pytest.approx(0.1, rel=0.02)  # 40,000 draws: the deviation's own error is 0.35 %
    assert draws[0].mean().item() == pytest.approx(0, abs=0.003)


@pytest.mark.parametrize(
    "options", [{"lam": 1.1}, {"lam": -0.1}, {"sigma": -1}, {"sigma": float("nan")}, {"noise": "x"}]
)
def test_values_out_of_range_are_refused_by_name(options):
    with pytest.raises(ValueError, match=r"lambda|sigma|noise|lam"):
        ShrinkPerturb(**options)
