"""Our stop rules as a plugin for Avalanche's strategies."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from avalanche.benchmarks.utils.data_loader import SingleDatasetDataLoader
from avalanche.core import SupervisedPlugin
from avalanche.models import avalanche_forward

from warmstart_sim.avalanche.start import only_one_of
from warmstart_sim.avalanche.stopwatch import Stopwatch
from warmstart_sim.errors import WarmstartError
from warmstart_sim.training.evaluation import fewest_correct
from warmstart_sim.training.settings import Until
from warmstart_sim.training.stop_rules import Status, StopRule


class NotConverged(UserWarning):
    """An experience ended before its stop rule was met."""


class ConvergencePlugin(SupervisedPlugin):
    """Trains each experience until the model classifies a share of its training samples correctly, by default 99 %.

    After every epoch, the accuracy is computed in evaluation mode on clean inputs (the data set's "eval" transforms),
    over all samples that the experience trains on (for Cumulative, including earlier experiences). The pass stops as
    soon as the accuracy cannot be reached any more. The plugin overrides the strategy's `train_epochs`.

    It works around two problems of Avalanche's `stop_training()`, which takes effect only where the next epoch would
    begin: that epoch's `before_training_epoch` is called although the epoch never runs (a phantom epoch), and if the
    last epoch is already over, the flag stays set and the next experience is skipped. The plugin therefore sets
    `train_epochs` to the cap plus one and restores it afterwards, so that the same experience consumes the flag.

    Args:
        train_accuracy: The accuracy to reach, in (0, 1]. Default 0.99, as in the papers.
        max_epochs: The cap. An experience that reaches it ends with a warning. Default 500.
        until: Any stop rule of a scenario file instead of these two; see `Until`. `validation_patience` needs
            `validation`.
        validation: An Avalanche data set for `validation_patience`; None without this rule.

    Attributes:
        status: How the last experience ended: "converged", "finished" (a fixed number of epochs or steps), "capped",
            "gave_up" or "diverged" (the loss is not finite); None while it trains.
        epochs: Epochs of the current or last experience.
        steps: Its steps.
        samples_seen: Its samples, counted once per epoch.
        running_accuracy: The accuracy on the last epoch's batches during training.
        running_loss: The mean loss on these batches.
        train_accuracy: The train accuracy after the last epoch; None if it was out of reach or no rule needs it.
        validation_accuracy: The accuracy on `validation`; None if no rule needs it.
        criterion_seconds: Seconds that the last accuracy check took, not part of the training time.
        best_state: With `validation_patience`, the weights with the best validation accuracy.
        best_epoch: The epoch after which they were the weights.

    Raises:
        WarmstartError: `validation_patience` is used without `validation`.
        pydantic.ValidationError: A value is outside its range (a `ValueError`).

    >>> ConvergencePlugin(train_accuracy=0.95, max_epochs=100).until.cap
    100

    Source: Ash & Adams 2020, section 2, for the criterion.
    """

    def __init__(
        self,
        train_accuracy: float = 0.99,
        max_epochs: int = 500,
        *,
        until: Until | None = None,
        validation: Any = None,
    ) -> None:
        super().__init__()
        self.until = until or Until(train_accuracy=train_accuracy, max_epochs=max_epochs)
        self.validation = validation
        if self.until.validation_patience is not None and validation is None:
            raise WarmstartError("ConvergencePlugin: validation_patience needs `validation`, an Avalanche data set")
        self._rule = StopRule(self.until)
        self.status: Status | None = None
        self.epochs = self.steps = self.samples_seen = 0
        self.running_accuracy = self.running_loss = math.nan
        self.train_accuracy: float | None = None
        self.validation_accuracy: float | None = None
        self.criterion_seconds = 0.0
        self.best_state: dict[str, torch.Tensor] | None = None
        self.best_epoch: int | None = None

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Checks that the strategy has only one such plugin."""
        only_one_of(ConvergencePlugin, strategy)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Resets all counts, and overrides the strategy's number of epochs."""
        self._rule = StopRule(self.until)
        self.status, self.best_state, self.best_epoch = None, None, None
        self.epochs = self.steps = self.samples_seen = 0
        self._train_epochs = strategy.train_epochs
        strategy.train_epochs = self.until.cap + 1  # the extra epoch trains nothing; it consumes the stop flag

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Resets the epoch's sums, except in the phantom epoch after the last one."""
        if self.status is None:
            self._sums = torch.zeros(2, dtype=torch.float64, device=strategy.device)
            self._samples = 0

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Adds up correct predictions and losses on the device; a `steps` rule may end the epoch."""
        count = len(strategy.mb_y)
        hits = (strategy.mb_output.detach().argmax(1) == strategy.mb_y).sum()
        self._sums += torch.stack((hits.double(), strategy.loss.detach().double().sum() * count))
        self._samples += count
        self.steps += 1
        if self.until.steps is not None and self.steps >= self.until.steps:
            strategy.stop_training()

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Computes the accuracies that the rule needs, and stops training if the rule is met."""
        self.epochs += 1
        self.samples_seen += self._samples
        hits, loss = self._sums.tolist()
        self.running_accuracy, self.running_loss = hits / self._samples, loss / self._samples
        watch = Stopwatch(strategy.device)
        self.train_accuracy = self.validation_accuracy = None
        if self._rule.needs_train_accuracy:
            at_least = None if self.epochs >= self.until.cap else self._rule.threshold
            self.train_accuracy = accuracy(strategy, strategy.adapted_dataset.eval(), at_least)
        if self._rule.needs_validation_accuracy:
            self.validation_accuracy = accuracy(strategy, self.validation.eval())
        self.criterion_seconds = watch.seconds()
        self.status = self._decision()
        if self._rule.needs_validation_accuracy and self._rule.epochs_without_validation_improvement == 0:
            self.best_state = {name: tensor.clone() for name, tensor in strategy.model.state_dict().items()}
            self.best_epoch = self.epochs
        if self.status is not None:
            strategy.stop_training()

    def _decision(self) -> Status | None:
        if not math.isfinite(self.running_loss):
            return "diverged"
        return self._rule.after_epoch(
            self.epochs, self.steps, self.running_accuracy, self.train_accuracy, self.validation_accuracy
        )

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Restores the strategy's number of epochs, and warns if training did not converge."""
        strategy.train_epochs = self._train_epochs
        if self.status in ("capped", "gave_up", "diverged"):
            reached = f"train accuracy {self.train_accuracy:.4f}" if self.train_accuracy is not None else "no accuracy"
            warnings.warn(
                f"experience {strategy.experience.current_experience} {self.status.replace('_', ' ')} after "
                f"{self.epochs} epochs with {reached}",
                NotConverged,
                stacklevel=2,
            )

    @property
    def converged(self) -> bool:
        """Whether the last experience met its stop rule."""
        return self.status in ("converged", "finished")


@torch.no_grad()
def accuracy(strategy: Any, dataset: Any, at_least: float | None = None) -> float | None:
    """Computes the accuracy of the strategy's model in evaluation mode.

    Args:
        strategy: An Avalanche strategy, within an experience.
        dataset: An Avalanche data set with at least one sample.
        at_least: Stop as soon as this accuracy is out of reach; None for a full pass.

    Returns:
        The accuracy, or None if `at_least` is out of reach.
    """
    model, device = strategy.model, strategy.device
    tasks = hasattr(strategy.experience, "task_labels")
    needed = -1 if at_least is None else fewest_correct(at_least, len(dataset))
    was_training = {module: module.training for module in model.modules()}  # some may be frozen in eval mode
    model.eval()
    missed = 0
    try:
        for inputs, labels, *rest in SingleDatasetDataLoader(dataset, batch_size=strategy.train_mb_size):
            inputs, labels = inputs.to(device), labels.to(device)
            logits = avalanche_forward(model, inputs, rest[-1].to(device)) if tasks else model(inputs)
            missed += int((logits.argmax(1) != labels).sum())
            if len(dataset) - missed < needed:
                return None
    finally:
        for module, training in was_training.items():
            module.training = training
    return (len(dataset) - missed) / len(dataset)
