"""What a round's context computes, against the model itself: logits, block outputs, gradients, accuracy."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.probes.test_probes import COUNT, SHAPES, context_of
from warmstart_sim.errors import WarmstartError
from warmstart_sim.training import model_functions
from warmstart_sim.training.model_functions import without_gradient
from warmstart_sim.training.starts import trains_by_default
from warmstart_sim.types import RoundContext


@pytest.mark.parametrize("name", SHAPES)
def test_logits_are_those_of_the_model_in_evaluation_mode_with_other_weights(name):
    context = context_of(name)
    model = copy.deepcopy(context.functions._trained).eval()
    other = {key: tensor + (0.1 if tensor.is_floating_point() else 0) for key, tensor in context.weights.items()}
    inputs, _ = context.samples(context.train)
    found = context.forward(other, inputs)
    model.load_state_dict(other)
    with torch.no_grad():
        assert torch.equal(found, model(inputs))
    assert not found.requires_grad
    assert not torch.equal(found, context.forward(context.weights, inputs))


@pytest.mark.parametrize("name", SHAPES)
def test_block_outputs_are_what_comes_out_of_the_module(name):
    context = context_of(name)
    model = copy.deepcopy(context.functions._trained).eval()
    inputs, _ = context.samples(context.train)
    outputs = {}
    for block in context.layout.blocks:
        model.get_submodule(block).register_forward_hook(lambda _, __, out, block=block: outputs.update({block: out}))
    with torch.no_grad():
        model(inputs)
    for block in context.layout.blocks:
        assert torch.equal(context.block_outputs(context.weights, block, inputs), outputs[block])
    assert not context.functions._model.get_submodule(context.layout.blocks[0])._forward_hooks


@pytest.mark.parametrize("name", SHAPES)
def test_the_head_makes_the_logits_of_its_inputs(name):
    context = context_of(name)
    inputs, _ = context.samples(context.train)
    head = copy.deepcopy(context.functions._trained).eval().get_submodule(context.layout.head)
    with torch.no_grad():
        logits = head(context.head_inputs(context.weights, inputs))
    assert torch.equal(logits, context.forward(context.weights, inputs))


def test_gradients_of_batches_add_up_to_that_of_all_samples(monkeypatch):
    context = context_of("small_cnn")
    whole = context.gradients(context.weights, context.train)
    monkeypatch.setitem(model_functions.BATCH, "cpu", 7)
    for name, gradient in context.gradients(context.weights, context.train).items():
        assert torch.allclose(gradient, whole[name], atol=1e-6)


def test_gradients_use_running_statistics_and_not_those_of_the_batch():
    context = context_of("small_cnn")
    alone = context.gradients(context.weights, context.train[:1])  # one sample, which has no batch statistics
    model = copy.deepcopy(context.functions._trained).eval()
    inputs, labels = context.samples(context.train[:1])
    F.cross_entropy(model(inputs), labels).backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(alone[name], parameter.grad, atol=1e-6)


def test_no_samples_have_no_gradient():
    context = context_of()
    with pytest.raises(WarmstartError, match="at least one training sample, and the round has none"):
        context.gradients(context.weights, context.train[:0])


def test_nothing_is_copied_until_something_is_asked_for():
    context = context_of()
    assert "_model" not in vars(context.functions)
    _ = context.old, context.initial_norms
    context.samples(context.new)
    assert "_model" not in vars(context.functions)
    context.forward(context.weights, context.samples(context.new)[0])
    assert "_model" in vars(context.functions)


def test_tied_parameters_are_one():
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one = torch.nn.Linear(48, 48, bias=False)
            self.other = torch.nn.Linear(48, 48, bias=False)
            self.other.weight = self.one.weight
            self.head = torch.nn.Linear(48, 10)

        def forward(self, inputs):
            return self.head(torch.tanh(self.other(torch.tanh(self.one(inputs.flatten(1))))))

    context = context_of("mlp", Tied())
    found = context.gradients(context.weights, context.train)
    model = copy.deepcopy(context.functions._trained)
    inputs, labels = context.samples(context.train)
    F.cross_entropy(model(inputs), labels).backward()
    assert torch.allclose(found["one.weight"], model.one.weight.grad, atol=1e-6)


def test_old_and_new_samples_are_those_of_the_round():
    context = context_of()
    assert sorted([*context.old, *context.new]) == list(range(COUNT))
    assert not set(context.old) & set(context.new)


def test_norms_at_initialisation_are_those_of_every_tensor():
    context = context_of("small_cnn")
    for name, tensor in context.initial().items():
        if tensor.is_floating_point():
            assert context.initial_norms[name] == pytest.approx(float(np.linalg.norm(tensor.numpy())), rel=1e-5)
    assert not any("num_batches" in name for name in context.initial_norms)


def test_accuracy_is_the_share_that_is_right():
    context = context_of()
    inputs, labels = context.samples(context.train)
    logits = context.forward(context.weights, inputs)
    accuracy, loss = context.evaluate(context.weights, "train")
    assert accuracy == (logits.argmax(1) == labels).double().mean().item()
    assert loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)


def test_a_context_without_a_model_says_so():
    context = context_of()
    bare = RoundContext(context.round, context.layout, context.generator)
    with pytest.raises(RuntimeError, match="without a model"):
        bare.forward({}, torch.zeros(1))


def test_a_model_that_computes_without_gradient_in_evaluation_mode_trains_all_the_same():
    class Usual(nn.Sequential):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            with torch.set_grad_enabled(self.training):
                return super().forward(inputs)

    model = Usual(nn.Linear(3, 3), nn.Dropout(0.5), nn.Linear(3, 2))
    drawn = torch.random.get_rng_state()
    assert without_gradient(model, torch.ones(2, 3), trains_by_default(model)) == frozenset()
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert all(parameter.grad is None for parameter in model.parameters())
