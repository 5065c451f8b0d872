from pathlib import Path

import numpy as np
import pytest

from warmstart_sim.datasets import validate
from warmstart_sim.datasets.known_sizes import IMAGE_SETS
from warmstart_sim.datasets.synthetic import synthetic
from warmstart_sim.registry import DATASETS

ROOT = Path("unused")


@pytest.mark.parametrize("like", IMAGE_SETS)
def test_every_image_set_has_a_synthetic_version_of_its_shape(like):
    dataset = validate(synthetic(ROOT, 0, like=like, train_samples=200, test_samples=50))
    assert (dataset.input_shape, dataset.classes) == (IMAGE_SETS[like].shape, IMAGE_SETS[like].classes)
    assert (len(dataset.train), len(dataset.test)) == (200, 50)
    assert dataset.train.inputs.dtype == np.uint8


def test_shape_and_classes_can_be_set_down_to_a_single_pixel():
    dataset = validate(synthetic(ROOT, 0, shape=(1, 1, 1), classes=2, train_samples=10, test_samples=10))
    assert dataset.input_shape == (1, 1, 1)
    options = DATASETS.schema("synthetic")(shape=[3, 16, 24], classes=7)
    assert synthetic(ROOT, 0, **options.model_dump()).input_shape == (3, 16, 24)


def test_classes_have_equal_shares():
    assert set(np.bincount(synthetic(ROOT, 0, like="mnist", train_samples=205).train.labels)) == {20, 21}


def test_test_images_do_not_depend_on_the_number_of_training_images():
    one, other = (synthetic(ROOT, 0, like="digits", train_samples=count).test for count in (10, 2500))
    assert np.array_equal(one.inputs, other.inputs)
    assert np.array_equal(one.labels, other.labels)


def test_training_and_test_images_differ():
    dataset = synthetic(ROOT, 0, like="digits", train_samples=500, test_samples=500)
    images = np.concatenate([dataset.train.inputs, dataset.test.inputs]).reshape(1000, -1)
    assert len(np.unique(images, axis=0)) == 1000


def test_sets_of_the_same_shape_have_different_patterns():
    def class_means(like):
        train = synthetic(ROOT, 0, like=like, train_samples=1000).train
        return np.stack([train.inputs[train.labels == k].mean(axis=0).ravel() for k in range(10)])

    photographs, numbers = class_means("cifar10"), class_means("svhn")
    correlation = [abs(np.corrcoef(photographs[k], numbers[k])[0, 1]) for k in range(10)]
    assert np.mean(correlation) < 0.3


def test_few_pixels_are_clipped():
    pixels = synthetic(ROOT, 0, train_samples=200).train.inputs
    assert np.isin(pixels, (0, 255)).mean() < 0.05
    assert pixels.std() > 30


@pytest.mark.parametrize("like", ["cifar10", "mnist", "digits"])
def test_a_small_network_learns_it_but_not_to_perfection(like):
    import torch
    from torch import nn

    dataset = synthetic(ROOT, 0, like=like, train_samples=1000)
    (x, y), (x_test, y_test) = (
        (torch.from_numpy(s.inputs).float() / 64 - 2, torch.from_numpy(s.labels)) for s in (dataset.train, dataset.test)
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.LazyConv2d(16, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(8)),
            *(nn.LazyConv2d(32, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(4)),
            *(nn.Flatten(), nn.LazyLinear(10)),
        )
        model(x[:1])
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(8):
            for batch in torch.randperm(len(x)).split(50):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
                optimizer.step()
    accuracy = (model(x_test).argmax(dim=1) == y_test).float().mean().item()
    assert 0.3 < accuracy < 0.9
