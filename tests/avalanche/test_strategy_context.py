"""What a strategy sees and may freeze in Avalanche's own loops, without our engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.supervised import Cumulative, Naive
from small import network, points, same, state, strategy, stream, train
from torch import nn
from torch.nn import functional as F

from warmstart_sim import models
from warmstart_sim.avalanche import ConvergencePlugin, StrategyPlugin
from warmstart_sim.types import RoundContext, Start


class Looking:
    """A warm start that computes what the context offers."""

    def __init__(self) -> None:
        self.contexts: list[RoundContext] = []
        self.found: list[dict[str, Any]] = []

    def __call__(self, previous, fresh, context):
        inputs, labels = context.samples(context.new)
        self.contexts.append(context)
        self.found.append(
            {
                "inputs": inputs,
                "labels": labels,
                "logits": context.forward(previous, inputs),
                "hidden": context.block_outputs(previous, "0", inputs),
                "gradients": context.gradients(previous, context.new),
            }
        )
        return previous


@pytest.mark.parametrize(("kind", "old"), [(Naive, [0, 0]), (Cumulative, [30, 50])])
def test_old_and_new_samples_are_those_of_the_experiences(kind, old):
    looking, model = Looking(), network()
    train(strategy(model, StrategyPlugin(looking), kind=kind), stream(30, 20, 40))
    assert [(len(each.old), len(each.new), each.round) for each in looking.contexts] == [
        (old[0], 20, 1),
        (old[1], 40, 2),
    ]
    for number, (context, found) in enumerate(zip(looking.contexts, looking.found, strict=True), start=1):
        expected = points([30, 20, 40][number], seed=number)  # the experience's own samples
        assert torch.equal(found["inputs"], torch.stack([expected[i][0] for i in range(len(expected))]))
        assert found["labels"].tolist() == [int(expected[i][1]) for i in range(len(expected))]
        assert np.array_equal(np.sort(np.concatenate([context.old, context.new])), context.train)


def test_passes_are_those_of_the_model_in_evaluation_mode_and_leave_it_alone():
    looking, model, plain, watch = Looking(), network(), network(), _States()
    train(strategy(model, StrategyPlugin(looking), watch), stream(30, 20, 40))
    train(strategy(plain, StrategyPlugin("warm_start")), stream(30, 20, 40))
    assert same(state(model), state(plain))
    for before, found in zip(watch.states[1:], looking.found, strict=True):
        copy = network().eval()
        copy.load_state_dict(before)
        logits = copy(found["inputs"])
        assert torch.equal(found["logits"], logits.detach())
        assert torch.equal(found["hidden"], copy[0](found["inputs"]).detach())
        F.cross_entropy(logits, found["labels"]).backward()
        for name, parameter in copy.named_parameters():
            assert torch.allclose(found["gradients"][name], parameter.grad, atol=1e-6)


class _States(SupervisedPlugin):
    """Keeps the model's state at the start of each experience."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[dict[str, torch.Tensor]] = []

    def before_training_exp(self, strategy, **kwargs):
        self.states.append(state(strategy.model))


def head_alone(previous, fresh, context):
    return Start(previous, trainable=["4.weight", "4.bias"])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_frozen_experience_trains_what_is_named_and_the_next_one_everything(momentum):
    model, watch = network(), _States()
    starts = iter([head_alone, lambda previous, fresh, context: previous])
    plugin = StrategyPlugin(lambda *arguments: next(starts)(*arguments), reset_optimizer=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum, weight_decay=0.01)
    training = strategy(model, plugin, watch, ConvergencePlugin(1.0, 4), optimizer=optimizer)
    with pytest.warns(UserWarning, match="capped"):
        train(training, stream(30, 20, 40))
    frozen, after = watch.states[1:]
    body = {name for name in frozen if not name.startswith("4.")}
    assert same(frozen, after, body)  # weights, BatchNorm's statistics, whatever momentum and decay there were
    assert not torch.equal(frozen["4.weight"], after["4.weight"])
    assert not torch.equal(after["0.weight"], model[0].weight)
    assert not torch.equal(after["1.running_mean"], model[1].running_mean)
    assert all(parameter.requires_grad for parameter in model.parameters())


def normalized() -> nn.Module:
    model = network()
    models.insert_normalization(model)
    return model


@pytest.mark.parametrize("factory", [None, normalized])
def test_layerwise_normalises_the_output_of_one_block_after_another(factory):
    model = normalized()
    plugin = StrategyPlugin("layerwise", model_factory=factory)
    training = strategy(model, plugin)
    for experience, block in zip(stream(60, 60, 60), ("0", "1", "1"), strict=True):
        train(training, [experience])
        start, context = plugin.context.start, plugin.context
        outputs = context.block_outputs(start, block, torch.stack([sample[0] for sample in experience.dataset]))
        assert outputs.mean().item() == pytest.approx(0, abs=1e-5)
        assert outputs.std(correction=0).item() == pytest.approx(1, abs=1e-5)
        assert same(start, state(model), {name for name in start if "inserted" in name})  # they do not train
    assert start["4.inserted_normalization.deviation"] == 1


def test_a_strategy_prepares_the_first_experience():
    class Zero:
        def __call__(self, previous, fresh, context):
            return previous

        def prepare_first_round(self, fresh, context):
            assert context.previous is None
            return {name: torch.zeros_like(tensor) if name == "4.weight" else tensor for name, tensor in fresh.items()}

    model = network()
    first, seen = state(model), _States()
    train(strategy(model, StrategyPlugin(Zero()), seen), stream(30))
    assert same(seen.states[0], {**first, "4.weight": torch.zeros_like(first["4.weight"])})
    assert isinstance(model, nn.Module)
