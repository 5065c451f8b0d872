"""Windows of a user's text, and texts of a Markov chain whose entropy is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from warmstart_sim.datasets import load
from warmstart_sim.datasets.markov_text import chain, draw, entropy_rate, stationary
from warmstart_sim.datasets.text_file import text_file
from warmstart_sim.errors import DataError
from warmstart_sim.seeding import numpy_generator

ROOT = Path("unused")
TEXT = "Größe: äß\n" * 20


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.mark.parametrize("level", ["character", "byte"])
def test_each_token_but_the_first_is_predicted_once_and_the_end_is_for_testing(text, level):
    dataset = text_file(ROOT, 0, path=text, level=level, length=7, test_fraction=0.25)
    whole = list(TEXT) if level == "character" else list(TEXT.encode())
    symbols = sorted(set(TEXT)) if level == "character" else range(256)
    cut = len(whole) - round(0.25 * len(whole))
    for samples, part in ((dataset.train, whole[:cut]), (dataset.test, whole[cut:])):
        tokens = [symbols.index(each) for each in part]
        count = (len(part) - 1) // 7
        assert samples.inputs.tolist() == [tokens[7 * k : 7 * k + 7] for k in range(count)]
        assert samples.labels.tolist() == [tokens[7 * k + 1 : 7 * k + 8] for k in range(count)]
    assert dataset.classes == dataset.vocabulary_size == len(symbols)
    assert load("text_file", {"path": text, "length": 7}, ROOT, 0).label_shape == (7,)


def test_what_cannot_be_read_or_cut_is_one_line(text, tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        text_file(ROOT, 0, path=tmp_path / "other.txt")
    with pytest.raises(DataError, match="has 200 characters, 20 of them for testing; a window of `length` 20 needs 21"):
        text_file(ROOT, 0, path=text, length=20)
    text.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is not UTF-8"):
        text_file(ROOT, 0, path=text)


def test_the_entropy_of_a_chain_is_that_of_its_equation():
    """With two symbols, P(1 | 0) = a and P(0 | 1) = b, pi = (b, a) / (a + b), and H is the mean of two entropies."""
    a, b = 0.3, 0.9
    chances = np.array([[1 - a, a], [b, 1 - b]])
    entropies = -(chances * np.log(chances)).sum(1)
    assert stationary(chances) == pytest.approx(np.array([b, a]) / (a + b))
    assert entropy_rate(chances) == pytest.approx((b * entropies[0] + a * entropies[1]) / (a + b))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_texts_have_the_frequencies_and_the_entropy_of_their_chain(order):
    chances = chain(4, order, 0.5, numpy_generator(0, "test"))
    samples = draw(chances, 20, 4000, numpy_generator(1, "test"))
    assert np.array_equal(samples.inputs[:, 1:], samples.labels[:, :-1])
    text = np.concatenate([samples.inputs, samples.labels[:, -1:]], axis=1)
    contexts = [text[:, k : text.shape[1] - order + k] for k in range(order)]
    surprise = -np.log(chances[(*contexts, text[:, order:])])
    assert surprise.mean() == pytest.approx(entropy_rate(chances), abs=4 * surprise.mean(1).std() / 4000**0.5)
    counts = np.zeros(chances.shape[:-1])
    np.add.at(counts, tuple(contexts), 1)
    assert counts / counts.sum() == pytest.approx(stationary(chances), abs=0.01)
    at_start = np.bincount(text[:, 0], minlength=4) / 4000
    assert at_start == pytest.approx(stationary(chances).reshape(4, -1).sum(1), abs=0.03)
