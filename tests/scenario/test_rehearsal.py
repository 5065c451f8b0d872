"""A rehearsal is small, offline and valid, whatever the scenario, and keeps the ends of its axes."""

from __future__ import annotations

import functools
import operator
from pathlib import Path

import pytest
import yaml

from warmstart_sim import api
from warmstart_sim import scenario as scenarios
from warmstart_sim.execution.size import scenario_size
from warmstart_sim.scenario.axes import axes_of
from warmstart_sim.scenario.rehearsal import INCLUDED, MAX_CELLS, MAX_ROUNDS, rehearsal
from warmstart_sim.scenario.resolved import resolved_scenario
from warmstart_sim.scenario.round_sizes import round_sizes
from warmstart_sim.scenario.yaml_files import bundled_scenarios


def rehearsed(raw):
    """The rehearsal and its cells, each dealt out; a run's record of it means the same cells."""
    small = rehearsal(raw)
    scenario, cells = scenarios.plan(small, "rehearsal")
    stored = yaml.safe_load(yaml.safe_dump(resolved_scenario(small, scenario), sort_keys=False))
    assert [cell.id for cell in scenarios.plan(stored, "scenario.yaml")[1]] == [cell.id for cell in cells]
    for cell in cells:
        assert len(round_sizes(cell, Path("no-such-folder"))) <= MAX_ROUNDS
    assert len(cells) <= MAX_CELLS
    return small, cells


