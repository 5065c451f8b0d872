"""Samples keep the labels and inputs with which they arrived; a round is tested on data as they are then."""

from __future__ import annotations

import numpy as np
import pytest

from warmstart_sim import scenario as scenarios
from warmstart_sim.errors import WarmstartError
from warmstart_sim.scenario import round_sizes, splits
from warmstart_sim.scenario.changed_data import changed_dataset
from warmstart_sim.scenario.component import Component
from warmstart_sim.types import Dataset, Round, Samples


@pytest.fixture
def prepared(edited, tmp_path):
    """The prepared data of a scenario's first cell, and the data set as it is."""

    def prepare(changes):
        cell = scenarios.plan(edited(changes), "f.yaml")[1][0]
        dataset = splits.load_dataset(cell, tmp_path)
        return *splits.prepared_data(cell, dataset), dataset

    return prepare


def test_without_changes_the_data_set_is_itself(prepared):
    found, dealt, dataset = prepared({})
    assert found is dataset
    assert all(each.test is None and each.validation is None for each in dealt.rounds)


def test_a_cell_without_changes_is_the_cell_that_it_was(edited):
    plain, empty = (scenarios.plan(edited(each), "f.yaml")[1][0] for each in ({}, {"stream.changes": {"blur": None}}))
    assert plain.digest == empty.digest
    assert "changes" not in plain.settings
    changed = scenarios.plan(edited({"stream.changes": {"blur": {}}}), "f.yaml")[1][0]
    assert changed.digest != plain.digest


def test_pixels_drift_by_the_round_of_arrival_and_tests_are_of_the_round(prepared):
    noise = {"pixel_noise": {"per_round": 0.2}}
    found, dealt, dataset = prepared({"data.validation_fraction": 0.2, "stream.changes": noise})
    rounds = dealt.rounds
    assert found.train.inputs.dtype == np.uint8
    first = rounds[0].new
    assert np.array_equal(found.train.inputs[first], dataset.train.inputs[first])
    strength = []
    for each in rounds:
        clean = {"train": dataset.train.inputs[each.new], "validation": dataset.train.inputs[dealt.validation]}
        clean["test"] = dataset.test.inputs
        now = {"train": found.train.inputs[each.new], "validation": found.train.inputs[each.validation]}
        now["test"] = found.test.inputs[each.test]
        strength.append([np.abs(now[split].astype(int) - clean[split]).mean() for split in clean])
        assert np.array_equal(found.test.labels[each.test], dataset.test.labels)
        assert np.array_equal(each.like_new, each.test)
    assert strength[0] == [0, 0, 0]
    assert (np.diff(strength, axis=0) > 3).all()  # of 255
    assert np.ptp(strength[-1]) < 3


def test_the_cells_of_a_seed_share_changed_inputs_and_another_seed_has_its_own_noise(edited, tmp_path):
    raw = edited({"stream.changes": {"pixel_noise": {}}, "strategies": {"random_init": {}, "warm_start": {}}})
    _, cells = scenarios.plan(raw, "f.yaml")
    found = [splits.prepared_data(cell, splits.load_dataset(cell, tmp_path))[0] for cell in cells]
    assert found[0].train.inputs is found[1].train.inputs
    assert not np.array_equal(found[0].test.inputs, found[2].test.inputs)


def test_rounds_with_the_same_test_data_share_them(prepared):
    found, dealt, dataset = prepared({"stream.changes": {"permuted_labels": {"start": 2}}})
    assert len(dealt.rounds) == 4
    assert len(found.test) == 2 * len(dataset.test)  # before, and from round 2 on
    assert found.test.inputs.shape[1:] == dataset.test.inputs.shape[1:]
    before, after = (found.test.labels[dealt.rounds[index].test] for index in (1, 2))
    assert np.array_equal(before, dataset.test.labels)
    assert not (after == before).any()
    assert np.array_equal(found.test.labels[dealt.rounds[3].test], after)


def test_classes_are_tested_once_they_have_arrived(prepared):
    stream = {"name": "class_incremental", "classes_per_round": 3, "accumulate": False}
    found, dealt, dataset = prepared({"stream": stream, "data.test_samples": 200})
    assert found is dataset
    so_far = set()
    for each in dealt.rounds:
        so_far |= set(each.classes)
        assert set(dataset.test.labels[each.test]) == so_far
        assert set(dataset.test.labels[each.like_new]) == set(each.classes)
    assert np.array_equal(dealt.rounds[-1].test, dealt.test)
    drifted, again, _ = prepared({"stream": {**stream, "changes": {"blur": {}}}, "data.test_samples": 200})
    for before, each in zip(dealt.rounds, again.rounds, strict=True):
        assert np.array_equal(drifted.test.labels[each.test], dataset.test.labels[before.test])
        assert np.array_equal(drifted.test.labels[each.like_new], dataset.test.labels[before.like_new])


