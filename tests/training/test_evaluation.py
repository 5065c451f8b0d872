"""Accuracy counted in samples, in evaluation mode; and the criterion's early exit against the full pass."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from warmstart_sim.training import evaluation
from warmstart_sim.training.batches import DeviceSamples
from warmstart_sim.training.evaluation import evaluate, fewest_correct, train_accuracy
from warmstart_sim.types import Samples


def scored(correct: np.ndarray) -> tuple[nn.Module, DeviceSamples]:
    """A model and samples of which exactly those marked are classified correctly."""
    inputs = np.stack([correct, ~correct], axis=1).astype(np.float32)  # logits: class 0 is right where marked
    return nn.Identity(), DeviceSamples(
        Samples(inputs, np.zeros(len(correct), dtype=np.int64)), None, torch.device("cpu")
    )


@given(marks=st.lists(st.booleans(), min_size=1, max_size=60), threshold=st.floats(0, 1), batch=st.integers(1, 20))
def test_the_early_exit_decides_as_a_full_pass_does(marks, threshold, batch):
    model, samples = scored(np.array(marks))
    indices = torch.arange(len(marks))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(evaluation.BATCH, "cpu", batch)
        full = train_accuracy(model, samples, indices)
        early = train_accuracy(model, samples, indices, at_least=threshold)
    assert full == sum(marks) / len(marks)
    assert (early is not None and early >= threshold) == (full >= threshold)
    assert early is None or early == full


def test_the_early_exit_looks_no_further_than_it_must():
    marks = np.array([True] * 90 + [False] * 10)  # the newest, which stand last, are wrong
    model, samples = scored(marks)
    seen = []
    model.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(evaluation.BATCH, "cpu", 5)
        assert train_accuracy(model, samples, torch.arange(100), at_least=0.99) is None
    assert seen == [5]


@given(threshold=st.floats(0, 1), count=st.integers(1, 10_000))
def test_fewest_correct_is_the_boundary_of_the_comparison(threshold, count):
    k = fewest_correct(threshold, count)
    assert k / count >= threshold
    assert k == 0 or (k - 1) / count < threshold


def test_accuracy_weighs_samples_and_not_batches(monkeypatch):
    monkeypatch.setitem(evaluation.BATCH, "cpu", 4)
    model, samples = scored(np.array([True] * 4 + [False]))  # batches of 4 and 1: a mean of batches would say 0.5
    accuracy, loss = evaluate(model, samples, torch.arange(5))
    assert accuracy == 0.8
    logits = samples.inputs
    assert loss == pytest.approx(nn.functional.cross_entropy(logits, samples.labels).item())


def test_evaluation_uses_evaluation_mode_and_leaves_model_and_buffers_as_they_were():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5), nn.BatchNorm1d(2).eval())  # the last is frozen
    _, samples = scored(np.array([True, False] * 10))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, second = (evaluate(model, samples, torch.arange(20)) for _ in range(2))
    assert first == second
    assert model.training
    assert [module.training for module in model] == [True, True, False]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_without_samples_there_is_no_accuracy():
    model, samples = scored(np.array([True]))
    assert all(math.isnan(value) for value in evaluate(model, samples, torch.arange(0)))
