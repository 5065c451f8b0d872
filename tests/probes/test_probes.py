"""Every probe against a closed form or a plain reference, and what holds for all of them."""

from __future__ import annotations

import copy
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tests.models.inserted import insert_drawn_normalization
from warmstart_sim import models
from warmstart_sim.errors import WarmstartError
from warmstart_sim.hidden_units import silent
from warmstart_sim.probes.dead_units import dead_units
from warmstart_sim.probes.distance_from_start import distance_from_start
from warmstart_sim.probes.effective_rank import effective_rank, rank
from warmstart_sim.probes.gradient_norm import gradient_norm
from warmstart_sim.probes.margins import QUANTILES, margins
from warmstart_sim.probes.sharpness import sharpness
from warmstart_sim.probes.weight_norm import weight_norm
from warmstart_sim.probes.weight_size import weight_size
from warmstart_sim.registry import MODELS, PROBES
from warmstart_sim.seeding import scoped_torch_seed
from warmstart_sim.training.batches import DeviceSamples, normalization
from warmstart_sim.training.round_context import round_context
from warmstart_sim.types import Round, RoundContext, Samples

SHAPES = {"small_cnn": (1, 8, 8), "mlp": (3, 4, 4), "resnet18": (3, 8, 8), "bilstm": (6,)}
OPTIONS = {"resnet18": {"width": 2}, "bilstm": {"vocabulary_size": 20, "hidden": 4}}
COUNT, NEW = 30, 12


def context_of(name: str = "small_cnn", model: nn.Module | None = None, new: int = NEW, **changes) -> RoundContext:
    """A round of 30 samples, 12 of them new, for a model whose BatchNorm has seen data."""
    tokens = MODELS.has_trait(name, "tokens")
    numbers = np.random.default_rng(0)
    inputs = numbers.integers(1, 20, (COUNT, *SHAPES[name])) if tokens else numbers.normal(size=(COUNT, *SHAPES[name]))
    samples = Samples(inputs.astype(np.int64 if tokens else np.float32), numbers.integers(0, 10, COUNT))
    with scoped_torch_seed(1, "test"):
        model = model or models.build(name, OPTIONS.get(name, {}), SHAPES[name], 10)
        source = DeviceSamples(samples, normalization("train", samples.inputs), torch.device("cpu"))
        model.train()(source.batch(torch.arange(COUNT))[0])
    everything = np.arange(COUNT)
    state = {key: tensor.detach().clone() for key, tensor in model.state_dict().items()}
    context = round_context(
        model, models.layout(model), source, Round(1, everything, everything[COUNT - new :]), seed=0, previous=state,
        fresh=state, initial=lambda: state, evaluation_sets=lambda split: (source, torch.arange(COUNT)),
        tested_rounds=(0, 1, 2),
    )  # fmt: skip
    measured = {"weights": dict(model.state_dict()), "epoch": 1, "rows": [{"round": 0, "present_accuracy": 0.5}]}
    return RoundContext(**{**vars(context), "start": state, **measured, **changes})


@pytest.mark.parametrize("probe", PROBES.names())
@pytest.mark.parametrize("name", SHAPES)
class TestEveryProbe:
    def test_returns_its_declared_columns_as_numbers(self, probe, name):
        found = PROBES.get(probe)(context_of(name))
        declared = [re.sub(r"\\{\w+\\}", ".+", re.escape(column)) for column in PROBES.details(probe)["columns"]]
        assert found
        assert [column for column in found if not any(re.fullmatch(each, column) for each in declared)] == []
        assert all(isinstance(value, float) and math.isfinite(value) for value in found.values())

    def test_changes_neither_model_nor_generators_and_is_the_same_twice(self, probe, name):
        context = context_of(name)
        model = context.functions._trained
        before = copy.deepcopy(model.state_dict()), model.training, torch.get_rng_state()
        one, other = (PROBES.get(probe)(context) for _ in range(2))
        assert one == other
        assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in before[0].items())
        assert model.training is before[1]
        assert torch.equal(torch.get_rng_state(), before[2])
        assert all(parameter.grad is None for parameter in model.parameters())

    def test_says_what_it_costs(self, probe, name):
        assert PROBES.details(probe)["cost"]


