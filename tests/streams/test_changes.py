"""Changes of a stream: what each does to rounds, labels and inputs, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d

from warmstart_sim.errors import WarmstartError
from warmstart_sim.registry import CHANGES
from warmstart_sim.streams.basic import online, static
from warmstart_sim.streams.changes.blur import blur
from warmstart_sim.streams.changes.class_shares import class_shares
from warmstart_sim.streams.changes.contrast import contrast
from warmstart_sim.streams.changes.duplicates import duplicates
from warmstart_sim.streams.changes.label_noise import label_noise
from warmstart_sim.streams.changes.permuted_labels import permuted_labels
from warmstart_sim.streams.changes.pixel_noise import pixel_noise
from warmstart_sim.streams.changes.window import window
from warmstart_sim.streams.class_incremental import class_incremental

LABELS = np.arange(120) % 4
POOL = np.arange(10, 110)
ROUNDS = online(LABELS, POOL, 0, chunk_size=30)  # 30, 30, 30, 10


@given(count=st.integers(1, 6))
def test_a_window_of_rounds_holds_what_arrived_in_them(count):
    for position, each in enumerate(window(ROUNDS, LABELS, 0, last_rounds=count)):
        kept = ROUNDS[max(0, position - count + 1) : position + 1]
        assert each.train.tolist() == [index for before in kept for index in before.new]
        assert np.array_equal(each.new, ROUNDS[position].new)


@given(count=st.integers(1, 120))
def test_a_window_of_samples_holds_the_newest(count):
    for before, each in zip(ROUNDS, window(ROUNDS, LABELS, 0, last_samples=count), strict=True):
        assert np.array_equal(each.train, before.train[-count:])
        assert set(each.new) == set(before.new) & set(each.train)


@pytest.mark.parametrize(
    ("rounds", "options", "message"),
    [
        (ROUNDS, {}, "give one of `last_rounds` and `last_samples`"),
        (ROUNDS, {"last_rounds": 1, "last_samples": 1}, "give one of"),
        (
            static(LABELS, POOL, 0, rounds=4),
            {"last_rounds": 2},
            r"window.last_rounds: found 2; this window holds no samples in round 2, because the last ones arrived in "
            "round 0",
        ),
    ],
)
def test_windows_without_samples_are_refused(rounds, options, message):
    with pytest.raises(WarmstartError, match=message):
        window(rounds, LABELS, 0, **options)


def test_duplicates_are_drawn_from_what_has_arrived_and_stay_with_their_chunk():
    changed = duplicates(ROUNDS, LABELS, 3, share=0.5)
    for position, (before, each) in enumerate(zip(ROUNDS, changed, strict=True)):
        assert np.array_equal(each.new[: len(before.new)], before.new)
        again = each.new[len(before.new) :]
        assert len(again) == len(before.new) // 2
        assert set(again) <= set(before.train)
        assert each.train.tolist() == [index for chunk in changed[: position + 1] for index in chunk.new]


def test_duplicates_leave_a_round_with_the_samples_that_they_came_with():
    rounds = class_incremental(LABELS, POOL, 0, accumulate=False)
    for each in duplicates(rounds, LABELS, 0):
        assert np.array_equal(each.train, each.new)


@given(strength=st.floats(0.01, 1), seed=st.integers(0, 50))
def test_class_shares_reorder_samples_in_rounds_of_the_same_size(strength, seed):
    changed = class_shares(ROUNDS, LABELS, seed, strength=strength)
    assert [(len(each.train), len(each.new)) for each in changed] == [
        (len(each.train), len(each.new)) for each in ROUNDS
    ]
    assert np.array_equal(np.sort(changed[-1].train), POOL)
    assert np.array_equal(changed[2].train, np.concatenate([each.new for each in changed[:3]]))


def test_at_full_strength_classes_arrive_one_after_another():
    changed = class_shares(ROUNDS, LABELS, 0, strength=1.0)
    arriving = LABELS[changed[-1].train]
    assert (np.diff(arriving) != 0).sum() == 3
    with pytest.raises(WarmstartError, match=r"stream.changes.class_shares: in this stream classes arrive one after"):
        class_shares(class_incremental(LABELS, POOL, 0), LABELS, 0)


@given(classes=st.integers(2, 12), seed=st.integers(0, 99), start=st.integers(1, 3))
def test_permuted_labels_map_every_class_to_another_one(classes, seed, start):
    labels, arrived = np.tile(np.arange(classes), 5), np.repeat(np.arange(-1, 4), classes)
    changed = permuted_labels(labels, arrived, seed, classes, start=start)
    assert np.array_equal(changed[arrived < start], labels[arrived < start])
    mapping = set(zip(labels[arrived >= start], changed[arrived >= start], strict=True))
    assert len(mapping) == classes == len({new for _, new in mapping})
    assert all(old != new for old, new in mapping)


def test_label_noise_ends():
    arrived = np.repeat([0, 1, 2, -1], 30)
    changed = label_noise(LABELS, arrived, 0, 4, share=0.5, end=2)
    assert np.array_equal(changed[60:], LABELS[60:])
    assert 0 < (changed[:60] != LABELS[:60]).sum() <= 30


def test_noise_grows_with_the_rounds_by_one_and_the_same_draw():
    inputs, arrived = np.zeros((4, 3, 8, 8), np.float32), np.array([0, 1, 2, 3])
    one, other = (pixel_noise(inputs, arrived, np.random.default_rng(0), per_round=each) for each in (0.1, 0.2))
    assert not one[0].any()
    assert np.allclose(2 * one, other)
    big = pixel_noise(np.zeros((3, 100, 100), np.float32), np.array([1, 2, 4]), np.random.default_rng(0), start=2)
    assert np.allclose(big.std((1, 2)), [0, 0.05, 0.15], rtol=0.03)


def test_contrast_fades_towards_the_mean_of_each_channel():
    inputs = np.random.default_rng(0).random((3, 2, 5, 5), dtype=np.float32)
    faded = contrast(inputs, np.array([0, 1, 3]), None, per_round=0.3)
    for sample, factor in enumerate((1, 0.7, 0.7**3)):
        for channel in range(2):
            image = inputs[sample, channel]
            assert np.allclose(faded[sample, channel], image.mean() + factor * (image - image.mean()), atol=1e-6)


def test_blur_is_a_gaussian_along_each_axis():
    inputs = np.random.default_rng(0).random((3, 2, 9, 9), dtype=np.float32)
    blurred = blur(inputs, np.array([0, 1, 3]), None, per_round=0.5, start=1)
    assert np.array_equal(blurred[0], inputs[0])
    for sample, deviation in ((1, 0.5), (2, 1.5)):
        by_hand = gaussian_filter1d(gaussian_filter1d(inputs[sample], deviation, axis=1), deviation, axis=2)
        assert np.allclose(blurred[sample], by_hand, atol=1e-6)


@pytest.mark.parametrize("name", CHANGES.names())
def test_every_change_is_a_pure_function(name):
    """The same result twice, other arguments unchanged."""
    kind, change = CHANGES.details(name)["changes"], CHANGES.get(name)
    options = {"last_rounds": 2} if name == "window" else {}

    def result():
        if kind == "rounds":
            return [(each.train.tolist(), each.new.tolist()) for each in change(ROUNDS, LABELS, 5, **options)]
        if kind == "labels":
            return change(LABELS, np.arange(120) % 3, 5, 4).tolist()
        inputs = np.linspace(0, 1, 6 * 64, dtype=np.float32).reshape(6, 1, 8, 8)
        before = inputs.copy()
        found = change(inputs, np.arange(6), np.random.default_rng(0))
        assert np.array_equal(inputs, before)
        assert found.shape == inputs.shape
        assert found.dtype == np.float32
        return found.tolist()

    assert result() == result()
