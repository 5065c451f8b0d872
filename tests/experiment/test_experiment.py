"""Cells from start to end: what arms share, what a resumed cell gives, what happens when training goes wrong."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from warmstart_sim import scenario as scenarios
from warmstart_sim.errors import WarmstartError
from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.run_cell import run_cell
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.results.columns import MEASURED
from warmstart_sim.results.store import RunFolder
from warmstart_sim.training.coroutine import run_to_end
from warmstart_sim.training.loop import RoundTraining


def cells_of(raw: dict) -> list[scenarios.Cell]:
    return scenarios.plan(raw, "scenario")[1]


def timeless(rows: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in MEASURED} for row in rows]


def result(cell, folder, execution, **options) -> dict:
    run = RunFolder(folder)
    run_cell(cell, run, execution, **options)
    return stored(run, cell)


def stored(run: RunFolder, cell) -> dict:
    """What a run has stored of a cell, without times and the columns' units."""
    tables = run.cell(cell.id).result()
    return {name: timeless(tables[name]) for name in ("rounds", "epochs")} | {"weights": run.cell(cell.id).weights()}


def same(one: dict, other: dict) -> bool:
    return (
        one["rounds"] == other["rounds"]
        and one["epochs"] == other["epochs"]
        and all(torch.equal(one["weights"][key], other["weights"][key]) for key in one["weights"])
    )


@pytest.fixture
def execution(tmp_path) -> ExecutionSettings:
    return ExecutionSettings(data_root=tmp_path)


def test_all_arms_of_a_seed_see_the_same_split_chunks_and_first_round(tiny_scenario, tmp_path, execution):
    arms = [cell for cell in cells_of(tiny_scenario) if cell.seed == 0]
    labs = [CellTrainer(cell, execution) for cell in arms]
    for trainer in labs[1:]:
        for one, other in zip(labs[0].rounds, trainer.rounds, strict=True):
            assert np.array_equal(one.train, other.train)
        assert torch.equal(labs[0].fresh_weights(1)["head.weight"], trainer.fresh_weights(1)["head.weight"])
    results = [result(cell, tmp_path / "run", execution) for cell in arms]
    assert len({str(each["rounds"][0]) for each in results}) == 1
    assert len({str(each["rounds"][-1]) for each in results}) == 3


def test_validation_data_never_enter_training(tiny_scenario, execution):
    tiny_scenario["data"]["validation_fraction"] = 0.3333
    trainer = CellTrainer(cells_of(tiny_scenario)[0], execution)
    validation = trainer.samples_of("validation", trainer.rounds[-1])[1]
    assert len(validation) == round(0.3333 * 1198)
    assert not set(validation.tolist()) & set(trainer.rounds[-1].train.tolist())


def test_seeds_differ(tiny_scenario, tmp_path, execution):
    one, other = (cell for cell in cells_of(tiny_scenario) if cell.arm.label == "warm_start")
    assert result(one, tmp_path, execution)["rounds"] != result(other, tmp_path, execution)["rounds"]


@pytest.mark.parametrize(
    ("arm", "stop_after"),
    [*(("shrink_perturb", each) for each in (1, 4, 9, 14)), ("layerwise", 4), ("layerwise", 14)],
)
def test_a_cell_interrupted_anywhere_and_started_again_equals_one_that_ran_through(
    tiny_scenario, tmp_path, execution, arm, stop_after, monkeypatch
):
    tiny_scenario["training"]["until"] = {"train_accuracy": 1.0, "plateau": {"patience": 3}, "max_epochs": 6}
    arms = {"shrink_perturb": {"lambda": 0.6, "sigma": 0.1, "noise": "gaussian"}, "layerwise": {"freeze": True}}
    cell = cells_of(tiny_scenario | {"strategies": {arm: arms[arm]}, "seeds": [0]})[0]
    through = result(cell, tmp_path / "through", execution)

    class Killed(BaseException):
        pass

    epochs = 0

    def kill(progress):
        nonlocal epochs
        epochs += 1
        if epochs == stop_after:
            raise Killed

    eager = ExecutionSettings(execution.data_root, checkpoint_seconds=0)  # a checkpoint at every epoch's border
    run = RunFolder(tmp_path / "killed")
    with pytest.raises(Killed):
        run_cell(cell, run, eager, kill)
    assert not run.cell(cell.id).complete
    torch.rand(7)  # whatever else draws from the global generator makes no difference
    assert same(through, result(cell, tmp_path / "killed", execution))


def test_a_checkpoint_that_cannot_be_read_counts_as_not_there(tiny_scenario, tmp_path, execution):
    cell = cells_of(tiny_scenario)[0]
    folder = RunFolder(tmp_path / "run").cell(cell.id)
    folder.path.mkdir(parents=True)
    (folder.path / "checkpoint.pt").write_bytes(b"half a file")
    assert same(result(cell, tmp_path / "run", execution), result(cell, tmp_path / "other", execution))


