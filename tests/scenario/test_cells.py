"""A scenario is multiplied out into cells, whose ids say exactly what decides their numbers."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from warmstart_sim import scenario as scenarios
from warmstart_sim.errors import WarmstartError
from warmstart_sim.scenario.resolved import resolved_scenario
from warmstart_sim.scenario.yaml_files import bundled_scenarios


def ids(raw: dict[str, Any]) -> list[str]:
    return [cell.id for cell in scenarios.plan(raw, "f.yaml")[1]]


def recorded(raw: dict[str, Any], scenario: scenarios.Scenario) -> dict[str, Any]:
    """The scenario as a run's folder gives it back."""
    return yaml.safe_load(yaml.safe_dump(resolved_scenario(raw, scenario), sort_keys=False))


def stored(raw: dict[str, Any]) -> dict[str, Any]:
    """The same, of a scenario that is parsed first."""
    return recorded(raw, scenarios.plan(raw, "f.yaml")[0])


# What is multiplied.


def test_every_arm_runs_with_every_seed_seed_by_seed(edited):
    cells = scenarios.plan(edited(), "f.yaml")[1]
    expected = itertools.product([0, 1], ["random_init", "shrink_perturb", "mine"])
    assert [(cell.seed, cell.arm.label) for cell in cells] == list(expected)


def test_every_combination_of_the_axes_is_a_cell(edited):
    raw = edited({"vary": {"training.optimizer.lr": [0.1, 0.2], "stream.chunk_size": [100, 200, 300]}})
    cells = scenarios.plan(raw, "f.yaml")[1]
    assert len(cells) == 2 * 3 * 3 * 2
    for cell in cells:
        assert cell.arm.training.optimizer.lr == cell.varied["training.optimizer.lr"]
        assert cell.stream.options["chunk_size"] == cell.varied["stream.chunk_size"]


def test_an_arms_own_axis_repeats_no_other_arm(edited):
    raw = edited(
        {"seeds": [0], "vary": {"strategies.shrink_perturb.lambda": [0.2, 0.4], "training.batch_size": [8, 16]}}
    )
    found = [(cell.arm.label, *cell.varied.values()) for cell in scenarios.plan(raw, "f.yaml")[1]]
    assert sorted(found, key=str) == sorted(
        [("shrink_perturb", lam, batch) for lam in (0.2, 0.4) for batch in (8, 16)]
        + [(label, None, batch) for label in ("random_init", "mine") for batch in (8, 16)],
        key=str,
    )
    assert list(scenarios.plan(raw, "f.yaml")[1][0].varied) == ["lambda", "training.batch_size"]


def test_two_arms_axes_of_one_name_are_one_column(edited):
    raw = edited({"seeds": [0], "strategies.second": {"start": "shrink_perturb"}})
    raw["vary"] = {"strategies.shrink_perturb.sigma": [0.1, 0.2], "strategies.second.sigma": [0.3]}
    found = [(cell.arm.label, cell.varied) for cell in scenarios.plan(raw, "f.yaml")[1]]
    assert ("shrink_perturb", {"sigma": 0.2}) in found
    assert ("second", {"sigma": 0.3}) in found
    assert ("mine", {"sigma": None}) in found
    assert len(found) == 5


def test_an_axis_may_go_through_an_arms_training_and_parts(edited):
    raw = edited({"seeds": [0]})
    raw["vary"] = {"strategies.mine.training.optimizer.lr": [1, 2], "strategies.mine.augment.random_crop": [0, 2]}
    mine = [cell for cell in scenarios.plan(raw, "f.yaml")[1] if cell.arm.label == "mine"]
    assert [(cell.arm.training.optimizer.lr, cell.arm.parts[0].options["random_crop"]) for cell in mine] == [
        (1, 0), (1, 2), (2, 0), (2, 2)
    ]  # fmt: skip
    assert list(mine[0].varied) == ["training.optimizer.lr", "augment.random_crop"]


def test_a_label_with_dots_can_have_an_axis(edited):
    raw = edited({"seeds": [0]})
    raw["strategies"]["shrink_0.6"] = {"start": "shrink_perturb"}
    raw["vary"] = {"strategies.shrink_0.6.sigma": [0.1, 0.2]}
    found = [cell.varied for cell in scenarios.plan(raw, "f.yaml")[1] if cell.arm.label == "shrink_0.6"]
    assert found == [{"sigma": 0.1}, {"sigma": 0.2}]


