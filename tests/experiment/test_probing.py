"""Probes in whole cells: when they run, where their columns go, and that they change nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import torch

from tests.experiment.test_experiment import result, same
from tests.experiment.test_starts import interrupted
from warmstart_sim import api
from warmstart_sim import scenario as scenarios
from warmstart_sim.avalanche.engine import avalanche_engine
from warmstart_sim.errors import WarmstartError
from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.run_cell import run_cell
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.results.store import RunFolder

OWN = "tests.experiment.own_probes"
ALL = {
    "each_epoch": ["accuracy", "gradient_norm", {"weight_norm": {"every": 2}}, "distance_from_start"],
    "each_round": ["weight_norm", {"dead_units": {"samples": 20}}, "effective_rank", "accuracy"],
}


@pytest.fixture
def execution(tmp_path) -> ExecutionSettings:
    return ExecutionSettings(data_root=tmp_path)


def cell_of(scenario: dict[str, Any], measure: dict[str, Any], label: str = "shrink_perturb") -> scenarios.Cell:
    cells = scenarios.plan({**scenario, "measure": measure, "seeds": [0]}, "scenario")[1]
    return next(cell for cell in cells if cell.arm.label == label)


def without(rows: list[dict], columns: set[str]) -> list[dict]:
    return [{name: value for name, value in row.items() if name not in columns} for row in rows]


def test_probes_change_no_other_number(tiny_scenario, tmp_path, execution):
    plain = result(cell_of(tiny_scenario, {"each_epoch": ["accuracy"]}), tmp_path / "plain", execution)
    probed = result(cell_of(tiny_scenario, ALL), tmp_path / "probed", execution)
    added = {name for table in ("rounds", "epochs") for row in probed[table] for name in row} - {
        name for table in ("rounds", "epochs") for row in plain[table] for name in row
    }
    assert {"gradient_norm_ratio", "weight_norm_head_at_start", "cosine_to_start", "train_accuracy_at_start"} <= added
    for table in ("rounds", "epochs"):
        assert without(probed[table], added) == plain[table]
    assert all(torch.equal(probed["weights"][name], tensor) for name, tensor in plain["weights"].items())


def test_probes_are_measured_when_the_scenario_says(tiny_scenario, tmp_path, execution):
    tiny_scenario["training"]["until"] = {"epochs": 5}
    stored = result(cell_of(tiny_scenario, ALL), tmp_path, execution)
    for row in stored["epochs"]:
        assert ("weight_norm" in row) == (row["epoch"] % 2 == 0)
        assert "gradient_norm_new" in row
        assert (row["gradient_norm_old"] is None) == (row["round"] == 0)
    last_even = [row for row in stored["epochs"] if row["epoch"] == 4]
    assert [row["weight_norm"] for row in last_even] != [row["weight_norm"] for row in stored["rounds"]]


def test_the_start_of_a_round_is_what_the_strategy_made(tiny_scenario, tmp_path, execution):
    cell = cell_of(tiny_scenario, ALL)
    stored = result(cell, tmp_path, execution)
    trainer = CellTrainer(cell, execution)
    fresh = trainer.fresh_weights(0)
    expected = torch.cat([fresh[name].flatten() for name in trainer.layout.parameters]).norm().item()
    first, second, _ = stored["rounds"]
    assert first["weight_norm_at_start"] == pytest.approx(expected)
    assert second["weight_norm_at_start"] < first["weight_norm"]  # 0.6 times it, and a little noise
    ends = {row["round"]: row for row in stored["epochs"]}  # the last epoch of each round
    for row in stored["rounds"]:
        assert row["test_accuracy"] == ends[row["round"]]["test_accuracy"]
        assert row["test_accuracy_at_start"] != row["test_accuracy"]


@pytest.mark.parametrize("stop_after", [2, 8])
def test_an_interrupted_cell_measures_what_one_that_ran_through_does(tiny_scenario, tmp_path, execution, stop_after):
    tiny_scenario["training"]["until"] = {"epochs": 5}
    cell = cell_of(tiny_scenario, ALL)
    through = result(cell, tmp_path / "through", execution)
    assert interrupted(cell, tmp_path / "killed", execution, stop_after)
    assert same(through, result(cell, tmp_path / "killed", execution))
    columns = [RunFolder(tmp_path / name).cell(cell.id).result()["columns"] for name in ("through", "killed")]
    assert columns[0] == columns[1]


def test_both_engines_measure_the_same(tiny_scenario, tmp_path, execution):
    ours = result(cell_of(tiny_scenario, ALL), tmp_path / "ours", execution)
    theirs = result(cell_of(tiny_scenario, ALL), tmp_path / "theirs", replace(execution, engine=avalanche_engine))
    assert ours["rounds"] == theirs["rounds"]
    assert without(ours["epochs"], {"running_train_loss"}) == without(theirs["epochs"], {"running_train_loss"})


def test_own_probes_and_their_columns_are_in_the_tables(tiny_scenario, tmp_path):
    tiny_scenario["measure"] = {"each_epoch": [{f"{OWN}:head": {"power": 2, "every": 3}}, f"{OWN}:not_finite"]}
    results = api.run(tiny_scenario, strategies=["warm_start"], seeds=[0], out=tmp_path, workers=1, quiet=True)
    table = pd.read_csv(tmp_path / "epochs.csv")
    assert (table["head_size"].notna() == (table["epoch"] % 3 == 0)).all()
    assert table[["infinite", "nan", "none"]].isna().all().all()
    assert {"infinite", "nan", "none", "head_size", "probe_seconds"} < set(table.columns)
    assert results.rounds["probe_seconds"].gt(0).all()


def test_a_run_without_probes_has_no_columns_of_theirs(tiny_scenario, tmp_path):
    results = api.run(tiny_scenario, strategies=["warm_start"], seeds=[0], out=tmp_path, workers=1, quiet=True)
    assert not {"probe_seconds"} & {*results.rounds.columns, *results.epochs.columns}
    assert not (tmp_path / "columns.json").exists()


def test_probe_seconds_are_no_train_seconds(tiny_scenario, tmp_path, execution):
    tiny_scenario["training"]["until"] = {"epochs": 4}
    cell = cell_of(tiny_scenario, {"each_epoch": [f"{OWN}:seconds"], "each_round": [f"{OWN}:seconds"]})
    run = RunFolder(tmp_path)
    run_cell(cell, run, execution)
    for row in run.cell(cell.id).result()["rounds"]:
        assert row["probe_seconds"] >= 6 * 0.05  # four epochs, the start, the end
        measured = ("train_seconds", "criterion_seconds", "evaluation_seconds", "setup_seconds")
        assert sum(row[name] for name in measured[1:]) < 0.3


def test_a_probe_that_draws_from_the_default_generator_changes_nothing(tiny_scenario, tmp_path, execution):
    plain = result(cell_of(tiny_scenario, {}), tmp_path / "plain", execution)
    drawing = result(cell_of(tiny_scenario, {"each_epoch": [f"{OWN}:draws"]}), tmp_path / "drawing", execution)
    assert all(torch.equal(drawing["weights"][name], tensor) for name, tensor in plain["weights"].items())


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("taken", "returned the column 'steps', which is taken"),
        ("a_number", "must return a mapping of column names to numbers, not 3.0"),
        ("a_text", "must return numbers: could not convert string to float: 'three'"),
    ],
)
def test_what_is_no_number_of_its_own_is_one_line(tiny_scenario, tmp_path, execution, name, line):
    with pytest.raises(WarmstartError, match=line):
        result(cell_of(tiny_scenario, {"each_epoch": [f"{OWN}:{name}"]}), tmp_path, execution)