def test_a_split_trains_its_first_half_once_and_all_arms_share_it(tiny_scenario, tmp_path, execution, monkeypatch):
    tiny_scenario["stream"] = {"name": "split", "fraction": 0.5}
    tiny_scenario["seeds"] = [0]
    starts = []
    original = CellTrainer.begin
    monkeypatch.setattr(
        CellTrainer,
        "begin",
        lambda trainer, round_, *rest: starts.append(round_.index) or original(trainer, round_, *rest),
    )
    results = {cell.arm.label: result(cell, tmp_path, execution) for cell in cells_of(tiny_scenario)}
    assert starts == [0, 1, 1, 1]
    assert len(list((tmp_path / "first_phases").iterdir())) == 1
    firsts = [each["rounds"][0] for each in results.values()]
    assert firsts[0] == firsts[1] == firsts[2]
    assert firsts[0]["shared"] is True
    assert results["random_init"]["rounds"][1]["shared"] is False


def test_warm_start_is_shrink_perturb_with_lambda_one_over_a_whole_run(tiny_scenario, tmp_path, execution):
    tiny_scenario["strategies"] = {
        "warm_start": {},
        "like_warm": {"start": "shrink_perturb", "lambda": 1, "sigma": 0},
        "random_init": {},
        "like_random": {"start": "shrink_perturb", "lambda": 0, "sigma": 1},
    }
    tiny_scenario["seeds"] = [0]
    warm, like_warm, random, like_random = (result(cell, tmp_path, execution) for cell in cells_of(tiny_scenario))
    assert same(warm, like_warm)
    assert same(random, like_random)
    assert not same(warm, random)


def test_a_diverged_round_is_recorded_and_random_init_recovers(tiny_scenario, tmp_path, execution, monkeypatch):
    tiny_scenario["strategies"] = {
        "random_init": {},
        "poison": {"start": "tests.experiment.poison:not_a_number"},
    }
    poison, *_ = (cell for cell in cells_of(tiny_scenario) if cell.arm.label == "poison")
    rounds = result(poison, tmp_path, execution)["rounds"]
    assert [row["status"] for row in rounds][1:] == ["diverged", "diverged"]
    assert rounds[1]["converged"] is False
    assert rounds[1]["epochs"] == 1


def test_a_strategy_that_returns_something_else_is_refused_by_name(tiny_scenario, tmp_path, execution):
    tiny_scenario["strategies"] = {"mine": {"start": "tests.experiment.poison:incomplete"}}
    with pytest.raises(WarmstartError, match=r"incomplete.*must return a state dict"):
        result(cells_of(tiny_scenario)[0], tmp_path, execution)


def test_the_optimiser_starts_anew_in_every_round(tiny_scenario, tmp_path, execution, monkeypatch):
    largest = []
    original = RoundTraining.epoch

    def spy(training):
        states = training.stepper.optimizer.state.values()
        values = [tensor.abs().max().item() for state in states for tensor in state.values()]
        largest.append((training.epochs, max(values, default=0.0)))
        return original(training)

    monkeypatch.setattr(RoundTraining, "epoch", spy)
    result(cells_of(tiny_scenario)[1], tmp_path, execution)
    assert [value for epoch, value in largest if epoch == 0] == [0.0, 0.0, 0.0]
    assert all(value > 0 for epoch, value in largest if epoch > 0)


@pytest.mark.parametrize(
    "training", [{"until": {"validation_patience": 2, "max_epochs": 25}}, {"report": "best_validation"}]
)
def test_the_best_weights_are_reported_but_the_next_round_goes_on_from_the_last(
    tiny_scenario, tmp_path, execution, training
):
    tiny_scenario["data"] |= {"validation_fraction": 0.2}
    tiny_scenario["training"] = {"until": {"epochs": 8}, "optimizer": {"lr": 0.02}, **training}
    tiny_scenario["measure"] = {"each_epoch": ["accuracy"]}
    stored = result(cells_of(tiny_scenario)[1], tmp_path, execution)
    for row in stored["rounds"]:
        epochs = [each for each in stored["epochs"] if each["round"] == row["round"]]
        best = max(epochs, key=lambda each: each["validation_accuracy"])  # the first of equal ones
        assert row["best_epoch"] == best["epoch"]
        for column in ("train_accuracy", "validation_accuracy", "test_accuracy"):
            assert row[column] == best[column]
    last = [each for each in stored["epochs"] if each["round"] == 2][-1]
    trainer = CellTrainer(cells_of(tiny_scenario)[1], execution)
    trainer.model.load_state_dict(stored["weights"])
    assert run_to_end(trainer.evaluate(trainer.rounds[-1]))["validation_accuracy"] == last["validation_accuracy"]


def test_counts_are_those_of_the_training(tiny_scenario, tmp_path, execution):
    row = result(cells_of(tiny_scenario)[0], tmp_path, execution)["rounds"][1]
    assert (row["train_samples"], row["new_samples"]) == (100, 50)
    assert row["steps"] == row["epochs"] * 4  # 100 samples in batches of 32
    assert row["samples_seen"] == row["epochs"] * 100
    assert row["flops"] > 0


def test_flops_are_two_for_each_multiply_add_forward_and_twice_that_backward(tiny_scenario, execution):
    tiny_scenario["model"] = {"name": "mlp", "widths": [20], "bias": False}
    trainer = CellTrainer(cells_of(copy.deepcopy(tiny_scenario))[0], execution)
    forward = 2 * (64 * 20 + 20 * 10)
    weights_backward, inputs_backward = forward, 2 * 20 * 10  # nothing flows back into the images
    assert trainer.flops() == forward + weights_backward + inputs_backward
