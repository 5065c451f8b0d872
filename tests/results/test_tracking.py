"""A run in an experiment tracker: means and intervals by round, against numbers computed here."""

import sys
import types

import numpy as np
import pytest
from scipy import stats
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.report.fake_runs import write_run
from warmstart_sim.errors import WarmstartError
from warmstart_sim.results.tables import load
from warmstart_sim.results.tracking import check_tracker, track, tracked_arms


@pytest.fixture
def run(tmp_path):
    return load(write_run(tmp_path / "run", seeds=3))


def test_each_arm_has_the_mean_and_the_t_interval_over_seeds_of_each_round(run):
    arms = {arm.name: arm for arm in tracked_arms(run)}
    assert list(arms) == ["random_init", "warm_start", "shrink_perturb"]
    for name, arm in arms.items():
        own = run.rounds[run.rounds["strategy"] == name]
        assert list(arm.rounds) == sorted(own["round"].unique())
        for index, numbers in arm.rounds.items():
            values = own.loc[own["round"] == index, run.metric]
            low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
            found = [numbers[column] for column in (run.metric, f"{run.metric}_low", f"{run.metric}_high")]
            assert np.allclose(found, [values.mean(), low, high])


def test_varied_values_make_arms_of_their_own(tmp_path):
    run = load(write_run(tmp_path / "run", seeds=2, vary={"training.batch_size": [16, 64]}))
    arms = list(tracked_arms(run))
    assert [arm.name for arm in arms][:2] == [
        "random_init, training_batch_size=16",
        "random_init, training_batch_size=64",
    ]
    assert len(arms) == 6
    assert arms[0].tags["training_batch_size"] == "16"


def test_tensorboard_has_a_log_for_each_arm(run, tmp_path):
    page = tmp_path / "report.html"
    page.write_text("<html>")
    track(run, "tensorboard", page)
    folder = run.folder / "tensorboard" / "arms" / "warm_start"
    events = EventAccumulator(str(folder)).Reload()
    (warm,) = [arm for arm in tracked_arms(run) if arm.name == "warm_start"]
    logged = {event.step: event.value for event in events.Scalars(f"arm/{run.metric}")}
    assert logged == pytest.approx({index: each[run.metric] for index, each in warm.rounds.items()})


class Recorder(types.ModuleType):
    """Stands in for mlflow: remembers what it is told, in order."""

    def __init__(self):
        super().__init__("mlflow")
        self.__spec__ = types.SimpleNamespace(name="mlflow")
        self.told = []

    def start_run(self, run_name, tags):
        self.told.append(("run", run_name, tags["scenario"]))
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.told.append("end")

    def __getattr__(self, name):
        return lambda *arguments, **options: self.told.append((name, arguments, options))


def test_mlflow_gets_a_run_for_each_arm_with_steps_scenario_and_report(run, tmp_path, monkeypatch):
    mlflow = Recorder()
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    track(run, "mlflow", tmp_path / "report.html")
    runs = [each for each in mlflow.told if each[0] == "run"]
    assert [name for _, name, _ in runs] == ["random_init", "warm_start", "shrink_perturb"]
    steps = [
        options["step"]
        for name, _, options in (each for each in mlflow.told if len(each) == 3 and each[0] == "log_metrics")
    ]
    assert steps == 3 * list(range(6))
    assert [each[1] for each in mlflow.told if each[0] == "log_artifact"] == 3 * [(str(tmp_path / "report.html"),)]
    assert mlflow.told.count("end") == 3


def test_an_unknown_tracker_and_one_that_is_not_installed_are_refused(monkeypatch):
    with pytest.raises(
        WarmstartError, match="--track wandbb: expected one of wandb, mlflow, tensorboard; did you mean"
    ):
        check_tracker("wandbb")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WarmstartError, match=r"mlflow: it is not installed; pip install 'warmstart-sim\[mlflow\]'"):
        check_tracker("mlflow")
