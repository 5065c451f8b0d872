"""What parts see, change and remember: the batch, the weights after a step, state that survives an interruption."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.experiment.own_parts import RunningAverage
from tests.experiment.test_experiment import result, same
from tests.experiment.test_starts import interrupted
from warmstart_sim import scenario as scenarios
from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.registry import PARTS
from warmstart_sim.scenario.grammar import arm_settings
from warmstart_sim.training.loop import RoundData, RoundTraining, train
from warmstart_sim.types import Hooks


@pytest.fixture
def execution(tmp_path) -> ExecutionSettings:
    return ExecutionSettings(data_root=tmp_path)


@pytest.fixture
def part(monkeypatch):
    """Registers a part for the time of a test."""

    def register(name: str, target) -> None:
        PARTS.names()  # loads the package
        monkeypatch.setitem(PARTS._targets, name, target)
        monkeypatch.setitem(PARTS._traits, name, frozenset())
        monkeypatch.setitem(PARTS._details, name, {})

    return register


def training_of(trainer: CellTrainer, hooks: Hooks) -> RoundTraining:
    context, _ = trainer.begin(trainer.rounds[0], None)
    trainer.model.load_state_dict(context.start)
    data = RoundData(
        trainer.train_samples, torch.from_numpy(trainer.rounds[0].train),
        trainer.samples_of("validation", trainer.rounds[0])[1],
        *trainer.samples_of("test", trainer.rounds[0]),
    )  # fmt: skip
    return RoundTraining(trainer.stepper, data, [hooks], seed=0, round_index=0)


def test_a_loss_term_sees_inputs_as_they_are_and_as_the_model_gets_them(tiny_scenario, execution):
    tiny_scenario["data"] = {"name": "synthetic", "like": "digits", "train_samples": 150}
    tiny_scenario["training"] = {"until": {"epochs": 1}}
    trainer = CellTrainer(scenarios.plan(tiny_scenario, "scenario")[1][0], execution)
    seen = []

    def term(batch, logits):
        seen.append((batch, logits.detach().clone(), batch.model.training))
        return logits.sum() * 0

    train(training_of(trainer, Hooks(loss_term=term)))
    for batch, logits, in_training_mode in seen:
        pixels = trainer.dataset.train.inputs[batch.index.numpy()]
        assert np.allclose(batch.inputs.numpy() * 255, pixels, atol=1e-4)
        expected, labels = trainer.train_samples.batch(batch.index)
        assert torch.allclose(batch.model_inputs, expected, atol=1e-5)
        assert torch.equal(batch.labels, labels)
        assert logits.shape == (len(labels), 10)
        assert batch.model is trainer.model
        assert in_training_mode


def test_a_reset_unit_changes_weights_and_moments_and_training_goes_on(tiny_scenario, execution):
    """Boolean indexing returns a copy: a reset must write into the parameter itself, and here it does."""
    tiny_scenario["model"] = {"name": "mlp", "widths": [6], "activation": "relu"}
    tiny_scenario["training"] = {"until": {"epochs": 2}, "batch_size": 64}
    trainer = CellTrainer(scenarios.plan(tiny_scenario, "scenario")[1][0], execution)
    units, observed = torch.tensor([1, 4]), []

    def reset(model, optimizer):
        weight = model.get_submodule("hidden1")[0].weight
        before = weight.detach().clone()
        moments = optimizer.state[weight]
        with torch.no_grad():
            weight[units] = 0.25
            for name in ("exp_avg", "exp_avg_sq"):
                moments[name][units] = 0
        observed.append((before, weight.detach().clone(), {name: moments[name].clone() for name in moments}))

    train(training_of(trainer, Hooks(after_step=reset)))
    others = [0, 2, 3, 5]
    for before, after, moments in observed:
        assert not torch.equal(before[units], after[units])
        assert torch.all(after[units] == 0.25)
        assert torch.equal(before[others], after[others])
        assert torch.all(moments["exp_avg"][units] == 0)
        assert torch.any(moments["exp_avg"][others] != 0)
    assert not torch.equal(observed[0][1][others], observed[-1][1][others])
    first_step = observed[1][0][units] - 0.25  # Adam's step from zero moments, with the bias correction of step 2
    assert torch.all(first_step.abs() < 0.001)


def test_a_running_average_survives_an_interruption(tiny_scenario, tmp_path, execution, part):
    average = RunningAverage()
    part("average", lambda previous, fresh, context: average(previous, fresh, context))
    tiny_scenario["training"]["until"] = {"epochs": 4}
    tiny_scenario["strategies"] = {"mine": {"start": "warm_start", "average": {}}}
    cell = scenarios.plan(tiny_scenario, "scenario")[1][0]
    through = result(cell, tmp_path / "through", execution)
    averages = [{name: tensor.clone() for name, tensor in each.items()} for each in average.seen]
    average.seen.clear()
    assert interrupted(cell, tmp_path / "killed", execution, stop_after=6)
    average.seen.clear()
    assert same(through, result(cell, tmp_path / "killed", execution))
    for name, tensor in average.seen[0].items():  # the second round's, which was interrupted
        assert torch.equal(tensor, averages[1][name])


def test_a_part_may_have_no_options(part):
    part("plain", RunningAverage)
    arm_settings.cache_clear()
    try:
        assert arm_settings().model_validate({"plain": {}})
        with pytest.raises(ValidationError):
            arm_settings().model_validate({"plain": ["beta"]})
    finally:
        arm_settings.cache_clear()
