"""`precision: bf16` where a processor cannot train recurrent layers in it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from warmstart_sim import models
from warmstart_sim.training import precision
from warmstart_sim.training.precision import usable_precision
from warmstart_sim.training.settings import Training
from warmstart_sim.training.stepper import Stepper


def lstm() -> nn.Module:
    return models.build("bilstm", {"hidden": 2, "embedding": 2, "dropout": 0.5}, (4,), 2, 9)


@pytest.fixture
def old_processor(monkeypatch) -> None:
    def fails(layer: nn.RNNBase) -> None:
        raise RuntimeError("could not create a primitive descriptor for the LSTM forward propagation primitive\nmore")

    monkeypatch.setattr(precision, "_train_in_bf16", fails)


def test_a_recurrent_network_trains_in_float32_after_one_line(old_processor):
    line = (
        "training.precision: bf16: this processor cannot train the model's recurrent layers in it (could not create a "
        "primitive descriptor for the LSTM forward propagation primitive); the model trains in float32"
    )
    with pytest.warns(UserWarning, match="bf16") as caught:
        stepper = Stepper(lstm(), Training(precision="bf16"))
    assert [str(each.message) for each in caught] == [line]
    assert stepper._precision == "float32"


@pytest.mark.parametrize(("model", "wanted"), [(lstm, "float32"), (lambda: nn.Linear(2, 2), "bf16")])
def test_other_models_and_precisions_are_not_asked(old_processor, model, wanted):
    assert usable_precision(model(), wanted) == wanted


def test_asking_changes_neither_weights_nor_gradients_nor_generators():
    model = lstm()
    before = [each.clone() for each in model.parameters()]
    state = torch.get_rng_state()
    usable_precision(model, "bf16")
    assert all(torch.equal(*each) for each in zip(before, model.parameters(), strict=True))
    assert all(each.grad is None for each in model.parameters())
    assert torch.equal(state, torch.get_rng_state())