@pytest.mark.parametrize("name", SHAPES)
def test_gradient_norms_are_those_of_autograd_on_the_model_itself(name):
    context = context_of(name)
    found = gradient_norm(context)
    for which, indices in (("new", context.new), ("old", context.old)):
        model = copy.deepcopy(context.functions._trained).eval()
        inputs, labels = context.samples(indices)
        F.cross_entropy(model(inputs), labels).backward()
        expected = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm().item()
        assert found[f"gradient_norm_{which}"] == pytest.approx(expected, rel=1e-4)
    assert found["gradient_norm_ratio"] == found["gradient_norm_new"] / found["gradient_norm_old"]


def test_a_linear_model_has_the_gradient_of_softmax_regression_in_closed_form():
    context = context_of("mlp", nn.Sequential(nn.Flatten(), nn.Linear(48, 10)))
    inputs, labels = context.samples(context.new)
    flat = inputs.flatten(1).double()
    logits = flat @ context.weights["1.weight"].double().T + context.weights["1.bias"].double()
    error = (logits.softmax(1) - F.one_hot(labels, 10)) / len(labels)  # dL/dlogits of the mean cross-entropy
    expected = math.hypot((error.T @ flat).norm(), error.sum(0).norm())
    assert gradient_norm(context)["gradient_norm_new"] == pytest.approx(expected, rel=1e-5)


def test_without_old_samples_there_is_no_old_gradient_and_no_ratio():
    found = gradient_norm(context_of(new=COUNT))
    assert found["gradient_norm_old"] is None is found["gradient_norm_ratio"]
    assert found["gradient_norm_new"] > 0


def test_a_limit_takes_a_random_subset_that_stays_the_same_all_round():
    context = context_of()
    some = context.some(context.old, 5, "gradient_norm_old")
    assert len(set(some.tolist())) == 5
    assert set(some.tolist()) < set(context.old.tolist())
    model = copy.deepcopy(context.functions._trained).eval()
    inputs, labels = context.samples(some)
    F.cross_entropy(model(inputs), labels).backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm().item()
    assert gradient_norm(context, samples=5)["gradient_norm_old"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", SHAPES)
def test_the_squares_of_the_blocks_norms_add_up(name):
    context = context_of(name)
    found = weight_norm(context)
    total = found.pop("weight_norm")
    assert math.sqrt(sum(value**2 for value in found.values())) == pytest.approx(total)
    flat = torch.cat([parameter.flatten() for parameter in context.functions._trained.parameters()])
    assert total == pytest.approx(flat.norm().item())


@given(st.floats(-3, 3), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_scaled_weights_have_the_cosine_of_the_sign_and_a_distance_of_the_rest(factor, seed):
    context = context_of("mlp")
    start = {key: torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed)) for key, tensor in
             context.start.items()}  # fmt: skip
    weights = {key: factor * tensor for key, tensor in start.items()}
    found = distance_from_start(RoundContext(**{**vars(context), "start": start, "weights": weights}))
    length = math.sqrt(sum(tensor.double().square().sum().item() for tensor in start.values()))
    assert found["distance_from_start"] == pytest.approx(abs(factor - 1) * length, rel=1e-5, abs=1e-5)
    if abs(factor) > 1e-3:
        assert found["cosine_to_start"] == pytest.approx(math.copysign(1, factor), abs=1e-6)


def test_weights_of_zero_have_no_cosine():
    context = context_of("mlp")
    zeros = {key: torch.zeros_like(tensor) for key, tensor in context.weights.items()}
    assert distance_from_start(RoundContext(**{**vars(context), "weights": zeros}))["cosine_to_start"] is None


