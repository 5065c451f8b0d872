"""The confidence penalty against torch's entropy, and at the two ends of confidence."""

import math

import torch
from torch.distributions import Categorical
from torch.nn import functional as F

from warmstart_sim.parts.confidence_penalty import ConfidencePenalty, entropy


def logits(rows=7, classes=5, scale=3.0):
    return scale * torch.randn(rows, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def term(strength):
    return ConfidencePenalty(strength=strength)({}, {}, None).loss_term


def test_the_entropy_is_that_of_torchs_categorical():
    torch.testing.assert_close(entropy(logits()), Categorical(logits=logits()).entropy())


def test_it_subtracts_strength_times_the_mean_entropy_and_so_does_its_gradient():
    ours, reference = logits().requires_grad_(), logits().requires_grad_()
    term(0.3)(None, ours).backward()
    (-0.3 * Categorical(logits=reference).entropy().mean()).backward()
    torch.testing.assert_close(ours.grad, reference.grad)


def test_from_certainty_to_indifference_it_is_worth_strength_times_log_classes():
    certain = 1000 * F.one_hot(torch.arange(4), 10).float()  # p log p of probabilities that underflow to zero is zero
    assert term(0.1)(None, certain).item() == 0
    torch.testing.assert_close(term(0.1)(None, torch.zeros(4, 10)), torch.tensor(-0.1 * math.log(10)))


def test_the_minimum_of_loss_and_penalty_is_where_the_closed_form_says():
    """For one sample: with q = p_label and the other classes equal, strength log(q (K - 1) / (1 - q)) = 1 / q."""
    strength, classes = 0.5, 4
    free = torch.zeros(1, classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([free], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(free, torch.tensor([0])) + term(strength)(None, free)
        loss.backward()
        return loss

    optimizer.step(closure)
    q, others = (p := free.detach().softmax(1)[0])[0], p[1:]
    torch.testing.assert_close(others, ((1 - q) / (classes - 1)).expand(classes - 1))
    torch.testing.assert_close(strength * (q * (classes - 1) / (1 - q)).log(), 1 / q)


def test_hooks_of_two_rounds_are_equal_and_a_strength_of_zero_adds_nothing():
    part = ConfidencePenalty(strength=0.1)
    assert part({}, {}, None) == ConfidencePenalty(strength=0.1)({}, {}, None)
    assert ConfidencePenalty(strength=0)({}, {}, None).loss_term is None
