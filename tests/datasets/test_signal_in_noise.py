"""The signal features encode the label, the others are noise, and everything comes from the seed."""

from pathlib import Path

import numpy as np
import pytest

from warmstart_sim.datasets.signal_in_noise import signal_in_noise


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_the_first_three_features_are_the_bits_of_the_label_times_alpha(alpha):
    train = signal_in_noise(Path(), 0, alpha=alpha).train
    assert train.inputs.shape == (256, 128)
    for label, corner in {0: (-1, -1, -1), 5: (1, -1, 1), 7: (1, 1, 1)}.items():  # 0 and 5 are the paper's examples
        signal = train.inputs[train.labels == label, :3]
        assert len(signal)
        assert np.array_equal(signal, np.broadcast_to(alpha * np.array(corner), signal.shape))


def test_the_rest_is_standard_normal_and_labels_are_uniform():
    test = signal_in_noise(Path(), 0).test
    noise = test.inputs[:, 3:].astype(np.float64)
    assert noise.mean() == pytest.approx(0, abs=0.005)  # 1.25 million draws
    assert noise.std() == pytest.approx(1, abs=0.005)
    assert np.bincount(test.labels, minlength=8) == pytest.approx(1250, abs=150)  # over four deviations


def test_seeds_decide_and_the_number_of_test_samples_does_not():
    one, same, other = (signal_in_noise(Path(), seed, test_samples=count) for seed, count in ((0, 9), (0, 99), (1, 9)))
    assert np.array_equal(one.train.inputs, same.train.inputs)
    assert np.array_equal(one.test.labels, same.test.labels[:9])
    assert not np.array_equal(one.train.labels, other.train.labels)
    assert not np.array_equal(one.train.inputs[:9, 3:], one.test.inputs[:, 3:])
