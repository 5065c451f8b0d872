"""The Python API: a user's own strategy, model and data against the built-in ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import warmstart_sim
from warmstart_sim import Dataset, Samples, ShrinkPerturb, run
from warmstart_sim.errors import RunError, WarmstartError

QUICK = {"out": None, "quiet": True, "device": "cpu"}


@pytest.fixture
def no_report(monkeypatch) -> None:
    """Leaves out the report, which takes longer than a small run."""
    monkeypatch.setattr("warmstart_sim.report.write", lambda folder: None)


tables_only = pytest.mark.usefixtures("no_report")


def average(previous, fresh, context):
    return {name: (previous[name] + fresh[name]) / 2 for name in fresh}


def tiny_model(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(input_shape)), 8), nn.ReLU(), nn.Linear(8, classes))


def test_a_function_runs_beside_the_built_in_strategies(tiny_scenario, tmp_path):
    results = run(
        tiny_scenario, strategies=["random_init", ShrinkPerturb(0.5, 0.5), average], seeds=[0],
        **{**QUICK, "out": tmp_path},
    )  # fmt: skip
    last = results.rounds.groupby("strategy", observed=True).last()["test_accuracy"]
    assert set(last.index) == {"random_init", "shrink_perturb", "average"}
    # lambda = sigma = 1/2 is that average for parameters; buffers are kept in one and averaged in the other.
    assert last["average"] != last["random_init"]
    assert (tmp_path / "report.html").exists()


@tables_only
def test_a_function_that_changes_is_another_experiment(tiny_scenario, tmp_path):
    run(tiny_scenario, strategies={"mine": lambda p, f, c: dict(f)}, seeds=[0], **{**QUICK, "out": tmp_path})
    with pytest.raises(WarmstartError, match="another strategy of that name"):
        run(tiny_scenario, strategies={"mine": lambda p, f, c: dict(p)}, seeds=[0], **{**QUICK, "out": tmp_path})


@tables_only
def test_own_arrays_and_an_own_model(tiny_scenario, tmp_path):
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(3, 5)).astype(np.float32) * 4
    labels = generator.integers(0, 3, 200)
    inputs = (centres[labels] + generator.normal(size=(200, 5))).astype(np.float32)
    data = Dataset("blobs", Samples(inputs[:150], labels[:150]), Samples(inputs[150:], labels[150:]), classes=3)
    tiny_scenario["training"] = {"until": {"train_accuracy": 0.95, "max_epochs": 200}, "optimizer": {"lr": 0.01}}
    results = run(tiny_scenario, data=data, model=tiny_model, seeds=[0], **{**QUICK, "out": tmp_path})
    assert results.rounds["converged"].all()
    assert results.rounds.groupby("strategy", observed=True).last()["test_accuracy"].min() > 0.8
    assert results.scenario["model"]["name"].startswith("tests.test_api:tiny_model#") or "tiny_model#" in str(
        results.scenario["model"]["name"]
    )


def blobs(name: str, classes: int, seed: int) -> Dataset:
    """Three numbers around a centre for each class."""
    generator = np.random.default_rng(seed)
    labels = np.arange(60) % classes
    inputs = (generator.normal(size=(classes, 3))[labels] * 4 + generator.normal(size=(60, 3))).astype(np.float32)
    return Dataset(name, Samples(inputs[:40], labels[:40]), Samples(inputs[40:], labels[40:]), classes)


def load_there(root, seed):
    return blobs("there", 3, seed)


PRETRAIN = {
    "name": "own",
    "model": {"name": "mlp", "widths": [4]},
    "training": {"until": {"epochs": 2}, "batch_size": 16},
    "strategies": {"random_init": {}, "warm_start": {}},
    "standard_figures": False,
}


@tables_only
@pytest.mark.parametrize("as_mapping", [False, True])
def test_own_data_sets_can_be_source_and_target(tmp_path, as_mapping):
    there, here = blobs("there", 3, seed=0), blobs("here", 4, seed=1)
    source = {"name": there, "fraction": 0.5} if as_mapping else there
    scenario = {**PRETRAIN, "stream": {"name": "pretrain", "source": source, "fraction": 0.5}}
    for _ in range(2):  # the second finds everything there
        results = run(scenario, data={"name": here} if as_mapping else here, **{**QUICK, "out": tmp_path})
    assert results.rounds["dataset"].tolist() == ["there", "here"] * 2
    assert results.rounds["train_samples"].tolist() == [20 if as_mapping else 40, 20] * 2
    assert scenario["stream"]["source"] is source  # a caller's mapping is left alone
    changed = {**scenario["stream"], "source": blobs("there", 3, seed=2)}
    with pytest.raises(WarmstartError, match=r"holds a run with other settings \(stream\.source"):
        run({**scenario, "stream": changed}, data=here, **{**QUICK, "out": tmp_path})


@tables_only
def test_functions_and_own_models_can_be_source_and_target(tmp_path):
    scenario = {**PRETRAIN, "stream": {"name": "pretrain", "source": load_there}}
    results = run(scenario, data=blobs("here", 3, seed=1), model=tiny_model, **{**QUICK, "out": tmp_path})
    assert results.rounds["dataset"].tolist() == ["there", "here"] * 2
    assert results.scenario["stream"]["source"].startswith("tests.test_api:load_there#")


def test_own_data_sets_can_be_pairs(tmp_path, request):
    there, here = blobs("there", 3, seed=0), blobs("here", 4, seed=1)
    pairs = {
        "there to here": {"stream.source": there, "data": here},
        "back": {"stream.source": {"name": here}, "data": {"name": there}},
    }
    scenario = {**PRETRAIN, "stream": "pretrain", "vary": {"pair": pairs, "stream.fraction": [0.5, 1.0]}}
    results = run(scenario, **{**QUICK, "out": tmp_path})
    found = results.rounds.groupby(["pair", "round"], observed=True)["dataset"].agg(set).to_dict()
    assert found == {
        ("there to here", 0): {"there"}, ("there to here", 1): {"here"}, ("back", 0): {"here"}, ("back", 1): {"there"}
    }  # fmt: skip
    assert (tmp_path / "report.html").exists()
    request.getfixturevalue("no_report")
    assert run(scenario, **{**QUICK, "out": tmp_path}).rounds.equals(results.rounds)


@tables_only
def test_own_data_sets_can_be_rehearsed(tmp_path):
    scenario = {**PRETRAIN, "stream": {"name": "pretrain", "source": blobs("there", 3, seed=0)}}
    results = run(scenario, data=blobs("here", 4, seed=1), rehearse=True, **{**QUICK, "out": tmp_path})
    assert set(results.rounds["dataset"]) == {"there", "here"}


def test_what_is_asked_for_takes_the_place_of_an_axis_that_sets_it():
    from warmstart_sim import api
    from warmstart_sim import scenario as scenarios

    def varied(*assignments, **options):
        raw, where = api.prepare_scenario("ash_adams/F9_pretrain", set=assignments, **options)
        cells = scenarios.plan(raw, where)[1]
        return {key: {cell.varied.get(key) for cell in cells} for key in ("pair", "stream.fraction")}, cells[0]

    fractions = {0.1, 0.3, 0.6, 1.0}
    found, cell = varied("stream.fraction=0.25")
    assert (len(found["pair"]), found["stream.fraction"]) == (6, {None})
    assert cell.stream.options["fraction"] == 0.25
    for assignments, options in ((["stream.source=svhn"], {}), ([], {"data": "svhn"}), (["data.name=svhn"], {})):
        found, cell = varied(*assignments, **options)
        assert found == {"pair": {None}, "stream.fraction": fractions}
        assert "svhn" in (cell.data.name, cell.first_phase.data.name)
    found, _ = varied("vary.stream.fraction=[0.25]", "training.batch_size=9")
    assert (len(found["pair"]), found["stream.fraction"]) == (6, {0.25})


def test_what_an_axis_would_overwrite_is_refused():
    from warmstart_sim import api

    with pytest.raises(WarmstartError) as caught:
        api.prepare_scenario("digits_pretrain", set=["data.train_samples=200"])
    assert str(caught.value) == (
        "digits_pretrain: data.train_samples: would have no effect, because `vary.pair` sets all of `data`; change "
        "`vary.pair` instead"
    )


def test_parts_given_as_objects_are_those_of_a_file(tiny_scenario):
    from warmstart_sim import Augment
    from warmstart_sim import scenario as scenarios

    def cell(part):
        arms = {"augmented": {"start": "warm_start", "augment": part}}
        return scenarios.plan({**tiny_scenario, "strategies": arms}, "scenario")[1][0]

    assert cell(Augment(random_crop=4)).digest == cell({"random_crop": 4}).digest == cell(["random_crop"]).digest
    assert cell(Augment(random_crop=2)).digest != cell(["random_crop"]).digest


@tables_only
def test_a_failing_strategy_raises_after_the_others_are_done(tiny_scenario, tmp_path):
    def broken(previous, fresh, context):
        raise ZeroDivisionError("mine")

    with pytest.raises(RunError, match=r"1 of the cells failed.*\n.*broken.*ZeroDivisionError: mine"):
        run(tiny_scenario, strategies=["random_init", broken], seeds=[0], **{**QUICK, "out": tmp_path})
    rounds = pd.read_csv(tmp_path / "rounds.csv")
    assert set(rounds.query("cell_complete")["strategy"]) == {"random_init"}


@tables_only
def test_the_callers_threads_and_generators_are_left_alone(tiny_scenario, tmp_path):
    torch.set_num_threads(2)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    run(tiny_scenario, strategies=["warm_start"], seeds=[0], **{**QUICK, "out": tmp_path})
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.rand(3), expected)


@tables_only
def test_tensorboard_logs_hold_every_epoch(tiny_scenario, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tiny_scenario["measure"] = {"each_epoch": [{"weight_norm": {"every": 2}}], "each_round": ["distance_from_start"]}
    results = run(tiny_scenario, strategies=["warm_start"], seeds=[0], tensorboard=True, **{**QUICK, "out": tmp_path})
    (folder,) = (tmp_path / "tensorboard").iterdir()
    log = EventAccumulator(str(folder)).Reload()
    losses = [event.value for event in log.Scalars("epoch/running_train_loss")]
    assert losses == pytest.approx(results.epochs["running_train_loss"].tolist())
    assert [event.step for event in log.Scalars("round/test_accuracy")] == results.rounds["train_samples"].tolist()
    norms = results.epochs["weight_norm"].dropna()  # a probe's columns are logged like all others
    assert [event.value for event in log.Scalars("epoch/weight_norm")] == pytest.approx(norms.tolist())
    distances = results.rounds["distance_from_start"].tolist()
    assert [event.value for event in log.Scalars("round/distance_from_start")] == pytest.approx(distances)


def test_the_package_itself_imports_without_torch():
    import subprocess
    import sys

    code = "import sys, warmstart_sim; dir(warmstart_sim); warmstart_sim.ShrinkPerturb; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
    assert {"run", "ShrinkPerturb", "WarmStart", "RandomInit"} <= set(warmstart_sim.__all__)


@tables_only
def test_tables_of_cells_that_this_version_does_not_know_are_left_as_they_are(tiny_scenario, tmp_path):
    run({**tiny_scenario, "seeds": [0]}, strategies=["random_init"], out=tmp_path, quiet=True)
    before = (tmp_path / "rounds.csv").read_text()
    (cell,) = (tmp_path / "cells").iterdir()
    cell.rename(cell.with_name("random_init-seed0-0123456789"))
    with pytest.raises(WarmstartError, match="random_init-seed0-0123456789 is not one of the cells"):
        warmstart_sim.execution.launch.collect(tmp_path)
    assert (tmp_path / "rounds.csv").read_text() == before


@tables_only
def test_the_stored_scenario_of_a_rehearsal_is_a_rehearsal(tmp_path):
    scenario = {**PRETRAIN, "stream": "pretrain", "data": "svhn"} | {
        "stream": {"name": "pretrain", "source": "cifar10"}
    }
    first = run(scenario, rehearse=True, **{**QUICK, "out": tmp_path / "first"})
    again = run(tmp_path / "first" / "scenario.yaml", **{**QUICK, "out": tmp_path / "again"})
    assert first.environment["rehearsal"]
    assert again.environment["rehearsal"]
    columns = ["strategy", "seed", "round", "test_accuracy", "steps"]
    assert again.rounds[columns].equals(first.rounds[columns])
