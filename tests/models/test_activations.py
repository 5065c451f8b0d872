"""AID and CReLU: their values in training and evaluation, their sizes in models, and arms with a model of their own."""

import pytest
import torch

from warmstart_sim import models
from warmstart_sim import scenario as scenarios
from warmstart_sim.errors import WarmstartError
from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.hidden_units import hidden_layers
from warmstart_sim.models._layers import Aid, CRelu
from warmstart_sim.scenario.resolved import resolved_scenario


def test_aid_keeps_each_interval_with_its_probability_and_has_its_mean_in_evaluation():
    x = torch.tensor([-2.0, 0.0, 3.0]).repeat(20_000, 1)
    torch.manual_seed(0)
    dropped = Aid(0.9).train()(x)
    assert set(dropped.unique().tolist()) == {-2.0, 0.0, 3.0}
    kept = (dropped != 0).double().mean(0)
    assert kept.tolist() == pytest.approx([0.1, 0.0, 0.9], abs=0.01)
    torch.testing.assert_close(Aid(0.9).eval()(x[0]), torch.tensor([-0.2, 0.0, 2.7]))
    assert torch.equal(Aid(1.0).train()(x), x.relu())


def test_crelu_is_the_positive_and_the_negative_part():
    x = torch.randn(3, 2, 4, 4)
    torch.testing.assert_close(CRelu()(x), torch.cat((x.clamp_min(0), (-x).clamp_min(0)), dim=1))


@pytest.mark.parametrize(("name", "shape"), [("mlp", (3, 4, 4)), ("small_cnn", (1, 8, 8))])
def test_models_with_them_train_and_read_twice_as_many_features(name, shape):
    plain = models.build(name, {"activation": "relu"}, shape, 10)
    wide = models.build(name, {"activation": "crelu"}, shape, 10)
    assert wide.head.in_features == 2 * plain.head.in_features
    assert len(next(wide.parameters())) == len(next(plain.parameters()))
    for model in (wide, models.build(name, {"activation": "aid", "p": 0.7}, shape, 10)):
        model(torch.rand(4, *shape)).square().sum().backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters() if parameter.ndim > 1)
    assert len(hidden_layers(models.build(name, {"activation": "aid"}, shape, 10), "it")) >= 2
    with pytest.raises(WarmstartError, match="it needs hidden units"):  # a unit has two features there
        hidden_layers(wide, "it")


def arms_of(scenario, **arms):
    raw = {**scenario, "strategies": arms, "seeds": [0]}
    return raw, *scenarios.plan(raw, "scenario")


def test_an_arm_may_have_options_of_the_model_or_another_model(tiny_scenario, tmp_path):
    own = {"activation": "aid", "p": 0.7}
    raw, scenario, cells = arms_of(
        tiny_scenario,
        warm_start={}, aid={"start": "warm_start", "model": own}, mlp={"start": "warm_start", "model": "mlp"},
    )  # fmt: skip
    plain, aid, other = cells
    assert plain.model.options["activation"] is None
    assert aid.model.options == {**plain.model.options, **own}  # the scenario's channels
    assert (other.model.name, other.model.options["activation"]) == ("mlp", "tanh")
    assert len({cell.digest for cell in cells}) == 3
    trained = CellTrainer(aid, ExecutionSettings(data_root=tmp_path)).model
    assert any(isinstance(each, Aid) for each in trained.modules())
    _, again = scenarios.plan(resolved_scenario(raw, scenario), "scenario")
    assert [cell.digest for cell in again] == [cell.digest for cell in cells]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"activation": "aids"}, r"strategies.mine.model.activation: found 'aids'; did you mean 'aid'\?"),
        ({"activation": "aid", "p": 0.2}, r"strategies.mine.model.p: found 0.2 \(allowed: a number"),
        ("small_cn", r"strategies.mine.model.name: unknown model 'small_cn'; did you mean 'small_cnn'\?"),
        (3, r"strategies.mine.model: found 3 \(allowed: a name, or a mapping\)"),
    ],
)
def test_a_mistake_in_an_arms_model_is_named(tiny_scenario, model, message):
    with pytest.raises(WarmstartError, match=message):
        arms_of(tiny_scenario, mine={"start": "warm_start", "model": model})
