"""Optimiser steps without torch's bookkeeping, beside those of torch."""

import copy

import pytest
import torch
from torch import nn

from warmstart_sim.training.optimizers import make_optimizer, quick_step
from warmstart_sim.training.settings import Optimizer

SGD_MOMENTUM = {"name": "sgd", "momentum": 0.9}


@pytest.mark.parametrize("decay", [{}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "decay_biases": False}])
@pytest.mark.parametrize("options", [{"name": "adam"}, {"name": "adamw"}, {"name": "sgd"}, SGD_MOMENTUM], ids=str)
def test_a_quick_step_gives_the_bits_of_torchs_own(options, decay):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    model.append(nn.Linear(3, 2))  # it gets a gradient in every other step, which torch's SGD with momentum cannot take
    skipping = options is not SGD_MOMENTUM
    other = copy.deepcopy(model)
    settings = Optimizer(lr=0.1, **options, **decay)
    mine, torchs = make_optimizer(model, settings), make_optimizer(other, settings)
    step = quick_step(mine)
    for turn in range(6):
        inputs = torch.randn(7, 5)
        for each, optimizer in ((model, mine), (other, torchs)):
            optimizer.zero_grad()
            (each[:3] if skipping and turn % 2 == 0 else each)(inputs).square().sum().backward()
        if turn == 4:  # a rate that a schedule has changed
            mine.param_groups[0]["lr"] = torchs.param_groups[0]["lr"] = 0.01
        step()
        torchs.step()
    for found, expected in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(found, expected)
        state, torchs_state = mine.state.get(found, {}), torchs.state.get(expected, {})
        assert {key for key, value in torchs_state.items() if value is not None} == state.keys()
        assert all(torch.equal(state[key], value) for key, value in torchs_state.items() if value is not None)