@pytest.mark.parametrize("normalize", [lambda model: model, insert_drawn_normalization])
def test_units_that_were_killed_are_counted_also_before_an_inserted_normalisation(normalize):
    model = normalize(models.build("mlp", {"widths": (8, 4), "activation": "relu"}, (3, 4, 4), 10))
    context = context_of("mlp", model)
    weights = {key: tensor.clone() for key, tensor in context.weights.items()}
    weights["hidden1.0.weight"][:2] = 0
    weights["hidden1.0.bias"][:2] = -1  # a ReLU after it never fires
    weights["hidden1.0.bias"][2:] = 100  # and after these always
    weights["hidden2.0.weight"].fill_(0)
    weights["hidden2.0.bias"].copy_(torch.tensor([-1.0, 1.0, 1.0, 1.0]))
    found = dead_units(RoundContext(**{**vars(context), "weights": weights}))
    assert found == {"dead_units": 3 / 12, "dead_units_hidden1": 2 / 8, "dead_units_hidden2": 1 / 4}


def test_a_unit_is_dormant_below_a_share_of_the_mean_activity_over_positions():
    outputs = torch.zeros(2, 3, 2, 2)  # mean activities 1, 0.1 and 1.9: their mean is 1
    outputs[:, 0], outputs[:, 1], outputs[:, 2] = 1.0, -0.1, 1.9
    assert silent(outputs, 0.0).tolist() == [False, False, False]
    assert silent(outputs, 0.11).tolist() == [False, True, False]


@given(st.integers(1, 6), st.integers(6, 9))
@settings(max_examples=20, deadline=None)
def test_the_effective_rank_of_equal_singular_values_is_their_number(count, size):
    orthogonal, _ = torch.linalg.qr(torch.randn(size, count, generator=torch.Generator().manual_seed(count)))
    assert rank(3 * orthogonal) == pytest.approx(count, rel=1e-5)


def test_the_effective_rank_of_a_block_is_that_of_its_outputs():
    context = context_of("small_cnn")
    inputs, _ = context.samples(context.train)
    model = context.functions._trained.eval()
    with torch.no_grad():
        outputs = model.conv2(model.conv1(inputs))
    values = np.linalg.svd(outputs.flatten(1).double().numpy(), compute_uv=False)
    shares = values / values.sum()
    expected = math.exp(-sum(share * math.log(share) for share in shares if share > 0))
    assert effective_rank(context) == {"effective_rank_conv2": pytest.approx(expected, rel=1e-6)}
    assert rank(torch.zeros(3, 3)) is None


def test_a_block_that_is_not_there_is_one_line_with_the_nearest():
    with pytest.raises(WarmstartError, match="unknown block 'conv9'; did you mean 'conv"):
        effective_rank(context_of("small_cnn"), block="conv9")


def linear(classes: int = 10) -> RoundContext:
    """A linear model: the head is all there is, and the block in front of it flattens."""
    return context_of("mlp", nn.Sequential(nn.Flatten(), nn.Linear(48, classes)))


def with_weights(context: RoundContext, weight: torch.Tensor, bias: torch.Tensor) -> RoundContext:
    return RoundContext(**{**vars(context), "weights": {"1.weight": weight, "1.bias": bias}})


def test_margins_are_those_of_sorted_probabilities():
    context = context_of("small_cnn")
    inputs, labels = context.samples(context.train)
    p = context.forward(context.weights, inputs).double().softmax(1).numpy()
    expected = np.sort([row[label] - np.delete(row, label).max() for row, label in zip(p, labels, strict=True)])
    for m, smallest in ((7, expected[:7]), (400, expected)):
        found = margins(context, m=m)
        assert found["margin_mean"] == pytest.approx(smallest.mean(), abs=1e-9)
        values = [found[f"margin_q{each}"] for each in QUANTILES]
        np.testing.assert_allclose(values, np.quantile(smallest, [0, 0.25, 0.5, 0.75, 1]), atol=1e-9)


