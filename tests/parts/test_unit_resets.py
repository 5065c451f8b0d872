"""ReDo, continual backprop and SNR against plain loops over units and samples; UPGD against its update."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.probes.test_probes import context_of
from warmstart_sim import models
from warmstart_sim.hidden_units import hidden_layers
from warmstart_sim.parts.continual_backprop import ContinualBackprop
from warmstart_sim.parts.redo import Redo
from warmstart_sim.parts.self_normalized_resets import BUCKETS, SelfNormalizedResets, bucket, count_gaps, usual_gaps
from warmstart_sim.parts.upgd import Upgd
from warmstart_sim.seeding import scoped_torch_seed


def mlp(seed=1):
    with scoped_torch_seed(seed, "test"):
        return models.build("mlp", {"widths": (5, 6), "activation": "relu"}, (3, 4, 4), 10)


def hooks_of(part, model):
    context = context_of("mlp", model, fresh=mlp(2).state_dict())
    hooks = part(context.previous, context.fresh, context)
    for handle in hooks.attach(model) if hooks.attach else ():
        assert handle.id in {key for module in model.modules() for key in module._forward_pre_hooks}
    return hooks, context


def test_redo_resets_exactly_the_units_whose_share_of_activity_is_low():
    model = mlp()
    with torch.no_grad():
        model.hidden1[0].weight[1] = 0  # silent
        model.hidden1[0].bias[1] = -1
        model.hidden2[0].weight[2] *= 1e-4  # nearly
        model.hidden2[0].bias[2] = 1e-5
    hooks, context = hooks_of(Redo(tau=0.025, every=2), model)
    optimizer = torch.optim.Adam(model.parameters())
    inputs, _ = context.samples(context.train)
    first = model.hidden1(inputs.flatten(1))
    second = model.hidden2(first)
    low = [set((h.abs().mean(0) <= 0.025 * h.abs().mean()).nonzero().flatten().tolist()) for h in (first, second)]
    assert 1 in low[0]
    assert 2 in low[1]
    before = copy.deepcopy(model.state_dict())
    hooks.after_step(model, optimizer)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    hooks.after_step(model, optimizer)
    for layer, reader, units in (("hidden1.0", "hidden2.0", low[0]), ("hidden2.0", "head", low[1])):
        now, old = model.get_parameter(f"{layer}.bias"), before[f"{layer}.bias"]
        assert {k for k in range(len(now)) if now[k] != old[k]} == units
        outgoing = model.get_parameter(f"{reader}.weight")
        kept = [k for k in range(len(outgoing)) if reader == "head" or k not in low[1]]  # not those drawn anew since
        assert {k for k in range(outgoing.shape[1]) if (outgoing[kept, k] == 0).all()} == units


@pytest.mark.parametrize("utility", ["contribution", "adaptable"])
def test_continual_backprop_replaces_the_mature_units_of_lowest_utility_one_by_one(utility):
    model = mlp()
    part = ContinualBackprop(rho=0.1, maturity=2, eta=0.5, utility=utility)
    hooks, _ = hooks_of(part, model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    layer = hidden_layers(model, "it")[0]  # five units: 0.5 of one is due in each step after the second
    u, f, ones = np.zeros(5), np.zeros(5), 0.0
    generator = torch.Generator().manual_seed(3)
    for step in range(1, 5):
        inputs = torch.randn(8, 3, 4, 4, generator=generator)
        with torch.no_grad():
            h = model.hidden1(inputs.flatten(1)).numpy()
            weight, outgoing = model.hidden1[0].weight.detach().clone(), model.hidden2[0].weight.detach().clone()
        bias = model.hidden2[0].bias.detach().clone()
        f, ones = 0.5 * f + 0.5 * h.mean(0), 0.5 * ones + 0.5
        size = np.abs(h - f / ones).mean(0) if utility == "adaptable" else np.abs(h).mean(0)
        y = np.abs(outgoing.numpy()).mean(0) * size
        y = y / np.abs(weight.numpy()).mean(1) if utility == "adaptable" else y
        u = 0.5 * u + 0.5 * y
        model.train()(inputs)
        hooks.after_step(model, optimizer)
        changed = [k for k in range(5) if not torch.equal(model.hidden1[0].weight[k], weight[k])]
        assert changed == ([int(np.argmin(u / ones))] if step == 4 else [])
    (unit,) = changed
    later = model.hidden2[0].weight.detach()
    kept = [k for k in range(6) if torch.equal(later[k, [j for j in range(5) if j != unit]],
                                               outgoing[k, [j for j in range(5) if j != unit]])]  # fmt: skip
    assert len(kept) == 5  # one of the next layer's six was due as well
    assert (later[kept, unit] == 0).all()
    moved = bias + outgoing[:, unit] * float(f[unit] / ones)
    torch.testing.assert_close(model.hidden2[0].bias.detach()[kept], moved[kept])
    own = hooks.state[layer.name]
    assert (own["age"][unit], own["utility"][unit], own["mean"][unit]) == (0, 0, 0)
    assert own["age"].max() == 4


def test_units_younger_than_maturity_are_never_replaced():
    model = mlp()
    hooks, _ = hooks_of(ContinualBackprop(rho=1.0, maturity=5), model)
    before = copy.deepcopy(model.state_dict())
    for _ in range(5):
        model.train()(torch.randn(8, 3, 4, 4))
        hooks.after_step(model, torch.optim.SGD(model.parameters()))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=7), min_size=1, max_size=6))
@settings(max_examples=50)
def test_gaps_between_firings_are_counted_across_batches(batches):
    layer = hidden_layers(mlp(), "it")[0]
    own = {"since": torch.zeros(5, dtype=torch.int64), "gaps": torch.zeros(5, BUCKETS, dtype=torch.int64)}
    count, reader = count_gaps(layer, own), torch.nn.Linear(5, 6).train()
    expected, since = torch.zeros(BUCKETS, dtype=torch.int64), 0
    for batch in batches:
        inputs = torch.zeros(len(batch), 5)
        inputs[:, 2] = torch.tensor([1.0 if fires else -1.0 for fires in batch])
        count(reader, (inputs,))
        for fires in batch:
            since += 1
            if fires:
                expected[bucket(torch.tensor(since))] += 1
                since = 0
    assert own["since"][2] == since
    assert torch.equal(own["gaps"][2], expected)
    assert own["gaps"][0].sum() == 0


def test_the_usual_gap_is_the_percentile_up_to_the_width_of_a_bucket():
    gaps = torch.from_numpy(np.random.default_rng(0).geometric(0.05, 5000))
    counts = torch.zeros(1, BUCKETS, dtype=torch.int64)
    counts[0].scatter_add_(0, bucket(gaps), torch.ones_like(gaps))
    exact = float(np.quantile(gaps.numpy(), 0.98))
    assert exact / 2**0.25 <= usual_gaps(counts, 0.98).item() <= exact * 2**0.25
    assert usual_gaps(torch.zeros(2, BUCKETS, dtype=torch.int64), 0.98).tolist() == [float("inf")] * 2


def test_snr_resets_a_unit_that_has_stopped_and_leaves_a_rare_one_that_keeps_its_rhythm():
    model = mlp()
    hooks, _ = hooks_of(SelfNormalizedResets(percentile=0.9, every=1), model)
    layer = hidden_layers(model, "it")[0]
    reader = model.get_submodule(layer.reader)
    optimizer = torch.optim.Adam(model.parameters())
    before = model.hidden1[0].weight.detach().clone()
    for step in range(40):
        inputs = torch.ones(10, 5)
        inputs[:, 1] = -1.0
        inputs[-1, 1] = 1.0  # fires on one of ten samples, the last of its batch
        if step >= 30:
            inputs[:, 3] = -1.0  # stops
        reader(inputs)
        hooks.after_step(model, optimizer)
    changed = [k for k in range(5) if not torch.equal(model.hidden1[0].weight[k], before[k])]
    assert changed == [3]


@pytest.mark.parametrize("utility", ["signed", "absolute"])
def test_upgd_in_plain_sgd_is_the_update_of_its_paper(utility):
    model = mlp()
    hooks, context = hooks_of(Upgd(decay=0.9, sigma=0.1, utility=utility), model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    reference = {name: parameter.detach().double() for name, parameter in model.named_parameters()}
    u = {name: torch.zeros_like(each) for name, each in reference.items()}
    for step in (1, 2):
        optimizer.zero_grad()
        model(torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(step))).square().sum().backward()
        gradients = {name: each.grad.double().clone() for name, each in model.named_parameters()}
        hooks.before_step(model)
        optimizer.step()
        hooks.after_step(model, optimizer)
        generator = context.step_generator("upgd", step)
        for name, g in gradients.items():
            y = g * reference[name]
            u[name] = 0.9 * u[name] + 0.1 * (y.abs() if utility == "absolute" else -y)
        correction = 1 - 0.9**step
        highest = max(each.max() / correction for each in u.values())
        for name, parameter in model.named_parameters():
            noise = 0.1 * torch.empty_like(parameter).normal_(generator=generator).double()
            gated = 1 - (u[name] / correction / highest).sigmoid()
            reference[name] = reference[name] - 0.05 * (gradients[name] + noise) * gated
            torch.testing.assert_close(parameter.detach().double(), reference[name], rtol=1e-4, atol=1e-5)
