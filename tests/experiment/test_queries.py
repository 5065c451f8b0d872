"""Queries of active learning against plain loops over samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from warmstart_sim.errors import WarmstartError
from warmstart_sim.experiment import queries
from warmstart_sim.streams.active import active


def logits_of(seed: int, n: int = 30, classes: int = 5) -> np.ndarray:
    return 3 * np.random.default_rng(seed).normal(size=(n, classes))


@given(seed=st.integers(0, 1000), count=st.integers(1, 30))
def test_margin_and_entropy_choose_the_least_certain(seed, count):
    logits = logits_of(seed)
    margins, entropies = [], []
    for row in torch.tensor(logits).softmax(1):
        first, second = row.topk(2).values.tolist()
        margins.append(first - second)
        entropies.append(torch.distributions.Categorical(probs=row).entropy().item())
    assert queries.margin(logits, count).tolist() == np.argsort(margins)[:count].tolist()
    assert queries.entropy(logits, count).tolist() == np.argsort(entropies)[::-1][:count].tolist()


def test_an_impossible_class_has_no_part_in_entropy():
    assert queries.entropy(np.array([[0.0, -1e9], [1.0, 0.0]]), 2).tolist() == [1, 0]


@given(seed=st.integers(0, 1000), count=st.integers(1, 12))
def test_badge_is_k_means_plus_plus_on_the_gradients_of_the_last_layer(seed, count):
    """Gradients by autograd, distances between whole vectors, one at a time."""
    torch.manual_seed(seed)
    head, features = nn.Linear(7, 5, dtype=torch.float64), torch.randn(12, 7, dtype=torch.float64)
    logits = head(features)
    gradients = []
    for row in logits:
        loss = F.cross_entropy(row[None], row.argmax()[None])
        gradients.append(torch.autograd.grad(loss, head.weight, retain_graph=True)[0].flatten().numpy())
    generator = np.random.default_rng(seed)
    chosen = [int(np.argmax([np.linalg.norm(each) for each in gradients]))]
    while len(chosen) < count:
        nearest = np.array([min(((each - gradients[k]) ** 2).sum() for k in chosen) for each in gradients])
        chosen.append(int(generator.choice(12, p=nearest / nearest.sum())))
    found = queries.badge(logits.detach().numpy(), features.numpy(), count, np.random.default_rng(seed))
    assert found.tolist() == chosen


def test_badge_chooses_each_sample_once_even_if_all_are_equal():
    found = queries.badge(np.zeros((6, 3)), np.ones((6, 2)), 6, np.random.default_rng(0))
    assert sorted(found) == list(range(6))


def test_the_first_rounds_are_random_and_sizes_are_known():
    rounds = active(np.zeros(50, int), np.arange(10, 50), 0, initial=5, chunk_size=20)
    assert [len(each.new) for each in rounds] == [5, 20, 15]
    with pytest.raises(WarmstartError, match=r"stream.initial: 41 is more than the 40 available"):
        active(np.zeros(50, int), np.arange(10, 50), 0, initial=41)
    with pytest.raises(WarmstartError, match=r"stream.chunk_size: 100 is more than the 40 available"):
        active(np.zeros(50, int), np.arange(10, 50), 0)
