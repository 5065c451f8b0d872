import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from warmstart_sim.datasets.split import stratified_split


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=60),
    st.floats(0.01, 0.99),
    st.integers(0, 5),
)
def test_the_split_is_a_partition_with_every_class_on_both_sides(labels, fraction, seed):
    labels = np.array(labels)
    train, test = stratified_split(labels, fraction, np.random.default_rng(seed))
    assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(len(labels)))
    assert np.all(np.diff(train) > 0)
    assert np.all(np.diff(test) > 0)
    for label in np.unique(labels):
        count, taken = np.sum(labels == label), np.sum(labels[test] == label)
        assert 0 <= taken < count
        assert abs(taken - fraction * count) <= 1
        assert taken > 0 or count == 1


def test_the_split_depends_on_the_generator():
    labels = np.zeros(100, dtype=np.int64)
    one, again, other = (stratified_split(labels, 0.5, np.random.default_rng(seed))[1] for seed in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