def test_floats_are_neither_rounded_nor_clipped():
    samples = Samples(np.full((4, 3), 5.0, np.float32), np.zeros(4, np.int64))
    rounds = [Round(0, np.arange(2), np.arange(2)), Round(1, np.arange(4), np.arange(2, 4))]
    noise = Component("pixel_noise", {"per_round": 0.5, "start": 1})
    dataset, _ = changed_dataset(Dataset("d", samples, samples, 2), rounds, np.arange(0), np.arange(4), [noise], seed=0)
    assert (dataset.train.inputs[:2] == 5).all()
    assert (np.abs(dataset.train.inputs[2:] - 5) > 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"stream": {"name": "static", "rounds": 3, "changes": {"blur": {}}}},
            r"^f: stream.changes.blur: changes samples that arrive after the first round, and in this stream none do",
        ),
        (
            {"stream.rounds": 1, "stream.changes": {"permuted_labels": {}}},
            r"^f: stream.changes.permuted_labels: changes",
        ),
        (
            {"data": {"name": "synthetic_text"}, "model": "bilstm", "stream.changes": {"contrast": {}}},
            r"stream.changes.contrast: changes numbers, and the inputs of synthetic_text are the words of texts",
        ),
        (
            {
                "data": {"name": "signal_in_noise"},
                "stream": {"name": "online", "chunk_size": 50, "changes": {"blur": {}}},
            },
            r"stream.changes.blur: changes images, and an input of signal_in_noise has shape \(128,\)",
        ),
    ],
)
def test_changes_that_cannot_be_made_are_refused_before_the_run(edited, tmp_path, changes, message):
    _, cells = scenarios.plan(edited(changes), "f")
    with pytest.raises(WarmstartError, match=message):
        round_sizes.checked_round_sizes(cells, tmp_path, "f")


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ("class_incremental", r"f: stream.name: class_incremental is for classes, and markov_text has next tokens"),
        ("active", r"f: stream.name: active is for classes, and markov_text has next tokens"),
        ({"name": "online", "changes": {"permuted_labels": {}}}, r"f: stream.changes.permuted_labels: is for classes"),
    ],
)
def test_next_tokens_are_no_classes(edited, tmp_path, stream, message):
    _, cells = scenarios.plan(edited({"data": "markov_text", "model": "decoder", "stream": stream}), "f")
    with pytest.raises(WarmstartError, match=message):
        round_sizes.checked_round_sizes(cells, tmp_path, "f")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"windo": {}}, r"stream.changes.windo: unknown change of a stream 'windo'; did you mean 'window'\?"),
        ({"window": {"last_rounds": 0}}, r"stream.changes.window.last_rounds: found 0 \(allowed: a whole number > 0\)"),
        ({"blur": {"per_round": -1}}, r"stream.changes.blur.per_round: found -1 \(allowed: a number > 0 and <= 10\)"),
        (
            {"contrast": {"per_round": 1}},
            r"stream.changes.contrast.per_round: found 1 \(allowed: a number > 0 and < 1\)",
        ),
        (
            {"pixel_noise": {"sigma": 1}},
            r"stream.changes.pixel_noise.sigma: unknown key.*\(allowed here: per_round, start\)",
        ),
        ("blur", r"stream.changes: found 'blur' \(allowed: a mapping of changes to their options\)"),
    ],
)
def test_mistakes_in_changes_name_the_key(edited, changes, message):
    with pytest.raises(WarmstartError, match=message):
        scenarios.plan(edited({"stream.changes": changes}), "f")


def test_options_of_changes_can_be_varied(edited, tmp_path):
    raw = edited(
        {"stream.changes": {"window": {"last_rounds": 1}}, "vary": {"stream.changes.window.last_rounds": [1, 2]}}
    )
    _, cells = scenarios.plan(raw, "f")
    sizes = {
        cell.varied["stream.changes.window.last_rounds"]: round_sizes.round_sizes(cell, tmp_path) for cell in cells
    }
    assert {value: [each.train for each in found] for value, found in sizes.items()} == {
        1: [300, 300, 300, 298], 2: [300, 600, 600, 598],
    }  # fmt: skip
    assert [each.again for each in sizes[2]] == [0, 300, 300, 300]


@pytest.mark.parametrize("train", [[], [3]])
def test_a_users_stream_must_give_samples_of_the_pool(edited, tmp_path, train):
    def theirs(labels, pool, seed):
        return [Round(0, pool[:5], pool[:5]), Round(1, np.array(train, int), np.array(train, int))]

    raw = edited({"stream": {"name": theirs}, "data.validation_fraction": 0.99})
    message = "round 1 of this stream has no samples" if not train else r"not in the pool, such as sample 3, which may"
    with pytest.raises(WarmstartError, match=message):
        round_sizes.checked_round_sizes(scenarios.plan(raw, "f")[1], tmp_path, "f")
