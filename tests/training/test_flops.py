"""Counted FLOPs against closed forms, and that counting leaves everything as it was."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from warmstart_sim.models import build
from warmstart_sim.training.flops import plain_kernels, training_flops

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("cell", "gates"), [("lstm", 4), ("gru", 3), ("rnn", 1)])
@pytest.mark.parametrize("length", [1, 9])
def test_a_recurrent_network_costs_its_matrix_products(cell, gates, length):
    embedding, hidden, classes = 5, 6, 3
    options = {"cell": cell, "embedding": embedding, "hidden": hidden, "layers": 2}
    model = build("bilstm", options, (20,), classes, vocabulary_size=30)
    # A layer's matrix products go forward once, and backward to its weights and to what entered it. Only the zeros
    # before the first token need no gradient.
    inputs = 3 * length * (embedding + 2 * hidden) * gates * hidden
    recurrent = (3 * length - 1) * 2 * hidden * gates * hidden
    head = 3 * 2 * hidden * classes
    expected = 2 * (2 * (inputs + recurrent) + head)  # two directions; a multiply-add is two
    assert training_flops(model, torch.ones(2, length, dtype=torch.int64)) == expected


@pytest.mark.parametrize("fused", [nn.LSTM, nn.GRU])
def test_a_users_recurrent_network_counts_as_well(fused):
    class Theirs(nn.Module):
        def __init__(self):
            super().__init__()
            self.recurrent, self.head = fused(4, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, inputs):
            return self.head(self.recurrent(inputs)[0][:, -1])

    gates = 4 if fused is nn.LSTM else 3
    forward_and_weights = 2 * 3 * (4 + 5) * gates * 5  # nothing flows back into inputs that are no embedding
    into_states = 2 * gates * 5 * 5
    expected = 2 * (forward_and_weights + into_states + 3 * 5 * 2)
    assert training_flops(Theirs(), torch.rand(2, 3, 4)) == expected


@pytest.mark.parametrize(
    ("name", "options"),
    [("mlp", {}), ("logistic_regression", {}), ("small_cnn", {}), ("resnet18", {"width": 4})],
)
def test_other_models_cost_what_the_plain_counter_says(name, options):
    model = build(name, options, (3, 8, 8), 10)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(copy.deepcopy(model)(IMAGES), torch.tensor([0, 0])).backward()
    assert training_flops(model, IMAGES) == counter.get_total_flops() // 2 > 0


def test_counting_changes_neither_the_model_nor_torchs_kernels():
    model = build("small_cnn", {}, (3, 8, 8), 10).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kernels = torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled
    with torch.no_grad():
        training_flops(model, IMAGES)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert (torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled) == kernels
    with pytest.raises(RuntimeError):
        training_flops(model, IMAGES.double())
    assert (torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled) == kernels


def test_plain_kernels_need_no_flag_that_precision_forbids():
    """As on CUDA, where a cell sets the precision of convolutions and of recurrent layers."""
    libraries = (torch.backends.cudnn.conv, torch.backends.cudnn.rnn)
    before = [library.fp32_precision for library in libraries]
    enabled = torch.backends.cudnn.enabled
    try:
        for library in libraries:
            library.fp32_precision = "ieee"
        with plain_kernels():
            assert not torch.backends.cudnn.enabled
        assert torch.backends.cudnn.enabled == enabled
    finally:
        for library, precision in zip(libraries, before, strict=True):
            library.fp32_precision = precision
