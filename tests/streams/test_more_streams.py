"""Classes that arrive one after another, and chunks of unequal size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstart_sim.errors import WarmstartError
from warmstart_sim.streams.chunks import chunks
from warmstart_sim.streams.class_incremental import class_incremental

LABELS = np.random.default_rng(0).integers(0, 7, 200)
POOL = np.arange(20, 190)


@given(per_round=st.integers(1, 7), seed=st.integers(0, 99), accumulate=st.booleans())
def test_each_class_arrives_once_with_all_its_samples(per_round, seed, accumulate):
    rounds = class_incremental(LABELS, POOL, seed, classes_per_round=per_round, accumulate=accumulate)
    assert sorted(label for each in rounds for label in each.classes) == list(range(7))
    assert np.array_equal(np.sort(np.concatenate([each.new for each in rounds])), POOL)
    for position, each in enumerate(rounds):
        assert set(LABELS[each.new]) == set(each.classes)
        assert len(each.classes) == per_round or each is rounds[-1]
        so_far = np.concatenate([before.new for before in rounds[: position + 1]])
        assert np.array_equal(each.train, so_far if accumulate else each.new)


def test_classes_arrive_in_the_order_that_is_given():
    first, *_, last = class_incremental(LABELS, POOL, 0, classes_per_round=3, order=(6, 0, 1, 2, 3, 4, 5))
    assert (first.classes.tolist(), last.classes.tolist()) == ([6, 0, 1], [5])
    assert class_incremental(LABELS, POOL, 5, order="given")[0].classes.tolist() == [0, 1]
    orders = {tuple(class_incremental(LABELS, POOL, seed, classes_per_round=1)[0].classes) for seed in range(9)}
    assert len(orders) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": (0, 1, 2, 3, 4, 5)}, r"stream.order: class 6 never arrives; give all of 0, 1, 2, 3, 4, 5, 6$"),
        ({"order": (0, 1, 2, 3, 4, 5, 6, 0)}, r"stream.order: class 0 arrives twice"),
        ({"order": (0, 9)}, r"stream.order: class 9 has no training samples"),
        ({"classes_per_round": 8}, r"stream.classes_per_round: 8 is more than the 7 classes"),
    ],
)
def test_classes_that_cannot_arrive_so_are_refused(options, message):
    with pytest.raises(WarmstartError, match=message):
        class_incremental(LABELS, POOL, 0, **options)


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_chunks_have_the_sizes_that_are_listed_and_accumulate(sizes):
    if sum(sizes) > len(POOL):
        with pytest.raises(WarmstartError, match=rf"{sum(sizes)} samples together, which is more than the 170"):
            chunks(LABELS, POOL, 0, sizes=tuple(sizes))
        return
    rounds = chunks(LABELS, POOL, 0, sizes=tuple(sizes))
    assert [len(each.new) for each in rounds] == sizes
    for position, each in enumerate(rounds):
        assert np.array_equal(each.train, np.concatenate([before.new for before in rounds[: position + 1]]))


@given(first=st.integers(1, 170), growth=st.floats(1, 5))
def test_growing_chunks_end_with_the_pool(first, growth):
    sizes = [len(each.new) for each in chunks(LABELS, POOL, 0, first=first, growth=growth)]
    assert sum(sizes) == 170
    assert sizes[:-1] == [round(first * growth**t) for t in range(len(sizes) - 1)]
    assert 0 < sizes[-1] <= round(first * growth ** (len(sizes) - 1))


def test_sizes_and_growth_exclude_each_other():
    with pytest.raises(WarmstartError, match=r"stream.growth: `sizes` has the size of each chunk already"):
        chunks(LABELS, POOL, 0, sizes=(10,), growth=2.0)
    with pytest.raises(WarmstartError, match=r"stream.first: 171 is more than the 170 available"):
        chunks(LABELS, POOL, 0, first=171)
