"""Axes of a scenario: lists of values, and bundles of settings that change together."""

from __future__ import annotations

import itertools
from typing import Any

import pandas as pd
import pytest
import yaml

from warmstart_sim import scenario as scenarios
from warmstart_sim.errors import WarmstartError
from warmstart_sim.results import statistics
from warmstart_sim.scenario.axes import axes_of
from warmstart_sim.scenario.rehearsal import rehearsal
from warmstart_sim.scenario.resolved import resolved_scenario

PAIR = {
    "digits": {"data": {"name": "digits", "train_samples": 100}, "training.batch_size": 8},
    "noisy": {"data": {"name": "noisy_digits", "noise": 2.0}, "training.batch_size": 16},
}


def cells(raw: dict[str, Any]) -> list[scenarios.Cell]:
    return scenarios.plan(raw, "f.yaml")[1]


def stored(raw: dict[str, Any]) -> dict[str, Any]:
    """The scenario as a run's folder gives it back."""
    return yaml.safe_load(yaml.safe_dump(resolved_scenario(raw, scenarios.plan(raw, "f.yaml")[0]), sort_keys=False))


# What a bundle means.


def test_the_settings_of_a_bundle_change_together(edited):
    found = {
        (cell.varied["pair"], cell.data.name, cell.arm.training.batch_size)
        for cell in cells(edited({"vary": {"pair": PAIR}}))
    }
    assert found == {("digits", "digits", 8), ("noisy", "noisy_digits", 16)}


def test_bundles_and_plain_axes_are_multiplied(edited):
    raw = edited(
        {"vary": {"pair": PAIR, "stream.chunk_size": [20, 40, 60], "strategies.mine.augment.rotation": [1, 2]}}
    )
    found = [tuple(cell.varied.values()) for cell in cells(raw) if (cell.arm.label, cell.seed) == ("mine", 1)]
    assert found == [(label, size, each) for label in PAIR for size in (20, 40, 60) for each in (1, 2)]
    others = [cell for cell in cells(raw) if cell.arm.label == "random_init"]
    assert len(others) == 2 * 2 * 3
    assert all(cell.varied["augment.rotation"] is None for cell in others)


def test_a_bundles_column_is_its_name_and_its_values_the_labels(edited):
    columns = [list(cell.varied.items()) for cell in cells(edited({"seeds": [0], "vary": {"pair": PAIR}}))]
    assert columns == [[("pair", label)] for label in PAIR for _ in range(3)]


@pytest.mark.parametrize("order", [1, -1])
def test_a_section_is_set_before_what_is_in_it_in_whatever_order_they_stand(edited, order):
    settings = {"data": {"name": "digits"}, "data.train_samples": 50}
    other = {"data": {"name": "noisy_digits"}, "data.train_samples": 60}
    pair = {name: dict(list(each.items())[::order]) for name, each in {"one": settings, "two": other}.items()}
    found = {(cell.data.name, cell.data_settings.train_samples) for cell in cells(edited({"vary": {"pair": pair}}))}
    assert found == {("digits", 50), ("noisy_digits", 60)}


@pytest.mark.parametrize("order", [1, -1])
def test_an_axis_may_change_what_another_axis_sets_as_a_whole(edited, order):
    axes = {"data.train_samples": [50, 60], "pair": {name: {"data": name} for name in ("digits", "noisy_digits")}}
    raw = edited({"seeds": [0], "vary": dict(list(axes.items())[::order])})
    found = {(cell.data.name, cell.data_settings.train_samples) for cell in cells(raw)}
    assert found == {(name, count) for name in ("digits", "noisy_digits") for count in (50, 60)}


def test_a_bundle_may_give_what_the_file_leaves_out(edited):
    raw = edited({"vary": {"pair": {"digits": {"data": "digits"}, "noisy": {"data": {"name": "noisy_digits"}}}}})
    del raw["data"]
    assert {cell.data.name for cell in cells(raw)} == {"digits", "noisy_digits"}


def test_null_in_a_bundle_stands_for_the_default(edited):
    raw = edited({"vary": {"size": {"all": {"data.train_samples": None}, "few": {"data.train_samples": 50}}}})
    assert [cell.data_settings.train_samples for cell in cells(raw)[::3]] == [None, 50] * 2


def test_the_keys_of_an_axis_are_the_settings_that_it_varies(edited):
    axes = axes_of(edited({"vary": {"pair": PAIR, "stream.chunk_size": [20, 40]}}), "f.yaml")
    assert [axis.keys for axis in axes] == [["data", "training.batch_size"], ["stream.chunk_size"]]