@pytest.mark.parametrize("name", bundled_scenarios())
def test_every_bundled_scenario_can_be_checked_and_rehearsed(name):
    raw, where = api.prepare_scenario(name)
    assert scenario_size({**raw, "seeds": raw["seeds"][:1]}, where).cells > 0
    small, cells = rehearsed(raw)
    assert small["name"] == f"{raw['name']}-rehearsal"
    for cell in [*cells, *scenarios.first_phases(cells)]:
        assert cell.data.name in (
            *INCLUDED,
            "signal_in_noise",
            "synthetic",
            "synthetic_text",
            "markov_text",
            "markov_text",
        )
        assert cell.arm.training.until.cap <= 4
    axes = {axis.key: list(axis.values) for axis in axes_of(raw, where)}  # of a bundle, the labels
    kept = {key: list(values) for key, values in (small.get("vary") or {}).items()}
    ends = {key: values if len(values) == 1 else [values[0], values[-1]] for key, values in axes.items()}
    short = [key for key in ends if kept[key] != ends[key]]  # one end only, as two of each would be too many cells
    assert kept == {key: values[:1] if key in short else values for key, values in ends.items()}
    assert short == list(ends)[len(ends) - len(short) :]
    assert len(cells) * 2 > MAX_CELLS or not short
    arms = {cell.arm.label for cell in cells}
    left_out = set(raw["strategies"]) - arms  # where one more arm would make too many cells
    assert not left_out or (len(arms) >= 2 and (short or len(cells) // len(arms) * (len(arms) + 1) > MAX_CELLS))


def test_claims_about_what_is_left_out_are_left_out(edited):
    claims = ["random_init above mine", "random_init above mine where training.batch_size = 5"]
    small, _ = rehearsed(edited({"vary": {"training.batch_size": [4, 5, 6]}, "claims": claims}))
    assert small["claims"] == claims[:1]


def test_image_sets_have_a_small_stand_in(edited):
    _, cells = rehearsed(edited({"data": {"name": "svhn", "validation_fraction": 0.5}, "model": "mlp"}))
    assert (cells[0].data.options["like"], cells[0].data.options["shape"]) == ("svhn", [3, 16, 16])
    assert cells[0].data_settings.validation_fraction == 0.5


def test_image_sets_on_an_axis_are_stood_in_for_each(edited):
    raw = edited({"model": "mlp", "data": "cifar10", "vary": {"data.name": ["digits", "cifar10", "svhn"]}})
    _, cells = rehearsed(raw)
    stand_ins = {cell.varied["data.name"]: cell.data for cell in cells}
    assert list(stand_ins) == ["digits", "svhn"]
    assert (stand_ins["digits"].name, stand_ins["svhn"].options["like"]) == ("digits", "svhn")


def test_photographs_have_small_stand_ins_with_as_many_classes(edited):
    raw = edited({"model": "mlp", "data": "cassava", "vary": {"data.size": [64, 224]}})
    _, cells = rehearsed(raw)
    assert {cell.varied["data.size"]: cell.data.options["shape"] for cell in cells} == {64: [3, 8, 8], 224: [3, 16, 16]}
    assert {(cell.data.name, cell.data.options["classes"]) for cell in cells} == {("synthetic", 5)}


def test_resized_images_have_stand_ins_of_another_size(edited):
    cell, *_ = rehearsed(edited({"model": "mlp", "data": {"name": "mnist", "size": 64}}))[1]
    assert (cell.data.options["like"], cell.data.options["shape"]) == ("mnist", [1, 16, 16])


def test_data_that_lie_here_are_kept(edited):
    own = {"name": "arrays", "path": "mine.npz", "train_samples": 40}
    cell, *_ = scenarios.plan(rehearsal(edited({"data": own})), "rehearsal")[1]
    assert cell.data.options["path"] == "mine.npz"
    assert cell.data_settings.train_samples == 40
    cell, *_ = scenarios.plan(rehearsal(edited({"data": "my_module:load"})), "rehearsal")[1]
    assert cell.data.name == "my_module:load"


@pytest.mark.parametrize(
    ("changes", "key", "ends"),
    [
        ({"stream.chunk_size": 1}, "stream.chunk_size", [50, 500, 1000]),
        ({}, "stream.rounds", [10, 20]),
        ({"data": {"name": "cifar10", "validation_fraction": 0.9}, "model": "mlp"}, "stream.chunk_size", [4000, 100]),
        ({}, "data.train_samples", [400, 600, 1000]),
        ({}, "data.validation_fraction", [0.0, 0.5, 0.7]),
        ({"stream": {"name": "split"}}, "stream.fraction", [0.1, 0.5, 0.9]),
        ({}, "model.widths", [[100, 100], [200, 200]]),
        ({"model": "resnet18"}, "model.width", [64, 32, 16]),
        ({}, "training.batch_size", [128, 256, 512]),
        ({}, "training.until.max_epochs", [100, 500]),
        ({"strategies.mine.training": {"until": {"epochs": 50}}}, "strategies.mine.training.until.epochs", [20, 50]),
    ],
)
def test_an_axis_over_something_that_is_reduced_keeps_two_ends_in_their_order(edited, changes, key, ends):
    small, cells = rehearsed(edited({**changes, "vary": {key: ends}}))
    assert small["vary"][key] == [ends[0], ends[-1]]
    settings = [cell.settings for cell in cells if cell.arm.label == "mine" and cell.seed == 0]
    steps = {"stream.rounds": "rounds"}.get(key, key).removeprefix("strategies.mine.").split(".")
    first, last = (functools.reduce(operator.getitem, steps, each) for each in settings)
    assert first != last
    assert (first < last) == (ends[0] < ends[-1])


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


def test_more_axes_than_twelve_cells_of_two_arms_can_hold_lose_their_second_ends_from_the_last(edited):
    vary = {f"training.optimizer.{key}": [0.1, 0.2] for key in ("lr", "weight_decay")}
    vary |= {
        "training.batch_size": [4, 5],
        "training.until.train_accuracy": [0.5, 0.6],
        "stream.chunk_size": [40, 50],
    }
    small, cells = rehearsed(edited({"vary": vary}))
    assert [len(values) for values in small["vary"].values()] == [2, 2, 1, 1, 1]
    assert len(cells) == 2 * 4


# A first phase on another data set.

RUN = {"model": "mlp", "data": "cifar10", "stream": {"name": "pretrain", "source": "cifar100"}}


def stand_ins(cells):
    """What each cell and its first phase are trained on: names of stand-ins, or of data sets that lie here."""

    def of(cell):
        return cell.data.options.get("like", cell.data.name)

    return [(of(cell.first_phase), of(cell)) for cell in cells if cell.seed == cells[0].seed]


@pytest.mark.parametrize(
    "source",
    [
        "svhn",
        {"name": "svhn"},
        {"name": "svhn", "fraction": "same", "adapt": "pad", "training": {"until": {"epochs": 9}}},
    ],
)
def test_a_source_has_a_stand_in_and_keeps_what_is_said_of_its_use(edited, source):
    _, cells = rehearsed(edited({**RUN, "stream.source": source}))
    assert stand_ins(cells)[0] == ("svhn", "cifar10")
    phase = cells[0].first_phase
    assert (phase.data.name, phase.data.options["train_samples"]) == ("synthetic", 300)
    assert phase.arm.training.until.cap <= 4
    whole = isinstance(source, str) or "fraction" not in source
    kept = cells[0].pretraining.source
    assert kept.fraction == (1.0 if whole else cells[0].stream.options["fraction"])
    assert kept.adapt == (None if whole else "pad")


BUNDLES = {
    "names": {
        "a": {"stream.source.name": "mnist", "data.name": "svhn"},
        "b": {"stream.source.name": "svhn", "data.name": "mnist"},
    },
    "sections": {
        "a": {"stream.source": {"name": "mnist", "adapt": "pad"}, "data": {"name": "svhn"}},
        "b": {"stream.source": {"name": "svhn", "adapt": "pad"}, "data": {"name": "mnist"}},
    },
    "shorthands": {
        "a": {"stream.source": "fashion_mnist", "data": "mnist"},
        "b": {"stream.source": "mnist", "data": "fashion_mnist"},
    },
    "whole": {
        "a": {"stream": {"name": "pretrain", "source": "fashion_mnist"}, "data": "mnist"},
        "b": {"stream": {"name": "pretrain", "source": {"name": "mnist"}}, "data": "fashion_mnist"},
    },
}


@pytest.mark.parametrize("kind", BUNDLES)
def test_bundles_have_stand_ins_however_they_name_data_sets(edited, kind):
    adapt = {"stream.source": {"name": "cifar100", "adapt": "resize"}} if kind == "names" else {}
    _, cells = rehearsed(edited({**RUN, **adapt, "seeds": [0], "vary": {"pair": BUNDLES[kind]}}))
    there = ("mnist", "svhn") if kind in ("names", "sections") else ("fashion_mnist", "mnist")
    assert set(stand_ins(cells)) == {there, there[::-1]}
    assert {cell.first_phase.data.options["train_samples"] for cell in cells} == {300}
    assert {cell.varied["pair"] for cell in cells} == {"a", "b"}


def test_sources_on_a_plain_axis_have_stand_ins(edited):
    raw = edited({**RUN, "seeds": [0], "vary": {"stream.source": ["svhn", "digits", {"name": "cifar100"}]}})
    _, cells = rehearsed(raw)
    assert {source for source, _ in stand_ins(cells)} == {"svhn", "cifar100"}
    _, cells = rehearsed(edited({**RUN, "seeds": [0], "vary": {"stream.source.name": ["svhn", "cifar100"]}}))
    assert {source for source, _ in stand_ins(cells)} == {"svhn", "cifar100"}


def test_sets_that_lie_here_are_their_own_stand_ins_in_bundles_too(edited):
    pair = {
        "a": {"stream.source": "digits", "data": "noisy_digits"},
        "b": {"stream.source": "noisy_digits", "data": "digits"},
    }
    _, cells = rehearsed(edited({**RUN, "seeds": [0], "vary": {"pair": pair}}))
    assert set(stand_ins(cells)) == {("digits", "noisy_digits"), ("noisy_digits", "digits")}
    assert {cell.data_settings.train_samples for cell in cells} == {300}


@pytest.mark.parametrize(
    "training",
    [
        {"until": {"epochs": 200}}, {"until": {"train_accuracy": 0.9}}, {"until": {"steps": 9000}}, {"batch_size": 500},
        {}, None,
    ],
)  # fmt: skip
def test_training_that_a_bundle_gives_whole_is_reduced(edited, training):
    _, cells = rehearsed(edited({**RUN, "vary": {"pair": {"a": {"training": training}}}}))
    for cell in [*cells, *scenarios.first_phases(cells)]:
        assert cell.arm.training.until.cap <= 4
        assert cell.arm.training.batch_size <= 128
        assert cell.arm.training.until.steps in (None, 40)


def test_stop_rules_on_an_axis_are_reduced(edited):
    rules = [{"train_accuracy": 0.9}, {"epochs": 200}, {"train_accuracy": 1.0, "max_epochs": 100}]
    small, cells = rehearsed(edited({**RUN, "vary": {"training.until": rules}}))
    assert small["vary"]["training.until"] == [rules[0], rules[2]]
    assert [cell.arm.training.until.max_epochs for cell in cells if cell.arm.label == "mine"][:2] == [4, 2]


def test_bundles_keep_their_two_ends(edited):
    labels = {str(size): {"training.batch_size": size} for size in (4, 5, 6, 7)}
    small, _ = rehearsed(edited({**RUN, "vary": {"size": labels}}))
    assert small["vary"] == {"size": {"4": {"training.batch_size": 4}, "7": {"training.batch_size": 7}}}


@pytest.mark.parametrize("key", ["training.until", "training.until.epochs", "data.train_samples", "stream.chunk_size"])
def test_labels_stay_apart_where_both_are_cut(edited, key):
    long, longer = ({"epochs": 50}, {"epochs": 90}) if key == "training.until" else (800, 1000)
    raw = edited({"data": "cifar10", "model": "mlp", "vary": {"size": {"a": {key: long}, "b": {key: longer}}}})
    _, cells = rehearsed(raw)
    assert {cell.varied["size"] for cell in cells} == {"a", "b"}
    assert len({cell.digest for cell in cells}) == len(cells)


def test_cells_that_differ_only_in_what_a_stand_in_lacks_become_one(edited):
    changes = {"data": "imdb", "model": "bilstm", "strategies": {"random_init": {}}, "seeds": [0]}
    raw = edited({"vary": {"data.min_count": [2, 5]}}) | changes
    assert len(scenarios.plan(raw, "f.yaml")[1]) == 2
    _, cells = rehearsed(raw)
    assert len(cells) == 1


def test_chunks_suit_the_smallest_data_set_that_a_bundle_gives(edited):
    raw = edited({"data": "cifar10", "model": "mlp", "seeds": [0], "stream": {"name": "online", "chunk_size": 4000}})
    few = {"name": "digits", "train_samples": 60, "validation_fraction": 0.5}
    _, cells = rehearsed({**raw, "vary": {"set": {"many": {"data": "cifar10"}, "few": {"data": few}}}})
    assert {cell.data.name for cell in cells} == {"synthetic", "digits"}


def test_a_checkpoint_stays(edited, tmp_path):
    (tmp_path / "w.pt").write_bytes(b"")
    stream = {"name": "pretrain", "checkpoint": str(tmp_path / "w.pt"), "fraction": 0.5}
    small, cells = rehearsed(edited({**RUN, "stream": stream}))
    assert small["stream"]["checkpoint"] == str(tmp_path / "w.pt")
    assert cells[0].pretraining.source is None


def test_options_of_ones_own_that_only_share_a_name_are_left_alone(edited):
    own = {"name": "my_module:build", "channels": "rgb", "hidden": "relu", "width": [None, 64]}
    _, cells = rehearsed(edited({"model": own}))
    assert cells[0].model.to_dict() == own


def test_a_users_own_source_stays_in_the_rehearsal(edited):
    def load(root, seed): ...

    for source in (load, {"name": load, "adapt": "pad"}):
        small = rehearsal({**edited(RUN), "stream": {"name": "pretrain", "source": source}})
        assert scenarios.plan(small, "rehearsal")[1][0].first_phase.data.target is load
    pair = {"a": {"stream.source": load}, "b": {"stream.source": "svhn"}}
    small = rehearsal({**edited(RUN), "vary": {"pair": pair}})
    assert scenarios.plan(small, "rehearsal")[1][0].first_phase.data.target is load


def test_a_users_objects_stay_in_the_rehearsal(edited):
    def model(input_shape, classes): ...

    def strategy(previous, fresh, context): ...

    raw = {**edited(), "model": model, "strategies": {"mine": strategy}}
    _, cells = rehearsed(raw)
    assert cells[0].model.target is model
    assert cells[0].arm.start.target is strategy


def test_a_rehearsal_leaves_the_scenario_as_it_is(edited):
    raw = edited({"data": "cifar10", "vary": {"training.batch_size": [128, 256, 512]}})
    before = scenarios.plan(raw, "f.yaml")
    rehearsal(raw)
    assert scenarios.plan(raw, "f.yaml") == before
