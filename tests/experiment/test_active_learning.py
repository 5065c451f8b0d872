"""The model of each arm chooses what arrives next, and a killed cell goes on with what was chosen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from tests.experiment.test_experiment import result, same, stored
from tests.experiment.test_starts import interrupted
from warmstart_sim import scenario as scenarios
from warmstart_sim.errors import WarmstartError
from warmstart_sim.execution.size import scenario_size
from warmstart_sim.experiment.active_learning import choose_next
from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.queries import margin
from warmstart_sim.experiment.run_cell import run_cell
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.experiment.stored_run import StoredRun
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario.yaml_files import set_path


@pytest.fixture
def execution(tmp_path) -> ExecutionSettings:
    return ExecutionSettings(data_root=tmp_path)


@pytest.fixture
def active(tiny_scenario):
    """The cell of an arm in a stream of 20 samples, then 50, then the other 80."""

    def cell(query: str = "margin", label: str = "warm_start", **changes) -> scenarios.Cell:
        tiny_scenario["stream"] = {"name": "active", "query": query, "initial": 20, "chunk_size": 50, "rounds": 3}
        tiny_scenario["seeds"] = [0]
        for key, value in changes.items():
            tiny_scenario[key] = value
        cells = scenarios.plan(tiny_scenario, "f")[1]
        return next(cell for cell in cells if cell.arm.label == label)

    return cell


@pytest.mark.parametrize("query", ["margin", "entropy", "badge"])
def test_what_arrives_was_not_there_before_and_is_recorded(active, tmp_path, execution, query):
    cell = active(query)
    rows = result(cell, tmp_path, execution)["rounds"]
    assert [(row["train_samples"], row["new_samples"]) for row in rows] == [(20, 20), (70, 50), (120, 50)]
    chunks = cell.folder(RunFolder(tmp_path)).arrival()
    assert [len(chunk) for chunk in chunks] == [20, 50, 50]
    pool = CellTrainer(cell, execution).pool
    everything = [sample for chunk in chunks for sample in chunk]
    assert len(set(everything)) == 120
    assert set(everything) < set(pool.tolist())
    table = pd.read_csv(cell.folder(RunFolder(tmp_path)).path / "arrival.csv")
    assert table["index"].tolist() == everything
    assert table["round"].value_counts().to_dict() == {0: 20, 1: 50, 2: 50}


def test_the_chosen_are_those_of_the_weights_at_the_end_of_the_round(active, execution):
    trainer = CellTrainer(active("margin"), execution)
    first = trainer.rounds[0]
    weights = trainer.fresh_weights(7)
    choose_next(trainer, first, weights)
    trainer.model.load_state_dict(weights)
    candidates = sorted(set(trainer.pool.tolist()) - set(first.train.tolist()))
    with torch.no_grad():
        inputs, _ = trainer.train_samples.batch(torch.tensor(candidates))
        logits = trainer.model.eval()(inputs).double().numpy()
    assert trainer.rounds[1].new.tolist() == [candidates[place] for place in margin(logits, 50)]
    assert trainer.rounds[1].train.tolist() == [*first.train, *trainer.rounds[1].new]
    assert trainer.setup_seconds > 0


def test_arms_begin_alike_and_choose_for_themselves_and_random_is_the_same_for_all(active, tmp_path, execution):
    found = {}
    for label in ("random_init", "warm_start"):
        cell = active("margin", label)
        result(cell, tmp_path, execution)
        found[label] = cell.folder(RunFolder(tmp_path)).arrival()
    assert found["random_init"][:2] == found["warm_start"][:2]  # by the same model after the first round
    assert set(found["random_init"][2]) != set(found["warm_start"][2])
    one, other = (CellTrainer(active("random", label), execution).rounds for label in ("random_init", "warm_start"))
    assert all(np.array_equal(each.train, again.train) for each, again in zip(one, other, strict=True))


@pytest.mark.parametrize("stop_after", [2, 7, 9])
def test_a_killed_cell_goes_on_with_the_same_samples(active, tmp_path, execution, stop_after):
    cell = active("badge", training={"batch_size": 32, "until": {"epochs": 4}})
    whole = result(cell, tmp_path / "whole", execution)
    interrupted(cell, tmp_path / "killed", execution, stop_after)
    run = RunFolder(tmp_path / "killed")
    run_cell(cell, run, execution)
    assert same(stored(run, cell), whole)
    assert cell.folder(run).arrival() == cell.folder(RunFolder(tmp_path / "whole")).arrival()


def test_analyses_see_the_chosen_samples(active, tmp_path, execution):
    cell = active()
    result(cell, tmp_path, execution)
    run = RunFolder(tmp_path)
    (again,) = StoredRun(run, None, [cell], execution).cells()
    chunks = cell.folder(run).arrival()
    assert again.trainer.rounds[-1].train.tolist() == [sample for chunk in chunks for sample in chunk]
    (cell.folder(run).path / "arrival.csv").unlink()
    with pytest.raises(WarmstartError, match=r"lacks arrival.csv"):
        next(StoredRun(run, None, [cell], execution).cells())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stream.query": "margn"}, r"f: stream.query: found 'margn'; did you mean 'margin'\? \(allowed: 'random', "),
        ({"stream.changes": {"window": {"last_rounds": 1}}}, r"f: stream.changes: in stream active the model chooses"),
        ({"stream.initial": 0}, r"f: stream.initial: found 0"),
        ({"stream.initial": 151}, r"f: stream.initial: 151 is more than the 150 available training samples"),
    ],
)
def test_mistakes_are_refused_before_the_run(tiny_scenario, changes, message):
    raw = {**tiny_scenario, "stream": {"name": "active"}}
    for key, value in changes.items():
        set_path(raw, key, value)
    with pytest.raises(WarmstartError, match=message):
        scenario_size(raw, "f")