def test_values_that_are_lists_are_text_in_the_tables(edited):
    cells = scenarios.plan(edited({"vary": {"model.widths": [[4], [4, 4]]}}), "f.yaml")[1]
    assert {cell.varied["model.widths"] for cell in cells} == {"[4]", "[4, 4]"}
    assert {tuple(cell.model.options["widths"]) for cell in cells} == {(4,), (4, 4)}


DOTTED = "expected the dotted key of a setting, such as training.optimizer.lr"


@pytest.mark.parametrize(
    ("vary", "line"),
    [
        (5, "vary: found 5 (allowed: a mapping of dotted keys to lists of values)"),
        ([], "vary: found [] (allowed: a mapping of dotted keys to lists of values)"),
        ({"seeds": [[0], [1]]}, f"vary.seeds: {DOTTED}"),
        ({"strategies.mine": [{}]}, f"vary.strategies.mine: {DOTTED}"),
        ({"training.batch_size": 8}, "vary.training.batch_size: found 8 (allowed: a list of one or more values)"),
        ({"training.batch_size": []}, "vary.training.batch_size: found [] (allowed: a list of one or more values)"),
        ({"model.bias": [True, True]}, "vary.model.bias: [True, True] has a value twice; each must be given once"),
        (
            {"data.train_samples": [None, 100]},
            "vary.data.train_samples: null cannot be a value of an axis; write what it stands for",
        ),
        (
            {"strategies.shrink_pertrb.sigma": [1]},
            "vary.strategies.shrink_pertrb.sigma: unknown strategy 'shrink_pertrb'; did you mean 'shrink_perturb'? "
            "(there are: random_init, shrink_perturb, mine)",
        ),
        (
            {"strategies.mine.epochs": [1]},
            "vary.strategies.mine.epochs: the tables have a column `epochs`; give the option another name",
        ),
        ({"seeds.x": [1]}, "vary.seeds.x: seeds is [0, 1], which has no keys of its own"),
        (
            {"training.batchsize": [1]},
            "training.batchsize: unknown key; did you mean 'batch_size'? "
            "(allowed here: optimizer, schedule, batch_size, bucketing, until, precision, compile, threads, report, "
            "optimizer_state, later_rounds)",
        ),
        ({"training.batch_size": [8, 0]}, "training.batch_size: found 0 (allowed: a whole number > 0)"),
    ],
)  # fmt: skip
def test_an_axis_that_makes_no_sense_is_one_line(edited, vary, line):
    with pytest.raises(WarmstartError) as caught:
        scenarios.plan(edited({"vary": vary}), "f.yaml")
    where, _, said = str(caught.value).partition(": ")
    if where != "f.yaml":  # the combination that is at fault is named with the file
        where, said = str(caught.value).split("): ", 1)
        assert where.startswith("f.yaml (vary ")
    assert said == line


def test_a_mistake_beside_the_axes_is_not_blamed_on_them(edited):
    with pytest.raises(WarmstartError, match=r"^f\.yaml: title: found 3"):
        scenarios.plan(edited({"title": 3, "vary": {"training.batch_size": [8, 16]}}), "f.yaml")


@pytest.mark.parametrize(
    ("own", "vary"),
    [
        ({"training": {"optimizer": {"name": "sgd"}}}, {"training.optimizer.lr": [0.1, 0.2]}),
        ({"augment": ["rotation"]}, {"strategies.mine.augment.rotation": [True, 2]}),
    ],
)
def test_values_that_come_to_the_same_are_refused(edited, own, vary):
    raw = edited({"strategies.mine": {"start": "warm_start", **own}, "vary": vary})
    with pytest.raises(WarmstartError, match="come to the same for strategy 'mine'"):
        scenarios.plan(raw, "f.yaml")


# An arm's own training.


def test_an_arms_own_settings_replace_the_scenarios(edited):
    raw = edited({"strategies.mine.training": {"until": {"epochs": 7}, "batch_size": 9}})
    training = scenarios.parse(raw, "f.yaml").arms[-1].training
    assert (training.until.epochs, training.until.train_accuracy, training.batch_size) == (7, None, 9)
    assert training.optimizer.lr == 0.01


def test_an_optimizer_without_a_name_changes_the_scenarios_and_one_with_a_name_replaces_it(edited):
    raw = edited({"training.optimizer": {"name": "sgd", "lr": 0.5, "momentum": 0.9}})
    raw["strategies"]["slower"] = {"start": "warm_start", "training": {"optimizer": {"lr": 0.1}}}
    raw["strategies"]["other"] = {"start": "warm_start", "training": {"optimizer": {"name": "adam"}}}
    slower, other = (arm.training.optimizer for arm in scenarios.parse(raw, "f.yaml").arms[-2:])
    assert (slower.name, slower.lr, slower.momentum) == ("sgd", 0.1, 0.9)
    assert (other.name, other.lr, other.momentum) == ("adam", 0.001, 0)


