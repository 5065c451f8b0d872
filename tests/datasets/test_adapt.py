"""Adapting images to another shape, compared with Pillow, torchvision and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from warmstart_sim import datasets
from warmstart_sim.datasets.adapt import adapt_images, check_adaptable
from warmstart_sim.datasets.validation import validate
from warmstart_sim.errors import WarmstartError
from warmstart_sim.types import Dataset, Samples

SIZES = st.integers(1, 12)
HOW = st.sampled_from(["resize", "pad"])


def images(shape: tuple[int, ...], count: int = 3, dtype: type = np.uint8, seed: int = 0) -> Dataset:
    generator = np.random.default_rng(seed)

    def samples(n: int) -> Samples:
        values = generator.integers(0, 256, (n, *shape)).astype(dtype)
        return Samples(values, np.arange(n, dtype=np.int64) % 2)

    return Dataset("drawn", samples(count), samples(2), classes=2)


def adapt(before: np.ndarray, shape: tuple[int, ...], how: str) -> np.ndarray:
    """Applies `adapt_images` to images (n, channels, height, width)."""
    samples = Samples(before, np.arange(len(before), dtype=np.int64) % 2)
    return adapt_images(Dataset("drawn", samples, samples, classes=2), shape, how).train.inputs


# Resizing.


@pytest.mark.parametrize("size", [(28, 28), (32, 32), (8, 8), (45, 20), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resized_pixels_equal_pillows_within_rounding(size, channels):
    before = images((channels, 32, 30)).train.inputs
    found = adapt(before, (channels, *size), "resize")
    for image, resized in zip(before, found, strict=True):
        plane = Image.fromarray(image[0] if channels == 1 else image.transpose(1, 2, 0))
        expected = np.asarray(plane.resize((size[1], size[0]), Image.Resampling.BILINEAR))
        expected = expected[None] if channels == 1 else expected.transpose(2, 0, 1)
        assert np.abs(resized.astype(int) - expected).max() <= 1


def test_enlarged_floats_are_interpolated_between_pixel_centres():
    before = images((1, 5, 7), dtype=np.float32).train.inputs / np.float32(100) - 1
    expected = F.interpolate(torch.from_numpy(before), size=(9, 20), mode="bilinear", align_corners=False)
    assert np.allclose(adapt(before, (1, 9, 20), "resize"), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_constant_image_stays_constant(dtype):
    before = np.full((2, 1, 9, 5), 77, dtype=dtype)
    assert np.allclose(adapt(before, (3, 4, 16), "resize"), 77)


def test_resizing_in_blocks_equals_resizing_at_once(monkeypatch):
    before = images((1, 6, 6), count=7).train.inputs
    whole = adapt(before, (1, 9, 9), "resize")
    monkeypatch.setattr("warmstart_sim.datasets.adapt.BLOCK", 3 * 9 * 9)
    assert np.array_equal(adapt(before, (1, 9, 9), "resize"), whole)


# Padding and cropping.


def placed(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Centres `image` (channels, h, w) in zeros, pixel by pixel; larger images are cropped on both sides."""
    channels, rows, columns = image.shape
    result = np.zeros((channels, height, width), dtype=image.dtype)
    # If the difference is odd, padding adds the smaller half first, and cropping removes the larger half first.
    down = (height - rows) // 2 if height >= rows else -((rows - height) // 2)
    right = (width - columns) // 2 if width >= columns else -((columns - width) // 2)
    for channel in range(channels):
        for row in range(rows):
            for column in range(columns):
                if 0 <= row + down < height and 0 <= column + right < width:
                    result[channel, row + down, column + right] = image[channel, row, column]
    return result


@settings(deadline=None, max_examples=60)
@given(before=st.tuples(SIZES, SIZES), after=st.tuples(SIZES, SIZES), dtype=st.sampled_from([np.uint8, np.float32]))
def test_padding_and_cropping_equal_a_plain_loop(before, after, dtype):
    start = images((1, *before), dtype=dtype).train.inputs
    found = adapt(start, (1, *after), "pad")
    assert np.array_equal(found, [placed(image, *after) for image in start])
    assert found.dtype == dtype
    assert found.flags["C_CONTIGUOUS"]


@given(before=st.tuples(SIZES, SIZES), more=st.tuples(SIZES, SIZES))
def test_padding_and_cropping_back_restores_the_image(before, more):
    start = images((3, *before)).train.inputs
    larger = (before[0] + more[0], before[1] + more[1])
    assert np.array_equal(adapt(adapt(start, (3, *larger), "pad"), (3, *before), "pad"), start)


# Channels.


