"""Settings of `training.later_rounds`: which rounds they reach, and what does not depend on them."""

from __future__ import annotations

import pytest

from tests.experiment.test_experiment import cells_of, result, same
from warmstart_sim import scenario as scenarios
from warmstart_sim.errors import WarmstartError
from warmstart_sim.execution.size import scenario_size
from warmstart_sim.execution.throughput import step_times
from warmstart_sim.experiment.run_cell import run_cell
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario.resolved import resolved_scenario

LATER = {"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9}, "batch_size": 16, "until": {"epochs": 3}}


@pytest.fixture
def execution(tmp_path) -> ExecutionSettings:
    return ExecutionSettings(data_root=tmp_path)


@pytest.fixture
def two_rounds(tiny_scenario) -> dict:
    """Random init on the same data twice: its second round depends on nothing before it."""
    return {
        **tiny_scenario,
        "stream": {"name": "static", "rounds": 2},
        "training": {"optimizer": {"lr": 0.01}, "batch_size": 32, "until": {"epochs": 2}},
        "strategies": {"random_init": {}},
        "seeds": [0],
    }


def test_each_round_is_that_of_a_run_whose_every_round_has_these_settings(two_rounds, tmp_path, execution):
    first = result(cells_of(two_rounds)[0], tmp_path / "first", execution)
    later = result(cells_of({**two_rounds, "training": LATER})[0], tmp_path / "later", execution)
    two_rounds["training"]["later_rounds"] = {**LATER, "until": {"epochs": 3}}
    both = result(cells_of(two_rounds)[0], tmp_path / "both", execution)
    assert both["rounds"] == [first["rounds"][0], later["rounds"][1]]
    assert both["epochs"] == [
        row for each in (first, later) for row in each["epochs"] if row["round"] == (each is later)
    ]


@pytest.mark.parametrize("stop_after", [1, 3, 4])
def test_a_cell_interrupted_in_either_kind_of_round_equals_one_that_ran_through(
    two_rounds, tmp_path, execution, stop_after
):
    two_rounds["training"]["later_rounds"] = LATER
    two_rounds["strategies"] = {"warm_start": {}}
    (cell,) = cells_of(two_rounds)
    epochs = 0

    def kill(progress):
        nonlocal epochs
        epochs += 1
        if epochs == stop_after:
            raise KeyboardInterrupt

    eager = ExecutionSettings(execution.data_root, checkpoint_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        run_cell(cell, RunFolder(tmp_path / "killed"), eager, kill)
    through = result(cell, tmp_path / "through", execution)
    assert same(through, result(cell, tmp_path / "killed", execution))


def test_an_axis_over_later_rounds_shares_one_first_phase(two_rounds):
    two_rounds["stream"] = {"name": "split"}
    alone = cells_of(two_rounds)[0].first_phase
    two_rounds["vary"] = {
        "training.later_rounds.optimizer.lr": [0.1, 0.01],
        "training.later_rounds.batch_size": [8, 16],
    }
    cells = cells_of(two_rounds)
    assert scenarios.first_phases(cells) == [alone]
    assert len({cell.digest for cell in cells}) == 4
    settings = [cell.arm.training.in_round(1) for cell in cells]
    assert {(each.optimizer.lr, each.batch_size) for each in settings} == {(r, b) for r in (0.1, 0.01) for b in (8, 16)}


def test_they_are_merged_over_training_as_a_base(two_rounds):
    two_rounds["training"] |= {
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.5},
        "until": {"train_accuracy": 0.9},
    }
    two_rounds["training"]["later_rounds"] = {"optimizer": {"lr": 0.2}, "until": {"max_epochs": 7}}
    two_rounds["strategies"] = {
        "random_init": {},
        "other": {"start": "random_init", "training": {"later_rounds": {"optimizer": {"name": "adam"}}}},
        "plain": {"start": "random_init", "training": {"batch_size": 8, "later_rounds": None}},
    }
    shared, other, plain = (cell.arm.training for cell in cells_of(two_rounds))
    later = shared.in_round(1)
    assert (later.optimizer.name, later.optimizer.lr, later.optimizer.momentum) == ("sgd", 0.2, 0.5)
    assert (later.until.train_accuracy, later.until.max_epochs, later.batch_size) == (0.9, 7, 32)
    adam = {"name": "adam", "lr": 0.2, "momentum": 0, "weight_decay": 0, "decay_biases": None}
    assert other.in_round(1).optimizer.model_dump() == adam
    assert other.in_round(1).until == later.until
    assert plain.in_round(1) == plain.in_round(0)


def test_the_stored_scenario_gives_the_same_cells(two_rounds):
    two_rounds["training"]["later_rounds"] = {"batch_size": 16}
    two_rounds["vary"] = {"training.optimizer.lr": [0.1, 0.01], "training.later_rounds.until.epochs": [1, 2]}
    scenario, cells = scenarios.plan(two_rounds, "file")
    again = scenarios.plan(resolved_scenario(two_rounds, scenario), "stored")[1]
    assert [cell.digest for cell in again] == [cell.digest for cell in cells]


def test_check_counts_the_steps_of_each_round_by_its_own_settings(two_rounds, tmp_path):
    two_rounds["data"] |= {"train_samples": 100}
    two_rounds["training"]["later_rounds"] = LATER
    assert scenario_size(two_rounds, "file", tmp_path).steps == 2 * 4 + 3 * 7
    two_rounds["stream"] = {"name": "split", "fraction": 0.5}
    assert scenario_size(two_rounds, "file", tmp_path).steps == 2 * 2 + 3 * 7


def test_steps_of_both_kinds_of_rounds_are_timed(two_rounds, execution, tmp_path):
    two_rounds["training"]["later_rounds"] = LATER
    (cell,) = cells_of(two_rounds)
    assert step_times([cell], execution).keys() == {cell.step_kind(0), cell.step_kind(1)} == cell.step_kinds.keys()
    assert cell.step_kind(0) != cell.step_kind(1) == cell.step_kind(2)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("training", {"later_rounds": {"batchsize": 8}}, "training.later_rounds.batchsize: unknown key; did you mean"),
        ("training", {"later_rounds": {"later_rounds": {}}}, "training.later_rounds.later_rounds: unknown key"),
        ("training", {"later_rounds": 3}, "training.later_rounds: found 3 (allowed: a mapping)"),
        (
            "training",
            {"later_rounds": {"until": {"validation_patience": 3}}},
            "training.until.validation_patience: needs validation data",
        ),
        (
            "stream",
            {"name": "pretrain", "source": {"name": "digits", "training": {"later_rounds": {"batch_size": 8}}}},
            "stream.source.training.later_rounds: the first phase is one round",
        ),
    ],
)
def test_mistakes_are_named(two_rounds, key, value, message):
    with pytest.raises(WarmstartError, match=message.replace("(", r"\(").replace(")", r"\)")):
        cells_of({**two_rounds, key: value})


def test_a_rehearsal_is_reduced_in_later_rounds_too(two_rounds):
    two_rounds["training"]["later_rounds"] = {"until": {"epochs": 200}, "batch_size": 500}
    (cell,) = cells_of({**two_rounds, "rehearsal": True})
    later = cell.arm.training.in_round(1)
    assert (later.until.epochs, later.batch_size) == (4, 64)