@pytest.mark.parametrize(
    "vary",
    [
        {"pair": PAIR},
        {"training.optimizer.lr": [1, 2], "pair": PAIR, "stream.chunk_size": [20, 40]},
        {"a b": {"x/y": {"data.name": "digits"}, "x y": {"data.name": "noisy_digits"}}},
        {"stream": {"a": {"stream": "static"}, "b": {"stream": {"name": "online", "chunk_size": 50}}}},
        {"net": {"1": {"model": "logistic_regression"}, "2": {"model": {"name": "mlp", "widths": [3]}}}},
        {"optimiser": {"null": {"training": None}, "1.0": {"training": {"optimizer": {"name": "sgd"}}}}},
        {"data.validation_fraction": [0.5, 0]},
        {"held out": {"yes": {"data.validation_fraction": 0.5}, "no": {"data.validation_fraction": 0.0}}},
        {"measured": {"no": {"measure.each_epoch": []}, "yes": {"measure.each_epoch": ["accuracy"]}}},
        {"penalty": {"no": {"parts.l2": None}, "yes": {"parts.l2": {"strength": 0.1}}}},
    ],
)
def test_the_record_of_a_scenario_with_bundles_means_the_same_cells(edited, vary):
    raw = edited({"vary": vary})
    again, first = cells(stored(raw)), cells(raw)
    assert [(cell.id, cell.varied, cell.settings) for cell in again] == [
        (cell.id, cell.varied, cell.settings) for cell in first
    ]
    assert stored(stored(raw)) == stored(raw)


def test_a_part_of_all_arms_gives_way_to_the_arms_own(edited):
    flip, crop = {"horizontal_flip": 0.5}, {"random_crop": 4}
    arms = {"plain": {"start": "random_init"}, "own": {"start": "random_init", "augment": crop, "l2": {"strength": 1}}}
    arms["none"] = {"start": "random_init", "augment": None}
    raw = edited({"parts": {"augment": flip}, "strategies": arms, "seeds": [0]})
    parts = {cell.arm.label: cell.arm.parts for cell in cells(raw)}
    assert [part.options["horizontal_flip"] for part in parts["plain"]] == [0.5]
    assert [part.name for part in parts["own"]] == ["augment", "l2"]
    assert parts["own"][0].options["horizontal_flip"] == 0
    assert parts["none"] == ()
    assert [cell.settings for cell in cells(stored(raw))] == [cell.settings for cell in cells(raw)]


