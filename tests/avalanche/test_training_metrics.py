"""Train seconds, epochs, steps and convergence as Avalanche metrics: their values, and the loggers."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from avalanche.core import SupervisedPlugin
from avalanche.logging import InteractiveLogger, TensorboardLogger, TextLogger, WandBLogger
from avalanche.training.plugins import EvaluationPlugin
from small import Watch, network, quiet, strategy, stream, train

from warmstart_sim.avalanche import ConvergencePlugin, StrategyPlugin, TrainingCSVLogger, training_metrics
from warmstart_sim.avalanche import convergence as convergence_module
from warmstart_sim.avalanche import stopwatch as stopwatch_module

NAMES = ["Train_Seconds_Exp", "Train_Epochs_Exp", "Train_Steps_Exp", "Converged_Exp"]
SIZES = (30, 40)
UNTIL = {"train_accuracy": 0.8, "max_epochs": 30}


def found(evaluator: Any, experience: int) -> dict[str, float]:
    """Returns the last values of an experience."""
    values = evaluator.get_last_metrics()
    end = f"/train_phase/train_stream/Exp00{experience}"
    return {name: values[name + end] for name in NAMES if name + end in values}


class Clock:
    """A clock that advances only when told to."""

    def __init__(self, monkeypatch: Any) -> None:
        self.now = 0.0
        monkeypatch.setattr(stopwatch_module, "time", SimpleNamespace(perf_counter=lambda: self.now))


class Slow(SupervisedPlugin):
    """A step takes a second; everything else takes much longer, each a different time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.seconds = {}

    def _passes(self, what: str, seconds: float) -> None:
        self.clock.now += seconds
        self.seconds[what] = self.seconds.get(what, 0.0) + seconds

    def before_forward(self, strategy, **kwargs):
        self._passes("steps", 1.0)

    def before_eval(self, strategy, **kwargs):
        self._passes("evaluation", 1e3)

    def before_eval_forward(self, strategy, **kwargs):
        self._passes("evaluation", 1e4)

    def after_eval_exp(self, strategy, **kwargs):
        self._passes("evaluation", 1e5)

    def after_training_epoch(self, strategy, **kwargs):
        self._passes("after an epoch", 1e6)

    def before_training_exp(self, strategy, **kwargs):
        self._passes("before an experience", 1e7)


def test_metrics_equal_a_plugins_counts():
    watch, evaluator = Watch(), quiet(training_metrics())
    plugins = [StrategyPlugin("shrink_perturb"), ConvergencePlugin(**UNTIL), watch]
    train(strategy(network(), *plugins, evaluator=evaluator), stream(*SIZES))
    assert max(watch.epochs) > 1
    for experience, (epochs, steps) in enumerate(zip(watch.epochs, watch.steps, strict=True)):
        values = found(evaluator, experience)
        assert values.pop("Train_Seconds_Exp") > 0
        assert values == {"Train_Epochs_Exp": epochs, "Train_Steps_Exp": steps, "Converged_Exp": 1}


def test_convergence_is_emitted_only_with_the_plugin_and_is_0_at_the_cap():
    evaluator = quiet(training_metrics())
    train(strategy(network(), evaluator=evaluator, train_epochs=3), stream(30))
    assert list(found(evaluator, 0)) == NAMES[:3]
    assert found(evaluator, 0)["Train_Epochs_Exp"] == 3
    evaluator = quiet(training_metrics())
    with pytest.warns(convergence_module.NotConverged):
        train(strategy(network(), ConvergencePlugin(1.0, 2), evaluator=evaluator), stream(30))
    assert found(evaluator, 0)["Converged_Exp"] == 0


