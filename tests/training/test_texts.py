"""Texts: batches cut to their longest, batches of similar length, and that neither changes what is trained on."""

import copy
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from warmstart_sim import models
from warmstart_sim.errors import WarmstartError
from warmstart_sim.parts.augment import Augment
from warmstart_sim.seeding import scoped_torch_seed
from warmstart_sim.training import evaluation
from warmstart_sim.training.batches import DeviceSamples, batch_sizes, bucket_by_length, epoch_order
from warmstart_sim.training.evaluation import evaluate, train_accuracy
from warmstart_sim.training.loop import RoundData, RoundTraining, train
from warmstart_sim.training.settings import Training
from warmstart_sim.training.stepper import Stepper
from warmstart_sim.types import Samples

CPU = torch.device("cpu")
WIDTH, VOCABULARY, COUNT = 12, 9, 70
RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(1, 10, COUNT)
TOKENS = RNG.integers(1, VOCABULARY, (COUNT, WIDTH)) * (np.arange(WIDTH) < LENGTHS[:, None])
# The class is which of the tokens 1 and 2 comes first in a text: nothing that a bag of words could know.
LABELS = np.array([0 if 1 in row and (2 not in row or row.index(1) < row.index(2)) else 1 for row in TOKENS.tolist()])
TEXTS = DeviceSamples(Samples(TOKENS, LABELS), None, CPU)


def fresh(**options) -> nn.Module:
    with scoped_torch_seed(0, "test"):
        return models.build("bilstm", {"embedding": 6, "hidden": 8, **options}, (WIDTH,), 2, VOCABULARY)


def training(model, settings, samples=TEXTS, indices=None, hooks=()) -> RoundTraining:
    nothing = torch.arange(0)
    indices = torch.arange(COUNT).flip(0) if indices is None else indices
    data = RoundData(samples, indices, nothing, samples, nothing)
    settings = Training(**{"batch_size": 16, "until": {"epochs": 2}, **settings})
    return RoundTraining(Stepper(model, settings), data, hooks, seed=5, round_index=2)


def seen_by(model: nn.Module) -> list[torch.Tensor]:
    """The list into which every batch goes that the model is given from now on."""
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    return seen


def test_lengths_are_those_of_the_texts_and_a_text_without_tokens_keeps_one_padding():
    assert TEXTS.lengths.tolist() == LENGTHS.tolist()
    assert TEXTS.mean_length == round(LENGTHS.mean())
    assert DeviceSamples(Samples(np.zeros((2, 5), dtype=np.int64), LABELS[:2]), None, CPU).lengths.tolist() == [1, 1]


def test_a_batch_is_cut_to_its_longest_text_and_loses_no_token():
    model = fresh()
    seen = seen_by(model)
    train(training(model, {"until": {"epochs": 1}}))
    order = torch.arange(COUNT).flip(0)[epoch_order(COUNT, 5, 2, 0)]
    expected = [TOKENS[index, : LENGTHS[index].max()] for index in order.split(batch_sizes(COUNT, 16))]
    assert [batch.tolist() for batch in seen] == [batch.tolist() for batch in expected]


def test_training_on_cut_batches_equals_a_plain_loop_over_padded_ones():
    model = fresh(dropout=0).double()
    other = copy.deepcopy(model)
    train(training(model, {"optimizer": {"lr": 0.01}, "until": {"epochs": 2}}))
    adam = torch.optim.Adam(other.parameters(), lr=0.01)
    tokens, labels = torch.from_numpy(TOKENS).flip(0), torch.from_numpy(LABELS).flip(0)
    for epoch in range(2):
        for index in epoch_order(COUNT, 5, 2, epoch).split(16):
            adam.zero_grad()
            F.cross_entropy(other(tokens[index]), labels[index]).backward()
            adam.step()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, other.state_dict()[name], rtol=0, atol=1e-9)


def test_a_recurrent_network_learns_the_order_of_words():
    model = fresh(dropout=0)
    result = training(model, {"optimizer": {"lr": 0.02}, "bucketing": 2, "until": {"train_accuracy": 0.99}})
    train(result)
    assert result.status == "converged"
    assert result.epochs < 100


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=80),
    size=st.integers(1, 12),
    bucketing=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_every_run_of_batches_is_sorted_and_cut_anew(lengths, size, bucketing, seed):
    order, sizes = epoch_order(len(lengths), seed, 0, 0), batch_sizes(len(lengths), size)
    generator = torch.Generator().manual_seed(seed)
    found, found_sizes = bucket_by_length(order, sizes, torch.tensor(lengths), bucketing, generator)
    assert sorted(found.tolist()) == list(range(len(lengths)))
    assert sorted(found_sizes) == sorted(sizes)

    expected, start = Counter(), 0
    for first in range(0, len(sizes), bucketing):
        run = sizes[first : first + bucketing]
        texts = sorted(order[start : start + sum(run)].tolist(), key=lambda text: lengths[text])
        start += sum(run)
        for count in run:
            expected[tuple(texts[:count])] += 1
            texts = texts[count:]
    assert Counter(tuple(batch.tolist()) for batch in found.split(found_sizes)) == expected


