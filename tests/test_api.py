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


def test_a_function_that_changes_is_another_experiment(tiny_scenario, tmp_path):
    run(tiny_scenario, strategies={"mine": lambda p, f, c: dict(f)}, seeds=[0], **{**QUICK, "out": tmp_path})
    with pytest.raises(WarmstartError, match="another strategy of that name"):
        run(tiny_scenario, strategies={"mine": lambda p, f, c: dict(p)}, seeds=[0], **{**QUICK, "out": tmp_path})


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


def test_parts_given_as_objects_are_those_of_a_file(tiny_scenario):
    from warmstart_sim import Augment, config

    def cell(part):
        arms = {"augmented": {"start": "warm_start", "augment": part}}
        return config.plan({**tiny_scenario, "strategies": arms}, "scenario")[1][0]

    assert cell(Augment(random_crop=4)).digest == cell({"random_crop": 4}).digest == cell(["random_crop"]).digest
    assert cell(Augment(random_crop=2)).digest != cell(["random_crop"]).digest


def test_a_failing_strategy_raises_after_the_others_are_done(tiny_scenario, tmp_path):
    def broken(previous, fresh, context):
        raise ZeroDivisionError("mine")

    with pytest.raises(RunError, match=r"1 of the cells failed.*\n.*broken.*ZeroDivisionError: mine"):
        run(tiny_scenario, strategies=["random_init", broken], seeds=[0], **{**QUICK, "out": tmp_path})
    assert set(pd.read_csv(tmp_path / "rounds.csv")["strategy"]) == {"random_init"}


def test_the_callers_threads_and_generators_are_left_alone(tiny_scenario, tmp_path):
    torch.set_num_threads(2)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    run(tiny_scenario, strategies=["warm_start"], seeds=[0], **{**QUICK, "out": tmp_path})
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.rand(3), expected)


def test_tensorboard_logs_hold_every_epoch(tiny_scenario, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    results = run(tiny_scenario, strategies=["warm_start"], seeds=[0], tensorboard=True, **{**QUICK, "out": tmp_path})
    (folder,) = (tmp_path / "tensorboard").iterdir()
    log = EventAccumulator(str(folder)).Reload()
    losses = [event.value for event in log.Scalars("epoch/running_train_loss")]
    assert losses == pytest.approx(results.epochs["running_train_loss"].tolist())
    assert [event.step for event in log.Scalars("round/test_accuracy")] == results.rounds["train_samples"].tolist()


def test_the_package_itself_imports_without_torch():
    import subprocess
    import sys

    code = "import sys, warmstart_sim; dir(warmstart_sim); warmstart_sim.ShrinkPerturb; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
    assert {"run", "ShrinkPerturb", "WarmStart", "RandomInit"} <= set(warmstart_sim.__all__)
