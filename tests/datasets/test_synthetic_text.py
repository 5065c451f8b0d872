from pathlib import Path

import numpy as np
import pytest

from warmstart_sim.datasets import load, validate
from warmstart_sim.datasets.synthetic_text import synthetic_text

ROOT = Path("unused")


def test_it_has_the_requested_sizes_and_meets_the_contract():
    dataset = validate(synthetic_text(ROOT, 0, vocabulary=50, length=9, classes=3, train_samples=70, test_samples=20))
    assert (dataset.train.inputs.shape, dataset.test.inputs.shape) == ((70, 9), (20, 9))
    assert (dataset.classes, dataset.vocabulary_size) == (3, 52)
    default = load("synthetic_text", {}, ROOT, 0)
    assert (default.train.inputs.shape, default.test.inputs.shape) == ((2000, 60), (500, 60))
    assert (default.classes, default.vocabulary_size) == (2, 1002)


@pytest.mark.parametrize("vocabulary", [1, 2, 7])
@pytest.mark.parametrize("length", [1, 4, 5])
def test_small_vocabularies_and_lengths_work(vocabulary, length):
    dataset = validate(synthetic_text(ROOT, 0, vocabulary=vocabulary, length=length))
    assert dataset.train.inputs.max() == vocabulary + 1


def test_lengths_range_from_a_few_words_to_the_maximum_and_no_word_is_unknown():
    tokens = synthetic_text(ROOT, 0, length=20).train.inputs
    lengths = (tokens > 0).sum(axis=1)
    assert set(lengths) == set(range(5, 21))
    assert 1 not in tokens


def test_shared_words_follow_zipfs_law():
    tokens = synthetic_text(ROOT, 0, vocabulary=100, train_samples=20_000).train.inputs
    counts = np.bincount(tokens[tokens > 0], minlength=102)[2:]
    zipf = 1 / np.arange(1, 101)
    least = 0.85 * zipf / zipf.sum()
    share = counts / counts.sum()
    assert np.all(share > least - 4 * np.sqrt(least / counts.sum()))
    assert np.abs(share - least).sum() == pytest.approx(0.15, abs=0.01)


def test_classes_have_equal_shares():
    dataset = synthetic_text(ROOT, 0, classes=3, train_samples=200)
    assert set(np.bincount(dataset.train.labels)) == {66, 67}


def test_test_texts_do_not_depend_on_the_number_of_training_texts():
    one, other = (synthetic_text(ROOT, 0, train_samples=count).test for count in (10, 3000))
    assert np.array_equal(one.inputs, other.inputs)
    assert np.array_equal(one.labels, other.labels)


def test_training_and_test_texts_differ():
    dataset = synthetic_text(ROOT, 0, length=40)
    long = [row for part in (dataset.train, dataset.test) for row in part.inputs.tolist() if row[20]]
    assert len({tuple(row) for row in long}) == len(long)


def naive_bayes_accuracy(dataset, samples: int) -> float:
    """Test accuracy of naive Bayes with word frequencies from the first `samples` training texts."""
    size = dataset.vocabulary_size
    counts = np.ones((dataset.classes, size))
    for row, label in zip(dataset.train.inputs[:samples], dataset.train.labels[:samples], strict=True):
        np.add.at(counts[label], row[row > 0], 1)
    scores = np.log(counts / counts.sum(axis=1, keepdims=True))
    scores[:, 0] = 0
    guesses = scores[:, dataset.test.inputs].sum(axis=2).argmax(axis=0)
    return float((guesses == dataset.test.labels).mean())


@pytest.mark.parametrize("classes", [2, 5])
def test_more_texts_give_higher_but_never_perfect_accuracy(classes):
    dataset = synthetic_text(ROOT, 0, classes=classes, test_samples=2000)
    few, many = (naive_bayes_accuracy(dataset, samples) for samples in (100, 2000))
    assert 1 / classes + 0.1 < few < many - 0.05
    assert 0.7 < many < 0.97


def test_a_small_network_learns_it_but_not_at_once_nor_to_perfection():
    import torch
    from torch import nn

    dataset = synthetic_text(ROOT, 0)
    (x, y), (x_test, y_test) = (
        (torch.from_numpy(s.inputs), torch.from_numpy(s.labels)) for s in (dataset.train, dataset.test)
    )
    accuracies = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.EmbeddingBag(dataset.vocabulary_size, 16, padding_idx=0), nn.Linear(16, 2))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(10):
            for batch in torch.randperm(len(x)).split(50):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
                optimizer.step()
            accuracies.append((model(x_test).argmax(dim=1) == y_test).float().mean().item())
    assert accuracies[0] < accuracies[-1] - 0.05
    assert 0.8 < accuracies[-1] < 0.97