def test_bucketed_epochs_hold_every_text_once_and_differ_from_each_other():
    samples = DeviceSamples(Samples(1 + np.arange(49)[:, None], np.zeros(49, dtype=np.int64)), None, CPU)
    with scoped_torch_seed(0, "test"):
        model = models.build("bilstm", {"embedding": 2, "hidden": 2}, (1,), 2, 60)
    seen = seen_by(model)
    for _ in range(2):  # the same again from the same seed
        train(training(model, {"bucketing": 2}, samples, torch.arange(49)))
    epochs = [torch.cat(seen[k : k + 3]).flatten().tolist() for k in range(0, 12, 3)]
    assert all(sorted(epoch) == list(range(1, 50)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert epochs[:2] == epochs[2:]
    assert sorted(len(batch) for batch in seen[:3]) == [16, 16, 17]  # a last batch of one still joins its neighbour


def test_bucketing_needs_less_padding():
    def padding(settings):
        model = fresh()
        seen = seen_by(model)
        train(training(model, settings))
        return sum((batch == 0).sum().item() for batch in seen)

    assert padding({"bucketing": 5}) < padding({"bucketing": 2}) < padding({})


def test_a_steps_rule_cuts_a_bucketed_epoch_short():
    result = training(fresh(), {"bucketing": 2, "until": {"steps": 7}})  # five batches an epoch
    train(result)
    assert (result.steps, result.epochs, result.status) == (7, 2, "finished")


def test_a_bucketed_round_resumed_at_an_epochs_border_equals_one_that_ran_through():
    model = fresh()  # with dropout
    start = copy.deepcopy(model.state_dict())
    train(training(model, {"bucketing": 2, "until": {"epochs": 3}}))
    weights = copy.deepcopy(model.state_dict())
    model.load_state_dict(start)
    first = training(model, {"bucketing": 2, "until": {"epochs": 3}})
    first.run_epoch()
    saved = copy.deepcopy(first.state_dict())
    model.load_state_dict(start)
    resumed = training(model, {"bucketing": 2, "until": {"epochs": 3}})
    resumed.load_state_dict(saved)
    train(resumed)
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())


def test_evaluation_equals_a_plain_loop_over_single_texts_and_takes_short_texts_first(monkeypatch):
    monkeypatch.setitem(evaluation.BATCH, "cpu", 8)
    model = fresh().eval()
    indices = torch.arange(3, COUNT)
    tokens, labels = torch.from_numpy(TOKENS)[3:], torch.from_numpy(LABELS)[3:]
    with torch.no_grad():
        logits = torch.cat([model(text[None, :length]) for text, length in zip(tokens, LENGTHS[3:], strict=True)])
    seen = seen_by(model)
    accuracy, loss = evaluate(model, TEXTS, indices)
    assert accuracy == (logits.argmax(1) == labels).double().mean().item()
    assert loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert [batch.shape[1] for batch in seen] == [max(part) for part in np.split(np.sort(LENGTHS[3:]), range(8, 67, 8))]

    seen.clear()
    assert train_accuracy(model, TEXTS, indices) == accuracy
    assert [len(batch) for batch in seen] == [8] * 8 + [3]
    assert seen[0].tolist() == TOKENS[:-9:-1, : LENGTHS[-8:].max()].tolist()  # the newest, which stand last


def test_other_inputs_are_neither_cut_nor_reordered():
    images = DeviceSamples(Samples(np.zeros((5, 3, 4, 4), dtype=np.uint8), np.zeros(5, dtype=np.int64)), None, CPU)
    indices = torch.tensor([3, 1, 2])
    assert (images.lengths, images.mean_length) == (None, None)
    assert images.widths(indices, [2, 1]) == [None, None]
    assert images.by_length(indices) is indices
    assert images.batch(indices)[0].shape == (3, 3, 4, 4)


def test_bucketing_of_what_is_no_text_is_one_line_before_anything_trains():
    images = DeviceSamples(Samples(np.zeros((70, 3, 4, 4), dtype=np.uint8), LABELS), None, CPU)
    line = r"^training.bucketing is for texts, .* it is 8, and one input has shape \(3, 4, 4\); leave it out$"
    with pytest.raises(WarmstartError, match=line):
        training(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), {"bucketing": 8}, images)


def test_augmentation_of_texts_is_one_line():
    hooks = [Augment(random_crop=4)({}, {}, None)]
    with pytest.raises(WarmstartError, match=r"^augment needs images, .* not \(16, \d+\)$"):
        training(fresh(), {}, hooks=hooks).run_epoch()
