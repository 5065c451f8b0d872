"""A finished run with weights, which the tests of the analyses share."""

from __future__ import annotations

from pathlib import Path

import pytest

from warmstart_sim import scenario as scenarios
from warmstart_sim.execution.launch import RunOptions, run_scenario
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.experiment.stored_run import StoredRun
from warmstart_sim.results.store import RunFolder
from warmstart_sim.results.tables import load

SCENARIO = {
    "name": "analysed",
    "data": {"name": "noisy_digits", "train_samples": 120, "test_samples": 100, "validation_fraction": 0.2},
    "stream": "split",
    "model": {"name": "small_cnn", "channels": [4, 8]},
    "training": {"batch_size": 32, "until": {"epochs": 2}, "optimizer": {"name": "adam", "lr": 0.01}},
    "strategies": {"random_init": {}, "warm_start": {}, "mixed": {"start": "shrink_perturb", "lambda": 0.5}},
}


def stored_run(folder: Path) -> StoredRun:
    """A run's folder as analyses get it."""
    run = RunFolder(folder)
    _, cells = scenarios.plan(run.scenario() or {}, "stored")
    return StoredRun(run, load(folder), cells, ExecutionSettings(folder))


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """The folder of a run of `SCENARIO`; tests do not change it."""
    folder = tmp_path_factory.mktemp("analysed") / "run"
    run_scenario(SCENARIO, "scenario", RunOptions(folder, "cpu", workers=1, quiet=True))
    return folder


@pytest.fixture
def run(finished) -> StoredRun:
    """The same run as analyses get it."""
    return stored_run(finished)
