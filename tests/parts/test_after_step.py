"""Parts that change weights after a step, against plain loops and properties of their formulas."""

import copy

import pytest
import torch
from torch.nn import functional as F

from tests.probes.test_probes import context_of
from warmstart_sim import models
from warmstart_sim.parts.ema_distillation import EmaDistillation
from warmstart_sim.parts.hare_tortoise import HareTortoise
from warmstart_sim.parts.selective_reinitialization import SelectiveReinitialization
from warmstart_sim.parts.soft_shrink_perturb import SoftShrinkPerturb
from warmstart_sim.parts.soft_weight_rescaling import SoftWeightRescaling
from warmstart_sim.resets import redrawn
from warmstart_sim.seeding import scoped_torch_seed
from warmstart_sim.types import Batch


def built(name="small_cnn", seed=1, **options):
    with scoped_torch_seed(seed, "test"):
        return models.build(name, options, (1, 8, 8) if name == "small_cnn" else (3, 4, 4), 10)


def stepped(model, lr=0.1):
    """An optimiser with moments, after a step on random gradients."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return optimizer


def test_the_hare_goes_back_to_a_running_average_of_parameters_and_buffers():
    model = built()
    context = context_of("small_cnn", model)
    hooks = HareTortoise(decay=0.75, every=2)(context.previous, context.fresh, context)
    slow = copy.deepcopy(model.state_dict())
    for epoch in (1, 2):
        for _ in range(3):
            optimizer = stepped(model)
            model.train()(torch.randn(4, 1, 8, 8))  # moves running statistics
            hooks.after_step(model, optimizer)
            for name, tensor in model.state_dict().items():
                slow[name] = 0.75 * slow[name] + 0.25 * tensor if tensor.is_floating_point() else tensor.clone()
        moments = copy.deepcopy(optimizer.state_dict()["state"])
        hooks.after_epoch(model, optimizer)
        same = [torch.allclose(model.state_dict()[name], slow[name], atol=1e-6) for name in slow]
        assert all(same) == (epoch == 2)
    kept = optimizer.state_dict()["state"]
    assert all(torch.equal(kept[k][name], moments[k][name]) for k in moments for name in moments[k])


def test_the_student_is_drawn_to_its_average_by_kl_of_student_and_teacher():
    model = built()
    context = context_of("small_cnn", model)
    hooks = EmaDistillation(weight=0.5, temperature=2.0, decay=0.9)(context.previous, context.fresh, context)
    teacher = copy.deepcopy(model).eval()
    stepped(model)
    inputs = torch.randn(6, 1, 8, 8)
    logits = model(inputs)
    loss = hooks.loss_term(Batch(inputs, None, None, model_inputs=inputs), logits)
    p, q = (teacher(inputs).detach() / 2).softmax(1), (logits / 2).softmax(1)
    torch.testing.assert_close(loss, 0.5 * 4 * (q * (q / p).log()).sum(1).mean(), rtol=1e-3, atol=1e-5)
    assert loss.requires_grad
    hooks.after_step(model, None)
    for name, parameter in model.named_parameters():
        expected = 0.9 * teacher.get_parameter(name) + 0.1 * parameter
        torch.testing.assert_close(hooks.state["teacher"][name], expected.detach())


def test_soft_shrink_perturb_decays_by_the_rate_and_adds_noise_of_its_deviation():
    model = built()
    context = context_of("small_cnn", model)
    optimizer = stepped(model, lr=0.5)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    shrink = SoftShrinkPerturb(weight_decay=0.2, sigma=0)(context.previous, context.fresh, context)
    shrink.after_step(model, optimizer)
    for parameter, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), 0.9 * old)
    noisy = SoftShrinkPerturb(weight_decay=0, sigma=0.1)(context.previous, context.fresh, context)
    draws = []
    for _ in range(2):
        before = model.head.weight.detach().clone()
        noisy.after_step(model, optimizer)
        draws.append(model.head.weight.detach() - before)
        assert draws[-1].std().item() == pytest.approx(0.1, rel=0.1)
    assert not torch.allclose(*draws)


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_rescaling_a_chain_of_relu_layers_scales_the_logits_and_norms_move_to_their_start(lam):
    model = built("mlp", widths=(7, 6), activation="relu")
    context = context_of("mlp", built("mlp", seed=2, widths=(7, 6), activation="relu"))
    inputs = torch.randn(5, 3, 4, 4)
    before = model(inputs).detach()
    layers = [model.hidden1[0], model.hidden2[0], model.head]
    now = [layer.weight.norm().item() for layer in layers]
    norms = [context.initial()[name].norm().item() for name in ("hidden1.0.weight", "hidden2.0.weight", "head.weight")]
    SoftWeightRescaling(lam=lam)(context.previous, context.fresh, context).after_step(model, None)
    product = 1.0
    for layer, old, initial in zip(layers, now, norms, strict=True):
        expected = lam * initial + (1 - lam) * old
        assert layer.weight.norm().item() == pytest.approx(expected, rel=1e-5)
        product *= expected / old
    torch.testing.assert_close(model(inputs), product * before, rtol=1e-4, atol=1e-5)


def test_after_a_normalisation_layer_the_product_begins_anew_and_the_head_has_its_own_lambda():
    model = built()
    model.head.bias.data.fill_(1.0)
    context = context_of("small_cnn", built(seed=2))
    part = SoftWeightRescaling(lam=0.5, head=1.0)(context.previous, context.fresh, context)
    old, initial = model.head.weight.norm().item(), context.initial()["head.weight"].norm().item()
    affine = copy.deepcopy(model.conv1[1].state_dict())
    part.after_step(model, None)
    assert torch.allclose(model.head.bias, torch.full((10,), initial / old))
    assert model.head.weight.norm().item() == pytest.approx(initial, rel=1e-5)
    assert all(torch.equal(tensor, affine[name]) for name, tensor in model.conv1[1].state_dict().items())


@pytest.mark.parametrize("utility", ["gradient", "magnitude"])
def test_the_least_useful_weights_are_drawn_anew_with_zero_moments_at_every_nth_step(utility):
    model = built()
    context = context_of("small_cnn", model, fresh=built(seed=5).state_dict())
    part = SelectiveReinitialization(every=2, share=0.25, utility=utility, samples=30)
    hooks = part(context.previous, context.fresh, context)
    optimizer = stepped(model)
    before = copy.deepcopy(model.state_dict())
    hooks.after_step(model, optimizer)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    hooks.after_step(model, optimizer)
    reference = copy.deepcopy(model).eval()
    reference.load_state_dict(before)
    inputs, labels = context.samples(context.train)
    F.cross_entropy(reference(inputs), labels).backward()
    for name, parameter in reference.named_parameters():
        now = model.get_parameter(name)
        if parameter.ndim == 1:
            assert torch.equal(now, before[name])
            continue
        score = (parameter * (parameter.grad if utility == "gradient" else 1)).abs()
        changed = now != before[name]
        assert abs(changed.sum().item() - round(0.25 * now.numel())) <= 1  # a new weight may be equal
        assert score[changed].max() <= score[~changed].min() * (1 + 1e-4)
        assert torch.isin(now[changed], context.fresh[name]).all()
        moments = optimizer.state[now]
        assert (moments["exp_avg"][changed] == 0).all()
        assert (moments["exp_avg"][~changed] != 0).all()


def test_new_weights_have_the_distribution_of_the_initialisation():
    fresh = torch.randn(40, 50, generator=torch.Generator().manual_seed(0)) * 3 + 1
    drawn = redrawn(torch.empty(100, 100), fresh, torch.Generator().manual_seed(1))
    assert drawn.mean().item() == pytest.approx(fresh.mean().item(), abs=0.15)
    assert drawn.std().item() == pytest.approx(fresh.std().item(), rel=0.05)