@pytest.mark.parametrize(
    ("every", "mode"), [(-1, "epoch"), (0, "epoch"), (1, "epoch"), (1, "iteration"), (2, "iteration")]
)
def test_seconds_count_only_the_steps(every, mode, monkeypatch):
    clock = Clock(monkeypatch)
    slow, watch, evaluator, counting = Slow(clock), Watch(), quiet(training_metrics()), convergence_module.accuracy

    def slow_count(*arguments):
        slow._passes("criterion", 1e8)
        return counting(*arguments)

    monkeypatch.setattr(convergence_module, "accuracy", slow_count)
    plugin = ConvergencePlugin(**UNTIL)
    taught = strategy(network(), plugin, slow, watch, evaluator=evaluator, eval_every=every, peval_mode=mode)
    for number, experience in enumerate(stream(*SIZES)):
        taught.train(experience, eval_streams=[stream(20)])
        values = found(evaluator, number)
        assert values["Train_Seconds_Exp"] == values["Train_Steps_Exp"] == watch.steps[number]
        assert values["Train_Epochs_Exp"] == watch.epochs[number] == plugin.epochs
        assert plugin.criterion_seconds == 1e8
    taught.eval(stream(20))
    assert found(evaluator, 1)["Train_Seconds_Exp"] == watch.steps[1], "nor is an evaluation afterwards"
    assert slow.seconds["steps"] == sum(watch.steps)
    assert {"evaluation", "criterion", "after an epoch", "before an experience"} <= slow.seconds.keys()


def logged(*loggers: Any) -> tuple[Any, Watch]:
    """Trains with our plugins and returns the evaluator's results."""
    watch, evaluator = Watch(), EvaluationPlugin(training_metrics(), loggers=[*loggers])
    train(strategy(network(), ConvergencePlugin(**UNTIL), watch, evaluator=evaluator), stream(*SIZES))
    return evaluator, watch


@pytest.mark.parametrize("kind", ["interactive", "text"])
def test_loggers_for_the_terminal_print_them(kind, capsys):
    file = io.StringIO()
    evaluator, _ = logged(InteractiveLogger() if kind == "interactive" else TextLogger(file))
    printed = capsys.readouterr().out if kind == "interactive" else file.getvalue()
    for experience in range(2):
        for name, value in found(evaluator, experience).items():
            assert f"{name}/train_phase/train_stream/Exp00{experience} = {value:.4f}\n" in printed


def test_tensorboard_gets_them(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorboardLogger(tmp_path)
    evaluator, watch = logged(logger)
    logger.writer.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    for experience in range(2):
        for name, value in found(evaluator, experience).items():
            scalars = events.Scalars(f"{name}/train_phase/train_stream/Exp00{experience}")
            assert scalars[-1].value == pytest.approx(value)
            assert len(scalars) == watch.epochs[experience] + 1
            assert scalars[-1].step == sum(watch.steps[: experience + 1])


def test_weights_and_biases_gets_them(monkeypatch):
    sent: dict[str, list[float]] = {}

    def log(values, step):
        for name, value in values.items():
            sent.setdefault(name, []).append(value)

    fake = SimpleNamespace(
        __version__="0", init=lambda **options: None, run=SimpleNamespace(_label=lambda repo: None), log=log,
        util=SimpleNamespace(generate_id=lambda: "id"), viz=SimpleNamespace(CustomChart=type("CustomChart", (), {})),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "wandb", fake)
    evaluator, _ = logged(WandBLogger())
    for experience in range(2):
        for name, value in found(evaluator, experience).items():
            assert sent[f"{name}/train_phase/train_stream/Exp00{experience}"][-1] == value


def test_the_csv_logger_writes_a_line_for_each_experience_beside_avalanches_own_files(tmp_path):
    logger = TrainingCSVLogger(tmp_path / "logs")
    evaluator, watch = logged(logger)
    logger.close()
    table = pd.read_csv(tmp_path / "logs" / "experience_results.csv")
    assert list(table) == ["training_exp", "train_seconds", "epochs", "steps", "converged"]
    assert table["training_exp"].tolist() == [0, 1]
    assert table["epochs"].tolist() == watch.epochs
    assert table["steps"].tolist() == watch.steps
    assert table["converged"].tolist() == [1, 1]
    seconds = [found(evaluator, experience)["Train_Seconds_Exp"] for experience in range(2)]
    assert table["train_seconds"].tolist() == pytest.approx(seconds, abs=1e-6)
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {
        "eval_results.csv", "training_results.csv", "experience_results.csv"
    }  # fmt: skip


def test_the_csv_logger_leaves_missing_values_empty(tmp_path):
    logger = TrainingCSVLogger(tmp_path)
    evaluator = EvaluationPlugin(training_metrics()[1], loggers=[logger])
    train(strategy(network(), evaluator=evaluator, train_epochs=2), stream(30))
    logger.close()
    assert (tmp_path / "experience_results.csv").read_text().splitlines()[1] == "0,,2,,"
