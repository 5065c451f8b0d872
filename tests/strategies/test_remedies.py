"""DASH, FIRE, LURE and resets to the first initialisation against loops, singular values and identities."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies.test_reinitialization import CONTEXT, FRESH, LAYOUT, PREVIOUS, WEIGHTS, start
from tests.strategies.test_shrink_perturb import same_bits
from warmstart_sim import scenario as scenarios
from warmstart_sim.errors import WarmstartError
from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.strategies.basic import RandomInit
from warmstart_sim.strategies.dash import Dash, shrink
from warmstart_sim.strategies.fire import Fire, newton_schulz
from warmstart_sim.strategies.shrink_perturb import ShrinkPerturb
from warmstart_sim.strategies.subsets import Lure
from warmstart_sim.strategies.upper_layers import Head

INITIAL = CONTEXT.initial()
CHUNKS = tuple(np.split(CONTEXT.train, [10, 18]))


def cosine(one, other):
    return float((one * other).sum() / (one.norm() * other.norm()))


# DASH


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dash_shrinks_each_kernel_by_its_own_cosine_also_in_channels_last(memory_format):
    weight, direction = torch.randn(2, 4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    found = shrink(weight.to(memory_format=memory_format), direction, 0.3)
    for i in range(4):
        for j in range(3):
            factor = min(max(cosine(weight[i, j], direction[i, j]), 0.3), 1.0)
            torch.testing.assert_close(found[i, j], factor * weight[i, j])
    assert not torch.allclose(found, weight)


@given(st.integers(0, 2), st.floats(0, 1), st.integers(0, 10**6))
def test_dash_never_turns_a_weight_nor_lets_it_grow(dimensions, lam, seed):
    weight, direction = torch.randn(2, *(3, 4)[:dimensions], generator=torch.Generator().manual_seed(seed))
    found = shrink(weight, direction, lam)
    assert (found.abs() <= weight.abs() + 1e-6).all()
    assert (found.abs() >= lam * weight.abs() - 1e-6).all()
    torch.testing.assert_close(shrink(weight, weight, lam), weight)  # descends along itself: nothing to forget
    torch.testing.assert_close(shrink(weight, -weight, lam), lam * weight)
    torch.testing.assert_close(shrink(weight, torch.zeros_like(weight), lam), lam * weight)


def test_the_direction_is_a_running_mean_of_negative_gradients_over_chunks_the_oldest_first():
    context = dataclasses.replace(CONTEXT, chunks=CHUNKS)
    found = Dash(alpha=0.4, lam=0.1)(PREVIOUS, FRESH, context)
    gradients = [context.gradients(PREVIOUS, chunk) for chunk in CHUNKS]
    for name in ("conv1.0.weight", "head.weight", "head.bias"):
        first, second, third = (each[name] for each in gradients)
        mean = -(0.4 * 0.6**2 * first + 0.4 * 0.6 * second + 0.4 * third)
        torch.testing.assert_close(found[name], shrink(PREVIOUS[name], mean, 0.1), rtol=1e-4, atol=1e-5)
        assert not torch.equal(found[name], PREVIOUS[name])
    assert all(torch.equal(found[name], PREVIOUS[name]) for name in found if name not in LAYOUT.parameters)
    assert same_bits(Dash(lam=1.0)(PREVIOUS, FRESH, context), PREVIOUS)


def test_a_context_knows_the_chunks_that_have_arrived(tiny_scenario, tmp_path):
    trainer = CellTrainer(scenarios.plan(tiny_scenario, "scenario")[1][0], ExecutionSettings(data_root=tmp_path))
    context = trainer.round_context(trainer.rounds[1], None)
    assert [len(chunk) for chunk in context.chunks] == [50, 50]
    assert np.array_equal(np.concatenate(context.chunks), context.train)
    assert np.array_equal(context.chunks[-1], context.new)


@pytest.mark.parametrize("strategy", [Dash(), Lure()])
def test_a_round_without_samples_has_no_gradients(strategy):
    empty = dataclasses.replace(CONTEXT, train=CONTEXT.train[:0], new=CONTEXT.train[:0], chunks=())
    with pytest.raises(WarmstartError, match="gradients need at least one training sample, and the round has none"):
        strategy(PREVIOUS, FRESH, empty)


# FIRE


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_newton_schulz_keeps_singular_vectors_and_maps_singular_values_by_its_polynomial(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    mapped = s / s.square().sum().sqrt()
    for _ in range(10):
        mapped = 1.5 * mapped - 0.5 * mapped**3
    torch.testing.assert_close(newton_schulz(matrix, 10), u @ torch.diag(mapped) @ v)


def test_fire_orthogonalises_each_kernel_position_and_scales_by_fans():
    state = start(Fire(steps=30))  # enough for every singular value
    weight = state["conv2.0.weight"]
    d_out, d_in, rows, columns = weight.shape
    for i in range(rows):
        for j in range(columns):
            gram = weight[:, :, i, j].mT @ weight[:, :, i, j]  # d_out > d_in
            expected = torch.eye(d_in) * (d_out / d_in) / (rows * columns) ** 2
            torch.testing.assert_close(gram, expected, atol=1e-5, rtol=1e-3)
    head = state["head.weight"]
    torch.testing.assert_close(head @ head.T, torch.eye(10) * 10 / head.shape[1], atol=1e-5, rtol=1e-3)
    assert all(torch.equal(state[name], PREVIOUS[name]) for name in state if name not in WEIGHTS)
    norms = start(Fire(steps=0, scale="none"))
    assert norms["head.weight"].norm().item() == pytest.approx(1)


def test_fire_leaves_zeros_as_they_are():
    assert torch.equal(Fire().orthogonalized(torch.zeros(3, 2, 1, 1)), torch.zeros(3, 2, 1, 1))


# LURE


@pytest.mark.parametrize("within", ["network", "layer"])
def test_lure_draws_anew_the_weights_with_the_lowest_gradient_times_weight(within):
    state = start(Lure(0.3, within=within))
    gradients = CONTEXT.gradients(PREVIOUS, CONTEXT.train)  # 30 samples, fewer than 128
    score = {name: (gradients[name] * PREVIOUS[name]).abs() for name in WEIGHTS}
    groups = [WEIGHTS] if within == "network" else [[name] for name in WEIGHTS]
    for names in groups:
        taken = torch.cat([(state[name] == FRESH[name]).flatten() for name in names])
        scores = torch.cat([score[name].flatten() for name in names])
        assert taken.sum() == round(0.3 * len(taken))
        assert scores[taken].max() <= scores[~taken].min()
    assert all(torch.equal(state[name], PREVIOUS[name]) for name in state if name not in WEIGHTS)


# Resets, and shrinking towards the first initialisation


def test_a_reset_is_a_fresh_draw_or_that_of_round_0():
    assert same_bits(start(RandomInit()), FRESH)
    assert same_bits(start(RandomInit("initial")), INITIAL)
    head = start(Head("initial"))
    for name in FRESH:
        assert torch.equal(head[name], (INITIAL if LAYOUT.in_head(name) else PREVIOUS)[name])


def test_shrinking_towards_the_initialisation_is_a_mean_of_both_of_head_or_body():
    for parameters, inside in (("head", LAYOUT.in_head), ("body", lambda name: not LAYOUT.in_head(name))):
        state = start(ShrinkPerturb(lam=0.2, sigma=0.8, noise="initial", parameters=parameters))
        for name in LAYOUT.parameters:
            expected = 0.2 * PREVIOUS[name] + 0.8 * INITIAL[name] if inside(name) else PREVIOUS[name]
            torch.testing.assert_close(state[name], expected)
    assert same_bits(start(ShrinkPerturb(lam=0, sigma=1, noise="initial", buffers="fresh")),
                     {name: INITIAL[name] if name in LAYOUT.parameters else FRESH[name] for name in FRESH})  # fmt: skip


def test_the_scale_of_fire_is_that_of_its_formula():
    weight = torch.eye(4)[:, :2].reshape(4, 2, 1, 1)
    assert torch.allclose(Fire().orthogonalized(weight), math.sqrt(2) * weight, atol=1e-5)
