"""Samples in order of arrival, by a column, an array or the files' times; and another data set as it was before."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstart_sim.datasets import load
from warmstart_sim.datasets.arrival import newest_held_out
from warmstart_sim.errors import DataError, WarmstartError
from warmstart_sim.streams.basic import online


def loaded(name, **options):
    return load(name, options, None, 0)


@given(count=st.integers(2, 60), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_the_newest_are_held_out_and_none_is_lost(count, fraction, seed):
    order = np.random.default_rng(seed).permutation(count)
    train, test = newest_held_out(order, fraction)
    assert np.array_equal(np.concatenate([train, test]), order)
    assert 0 < len(test) < count
    assert abs(len(test) - fraction * count) <= 1


@pytest.mark.parametrize(
    "times", [[4, 1, 3, 2, 0], ["2024-05-01", "2024-02-01", "2024-04-01", "2024-03-01", "2024-01-01"]]
)
def test_arrays_arrive_in_the_order_of_an_array(tmp_path, times):
    inputs = np.arange(5, dtype=np.float32)[:, None]
    np.savez(tmp_path / "mine.npz", x_train=inputs, y_train=[0, 1, 0, 1, 0], day=np.array(times))
    dataset = loaded("arrays", path=tmp_path / "mine.npz", arrival="day", test_fraction=0.2)
    assert dataset.train.inputs.ravel().tolist() == [4, 1, 3, 2]
    assert dataset.test.inputs.ravel().tolist() == [0]
    rounds = online(dataset.train.labels, np.arange(4), 7, chunk_size=2, order="given")
    assert [each.train.tolist() for each in rounds] == [[0, 1], [0, 1, 2, 3]]


def test_texts_arrive_in_the_order_of_a_column_and_words_are_those_of_older_texts(tmp_path):
    rows = ["3,new new,a", "1,old old,b", "2,old old,a", "4,new words,b"]
    (tmp_path / "texts.csv").write_text("\n".join(["day,text,label", *rows]), "utf-8")
    options = {"path": tmp_path / "texts.csv", "test_fraction": 0.5, "min_count": 1}
    dataset = loaded("text_folder", **options, arrival="day")
    assert dataset.train.labels.tolist() == [1, 0]
    assert dataset.test.labels.tolist() == [0, 1]
    with pytest.raises(DataError, match=r"unknown column 'dax'; did you mean 'day'.*set `arrival`"):
        loaded("text_folder", **options, arrival="dax")


def test_images_arrive_in_the_order_of_their_files_times(images):
    for age, file in enumerate(sorted(images.glob("*/*"), key=lambda each: each.name)):
        os.utime(file, (1e9 - age, 1e9 - age))
    by_name = loaded("image_folder", path=images, size=4)
    by_time = loaded("image_folder", path=images, size=4, arrival="mtime")
    oldest = sorted(images.glob("*/*"), key=lambda file: file.stat().st_mtime)
    assert by_time.train.labels.tolist() == [int(file.parent.name == "dog") for file in oldest[:12]]
    assert len(by_time.test) == len(by_name.test) == 3


@pytest.mark.parametrize(
    ("day", "message"),
    [
        ([1, 1, 1], "the array 'day' of .*mine.npz are all the same"),
        (["1", "soon", "2"], "'soon' in row 2, which is neither a number nor a date"),
        ([1, 2], r"day has shape \(2,\); it needs one value for each of 3 rows"),
        (None, "unknown array 'day'"),
    ],
)
def test_times_that_give_no_order_are_refused(tmp_path, day, message):
    given_day = {} if day is None else {"day": np.array(day)}
    np.savez(tmp_path / "mine.npz", x_train=np.ones((3, 1)), y_train=[0, 1, 0], **given_day)
    with pytest.raises(DataError, match=message):
        loaded("arrays", path=tmp_path / "mine.npz", arrival="day")


def test_files_of_one_time_are_refused(images):
    for file in images.glob("*/*"):
        os.utime(file, (1e9, 1e9))
    with pytest.raises(DataError, match="the files' times are all the same"):
        loaded("image_folder", path=images, size=4, arrival="mtime")


@given(samples=st.integers(50, 1198), order=st.none() | st.integers(0, 20))
def test_a_past_is_the_beginning_of_one_order_and_larger_ones_begin_with_it(samples, order):
    whole, digits = loaded("past", of="digits", order=order), loaded("digits")
    before = loaded("past", of="digits", order=order, samples=samples)
    assert np.array_equal(before.train.inputs, whole.train.inputs[:samples])
    assert np.array_equal(before.test.inputs, digits.test.inputs)
    assert np.array_equal(np.sort(whole.train.inputs, axis=0), np.sort(digits.train.inputs, axis=0))
    if order is None:
        assert np.array_equal(whole.train.inputs, digits.train.inputs)


def test_what_a_past_holds_out_takes_the_place_of_the_test_samples():
    before = loaded("past", of={"name": "digits"}, order=1, samples=300)
    split = loaded("past", of={"name": "digits"}, order=1, samples=300, held_out=0.2)
    assert len(split.test) == pytest.approx(60, abs=5)
    rows = {each.tobytes() for each in before.train.inputs}
    assert {each.tobytes() for each in (*split.train.inputs, *split.test.inputs)} == rows


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"of": "digits", "samples": 5000}, "past: 5000 samples are more than the 1198 of digits"),
        ({"of": "digitz"}, "unknown data set 'digitz'; did you mean 'digits'"),
        ({"of": {"name": "noisy_digits", "noise": -1}}, "past: of.noise: Input should be greater than or equal to 0"),
    ],
)
def test_a_past_that_cannot_be_is_refused(options, message):
    with pytest.raises(WarmstartError, match=message):
        loaded("past", **options)
