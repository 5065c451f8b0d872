"""A cell's samples are dealt out as its settings say, and sizes are known without the data where they can be."""

from __future__ import annotations

import numpy as np
import pytest

from warmstart_sim import scenario as scenarios
from warmstart_sim.datasets.known_sizes import IMAGE_SETS
from warmstart_sim.errors import DataError, WarmstartError
from warmstart_sim.scenario import round_sizes, splits


def first_cell(raw):
    return scenarios.plan(raw, "f.yaml")[1][0]


def training_sizes(cell, data_root):
    return [each.train for each in round_sizes.round_sizes(cell, data_root)]


def test_held_out_and_dealt_out_samples_are_apart_and_together_all(edited):
    cell = first_cell(edited({"data.validation_fraction": 0.25}))
    dealt = splits.split_rounds(cell, np.arange(1000) % 10, 77)
    assert len(dealt.validation) == 250
    assert sorted([*dealt.rounds[-1].train, *dealt.validation]) == list(range(1000))
    assert [len(each.train) for each in dealt.rounds] == [300, 600, 750]
    assert list(dealt.test) == list(range(77))


def test_limits_hold_after_holding_out(edited):
    cell = first_cell(edited({"data.validation_fraction": 0.5, "data.train_samples": 400, "data.test_samples": 9}))
    dealt = splits.split_rounds(cell, np.arange(1000) % 10, 77)
    assert (len(dealt.validation), len(dealt.rounds[-1].train), len(dealt.test)) == (500, 400, 9)


def test_arms_of_a_seed_are_dealt_the_same_and_other_seeds_are_not(edited):
    dealt = {
        (cell.arm.label, cell.seed): splits.split_rounds(cell, np.arange(1000) % 10, 10).rounds[0].train.tolist()
        for cell in scenarios.plan(edited(), "f.yaml")[1]
    }
    assert dealt["random_init", 0] == dealt["mine", 0] != dealt["mine", 1]


def test_rounds_are_capped(edited):
    assert training_sizes(first_cell(edited({"stream.rounds": 2})), None) == [300, 600]


@pytest.mark.parametrize("name", ["digits", "noisy_digits"])
def test_the_sizes_that_are_known_without_the_data_are_those_of_the_data(edited, name, tmp_path):
    cell = first_cell(edited({"data": name}))
    dataset = splits.load_dataset(cell, tmp_path)
    known = IMAGE_SETS[name]
    assert (len(dataset.train), len(dataset.test)) == (known.train_samples, known.test_samples)
    assert training_sizes(cell, tmp_path) == [300, 600, 900, 1198]


def test_sizes_of_photo_sets_are_known_without_them(edited, tmp_path):
    cell = first_cell(edited({"data": {"name": "birds2010", "size": 64}, "stream": "static", "model": "mlp"}))
    assert training_sizes(cell, tmp_path) == [3_000]


def test_an_option_that_changes_the_size_is_heeded(edited, tmp_path):
    cell = first_cell(edited({"data": {"name": "noisy_digits", "test_fraction": 0.5}}))
    assert training_sizes(cell, tmp_path)[-1] == 899


def test_a_stream_that_does_not_fit_the_data_is_one_line_with_the_file(edited, tmp_path):
    _, cells = scenarios.plan(edited({"vary": {"stream.chunk_size": [100, 5000]}}), "f.yaml")
    with pytest.raises(
        WarmstartError, match=r"^f.yaml: stream.chunk_size: 5000 is more than the 1198 available training samples"
    ):
        round_sizes.checked_round_sizes(cells, tmp_path, "f.yaml")


def test_data_that_are_not_there_keep_their_exit_code(edited, tmp_path):
    _, cells = scenarios.plan(edited({"data": {"name": "arrays", "path": str(tmp_path / "x.npz")}}), "f.yaml")
    with pytest.raises(DataError, match=r"^f.yaml: arrays: there is no file"):
        round_sizes.checked_round_sizes(cells, tmp_path, "f.yaml")


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("return 5", "data set 'their_data:load': AttributeError: "),
        ("raise RuntimeError('one\\ntwo')", "data set 'their_data:load': RuntimeError: one"),
        ("raise DataError('nothing there')", "nothing there"),
    ],
)
def test_a_users_data_set_that_fails_is_one_line(edited, tmp_path, monkeypatch, body, line):
    (tmp_path / "their_data.py").write_text(
        f"from warmstart_sim.errors import DataError\ndef load(root, seed):\n    {body}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "their_data", raising=False)
    with pytest.raises(DataError) as caught:
        splits.load_dataset(first_cell(edited({"data": "their_data:load"})), tmp_path)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_a_data_set_is_loaded_by_its_name_and_options(tmp_path):
    assert len(splits.load_by_name("noisy_digits", ["test_draws=1"], tmp_path).test) == 599
    with pytest.raises(WarmstartError, match=r"^arrays: data.path: is missing \(expected a path\)$"):
        splits.load_by_name("arrays", [], tmp_path)
    with pytest.raises(WarmstartError, match=r"^cifa: data.name: unknown data set 'cifa'; did you mean 'cifar10'"):
        splits.load_by_name("cifa", [], tmp_path)
