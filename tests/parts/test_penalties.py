"""L2 Init and Parseval regularisation against sums over entries, closed forms and autograd."""

import pytest
import torch
from torch.nn import functional as F

from tests.probes.test_probes import context_of
from warmstart_sim import models
from warmstart_sim.parts.l2_init import L2Init, distance
from warmstart_sim.parts.parseval import Parseval, distance_from_orthogonal
from warmstart_sim.seeding import scoped_torch_seed
from warmstart_sim.types import Batch


def built(seed):
    with scoped_torch_seed(seed, "test"):
        return models.build("small_cnn", {}, (1, 8, 8), 10)


def term_of(part, model, **changes):
    context = context_of("small_cnn", **changes)
    batch = Batch(torch.zeros(1), torch.zeros(1), torch.Generator(), model=model)
    return part({}, context.fresh, context).loss_term(batch, None)


@pytest.mark.parametrize(
    ("norm", "d"),
    [
        ("l2", lambda x: x * x / 2),
        ("l1", abs),
        ("huber", lambda x: x * x / 2 if abs(x) <= 1 else abs(x) - 0.5),
    ],
)
def test_the_penalty_is_a_sum_over_entries_of_all_but_normalisation_layers(norm, d):
    model, initial = built(1), built(2).state_dict()
    entries = [
        (one, other)
        for name, parameter in model.named_parameters()
        if not name.startswith(("conv1.1.", "conv2.1."))
        for one, other in zip(parameter.flatten().tolist(), initial[name].flatten().tolist(), strict=True)
    ]
    expected = 0.5 * sum(d(one - other) for one, other in entries)
    found = term_of(L2Init(strength=0.5, norm=norm), model, initial=lambda: initial)
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_the_gradient_is_strength_times_the_distance():
    moved, target = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    leaf = moved.clone().requires_grad_()
    (0.25 * distance({"w": leaf}, {"w": target}, "l2")).backward()
    assert torch.allclose(leaf.grad, 0.25 * (moved - target))


def test_it_pulls_towards_the_first_initialisation_or_that_of_the_round():
    model, other = built(1), built(2).state_dict()
    at_start = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    assert term_of(L2Init(), model, initial=lambda: at_start).item() == 0
    assert term_of(L2Init(towards="fresh"), model, initial=lambda: at_start, fresh=other).item() > 0
    assert term_of(L2Init(towards="fresh"), model, initial=lambda: other, fresh=at_start).item() == 0


def test_parseval_is_zero_for_orthogonal_rows_and_sums_squares_not_a_squared_sum():
    q, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    assert distance_from_orthogonal(q[:4].float()).item() == pytest.approx(0, abs=1e-9)
    w = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    singular = torch.linalg.svdvals(w.reshape(4, 12))
    expected = (singular.square() - 1).square().sum()  # the sum over singular values
    torch.testing.assert_close(distance_from_orthogonal(w), expected, rtol=1e-4, atol=1e-4)


def test_parseval_adds_the_scales_of_normalisation_layers():
    model = built(1)
    before = term_of(Parseval(strength=0.5), model)
    with torch.no_grad():
        model.conv1[1].weight.fill_(2.0)
        model.conv1[1].bias.fill_(5.0)
    after = term_of(Parseval(strength=0.5), model)
    assert (after - before).item() == pytest.approx(0.5 * 16 * (4 - 1) ** 2, rel=1e-4)
    assert before.item() == pytest.approx(
        0.5 * sum(F.mse_loss(w @ w.T, torch.eye(len(w)), reduction="sum").item() for w in
                  (each.detach().flatten(1) for each in model.parameters() if each.ndim > 1)), rel=1e-4
    )  # fmt: skip