def test_grey_by_luminance_equals_pillows_within_rounding():
    before = images((3, 40, 40)).train.inputs
    found = adapt(before, (1, 40, 40), "pad")
    for image, grey in zip(before, found, strict=True):
        expected = np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L"))
        assert np.abs(grey[0].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("how", ["resize", "pad"])
def test_a_grey_image_gets_three_equal_channels_and_converts_back(how):
    before = images((1, 6, 5)).train.inputs
    colour = adapt(before, (3, 6, 5), how)
    assert all(np.array_equal(colour[:, channel], before[:, 0]) for channel in range(3))
    assert np.array_equal(adapt(colour, (1, 6, 5), how), before)


def test_grey_floats_are_the_weighted_sum_of_channels():
    before = images((3, 4, 4), dtype=np.float32).train.inputs / np.float32(64) - 2
    expected = 0.299 * before[:, 0] + 0.587 * before[:, 1] + 0.114 * before[:, 2]
    assert np.allclose(adapt(before, (1, 4, 4), "pad")[:, 0], expected, atol=1e-5)


# Data sets.


@settings(deadline=None, max_examples=40)
@given(
    before=st.tuples(st.sampled_from([1, 3]), SIZES, SIZES),
    after=st.tuples(st.sampled_from([1, 3]), SIZES, SIZES),
    how=HOW,
    dtype=st.sampled_from([np.uint8, np.float32]),
)
def test_only_the_shape_of_the_inputs_changes(before, after, how, dtype):
    dataset = images(before, dtype=dtype)
    result = validate(adapt_images(dataset, after, how))
    assert result.input_shape == after
    assert result.train.inputs.dtype == result.test.inputs.dtype == dtype
    assert (len(result.train), len(result.test)) == (len(dataset.train), len(dataset.test))
    assert np.array_equal(result.train.labels, dataset.train.labels)
    assert (result.name, result.classes) == (dataset.name, dataset.classes)


@pytest.mark.parametrize("how", ["resize", "pad", None])
def test_a_data_set_of_the_same_shape_is_returned_unchanged(how):
    dataset = images((1, 4, 4))
    assert adapt_images(dataset, (1, 4, 4), how) is dataset


@pytest.mark.parametrize("how", ["resize", "pad"])
def test_an_empty_test_set_stays_empty(how):
    dataset = images((1, 4, 4))
    empty = Samples(dataset.test.inputs[:0], dataset.test.labels[:0])
    result = adapt_images(Dataset("drawn", dataset.train, empty, classes=2), (3, 6, 2), how)
    assert result.test.inputs.shape == (0, 3, 6, 2)


def test_read_only_arrays_are_accepted_and_not_changed():
    dataset = images((1, 4, 4))
    before = dataset.train.inputs.copy()
    dataset.train.inputs.setflags(write=False)
    for how in ("resize", "pad"):
        adapt_images(dataset, (3, 5, 3), how)
    assert np.array_equal(dataset.train.inputs, before)


@pytest.mark.parametrize(
    ("before", "after", "how", "line"),
    [
        (
            (1, 28, 28), (3, 32, 32), None,
            "stream.source.adapt: drawn has inputs of shape (1, 28, 28), the target of shape (3, 32, 32); say how to "
            "adapt them: resize or pad",
        ),
        (
            (4, 8, 8), (3, 8, 8), "resize",
            "stream.source: drawn has inputs of shape (4, 8, 8), the target of shape (3, 8, 8); "
            "channels can only be converted between 1 and 3",
        ),
        (
            (64,), (1, 8, 8), "pad",
            "stream.source: drawn has inputs of shape (64,), the target of shape (1, 8, 8); only "
            "images can be adapted",
        ),
        (
            (1, 8, 8), (64,), None,
            "stream.source: drawn has inputs of shape (1, 8, 8), the target of shape (64,); only "
            "images can be adapted",
        ),
    ],
)  # fmt: skip
def test_a_mismatch_is_one_line_with_both_shapes(before, after, how, line):
    with pytest.raises(WarmstartError) as caught:
        check_adaptable("drawn", before, after, how)
    assert str(caught.value) == line
    with pytest.raises(WarmstartError) as caught:
        adapt_images(images(before, dtype=np.float32), after, how)
    assert str(caught.value) == line


def test_four_channels_are_resized_where_the_target_has_four():
    assert adapt(images((4, 8, 8)).train.inputs, (4, 5, 5), "resize").shape == (3, 4, 5, 5)


@pytest.mark.data
def test_real_digits_and_photographs_convert_as_in_pillow(real_data):

    mnist, cifar = (datasets.load(name, {}, real_data, 0) for name in ("mnist", "cifar10"))
    digits, photographs = mnist.train.inputs[:200], cifar.train.inputs[:200]
    large = adapt(digits, cifar.input_shape, "resize")
    for image, found in zip(digits, large, strict=True):
        expected = np.asarray(Image.fromarray(image[0]).resize((32, 32), Image.Resampling.BILINEAR))
        assert np.abs(found.astype(int) - expected).max() <= 1
    small = adapt(photographs, mnist.input_shape, "resize")
    for image, found in zip(photographs, small, strict=True):
        colour = Image.fromarray(image.transpose(1, 2, 0))
        expected = np.asarray(colour.convert("L").resize((28, 28), Image.Resampling.BILINEAR))
        assert np.abs(found[0].astype(int) - expected).max() <= 1
