"""Corrupted MNIST and CIFAR-10, from small files in the published format."""

from typing import get_args

import numpy as np
import pytest

from warmstart_sim.datasets import corrupted_sets, validate
from warmstart_sim.datasets.corrupted_sets import cifar10_corrupted, mnist_corrupted
from warmstart_sim.datasets.known_sizes import IMAGE_SETS, ImageSet
from warmstart_sim.errors import DataError
from warmstart_sim.types import Dataset, Samples

RNG = np.random.default_rng(0)
CLEAN = Samples(RNG.integers(0, 256, (20, 3, 32, 32), dtype=np.uint8), np.arange(20) % 10)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Writes arrays below the root, which it returns."""
    monkeypatch.setitem(IMAGE_SETS, "mnist_corrupted", ImageSet((1, 28, 28), 10, 20, 10))
    monkeypatch.setitem(IMAGE_SETS, "cifar10_corrupted", ImageSet((3, 32, 32), 10, 20, 10))
    monkeypatch.setattr(corrupted_sets, "cifar10", lambda root, seed: Dataset("cifar10", CLEAN, CLEAN, 10))

    def write(**arrays):
        for name, array in arrays.items():
            path = tmp_path / (name.replace("__", "/") + ".npy")
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, array)
        return tmp_path

    return write


def pixels(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def test_mnist_is_read_from_the_folder_of_its_corruption(files):
    train, test = pixels(20, 28, 28, 1), pixels(10, 28, 28, 1)
    labels = np.arange(20, dtype=np.uint8) % 10
    root = files(
        mnist_c__fog__train_images=train, mnist_c__fog__train_labels=labels,
        mnist_c__fog__test_images=test, mnist_c__fog__test_labels=labels[:10],
    )  # fmt: skip
    dataset = validate(mnist_corrupted(root, 0, corruption="fog"))
    assert np.array_equal(dataset.train.inputs[:, 0], train[..., 0])
    assert np.array_equal(dataset.test.inputs[:, 0], test[..., 0])
    assert dataset.train.labels.tolist() == labels.tolist()
    with pytest.raises(DataError, match=r"mnist_c/identity/train_images.npy not found in .*; unpack mnist_c.zip"):
        mnist_corrupted(root, 0)


@pytest.mark.parametrize("severity", [1, 5])
def test_cifar_trains_on_clean_images_and_tests_on_those_of_one_severity(files, severity):
    images, labels = pixels(50, 32, 32, 3), np.tile(RNG.permutation(10).astype(np.uint8), 5)
    name = "CIFAR-10-C__frost"
    root = files(**{name: images, "CIFAR-10-C__labels": labels})
    dataset = validate(cifar10_corrupted(root, 0, corruption="frost", severity=severity))
    assert dataset.name == "cifar10_corrupted"
    assert np.array_equal(dataset.train.inputs, CLEAN.inputs)
    first = 10 * (severity - 1)
    assert np.array_equal(dataset.test.inputs[3], images[first + 3].transpose(2, 0, 1))
    assert dataset.test.labels.tolist() == labels[:10].tolist()


def test_files_of_another_kind_are_named(files):
    root = files(**{"CIFAR-10-C__fog": pixels(3, 32, 32, 3)})
    with pytest.raises(DataError, match=r"fog.npy has shape \(3, 32, 32, 3\), not \(50, 32, 32, 3\); unpack"):
        cifar10_corrupted(root, 0, corruption="fog")
    (root / "CIFAR-10-C" / "fog.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match=r"fog.npy is damaged or no .npy file of numbers"):
        cifar10_corrupted(root, 0, corruption="fog")
    with pytest.raises(DataError, match=r"^cifar10_corrupted: CIFAR-10-C/brightness.npy not found in .*--rehearse$"):
        cifar10_corrupted(root, 0)


def test_the_published_corruptions_can_be_named():
    assert len(get_args(corrupted_sets.MnistCorruption)) == 1 + 15
    assert len(get_args(corrupted_sets.CifarCorruption)) == 15 + 4
