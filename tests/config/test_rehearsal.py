"""A rehearsal is small, offline and valid, whatever the scenario, and keeps the ends of its axes."""

from __future__ import annotations

from pathlib import Path

import pytest

from warmstart_sim import api, config
from warmstart_sim.config.dealing import training_sizes
from warmstart_sim.config.rehearsal import CELLS, LOCAL, ROUNDS, rehearsal
from warmstart_sim.config.source import bundled_scenarios


def rehearsed(raw):
    """The rehearsal and its cells, each dealt out."""
    small = rehearsal(raw)
    _, cells = config.plan(small, "rehearsal")
    for cell in cells:
        assert len(training_sizes(cell, Path("no-such-folder"))) <= ROUNDS
    assert len(cells) <= CELLS
    return small, cells


@pytest.mark.parametrize("name", bundled_scenarios())
def test_every_bundled_scenario_can_be_checked_and_rehearsed(name):
    raw, where = api.prepare(name)
    assert api.size(raw, where).cells > 0
    small, cells = rehearsed(raw)
    assert small["name"] == f"{raw['name']}-rehearsal"
    for cell in cells:
        assert cell.data.name in LOCAL
        assert cell.arm.training.until.cap <= 4
    for key, values in (raw.get("vary") or {}).items():
        if len(values) > 1:
            assert small["vary"][key] == [values[0], values[-1]]
    assert {cell.arm.label for cell in cells} == set(raw["strategies"])


def test_image_sets_have_a_stand_in_of_the_same_shape(edited):
    _, cells = rehearsed(edited({"data": {"name": "svhn", "validation_fraction": 0.5}, "model": "mlp"}))
    assert cells[0].data.options["like"] == "svhn"
    assert cells[0].data_settings.validation_fraction == 0.5


def test_image_sets_on_an_axis_are_stood_in_for_each(edited):
    raw = edited({"model": "mlp", "data": "cifar10", "vary": {"data.name": ["digits", "cifar10", "svhn"]}})
    small, cells = rehearsed(raw)
    assert small["vary"] == {"data.like": ["digits", "svhn"]}
    assert {cell.data.options["like"] for cell in cells} == {"digits", "svhn"}


def test_data_that_lie_here_are_kept(edited):
    own = {"name": "arrays", "path": "mine.npz", "train_samples": 40}
    small = rehearsal(edited({"data": own}))
    assert small["data"]["path"] == "mine.npz"
    assert small["data"]["train_samples"] == 40
    assert rehearsal(edited({"data": "my_module:load"}))["data"]["name"] == "my_module:load"


@pytest.mark.parametrize(
    ("changes", "key", "ends"),
    [
        ({"scenario.chunk_size": 1}, "scenario.chunk_size", [50, 500, 1000]),
        ({}, "scenario.rounds", [10, 20]),
        ({"data": {"name": "cifar10", "validation_fraction": 0.9}, "model": "mlp"}, "scenario.chunk_size", [4000, 100]),
        ({}, "data.train_samples", [400, 600, 1000]),
        ({}, "data.validation_fraction", [0.0, 0.5, 0.7]),
        ({"scenario": {"name": "split"}}, "scenario.fraction", [0.1, 0.5, 0.9]),
        ({}, "model.widths", [[100, 100], [200, 200]]),
        ({"model": "resnet18"}, "model.width", [64, 32, 16]),
        ({}, "training.batch_size", [128, 256, 512]),
        ({}, "training.until.max_epochs", [100, 500]),
        ({"strategies.mine.training": {"until": {"epochs": 50}}}, "strategies.mine.training.until.epochs", [20, 50]),
    ],
)
def test_an_axis_over_something_that_is_reduced_keeps_two_ends_in_their_order(edited, changes, key, ends):
    small, cells = rehearsed(edited({**changes, "vary": {key: ends}}))
    low, high = small["vary"][key]
    assert (low < high) == (ends[0] < ends[-1])
    assert len({str(cell.varied) for cell in cells if cell.arm.label == "mine"}) == 2


def test_an_arms_own_training_is_reduced_as_well(edited):
    own = {"batch_size": 512, "until": {"train_accuracy": 1.0}}
    _, cells = rehearsed(edited({"strategies.mine.training": own}))
    (training, *_) = (cell.arm.training for cell in cells if cell.arm.label == "mine")
    assert (training.batch_size, training.until.max_epochs) == (64, 4)


def test_axes_keep_their_ends_before_arms_and_seeds_do(edited):
    vary = {
        "training.optimizer.lr": [1, 2, 3],
        "training.batch_size": [4, 5],
        "strategies.mine.augment.rotation": [1, 2],
    }
    small, _ = rehearsed(edited({"vary": vary}))
    assert small["vary"] == {**vary, "training.optimizer.lr": [1, 3]}
    assert set(small["strategies"]) == {"random_init", "mine"}
    assert small["seeds"] == [0]


def test_more_axes_than_twelve_cells_can_hold_lose_their_second_ends_from_the_last(edited):
    vary = {f"training.optimizer.{key}": [0.1, 0.2] for key in ("lr", "weight_decay")}
    vary |= {
        "training.batch_size": [4, 5],
        "training.until.train_accuracy": [0.5, 0.6],
        "scenario.chunk_size": [40, 50],
    }
    small, cells = rehearsed(edited({"vary": vary}))
    assert [len(values) for values in small["vary"].values()] == [2, 2, 2, 1, 1]
    assert len(cells) == 8


def test_a_users_objects_stay_in_the_rehearsal(edited):
    def model(input_shape, classes): ...

    def strategy(previous, fresh, context): ...

    raw = {**edited(), "model": model, "strategies": {"mine": strategy}}
    _, cells = rehearsed(raw)
    assert cells[0].model.target is model
    assert cells[0].arm.start.target is strategy


def test_a_rehearsal_leaves_the_scenario_as_it_is(edited):
    raw = edited({"data": "cifar10", "vary": {"training.batch_size": [128, 256, 512]}})
    before = config.plan(raw, "f.yaml")
    rehearsal(raw)
    assert config.plan(raw, "f.yaml") == before