def test_arms_do_not_meet_the_axes_of_other_arms(edited):
    """Each arm has the combinations of its own axes and the common ones: 2 (1 + 3 + 2) cells, and not 2 x 3 x 3 x 2."""
    arms = {"one": {"start": "warm_start", "stages": 1}, "sp": {"start": "shrink_perturb"}, "ban": "random_init"}
    vary = {"strategies.sp.stages": [2, 3, 4], "training.batch_size": [10, 20]}
    vary["taught"] = {
        name: {"strategies.ban.stages": stages, "strategies.ban.self_distillation": {"beta": stages}}
        for name, stages in (("a little", 2), ("much", 4))
    }
    raw = edited({"stream": {"name": "stages", "epochs": 8}, "strategies": arms, "seeds": [0], "vary": vary})
    del raw["training"]
    found = cells(raw)
    for label, stages in {"one": [1], "sp": [2, 3, 4], "ban": [2, 4]}.items():
        own = [cell for cell in found if cell.arm.label == label]
        pairs = sorted((each.varied["training.batch_size"], each.stream.options["stages"]) for each in own)
        assert pairs == [(size, count) for size in (10, 20) for count in stages]
        assert all(each.arm.training.until.epochs == 8 // each.stream.options["stages"] for each in own)
        assert {each.varied["taught"] for each in own} == ({"a little", "much"} if label == "ban" else {None})
    again = cells(stored(raw))
    assert [(cell.id, cell.varied) for cell in again] == [(cell.id, cell.varied) for cell in found]


def test_the_metric_is_one_that_all_cells_have(edited):
    def metric(changes):
        return scenarios.plan(edited(changes), "f.yaml")[0].metric

    key = "data.validation_fraction"
    assert metric({"vary": {key: [0.5, 0]}}) == metric({"vary": {key: [0, 0.5]}}) == "test_accuracy"
    assert metric({"vary": {key: [0.5, 0.2]}}) == "validation_accuracy"
    assert metric({"vary": {key: [0.5, 0.2]}, "metric": "test_accuracy"}) == "test_accuracy"


# Mistakes.

LABELS = "(allowed: a mapping of dotted keys to values)"
DOTTED = "expected the dotted key of a setting, such as training.optimizer.lr"


@pytest.mark.parametrize(
    ("vary", "line"),
    [
        (
            {"pair": {}},
            "vary.pair: there is nothing in it (allowed: a list of values, or a mapping of labels to settings)",
        ),
        ({"pair": {"a": {}}}, f"vary.pair.a: there is nothing in it {LABELS}"),
        ({"pair": {"a": 3}}, f"vary.pair.a: found 3 {LABELS}"),
        ({"pair": {"a": None}}, f"vary.pair.a: found null {LABELS}"),
        ({"pair": {"a": ["data.name"]}}, f"vary.pair.a: found ['data.name'] {LABELS}"),
        ({"pair": ["a", "b"]}, f"vary.pair: {DOTTED}"),
        ({"pair": {"": {"training.batch_size": 4}}}, "vary.pair: a label cannot be empty"),
        (
            {"my.pair": {"a": {"training.batch_size": 4}}},
            "vary.my.pair: found a mapping; a setting takes a list of values, a bundle a name without dots",
        ),
        (
            {"training.batch_size": {"a": {"training.batch_size": 4}}},
            "vary.training.batch_size: found a mapping; a setting takes a list of values, a bundle a name without dots",
        ),
        (
            {"pair": {"a": {"strategies.mine.start": "random_init", "training.batch_size": 4}}},
            "vary.pair: sets options of one strategy beside other settings; a bundle holds for all or for one",
        ),
        ({"pair": {"a": {"strategies": {}}}}, f"vary.pair.a.strategies: {DOTTED}"),
        ({"pair": {"a": {"seeds": [3]}}}, f"vary.pair.a.seeds: {DOTTED}"),
        ({"pair": {"a": {"batch_size": 3}}}, f"vary.pair.a.batch_size: {DOTTED}"),
        ({"pair": {"a": {"vary.training.batch_size": 3}}}, f"vary.pair.a.vary.training.batch_size: {DOTTED}"),
        ({"vary.training.batch_size": [3, 4]}, f"vary.vary.training.batch_size: {DOTTED}"),
        (
            {"pair": {"a": {"training.batch_size": 4}, "b": {"training.threads": 2}}},
            "vary.pair: 'a' and 'b' do not both set training.batch_size; all labels set the same keys",
        ),
        (
            {"pair": {"a": {"training.batch_size": 4}}, "training.batch_size": [2, 3]},
            "vary.training.batch_size: `training.batch_size` is varied by `pair` as well",
        ),
        (
            {"one": {"a": {"training.batch_size": 4}}, "two": {"b": {"training.batch_size": 5}}},
            "vary.two: `training.batch_size` is varied by `one` as well",
        ),
        (
            {"lambda": {"a": {"training.batch_size": 4}}, "strategies.shrink_perturb.lambda": [0.1, 0.2]},
            "vary.lambda: an option has the column `lambda`; give the bundle another name",
        ),
        (
            {"pair": {"a": {"training.batch_size": 4}, "b": {"training.batch_size": 4}}},
            "vary: pair: 'a' and 'b' come to the same for strategy 'random_init'",
        ),
        (
            {"pair": {"a": {"data": {"name": "digits", "noise": 1}}}},
            "data.noise: unknown key; did you mean 'label_noise'? (allowed here: name, validation_fraction, normalize, "
            "train_samples, test_samples, label_noise)",
        ),
        ({"pair": {"a": {"data": None}}}, "data: is missing"),
        ({"pair": {"a": {"seeds.x": 1}}}, "vary.pair: seeds is [0, 1], which has no keys of its own"),
    ],
)  # fmt: skip
def test_a_bundle_that_makes_no_sense_is_one_line(edited, vary, line):
    with pytest.raises(WarmstartError) as caught:
        cells(edited({"vary": vary}))
    where, _, said = str(caught.value).partition(": ")
    if where != "f.yaml":  # the label that is at fault is named with the file
        where, said = str(caught.value).split("): ", 1)
        assert where == "f.yaml (vary pair: 'a'"
    assert said == line


def columns_of_all_tables() -> set[str]:
    """Every column of a run's tables, and of the tables that are made of them on the way to a summary."""
    row = {
        "scenario": "s", "shared": False, "test_accuracy": 0.5, "epochs": 3, "steps": 30, "converged": True,
        "status": "converged", "timing": "isolated", "train_seconds": 1.0, "criterion_seconds": 0.1,
        "samples_seen": 300, "flops": 1e6,
    }  # fmt: skip
    arms = [(arm, seed) for arm in ("random_init", "warm_start") for seed in (0, 1)]
    rounds = pd.DataFrame([{**row, "strategy": arm, "seed": seed, "round": 0} for arm, seed in arms])
    each = statistics.cells(rounds, [], "test_accuracy")
    paired = statistics.paired(each, [], "random_init")
    summed = statistics.summary(rounds, [], "test_accuracy", "random_init")
    over_seeds = statistics.over_seeds(each, ["strategy"], "final_accuracy")
    return {*rounds, "accuracy", *each, *paired, *summed, *over_seeds}


@pytest.mark.parametrize("column", sorted(columns_of_all_tables()))
def test_a_bundle_cannot_have_the_name_of_a_column(edited, column):
    raw = edited({"vary": {column: {"a": {"training.batch_size": 4}, "b": {"training.batch_size": 5}}}})
    with pytest.raises(WarmstartError, match=rf"vary\.{column}: the tables have a column `{column}`; give the bundle"):
        axes_of(raw, "f.yaml")


# Combinations that are drawn at random.

CHOICES = {"training.optimizer.lr": [0.1, 0.01, 0.001], "training.batch_size": [8, 16, 32, 64]}


def drawn(edited, **changes: Any) -> list[tuple[float, int]]:
    raw = edited({"seeds": [0], "vary": {"draw": {"draws": 9, "from": CHOICES} | changes}})
    found = [cell for cell in cells(raw) if cell.arm.label == "random_init"]
    assert [cell.varied for cell in found] == [{"draw": str(number + 1)} for number in range(len(found))]
    return [(cell.arm.training.optimizer.lr, cell.arm.training.batch_size) for cell in found]


def test_draws_are_different_combinations_that_their_seed_decides(edited):
    nine = drawn(edited)
    assert len(set(nine)) == 9
    assert nine == drawn(edited, seed=0) != drawn(edited, seed=1)
    assert drawn(edited, draws=4) == nine[:4]
    assert set(drawn(edited, draws=12)) == set(itertools.product(*CHOICES.values()))


def test_every_value_is_drawn_equally_often(edited):
    firsts = [drawn(edited, draws=1, seed=seed)[0] for seed in range(600)]
    for counts, choices in zip(zip(*firsts, strict=True), CHOICES.values(), strict=True):
        expected = len(firsts) / len(choices)
        # Chi-squared with at most 3 degrees of freedom is above 16.3 once in a thousand.
        assert sum((counts.count(choice) - expected) ** 2 / expected for choice in choices) < 16.3
    pairs = {pair: firsts.count(pair) for pair in set(firsts)}
    assert len(pairs) == 12
    assert max(pairs.values()) < 2 * 600 / 12


def test_draws_are_stored_as_a_bundle_of_what_was_drawn(edited):
    raw = edited({"vary": {"draw": {"draws": 3, "seed": 5, "from": CHOICES}}})
    again = stored(raw)
    assert list(again["vary"]["draw"]) == ["1", "2", "3"]
    assert again["vary"]["draw"]["2"].keys() == CHOICES.keys()
    assert [cell.id for cell in cells(again)] == [cell.id for cell in cells(raw)]
    assert axes_of(rehearsal(raw), "f.yaml")[0].bundled.keys() == {"1", "3"}


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({"draws": 9}, "from: is missing (expected a mapping)"),
        ({"from": CHOICES}, "draws: is missing (expected a whole number > 0)"),
        ({"draws": 0, "from": CHOICES}, "draws: found 0 (allowed: a whole number > 0)"),
        ({"draws": 13, "from": CHOICES}, "draws: found 13, but `from` has only 12 combinations"),
        ({"draws": 1, "form": CHOICES}, "form: unknown key; did you mean 'from'? (allowed here: draws, seed, from)"),
        (
            {"draws": 1, "from": {"training.batch_size": 8}},
            "from.training.batch_size: found 8 (allowed: a list of one or more, each a value)",
        ),
        (
            {"draws": 1, "from": {"training.batch_size": [8, 8]}},
            "from.training.batch_size: [8, 8] has a value twice; each must be given once",
        ),
        (
            {"draws": 1, "from": {"seeds": [8]}},
            "from.seeds: expected the dotted key of a setting, such as training.optimizer.lr",
        ),
    ],
)
def test_draws_that_make_no_sense_are_one_line(edited, value, line):
    with pytest.raises(WarmstartError) as caught:
        cells(edited({"vary": {"draw": value}}))
    assert str(caught.value) == f"f.yaml: vary.draw.{line}"
