"""Batches: nothing dropped, the same order everywhere, and normalisation as torchvision has it."""

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from hypothesis import given
from hypothesis import strategies as st

from warmstart_sim.training.batches import CONSTANTS, DeviceSamples, batch_sizes, epoch_order, normalization
from warmstart_sim.types import Samples

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 3, 5, 4), dtype=np.uint8)
LABELS = np.arange(40) % 10


@given(count=st.integers(1, 2000), size=st.integers(1, 300))
def test_every_sample_is_in_a_batch_and_only_a_lone_sample_joins_its_neighbour(count, size):
    sizes = batch_sizes(count, size)
    assert sum(sizes) == count
    assert set(sizes[:-1]) <= {size}
    assert 1 <= sizes[-1] <= size + 1
    if count > 1 and size > 1:
        assert sizes[-1] >= 2  # BatchNorm cannot train on one


def test_orders_are_permutations_that_depend_on_seed_round_and_epoch():
    orders = [epoch_order(50, *place) for place in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]]
    assert all(torch.equal(order.sort().values, torch.arange(50)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 4
    assert torch.equal(orders[0], epoch_order(50, 0, 0, 0))


@pytest.mark.parametrize("kind", ["cifar10", "imagenet", "half"])
def test_constants_normalise_as_torchvision_does(kind):
    samples = DeviceSamples(Samples(IMAGES, LABELS), normalization(kind, IMAGES), CPU)
    inputs, labels = samples.batch(torch.arange(7))
    mean, deviation = (list(values) * (3 // len(values)) for values in CONSTANTS[kind])
    expected = tv.normalize(torch.from_numpy(IMAGES[:7]).float() / 255, mean, deviation)
    assert torch.allclose(inputs, expected, atol=1e-5)
    assert labels.tolist() == LABELS[:7].tolist()


@pytest.mark.parametrize("inputs", [IMAGES, IMAGES.astype(np.float32) - 90, IMAGES.reshape(40, -1).astype(np.float32)])
def test_train_statistics_give_mean_zero_and_deviation_one_for_each_channel(inputs):
    samples = DeviceSamples(Samples(inputs, LABELS), normalization("train", inputs), CPU)
    normalised, _ = samples.batch(torch.arange(40))
    axes = [0, *range(2, inputs.ndim)]
    assert torch.allclose(normalised.mean(axes), torch.zeros(1), atol=1e-5)
    assert torch.allclose(normalised.std(axes, correction=0), torch.ones(1), atol=1e-4)


def test_a_constant_feature_is_centred_and_not_divided_by_zero():
    inputs = np.ones((6, 2), dtype=np.float32)
    normalised, _ = DeviceSamples(Samples(inputs, LABELS[:6]), normalization("train", inputs), CPU).batch(
        torch.arange(6)
    )
    assert torch.equal(normalised, torch.zeros(6, 2))


def test_tokens_and_floats_without_normalisation_go_to_the_model_as_they_are():
    tokens = np.arange(12).reshape(4, 3)
    for inputs in (tokens, tokens.astype(np.float32)):
        assert normalization("none", inputs) is None
    given, _ = DeviceSamples(Samples(tokens, LABELS[:4]), None, CPU).batch(torch.tensor([2]))
    assert given.dtype == torch.int64
    assert given.tolist() == [[6, 7, 8]]


def test_a_raw_batch_normalised_later_equals_a_batch():
    samples = DeviceSamples(Samples(IMAGES, LABELS), normalization("train", IMAGES), CPU)
    index = torch.tensor([3, 1])
    assert torch.allclose(samples.normalized(samples.raw_batch(index)[0]), samples.batch(index)[0], atol=1e-5)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", [(20, 3, 5, 4), (20, 1, 5, 4), (20, 7)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_inputs_normalised_once_for_all_are_those_normalised_batch_by_batch(monkeypatch, dtype, shape, channels_last):
    inputs = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    samples = Samples(inputs.copy(), np.arange(20) % 3)
    index = torch.tensor([7, 0, 19, 7, 3])
    batches = []
    for most, most_pixels in ((2**20, 2**20), (2**20, 0), (0, 0)):
        monkeypatch.setattr("warmstart_sim.training.batches.MAX_NORMALIZED_BYTES", {"cpu": most})
        monkeypatch.setattr("warmstart_sim.training.batches.MAX_NORMALIZED_PIXELS", {"cpu": most_pixels})
        on_device = DeviceSamples(samples, normalization("train", inputs), torch.device("cpu"), channels_last)
        batches.append(on_device.batch(index))
        assert (samples.inputs == inputs).all(), "the samples in memory stay as they are"
    (once, labels), *others = batches
    for each, expected in others:
        assert torch.equal(once, each)
        assert once.stride() == each.stride()
        assert torch.equal(labels, expected)


def test_pixels_outside_the_image_are_black_before_normalisation():
    from warmstart_sim.parts.augment import Augment
    from warmstart_sim.types import Batch

    white = np.full((64, 3, 8, 8), 255, dtype=np.uint8)
    samples = DeviceSamples(Samples(white, np.zeros(64, dtype=np.int64)), normalization("cifar10", white), CPU)
    transform = Augment(random_crop=4)({}, {}, None).transform
    batch = transform(Batch(*samples.raw_batch(torch.arange(64)), torch.Generator().manual_seed(0)))
    values = samples.normalized(batch.inputs)
    mean, deviation = (torch.tensor(v) for v in CONSTANTS["cifar10"])
    black, bright = -mean / deviation, (1 - mean) / deviation
    for channel in range(3):
        found = values[:, channel].unique()
        assert torch.allclose(found, torch.stack([black[channel], bright[channel]]), atol=1e-5)
