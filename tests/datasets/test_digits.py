from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from warmstart_sim.datasets.digits import digits, noisy_digits

ROOT = Path("unused")


def rows(*arrays) -> list[bytes]:
    return sorted(row.tobytes() for array in arrays for row in array)


def test_the_pixels_are_scikit_learns_values_scaled_to_a_byte_and_none_is_lost():
    dataset = digits(ROOT, 0)
    values, labels = load_digits(return_X_y=True)
    expected = np.array([round(255 * v / 16) for v in range(17)], dtype=np.uint8)[values.astype(int)]
    assert rows(dataset.train.inputs, dataset.test.inputs) == rows(expected)
    label_of = {row.tobytes(): label for row, label in zip(expected, labels, strict=True)}
    assert [label_of[row.tobytes()] for row in dataset.train.inputs] == dataset.train.labels.tolist()
    assert [label_of[row.tobytes()] for row in dataset.test.inputs] == dataset.test.labels.tolist()


def test_a_third_of_each_class_is_held_out():
    dataset = digits(ROOT, 0)
    train, test = np.bincount(dataset.train.labels), np.bincount(dataset.test.labels)
    assert np.all(np.abs(test / (train + test) - 1 / 3) < 0.01)


def test_training_pixels_have_mean_0_and_deviation_1_and_noise_adds_its_own():
    clean = noisy_digits(ROOT, 0, noise=0).train.inputs.astype(np.float64)
    assert clean.mean() == pytest.approx(0, abs=1e-6)
    assert clean.std() == pytest.approx(1, abs=1e-6)
    added = noisy_digits(ROOT, 0, noise=1.5).train.inputs - clean
    assert added.mean() == pytest.approx(0, abs=4 * 1.5 / np.sqrt(added.size))
    assert added.std() == pytest.approx(1.5, rel=0.01)


def test_the_statistics_come_from_the_training_part_alone():
    values, _ = load_digits(return_X_y=True)
    dataset = noisy_digits(ROOT, 0, noise=0)
    clean = np.concatenate([dataset.train.inputs, dataset.test.inputs[:599]]).reshape(1797, 64)
    low, high = clean.min(), clean.max()  # values 0 and 16
    restored = np.round((dataset.train.inputs - low) / (high - low) * 16)
    assert rows(np.round((clean - low) / (high - low) * 16).astype(int)) == rows(values.astype(int))
    assert (0 - restored.mean()) / restored.std() == pytest.approx(low, rel=1e-5)
    assert (16 - restored.mean()) / restored.std() == pytest.approx(high, rel=1e-5)


def test_no_image_is_in_both_parts():
    """No two of the 1,797 images are equal, so the clean pixels identify an image."""
    dataset = noisy_digits(ROOT, 3, noise=0, test_draws=1)
    assert len(set(rows(dataset.train.inputs, dataset.test.inputs))) == 1797


def test_test_images_repeat_with_noise_of_their_own():
    noisy, clean = (noisy_digits(ROOT, 0, noise=noise, test_draws=3).test for noise in (1.0, 0))
    draws, repeated = noisy.inputs.reshape(3, -1), clean.inputs.reshape(3, -1)
    assert np.array_equal(repeated[0], repeated[1])
    assert np.array_equal(clean.labels[:599], clean.labels[599:1198])
    assert abs(np.corrcoef(draws - repeated)[np.triu_indices(3, 1)]).max() < 0.03


def test_the_number_of_test_draws_and_the_noise_leave_split_and_training_noise_alone():
    one, other = (noisy_digits(ROOT, 0, test_draws=draws).train for draws in (1, 4))
    assert np.array_equal(one.inputs, other.inputs)
    quiet = noisy_digits(ROOT, 0, noise=0).train
    assert np.array_equal(one.labels, quiet.labels)


def test_the_seed_draws_the_split_and_the_fraction_its_size():
    one, other = (noisy_digits(ROOT, seed, noise=0).train for seed in (0, 1))
    assert rows(one.inputs) != rows(other.inputs)
    dataset = noisy_digits(ROOT, 0, test_fraction=0.1, test_draws=1)
    assert len(dataset.test) == pytest.approx(179.7, abs=5)
