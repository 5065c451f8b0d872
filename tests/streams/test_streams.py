"""Rounds: which samples arrive in what order; none is lost or shared with validation."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstart_sim import scenario as scenarios
from warmstart_sim.errors import WarmstartError
from warmstart_sim.execution.size import scenario_size
from warmstart_sim.registry import STREAMS
from warmstart_sim.streams import random_subset, split_validation
from warmstart_sim.streams.basic import online, pretrain, split, static
from warmstart_sim.streams.order import arrival_order

SIZES = st.integers(1, 200)
SEEDS = st.integers(0, 2**31)


def labels_of(count: int, classes: int = 5) -> np.ndarray:
    return np.random.default_rng(count).integers(0, classes, count)


@given(count=st.integers(2, 200), fraction=st.floats(0, 0.9), seed=SEEDS)
def test_held_out_samples_and_the_pool_are_disjoint_and_complete(count, fraction, seed):
    pool, validation = split_validation(labels_of(count), fraction, seed)
    assert len(validation) == round(fraction * count)
    assert np.array_equal(np.sort(np.concatenate([pool, validation])), np.arange(count))


@given(count=SIZES, chunk=st.integers(1, 200), seed=SEEDS, order=st.sampled_from(["random", "balanced", "given"]))
def test_online_chunks_accumulate_and_the_last_one_is_kept(count, chunk, seed, order):
    labels, pool = labels_of(300), np.arange(100, 100 + count)
    if chunk > count:
        with pytest.raises(WarmstartError, match=rf"chunk_size: {chunk} is more than the {count}"):
            online(labels, pool, seed, chunk_size=chunk, order=order)
        return
    rounds = online(labels, pool, seed, chunk_size=chunk, order=order)
    assert len(rounds) == -(-count // chunk)
    assert np.array_equal(np.sort(rounds[-1].train), pool)
    for index, each in enumerate(rounds):
        assert each.index == index
        assert len(each.new) == (chunk if index < len(rounds) - 1 else count - chunk * (len(rounds) - 1)) > 0
        before = rounds[index - 1].train if index else pool[:0]
        assert np.array_equal(each.train, np.concatenate([before, each.new]))  # nested, the newest last


@given(count=st.integers(2, 200), fraction=st.floats(0.01, 0.99), seed=SEEDS)
def test_split_gives_a_first_fraction_then_everything(count, fraction, seed):
    labels, pool = labels_of(count), np.arange(count)
    if not 0 < round(fraction * count) < count:
        with pytest.raises(WarmstartError, match="without data"):
            split(labels, pool, seed, fraction=fraction)
        return
    first, second = split(labels, pool, seed, fraction=fraction)
    assert len(first.train) == round(fraction * count)
    assert np.array_equal(first.train, second.train[: len(first.train)])
    assert np.array_equal(np.sort(second.train), pool)


def test_fractions_of_one_seed_are_nested():
    labels, pool = labels_of(50), np.arange(50)
    small, large = (split(labels, pool, 3, fraction=fraction)[0].train for fraction in (0.2, 0.6))
    assert np.array_equal(small, large[: len(small)])


@given(
    count=st.integers(1, 200), fractions=st.tuples(*[st.floats(0.001, 1)] * 2), seed=SEEDS,
    order=st.sampled_from(["random", "balanced", "given"]),
)  # fmt: skip
def test_pretrain_gives_one_round_with_a_share_of_the_pool_and_shares_are_nested(count, fractions, seed, order):
    labels, pool = labels_of(300), np.arange(100, 100 + count)
    found = []
    for fraction in sorted(fractions):
        if round(fraction * count) == 0:
            with pytest.raises(
                WarmstartError, match=rf"stream\.fraction: {fraction} of {count} training samples leaves none"
            ):
                pretrain(labels, pool, seed, fraction=fraction, order=order)
            continue
        (only,) = pretrain(labels, pool, seed, fraction=fraction, order=order)
        assert len(only.train) == len(set(only.train)) == round(fraction * count)
        assert np.array_equal(only.train, only.new)
        assert set(only.train) <= set(pool)
        found.append(only.train)
    assert all(np.array_equal(small, large[: len(small)]) for small, large in itertools.pairwise(found))


def test_pretrain_uses_all_samples_by_default():
    (only,) = pretrain(labels_of(50), np.arange(50), 3)
    assert np.array_equal(np.sort(only.train), np.arange(50))


def test_balanced_subsets_of_pretrain_contain_every_class_if_large_enough():
    labels = np.repeat(np.arange(10), 100)
    (only,) = pretrain(labels, np.arange(1000), 0, fraction=0.02, order="balanced")
    assert np.array_equal(np.bincount(labels[only.train]), np.full(10, 2))


def test_static_repeats_the_same_samples():
    rounds = static(labels_of(9), np.arange(9), 0, rounds=3)
    assert [len(each.new) for each in rounds] == [9, 0, 0]
    assert all(np.array_equal(each.train, rounds[0].train) for each in rounds)


@given(counts=st.lists(st.integers(1, 40), min_size=2, max_size=6), seed=SEEDS)
def test_balanced_order_keeps_class_proportions(counts, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    ordered = labels[arrival_order(labels, np.arange(len(labels)), seed, "balanced")]
    for end in range(1, len(labels) + 1):
        for label, count in enumerate(counts):
            expected = end * count / len(labels)
            assert abs((ordered[:end] == label).sum() - expected) <= len(counts)


def test_the_order_depends_on_the_seed_only():
    labels, pool = labels_of(100), np.arange(100)
    one, again, other = (online(labels, pool, seed, chunk_size=100)[0].train for seed in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


@given(count=SIZES, first=SIZES, second=SIZES, seed=SEEDS)
def test_random_subsets_are_nested(count, first, second, seed):
    small, large = (set(random_subset(np.arange(count), n, seed, "test")) for n in sorted((first, second)))
    assert small <= large
    assert len(small) == min(count, first, second)


@pytest.mark.parametrize("name", STREAMS.names())
def test_every_stream_is_a_pure_function_that_never_gives_an_empty_round(name):
    labels, pool = labels_of(2500), np.arange(2500)
    one, other = (STREAMS.get(name)(labels, pool, 7) for _ in range(2))
    assert [each.train.tolist() for each in one] == [each.train.tolist() for each in other]
    assert all(len(each.train) and each.train.dtype == np.int64 for each in one)
    assert [each.index for each in one] == list(range(len(one)))


@pytest.mark.parametrize(("rule", "total", "share"), [("epochs", 11, 3), ("steps", 1800, 600)])
def test_stages_share_their_budget_equally_and_what_is_left_over_goes_to_none(tiny_scenario, rule, total, share):
    raw = {**tiny_scenario, "stream": {"name": "stages", "stages": 3, rule: total}}
    raw["training"] = {"batch_size": 32, "later_rounds": {"batch_size": 16}}
    for cell in scenarios.plan(raw, "file")[1]:
        for index in (0, 1):
            until = cell.arm.training.in_round(index).until
            assert (getattr(until, rule), until.cap, until.train_accuracy) == (share, share, None)
    raw["stream"] = {"name": "stages", "stages": 3}  # each to convergence
    assert scenarios.plan(raw, "file")[1][0].arm.training.until.train_accuracy == 0.99


def test_the_budget_of_each_arm_is_counted(tiny_scenario):
    """Seven epochs of 150 samples: in one stage, and in three of two epochs."""
    arms = {"one": {"start": "warm_start", "stages": 1}, "three": "random_init"}
    raw = {**tiny_scenario, "stream": {"name": "stages", "stages": 3, "epochs": 7}, "strategies": arms}
    raw["training"] = {"batch_size": 32}
    assert scenario_size(raw, "file").budgets == {"one": ((7, 7), (35, 35)), "three": ((6, 6), (30, 30))}
    raw["vary"] = {"strategies.three.stages": [3, 7], "training.batch_size": [32, 150]}
    assert scenario_size(raw, "file").budgets == {"one": ((7, 7), (7, 35)), "three": ((6, 7), (6, 35))}


@pytest.mark.parametrize(
    ("stream", "until", "expected"),
    [
        ({"stages": 3, "epochs": 2}, None, r"stream.epochs: found 2; for 3 stages it must be at least 3"),
        ({"stages": 3, "epochs": 3, "steps": 3}, None, r"stream.steps: the budget has `epochs` already"),
        ({"stages": 0}, None, r"stream.stages: found 0"),
        ({"stages": 3, "steps": 7}, {"epochs": 1}, r"training.until: each stage ends after 2 steps, by `stream.steps`"),
    ],
)
def test_budgets_that_cannot_be_shared_are_refused(tiny_scenario, stream, until, expected):
    raw = {**tiny_scenario, "stream": {"name": "stages", **stream}, "training": {"until": until} if until else {}}
    with pytest.raises(WarmstartError, match=expected):
        scenarios.plan(raw, "file")