# Ids.

DECISIVE = {
    "data.name": "cifar10",
    "data.validation_fraction": 0.1,
    "data.normalize": "half",
    "data.train_samples": 400,
    "data.test_samples": 400,
    "stream.chunk_size": 299,
    "stream.order": "balanced",
    "stream.rounds": 2,
    "model.widths": [9],
    "model.activation": "relu",
    "training.batch_size": 127,
    "training.optimizer.lr": 0.02,
    "training.optimizer.weight_decay": 0.1,
    "training.schedule.name": "cosine",
    "training.until.train_accuracy": 0.91,
    "training.until.max_epochs": 4,
    "training.precision": "bf16",
    "training.compile": True,
    "training.threads": 2,
    "measure.each_epoch": ["accuracy"],
    "seeds": [7, 8],
}


@pytest.mark.parametrize("key", DECISIVE)
def test_what_decides_the_numbers_changes_every_id(edited, key):
    before, after = set(ids(edited())), set(ids(edited({key: DECISIVE[key]})))
    assert not before & after


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("strategies.mine.start", "random_init"),
        ("strategies.mine.augment", ["rotation", "random_crop"]),
        ("strategies.mine.training", {"batch_size": 64}),
        ("strategies.shrink_perturb.lambda", 0.51),
        ("strategies.shrink_perturb.buffers", "fresh"),
    ],
)
def test_what_concerns_one_arm_changes_its_ids_alone(edited, key, value):
    label = key.split(".")[1]
    for before, after in zip(ids(edited()), ids(edited({key: value})), strict=True):
        assert (before == after) == (not before.startswith(label))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "other"), ("title", "Other"), ("reproduces", ["A-F2"]), ("metric", "test_accuracy"),
        ("model.bias", True), ("training.optimizer.name", "adam"), ("training.compile", False),
    ],
)  # fmt: skip
def test_what_decides_no_numbers_changes_no_id(edited, key, value):
    assert ids(edited({key: value})) == ids(edited())


def test_the_order_of_seeds_and_arms_and_the_presence_of_others_change_no_id(edited):
    raw = edited()
    reordered = {**raw, "seeds": [1, 0], "strategies": dict(reversed(raw["strategies"].items()))}
    assert sorted(ids(reordered)) == sorted(ids(raw))
    alone = {**raw, "seeds": [1], "strategies": {"mine": raw["strategies"]["mine"]}}
    assert set(ids(alone)) < set(ids(raw))


def test_an_option_of_the_data_set_goes_before_a_setting_of_that_name(edited):
    raw = edited({"data": {"name": "synthetic", "train_samples": 40}})
    cell = scenarios.plan(raw, "f.yaml")[1][0]
    assert cell.data.options["train_samples"] == 40
    assert cell.data_settings.train_samples is None
    assert not set(ids(raw)) & set(ids(edited({"data": {"name": "synthetic", "train_samples": 41}})))


def test_first_phases_are_shared_by_arms_that_differ_in_their_start_only(edited):
    raw = edited({"stream": "split", "strategies.warm_start": {}})
    raw["strategies"]["slow"] = {"start": "warm_start", "training": {"batch_size": 8}}
    phases = {(cell.arm.label, cell.seed): cell.first_phase.id for cell in scenarios.plan(raw, "f.yaml")[1]}
    shared = {phases[label, 0] for label in ("random_init", "shrink_perturb", "warm_start")}
    assert len(shared) == 1
    assert len(shared | {phases["mine", 0], phases["slow", 0], phases["random_init", 1]}) == 4


# The record of a run is a scenario that means the same cells.


@pytest.mark.parametrize("name", bundled_scenarios())
def test_the_record_of_a_bundled_scenario_means_the_same_cells(name):
    raw = {**scenarios.load(name), "seeds": [0]}
    scenario, cells = scenarios.plan(raw, "f.yaml")
    record = recorded(raw, scenario)
    scenario, same_cells = scenarios.plan(record, "f.yaml")
    assert [cell.id for cell in same_cells] == [cell.id for cell in cells]
    assert recorded(record, scenario) == record


