"""The MLP: its formula, its options and the papers' parameter counts."""

import pytest
import torch
from torch import nn

from warmstart_sim.analyses.accuracy_against_lambda import multiplied
from warmstart_sim.models import build, layout
from warmstart_sim.seeding import scoped_torch_seed


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_a_bias_free_relu_mlp_is_one_that_proposition_1_is_about():
    """Logits become lambda^layers times as large; see `test_proposition_1.py`."""
    model = build("mlp", {"widths": (5, 4), "activation": "relu", "bias": False}, (6,), 4).double()
    inputs = torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(multiplied(model, 0.3)(inputs), 0.3**3 * model(inputs))
        biased = build("mlp", {"widths": (5, 4), "activation": "relu"}, (6,), 4).double()
        assert not torch.allclose(multiplied(biased, 0.3)(inputs), 0.3**3 * biased(inputs))


@pytest.mark.parametrize(
    ("widths", "parameters"),
    [
        ([100, 100, 100], 3072 * 100 + 100 + 2 * (100 * 100 + 100) + 100 * 10 + 10),  # Kireev et al.
        ([100, 100], 3072 * 100 + 100 + 100 * 100 + 100 + 100 * 10 + 10),  # the code of Ash & Adams
    ],
)
def test_three_layers_as_in_each_papers_code(widths, parameters):
    assert count(build("mlp", {"widths": widths}, (3, 32, 32), 10)) == parameters


def test_equals_the_formula():
    model = build("mlp", {"widths": (5, 4)}, (2, 3), 3)
    inputs = torch.randn(7, 2, 3, generator=torch.Generator().manual_seed(0))
    first, second, head = (module for module in model.modules() if isinstance(module, nn.Linear))
    hidden = torch.tanh(torch.tanh(inputs.reshape(7, 6) @ first.weight.T + first.bias) @ second.weight.T + second.bias)
    torch.testing.assert_close(model(inputs), hidden @ head.weight.T + head.bias)


def test_bias_and_batch_norm_follow_the_options():
    bare = layout(build("mlp", {"bias": False}, (6,), 4))
    assert all(name.endswith("weight") for name in bare.parameters)
    normed = layout(build("mlp", {"widths": (5, 4), "batch_norm": True}, (6,), 4))
    assert normed.norm_affine == {f"hidden{k}.1.{entry}" for k in (1, 2) for entry in ("weight", "bias")}


def test_dropout_is_off_in_evaluation_mode_and_scales_what_is_left_in_training_mode():
    plain, dropped = (build("mlp", {"widths": (50,), "dropout": rate}, (6,), 4) for rate in (None, 0.2))
    dropped.load_state_dict(plain.state_dict())  # the same names: a checkpoint fits with and without
    inputs = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(dropped.eval()(inputs), plain.eval()(inputs))
    with scoped_torch_seed(0, "dropout"):
        hidden, kept = plain.hidden1(inputs), dropped.train().hidden1(inputs)
    zero = kept == 0
    assert zero.float().mean().item() == pytest.approx(0.2, abs=0.02)
    torch.testing.assert_close(kept[~zero], hidden[~zero] / 0.8)


def test_logistic_regression_is_one_affine_map():
    model = build("logistic_regression", {}, (1, 8, 8), 10)
    assert count(model) == 64 * 10 + 10
    inputs = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(inputs), inputs.reshape(3, 64) @ model.head.weight.T + model.head.bias)
    assert layout(model).blocks == ()
