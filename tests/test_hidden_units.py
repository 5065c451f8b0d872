"""Hidden units: which they are in each kind of model, and what a reset changes."""

import copy

import pytest
import torch
from torch import nn

from warmstart_sim import models
from warmstart_sim import scenario as scenarios
from warmstart_sim.errors import WarmstartError
from warmstart_sim.hidden_units import hidden_layers, reset_units
from warmstart_sim.registry import MODELS
from warmstart_sim.seeding import scoped_torch_seed


def built(name, shape=(1, 8, 8), seed=1, **options):
    with scoped_torch_seed(seed, "test"):
        return models.build(name, options, shape, 10)


def chains(model):
    return [(each.name, each.norm, each.reader, each.spread) for each in hidden_layers(model, "it")]


def test_the_layers_of_each_model_and_their_readers():
    assert chains(built("mlp", widths=(5, 6), batch_norm=True)) == [
        ("hidden1.0", "hidden1.1", "hidden2.0", 1), ("hidden2.0", "hidden2.1", "head", 1),
    ]  # fmt: skip
    assert chains(built("small_cnn", channels=(4, 6))) == [
        ("conv1.0", "conv1.1", "conv2.0", 1), ("conv2.0", "conv2.1", "head", 16),
    ]  # fmt: skip
    encoder = [(f"layer{k}.linear1", None, f"layer{k}.linear2", 1) for k in (1, 2)]
    assert chains(built("vit", width=8, depth=2, heads=2)) == encoder
    inner = [
        (f"layer{k}.{b}.conv1", f"layer{k}.{b}.norm1", f"layer{k}.{b}.conv2", 1) for k in (1, 2, 3, 4) for b in (0, 1)
    ]
    assert chains(built("resnet18", width=2)) == inner  # sums of residual blocks are no units


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (lambda: built("logistic_regression"), "this model has none"),
        (lambda: nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), "this model has none"),
        (lambda: built("bilstm", (6,), vocabulary_size=20, hidden=4), r"this model (has none|cannot be traced)"),
    ],
)
def test_a_model_without_hidden_units_is_an_error(model, why):
    with pytest.raises(WarmstartError, match=f"it needs hidden units: .*{why}"):
        hidden_layers(model(), "it")


def trained(model, shape):
    """An optimiser with moments, after a step; BatchNorm has seen data."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        model.train()(torch.rand(8, *shape)).square().sum().backward()
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_reset_changes_the_model_itself_and_only_these_units_and_their_moments(channels_last):
    """Boolean indexing returns a copy: a reset must write into the parameters themselves."""
    model, fresh = built("small_cnn", channels=(4, 6)), built("small_cnn", seed=2, channels=(4, 6)).state_dict()
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer = trained(model, (1, 8, 8))
    before = copy.deepcopy(model.state_dict())
    units = torch.tensor([1, 4])
    layer = hidden_layers(model, "it")[1]  # conv2, which the head reads after flattening
    reset_units(model, optimizer, layer, units, fresh, torch.Generator().manual_seed(0))
    after, columns = model.state_dict(), [*range(16, 32), *range(64, 80)]
    assert torch.isin(model.conv2[0].weight[units], fresh["conv2.0.weight"]).all()
    assert not torch.equal(after["conv2.0.weight"][units], before["conv2.0.weight"][units])
    assert (model.head.weight[:, columns] == 0).all()
    for name, new in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
        assert (after[f"conv2.1.{name}"][units] == new).all()
    others = [0, 2, 3, 5]
    for name in ("conv2.0.weight", "conv2.1.weight", "conv2.1.bias", "conv2.1.running_mean", "conv2.1.running_var"):
        assert torch.equal(after[name][others], before[name][others])
    kept = [c for c in range(96) if c not in columns]
    assert torch.equal(after["head.weight"][:, kept], before["head.weight"][:, kept])
    unchanged = ["conv1.0.weight", "conv1.1.weight", "head.bias"]
    assert all(torch.equal(after[name], before[name]) for name in unchanged)
    for parameter, index, rest in (
        (model.conv2[0].weight, units, others),
        (model.conv2[1].weight, units, others),
        (model.head.weight, (slice(None), columns), (slice(None), kept)),
    ):
        for moment in ("exp_avg", "exp_avg_sq"):
            assert (optimizer.state[parameter][moment][index] == 0).all()
            assert (optimizer.state[parameter][moment][rest] != 0).any()


def test_units_of_constant_activity_leave_the_output_as_it_was_when_their_mean_moves_to_the_bias():
    model, fresh = built("mlp", widths=(5, 6), activation="relu"), built("mlp", seed=2, widths=(5, 6)).state_dict()
    units = torch.tensor([0, 3])
    with torch.no_grad():
        model.hidden1[0].weight[units] = 0
        model.hidden1[0].bias[units] = torch.tensor([0.5, 2.0])
    inputs = torch.randn(7, 1, 8, 8)
    before = model(inputs).detach()
    layer = hidden_layers(model, "it")[0]
    optimizer = torch.optim.Adam(model.parameters())
    reset_units(model, optimizer, layer, units, fresh, torch.Generator().manual_seed(0), torch.tensor([0.5, 2.0]))
    torch.testing.assert_close(model(inputs), before)
    assert not torch.equal(model.hidden1[0].weight[units], torch.zeros(2, 64))


def test_where_batchnorm_follows_a_layer_without_bias_the_running_mean_takes_the_contribution():
    model, fresh = built("small_cnn", channels=(3, 4)), built("small_cnn", seed=2, channels=(3, 4)).state_dict()
    units, means = torch.tensor([2]), torch.tensor([1.5])
    before, weight = model.conv2[1].running_mean.clone(), model.conv2[0].weight[:, 2].detach().clone()
    layer = hidden_layers(model, "it")[0]
    reset_units(model, torch.optim.Adam(model.parameters()), layer, units, fresh, torch.Generator(), means)
    torch.testing.assert_close(model.conv2[1].running_mean, before - 1.5 * weight.sum((1, 2)))


@pytest.mark.parametrize("name", MODELS.names())
def test_a_scenario_knows_which_models_have_none(name, tiny_scenario):
    """What is registered for the check, which builds no model, is what the built model says."""
    tokens = MODELS.has_trait(name, "tokens")
    kinds = [{}, *([{"activation": "crelu"}] if "activation" in MODELS.schema(name).model_fields else [])]
    for options in kinds:
        small = {"width": 4} if "width" in MODELS.schema(name).model_fields else {}
        model = models.build(name, options | small, (6,) if tokens else (3, 32, 32), 10, 20 if tokens else None)
        raw = {**tiny_scenario, "model": {"name": name, **options}, "strategies": {"mine": {"start": "warm_start"}}}
        raw["strategies"]["mine"]["redo"] = {}
        try:
            hidden_layers(model, "it")
        except WarmstartError:
            with pytest.raises(WarmstartError, match=rf"f: strategies.mine.redo: needs hidden units .* model {name}"):
                scenarios.plan(raw, "f")
        else:
            scenarios.plan(raw, "f")