ARMS = {
    "random_init": [None, {}, {"training": {"until": {"steps": 9}}}],
    "shrink_perturb": [{}, {"lambda": 0.2, "noise": "gaussian"}, {"start": "warm_start"}],
    "a.b λ": ["warm_start", {"start": "random_init", "augment": ["rotation"], "training": {"optimizer": {"lr": 0.5}}}],
    "own": ["my_module:strategy", {"start": "my_module:strategy", "strength": 2, "deep": {"x": [1, None]}}],
}
AXES = {
    "training.batch_size": [8, 16],
    "training.until.max_epochs": [5, 6],
    "data.validation_fraction": [0, 0.5],
    "data.name": ["digits", "synthetic"],
    "stream.name": ["online", "static"],
    "model.name": ["small_cnn", "logistic_regression"],
    "model.widths": [[3], [4, 5]],
    "stream.fraction": [0.1, 0.7],
    "strategies.random_init.training.optimizer.weight_decay": [0.1, 0.2],
    "strategies.shrink_perturb.start": ["random_init", "warm_start"],
    "strategies.a.b λ.augment.random_crop": [1, 2, 3],
    "strategies.own.strength": [1, 3],
}


@st.composite
def valid_scenarios(draw) -> dict[str, Any]:
    """Valid scenarios of many shapes: shorthands, own names, parts, own training, axes."""
    data = st.sampled_from(
        [
            "digits", {"name": "noisy_digits", "noise": 0.5, "normalize": "none"}, "my_module:data",
            {"name": "synthetic", "train_samples": 50}, {"name": "arrays", "path": "x.npz", "test_samples": 5},
        ]
    )  # fmt: skip
    streams = st.sampled_from(
        [None, "static", {"name": "online", "chunk_size": 5, "rounds": 2}, {"name": "split", "fraction": 0.3}]
    )
    models = st.sampled_from(["mlp", {"name": "mlp", "bias": False}, "small_cnn", "my_module:model", None])
    optimizers = st.sampled_from([{}, {"lr": 1e-4}, {"name": "sgd", "momentum": 0.5}])
    raw: dict[str, Any] = {
        "name": "drawn",
        "data": draw(data),
        "stream": draw(streams),
        "model": draw(models),
        "training": {"optimizer": draw(optimizers)},
        "strategies": {label: draw(st.sampled_from(arms)) for label, arms in ARMS.items() if draw(st.booleans())},
        "seeds": draw(st.lists(st.integers(0, 2**40), min_size=1, max_size=3, unique=True)),
    }
    raw["strategies"] = raw["strategies"] or {"warm_start": {}}
    for key in draw(st.lists(st.sampled_from(list(AXES)), max_size=3, unique=True)):
        raw["vary"] = {**raw.get("vary", {}), key: AXES[key]}
        try:
            scenarios.plan(raw, "f.yaml")
        except WarmstartError:  # an axis that does not belong to what was drawn
            del raw["vary"][key]
    return raw


@settings(max_examples=25, deadline=None)
@given(valid_scenarios())
def test_the_record_of_any_scenario_means_the_same_cells(raw):
    assert ids(stored(raw)) == ids(raw)
    assert len(set(ids(raw))) == len(ids(raw))
    again, first = scenarios.plan(stored(raw), "f.yaml")[1], scenarios.plan(raw, "f.yaml")[1]
    assert [(cell.settings, cell.varied) for cell in again] == [(cell.settings, cell.varied) for cell in first]
    assert [phase.id for phase in scenarios.first_phases(again)] == [
        phase.id for phase in scenarios.first_phases(first)
    ]


def test_an_option_that_is_off_is_not_part_of_what_a_cell_is(edited):
    """A later version may add options: those that are None leave the cells of stored runs what they were."""
    cell = scenarios.plan(edited({}), "f.yaml")[1][0]
    assert cell.settings["training"]["bucketing"] is None
    before = cell.digest
    del cell.settings["training"]["bucketing"]
    del cell.__dict__["digest"]
    assert cell.digest == before
    cell.settings["training"]["bucketing"] = 4
    del cell.__dict__["digest"]
    assert cell.digest != before


def test_the_identity_of_cells_that_exist_stays():
    """A new setting whose default is not None would change it, and no run could be continued or reported."""
    raw = {
        "name": "old", "data": {"name": "cifar10", "train_samples": 2000}, "stream": {"name": "stages", "stages": 4},
        "model": {"name": "mlp"}, "strategies": {"layerwise": {}},
        "training": {"optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9}, "until": {"train_accuracy": 0.99}},
    }  # fmt: skip
    assert ids(raw) == ["layerwise-seed0-021078c4a9"]
