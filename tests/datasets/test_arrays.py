from functools import partial
from pathlib import Path

import numpy as np
import pytest

from warmstart_sim.datasets import load
from warmstart_sim.datasets.arrays import arrays
from warmstart_sim.errors import DataError

read = partial(arrays, Path("unused"), 0)
LABELS = np.arange(12) % 3


def test_grey_images_get_a_channel_and_a_fifth_of_each_class_is_held_out(npz):
    dataset = read(path=npz())
    assert dataset.input_shape == (1, 6, 5)
    assert dataset.classes == 3
    assert np.bincount(dataset.train.labels).tolist() == [3, 3, 3]
    assert np.bincount(dataset.test.labels).tolist() == [1, 1, 1]


def test_channels_are_moved_first(npz):
    images = np.random.default_rng(0).integers(0, 256, size=(12, 3, 6, 5), dtype=np.uint8)
    first = read(path=npz(x_train=images))
    last = read(path=npz(x_train=images.transpose(0, 2, 3, 1)))
    assert first.input_shape == last.input_shape == (3, 6, 5)
    assert np.array_equal(first.train.inputs, last.train.inputs)
    assert last.train.inputs.flags.c_contiguous


def test_three_by_three_pixels_are_read_as_channels_first(npz):
    images = np.random.default_rng(0).integers(0, 256, size=(12, 3, 8, 3), dtype=np.uint8)
    assert read(path=npz(x_train=images)).input_shape == (3, 8, 3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(12, 7), (12, 2, 6, 5)])
def test_floats_of_any_shape_become_float32_unscaled(npz, dtype, shape):
    values = np.random.default_rng(0).normal(size=shape).astype(dtype)
    test = {"x_test": values, "y_test": LABELS}
    dataset = load("arrays", {"path": npz(x_train=values, **test)}, Path(), 0)
    assert dataset.train.inputs.dtype == np.float32
    assert np.array_equal(dataset.train.inputs, values.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, np.int64, np.uint64])
def test_integers_of_two_dimensions_are_tokens(npz, dtype):
    tokens = np.array([[5, 7, 0], [9, 0, 0]] * 6, dtype=dtype)
    dataset = load("arrays", {"path": npz(x_train=tokens, x_test=tokens[:2], y_test=LABELS[:2])}, Path(), 0)
    assert dataset.train.inputs.dtype == np.int64
    assert dataset.train.inputs.tolist() == tokens.tolist()
    assert dataset.vocabulary_size == 10


def test_a_given_test_part_is_used_unchanged(npz):
    images = np.full((2, 6, 5), 9, dtype=np.uint8)
    dataset = read(path=npz(x_test=images, y_test=np.array([2, 0], dtype=np.uint8)))
    assert len(dataset.train) == 12
    assert np.array_equal(dataset.test.inputs, images[:, None])
    assert dataset.test.labels.tolist() == [2, 0]
    assert dataset.test.labels.dtype == np.int64


def test_classes_that_do_not_occur_can_be_declared(npz):
    assert read(path=npz(), classes=5).classes == 5
    assert read(path=npz(y_train=np.where(LABELS == 1, 4, LABELS)), classes=5).classes == 5


NAN = np.full((12, 2), np.nan, dtype=np.float32)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x_train": None}, "has no x_train"),
        ({"x_train": None, "y_train": None}, "has no x_train and no y_train"),
        ({"x_test": np.zeros((2, 6, 5), np.uint8)}, "has no y_test"),
        ({"y_tset": LABELS}, "unknown array 'y_tset'; did you mean 'y_test'"),
        ({"y_train": LABELS[:-1]}, r"x_train has shape \(12, 6, 5\) and y_train \(11,\)"),
        ({"x_train": np.zeros((0, 6, 5), np.uint8), "y_train": LABELS[:0]}, "both need n > 0 rows"),
        ({"x_train": np.zeros(12)}, r"x_train has shape \(12,\); a single feature is a column, x\[:, None\]"),
        ({"x_train": np.uint8(3)}, r"x_train has shape \(\)"),
        ({"y_train": LABELS * 0}, "nothing to learn with 1 class"),
        ({"x_train": np.zeros((12, 6, 5), np.int32)}, "x_train is int32"),
        ({"x_train": np.zeros((12, 6), np.uint8)}, r"x_train is uint8 of shape \(12, 6\).* tokens .* other than uint8"),
        ({"x_train": np.ones((12, 6), bool)}, r"x_train is bool"),
        ({"x_train": np.full((12, 6), -1)}, "training sample 0 holds a token outside 0 to"),
        ({"x_train": np.full((12, 6), 2**63, np.uint64)}, "training sample 0 holds a token outside 0 to"),
        ({"x_train": np.tile([0, 1], (12, 1))}, "training sample 0 has padding"),
        ({"x_train": np.zeros((12, 6, 5, 4), np.uint8)}, "1 or 3 channels"),
        ({"x_train": NAN}, "training inputs hold NaN"),
        ({"x_train": np.full((12, 2), 1e300)}, "training inputs hold NaN or infinite"),
        (
            {"x_test": np.zeros((3, 6, 6), np.uint8), "y_test": LABELS[:3]},
            r"test inputs are uint8 of shape \(1, 6, 6\)",
        ),
        ({"x_test": np.zeros((3, 6, 5), np.float32), "y_test": LABELS[:3]}, "test inputs are float32"),
        ({"x_test": np.zeros((3, 6, 5), np.uint8), "y_test": LABELS[:3] + 1}, "test labels hold 3"),
        ({"x_test": np.zeros((3, 6, 5), np.uint8), "y_test": LABELS[:2]}, r"y_test \(2,\)"),
        ({"x_train": np.array([[{}]] * 12, dtype=object)}, "does not hold plain arrays.*allow_pickle=False"),
        ({"y_train": np.array(["a", "b", "c"] * 4, dtype=object)}, r"save text labels as y\.astype\(str\)"),
    ],
)
def test_invalid_arrays_are_reported_in_one_line(npz, changed, message):
    with pytest.raises(DataError, match=message) as caught:
        load("arrays", {"path": npz(**changed)}, Path(), 0)
    assert "\n" not in str(caught.value)


def test_labels_beyond_the_declared_classes_are_refused(npz):
    with pytest.raises(DataError, match="labels y_train hold 2; with 2 classes they are 0 to 1"):
        load("arrays", {"path": npz(), "classes": 2}, Path(), 0)


def test_a_missing_file_or_another_format_is_named(tmp_path):
    with pytest.raises(DataError, match=r"there is no file .*absent\.npz"):
        read(path=tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("text")
    np.save(tmp_path / "one.npy", LABELS)
    for name in ("text.npz", "one.npy"):
        with pytest.raises(DataError, match=f"{name} is not a .npz file"):
            read(path=tmp_path / name)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_named(npz, share):
    path = npz()
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=r"own.npz is not a .npz file, or it is truncated"):
        read(path=path)


def test_a_damaged_file_is_named(npz):
    path = npz()
    content = bytearray(path.read_bytes())
    content[200] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"own.npz .* is damaged"):
        read(path=path)
