"""The small CNN's shapes and size."""

import pytest
import torch
from torch import nn

from warmstart_sim.models import build


def test_number_of_parameters_on_digits():
    """Two bias-free 3x3 convolutions, two BatchNorms, and a linear layer on 32 maps of 4x4."""
    model = build("small_cnn", {}, (1, 8, 8), 10)
    expected = (1 * 16 * 9 + 2 * 16) + (16 * 32 * 9 + 2 * 32) + (32 * 4 * 4 * 10 + 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 9), (3, 33, 20)], ids=str)
@pytest.mark.parametrize("channels", [(3,), (2, 3, 4, 5)], ids=str)
def test_any_size_and_depth_fit_the_head(shape, channels):
    model = build("small_cnn", {"channels": channels}, shape, 4).eval()
    assert model(torch.zeros(2, *shape)).shape == (2, 4)
    assert model.block_names == tuple(f"conv{k + 1}" for k in range(len(channels)))


def test_convolutions_have_a_bias_only_without_batch_norm():
    for batch_norm in (True, False):
        model = build("small_cnn", {"batch_norm": batch_norm}, (1, 8, 8), 10)
        convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        assert all((module.bias is None) == batch_norm for module in convolutions)
