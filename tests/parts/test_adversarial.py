"""FGSM against the closed form of a linear model, and the step that trains with it against one written out."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from warmstart_sim import models
from warmstart_sim.acceleration.stacking import stackable
from warmstart_sim.errors import WarmstartError
from warmstart_sim.parts.adversarial import Adversarial, fast_gradient_sign
from warmstart_sim.training.batches import DeviceSamples, normalization
from warmstart_sim.training.settings import Training
from warmstart_sim.training.stepper import Stepper
from warmstart_sim.types import Samples

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (24, 3, 8, 8), dtype=np.uint8)
LABELS = RNG.integers(0, 4, 24)
MEAN, DEVIATION = ((IMAGES / 255).mean((0, 2, 3)), (IMAGES / 255).std((0, 2, 3)))
SAMPLES = DeviceSamples(Samples(IMAGES, LABELS), normalization("train", IMAGES), torch.device("cpu"))


def network(**options):
    torch.manual_seed(0)
    return models.build("small_cnn", {"channels": (4, 8), "batch_norm": True, **options}, (3, 8, 8), 4)


def begun(model, part, **training):
    stepper = Stepper(model, Training(optimizer={"name": "sgd", "lr": 0.1}, **training))
    stepper.begin(SAMPLES, [part({}, {}, None)] if part else [])
    stepper.train_mode()
    return stepper


def written_out(model, epsilon, weight):
    """A step of SGD on the mixture, with the direction of the normalised inputs' gradient, and statistics kept."""
    shape = (1, 3, 1, 1)
    mean, deviation = (torch.tensor(each).float().reshape(shape) for each in (MEAN, DEVIATION))
    pixels, labels = torch.from_numpy(IMAGES).float() / 255, torch.from_numpy(LABELS)
    inputs = ((pixels - mean) / deviation).requires_grad_()
    model.train()
    clean = F.cross_entropy(model(inputs), labels)
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    (gradient,) = torch.autograd.grad(clean, inputs, retain_graph=True)
    moved = (pixels + epsilon * gradient.sign() - mean) / deviation
    loss = (1 - weight) * clean + weight * F.cross_entropy(model(moved), labels)
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
        for name, buffer in model.named_buffers():
            buffer.copy_(statistics[name])
    return loss.item()


def test_for_a_linear_model_the_direction_is_the_sign_of_the_closed_form():
    """grad_x CE = W^T (softmax(W x) - onehot(y)), scaled by 1/n."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    inputs = torch.randn(9, 6, generator=generator, dtype=torch.float64)
    labels = torch.arange(9) % 3
    gradient = ((inputs @ weights.T).softmax(1) - F.one_hot(labels, 3)) @ weights
    moved = fast_gradient_sign(lambda x: x @ weights.T, inputs, labels, epsilon=0.25)
    assert torch.equal(moved, inputs + 0.25 * gradient.sign())
    assert not moved.requires_grad


@pytest.mark.parametrize(("epsilon", "weight"), [(0.05, 0.5), (0.2, 1.0), (0.0, 0.5)])
def test_a_step_equals_one_written_out(epsilon, weight):
    model = network()
    other = copy.deepcopy(model)
    stepper = begun(model, Adversarial(epsilon=epsilon, weight=weight))
    stepper.step(torch.arange(24), None)
    loss = written_out(other, epsilon, weight)
    assert stepper.loss_sum.item() == pytest.approx(24 * loss, rel=1e-5)
    for name, tensor in other.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


def test_running_statistics_are_those_of_clean_batches_alone():
    clean, moved = network(), network()
    for model, part in ((clean, None), (moved, Adversarial(epsilon=0.5, weight=1.0))):
        begun(model, part, batch_size=24).step(torch.arange(24), None)
    buffers = dict(clean.named_buffers())
    for name, buffer in moved.named_buffers():
        torch.testing.assert_close(buffer, buffers[name], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(clean.head.weight, moved.head.weight)


def test_under_autocast_it_stays_close_to_full_precision():
    losses = []
    for precision in ("float32", "bf16"):
        stepper = begun(network(), Adversarial(epsilon=0.1), precision=precision)
        stepper.step(torch.arange(24), None)
        losses.append(stepper.loss_sum.item())
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]


def test_it_is_not_stacked_and_texts_are_refused():
    stepper = begun(network(), Adversarial(epsilon=0.1))
    assert not stackable(stepper)
    tokens = DeviceSamples(Samples(RNG.integers(1, 9, (8, 5)), np.zeros(8, np.int64)), None, torch.device("cpu"))
    texts = Stepper(nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 2)), Training())
    texts.begin(tokens, [Adversarial(epsilon=0.1)({}, {}, None)])
    with pytest.raises(WarmstartError, match=r"^adversarial needs inputs"):
        texts.step(torch.arange(8), None)


def test_hooks_of_two_rounds_are_equal_and_no_weight_adds_nothing():
    assert Adversarial(epsilon=0.1)({}, {}, None) == Adversarial(epsilon=0.1)({}, {}, None)
    assert Adversarial(epsilon=0.1, weight=0)({}, {}, None).loss_term is None
