"""Train seconds, epochs, steps and convergence of each experience, as Avalanche metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.evaluation.metric_utils import get_metric_name
from avalanche.logging import CSVLogger

from warmstart_sim.avalanche.convergence import ConvergencePlugin
from warmstart_sim.avalanche.stopwatch import Stopwatch


def training_metrics() -> list[PluginMetric[float]]:
    """Returns the metrics for an `EvaluationPlugin`: train seconds, epochs, steps and convergence of an experience.

    Each is emitted after every epoch, for the experience so far, and again at the experience's end. Seconds count the
    training iterations only, without evaluation and the accuracy check of a `ConvergencePlugin`. On a GPU, the clock
    synchronises after each iteration, as Avalanche's own metrics do. `Converged` is 1 or 0, and is emitted only with a
    `ConvergencePlugin`.

    Avalanche's InteractiveLogger, TextLogger, TensorboardLogger and WandBLogger log them unchanged. Its CSVLogger has
    fixed columns; `TrainingCSVLogger` writes them to a second file.

    >>> [str(metric) for metric in training_metrics()]
    ['Train_Seconds_Exp', 'Train_Epochs_Exp', 'Train_Steps_Exp', 'Converged_Exp']
    """
    return [TrainSeconds(), TrainEpochs(), TrainSteps(), Converged()]


class _ExperienceMetric(PluginMetric[float]):
    """A number that is reset at the start of each experience, and emitted after each epoch and at the end.

    Avalanche's loggers require the base class. Phantom epochs (see `ConvergencePlugin`) add nothing.
    """

    name: str

    def __init__(self) -> None:
        super().__init__()
        self._value = 0.0

    def __str__(self) -> str:
        return self.name

    def result(self) -> float:
        """Returns the value so far."""
        return self._value

    def reset(self) -> None:
        """Sets the value to zero."""
        self._value = 0.0

    def before_training_exp(self, strategy: Any) -> None:
        """Resets the value."""
        self.reset()

    def after_training_epoch(self, strategy: Any) -> list[MetricValue]:
        """Emits the value after an epoch."""
        return self._emitted(strategy)

    def after_training_exp(self, strategy: Any) -> list[MetricValue]:
        """Emits the final value."""
        return self._emitted(strategy)

    def _emitted(self, strategy: Any) -> list[MetricValue]:
        name = get_metric_name(self, strategy, add_experience=True, add_task=True)
        return [MetricValue(self, name, self.result(), strategy.clock.train_iterations)]


class TrainSeconds(_ExperienceMetric):
    """Wall-clock seconds of an experience's training iterations."""

    name = "Train_Seconds_Exp"

    def __init__(self) -> None:
        super().__init__()
        self._before = self._epoch = 0.0  # seconds of the epoch: up to the last evaluation, and up to now

    def before_training_epoch(self, strategy: Any) -> None:
        """Starts the clock, discarding that of a phantom epoch."""
        self._before = self._epoch = 0.0
        self._watch = Stopwatch(strategy.device)

    def after_training_iteration(self, strategy: Any) -> None:
        """Reads the clock."""
        self._epoch = self._before + self._watch.seconds()

    def after_eval(self, strategy: Any) -> None:
        """Restarts the clock, so that an evaluation within the epoch does not count."""
        self._before, self._watch = self._epoch, Stopwatch(strategy.device)

    def after_training_epoch(self, strategy: Any) -> list[MetricValue]:
        """Adds the epoch's seconds, up to its last iteration."""
        self._value += self._epoch
        return self._emitted(strategy)


class TrainEpochs(_ExperienceMetric):
    """Epochs of an experience."""

    name = "Train_Epochs_Exp"

    def after_training_epoch(self, strategy: Any) -> list[MetricValue]:
        """Counts one more."""
        self._value += 1
        return self._emitted(strategy)


class TrainSteps(_ExperienceMetric):
    """Optimiser steps of an experience."""

    name = "Train_Steps_Exp"

    def after_training_iteration(self, strategy: Any) -> None:
        """Counts one more."""
        self._value += 1


class Converged(_ExperienceMetric):
    """1 if the `ConvergencePlugin`'s rule was met, otherwise 0; not emitted without that plugin."""

    name = "Converged_Exp"

    def _emitted(self, strategy: Any) -> list[MetricValue]:
        plugins = [plugin for plugin in strategy.plugins if isinstance(plugin, ConvergencePlugin)]
        if not plugins:
            return []
        self._value = float(plugins[0].converged)
        return super()._emitted(strategy)


class TrainingCSVLogger(CSVLogger):
    """Avalanche's CSVLogger, extended by a file `experience_results.csv` with one line per experience.

    Its columns: training_exp, train_seconds, epochs, steps, converged (empty without a `ConvergencePlugin`).

    Args:
        log_folder: The folder of the files. Default `csvlogs`.
    """

    def __init__(self, log_folder: str | Path | None = None) -> None:
        super().__init__(None if log_folder is None else str(log_folder))
        self.experience_file = (Path(self.log_folder) / "experience_results.csv").open("w")
        print("training_exp,train_seconds,epochs,steps,converged", file=self.experience_file, flush=True)

    def after_training_exp(self, strategy: Any, metric_values: list[MetricValue], **kwargs: Any) -> None:
        """Writes the experience's line."""
        super().after_training_exp(strategy, metric_values, **kwargs)
        values = {value.name.partition("/")[0]: value.value for value in metric_values}
        counts = [f"{values[name]:g}" if name in values else "" for name in COUNTS]
        seconds = values.get(TrainSeconds.name)
        line = [str(self.training_exp_id), "" if seconds is None else f"{seconds:.6f}", *counts]
        print(",".join(line), file=self.experience_file, flush=True)

    def close(self) -> None:
        """Closes all files."""
        super().close()
        self.experience_file.close()


COUNTS = (TrainEpochs.name, TrainSteps.name, Converged.name)