def test_margins_of_constant_logits_are_the_same_for_all_samples_with_a_label():
    context = linear()
    logits = torch.arange(10.0)
    found = margins(with_weights(context, torch.zeros(10, 48), logits))
    p = logits.double().softmax(0)
    _, labels = context.samples(context.train)
    expected = torch.tensor([p[9] - p[8] if label == 9 else p[label] - p[9] for label in labels]).mean().item()
    assert found["margin_mean"] == pytest.approx(expected)
    same = margins(with_weights(context, torch.zeros(10, 48), torch.zeros(10)))
    assert set(same.values()) == {0.0}


def test_margins_need_two_classes():
    context = linear(classes=1)
    with pytest.raises(WarmstartError, match=r"^probe margins: a margin needs at least two classes"):
        margins(context)


def test_noise_on_a_linear_model_changes_the_loss_as_its_second_derivative_says():
    context = with_weights(linear(), torch.zeros(10, 48), torch.zeros(10))
    inputs, _ = context.samples(context.train)
    # At zero logits the Hessian of the cross-entropy in the logits is I / 10 - 1 / 100, and noise of deviation s on all
    # parameters is noise of variance s^2 (|x|^2 + 1) on each logit: the mean change is s^2 / 2 (|x|^2 + 1) trace.
    trace = 1 - 1 / 10
    deviation = 0.01
    expected = deviation**2 / 2 * trace * (inputs.flatten(1).square().sum(1).mean().item() + 1)
    found = sharpness(context, deviations=(deviation,), draws=300)
    assert found["sharpness_loss_0_01"] == pytest.approx(expected, rel=0.25)


def test_sharpness_is_the_mean_over_draws_of_what_the_model_itself_loses():
    context = context_of("small_cnn")
    found = sharpness(context, deviations=(1e-9, 0.5), draws=2)
    assert found["sharpness_loss_1e-09"] == pytest.approx(0, abs=1e-5)
    assert found["sharpness_accuracy_1e-09"] == 0
    generator, changes = context.generator("sharpness"), []
    names = sorted(context.layout.parameters)
    for _ in range(2):
        noise = {name: torch.randn(context.weights[name].shape, generator=generator) for name in names}
        noisy = {**context.weights, **{name: context.weights[name] + 0.5 * noise[name] for name in names}}
        changes.append(np.subtract(context.evaluate(noisy, "train"), context.evaluate(context.weights, "train")))
    accuracy, loss = np.mean(changes, axis=0)
    assert found["sharpness_accuracy_0_5"] == pytest.approx(accuracy)
    assert found["sharpness_loss_0_5"] == pytest.approx(loss)


def test_the_weight_size_of_a_linear_model_is_that_of_its_weights_times_that_of_the_data():
    context = linear()
    inputs, _ = context.samples(context.train)
    expected = context.weights["1.weight"].norm().item() * inputs.norm().item()
    assert weight_size(context) == {"weight_size": pytest.approx(expected, rel=1e-5)}
    halved = {**context.weights, "1.weight": context.weights["1.weight"] / 2}
    assert weight_size(RoundContext(**{**vars(context), "weights": halved}))["weight_size"] == pytest.approx(
        expected / 2, rel=1e-5
    )


def test_scaling_the_body_and_dividing_the_head_leaves_the_weight_size_of_a_relu_network():
    context = context_of("mlp", models.build("mlp", {"widths": (8,), "activation": "relu"}, (3, 4, 4), 10))
    scaled = {
        name: tensor / 4 if name == "head.weight" else 4 * tensor if "hidden1" in name else tensor
        for name, tensor in context.weights.items()
    }
    changed = RoundContext(**{**vars(context), "weights": scaled})
    assert weight_size(changed)["weight_size"] == pytest.approx(weight_size(context)["weight_size"], rel=1e-5)
