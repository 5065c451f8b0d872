"""The L2 penalty against autograd's gradient and against PyTorch's weight decay."""

import copy

import pytest
import torch
from torch import nn

from warmstart_sim.parts.l2 import L2, L2Term, penalty
from warmstart_sim.training.batches import DeviceSamples
from warmstart_sim.training.settings import Training
from warmstart_sim.training.stepper import Stepper
from warmstart_sim.types import Batch, Samples

STRENGTH = 0.125


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


def trained(optimizer, hooks=(), steps=20, trainable=None):
    """A network after some steps, its model and the sum of its losses."""
    inputs, labels = torch.randn(32, 6, generator=seeded()), torch.randint(3, (32,), generator=seeded(1))
    model = network()
    stepper = Stepper(model, Training(optimizer=optimizer))
    samples = DeviceSamples(Samples(inputs.numpy(), labels.numpy()), None, torch.device("cpu"))
    stepper.begin(samples, hooks, trainable)
    stepper.train_mode()
    for _ in range(steps):
        stepper.step(torch.arange(32), None)
    return model, stepper.loss_sum.item()


def test_its_gradient_is_strength_times_the_parameter():
    values = [torch.randn(3, 2, generator=seeded()), torch.randn(4, generator=seeded(1))]
    leaves = [value.clone().requires_grad_() for value in values]
    penalty(leaves, STRENGTH).backward()
    assert all(torch.equal(leaf.grad, STRENGTH * value) for leaf, value in zip(leaves, values, strict=True))


@pytest.mark.parametrize(
    "optimizer",
    [{"name": "sgd", "lr": 0.1}, {"name": "sgd", "lr": 0.05, "momentum": 0.9}, {"name": "adam", "lr": 0.01}],
)
def test_it_trains_as_weight_decay_does_to_rounding(optimizer):
    ours, _ = trained(optimizer, [L2(strength=STRENGTH)({}, {}, None)])
    decayed, _ = trained({**optimizer, "weight_decay": STRENGTH})
    plain, _ = trained(optimizer)
    for name, tensor in decayed.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(ours[0].weight, plain[0].weight, atol=0.01)


def test_the_loss_reported_is_larger_by_the_penalty():
    squares = sum(parameter.square().sum().item() for parameter in network().parameters())
    (_, loss), (_, plain) = (trained({}, hooks, steps=1) for hooks in ([L2(strength=0.5)({}, {}, None)], []))
    assert loss - plain == pytest.approx(32 * 0.25 * squares, rel=1e-4)


def test_only_parameters_that_train_are_penalised():
    model = network()
    model[0].requires_grad_(False)
    batch = Batch(torch.zeros(1, 6), torch.zeros(1), seeded(), model=model)
    trainable = [*model[1].parameters(), *model[3].parameters()]
    assert torch.equal(L2Term(2.0)(batch, None), sum(each.square().sum() for each in trainable))
    before = copy.deepcopy(model[0].state_dict())
    frozen, _ = trained({}, [L2(strength=1.0)({}, {}, None)], trainable={"3.weight", "3.bias"})
    assert all(torch.equal(tensor, before[name]) for name, tensor in frozen[0].state_dict().items())


def test_hooks_of_two_rounds_are_equal_and_a_strength_of_zero_adds_nothing():
    assert L2(strength=0.1)({}, {}, None) == L2(strength=0.1)({}, {}, None) != L2(strength=0.2)({}, {}, None)
    assert L2(strength=0)({}, {}, None).loss_term is None
