"""One round's training, an epoch at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from warmstart_sim.errors import WarmstartError
from warmstart_sim.seeding import scoped_torch_seed, torch_generator
from warmstart_sim.training.batches import DeviceSamples, batch_sizes, bucketed, epoch_order
from warmstart_sim.training.coroutine import StepRequest, TrainingCoroutine, run_to_end, wait_for_values
from warmstart_sim.training.evaluation import criterion, evaluation
from warmstart_sim.training.stepper import Stepper
from warmstart_sim.training.stop_rules import Status, StopRule
from warmstart_sim.types import Hooks


@dataclass(frozen=True)
class Epoch:
    """What happened in one epoch.

    Accuracies are fractions; None was not measured (or, for train accuracy, is below what could matter).
    """

    epoch: int
    steps: int
    learning_rate: float
    running_train_accuracy: float
    running_train_loss: float
    train_accuracy: float | None
    validation_accuracy: float | None
    test_accuracy: float | None
    train_seconds: float
    criterion_seconds: float
    evaluation_seconds: float


@dataclass(frozen=True)
class RoundData:
    """Where a round's samples are, all on the device.

    Attributes:
        train: The training arrays; `train_indices` and `validation_indices` point into them.
        test: The test arrays, evaluated whole.
    """

    train: DeviceSamples
    train_indices: torch.Tensor
    validation_indices: torch.Tensor
    test: DeviceSamples
    test_indices: torch.Tensor


class RoundTraining:
    """Trains the stepper's model in place, one epoch at each call of `run_epoch`, until `status` is set.

    Args:
        stepper: Its model holds the weights to start from. Its settings say batch size, schedule, stop rule.
        data: The round's samples.
        hooks: What the arm's parts add; absent hooks are not looked at inside the epoch.
        seed: The experiment's seed.
        round_index: The round; with the seed and the epoch it decides order, augmentation and dropout.
        measure_each_epoch: Whether to measure train, validation and test accuracy in full after every epoch.

    Raises:
        WarmstartError: `bucketing` is set, and the samples are no texts.
    """

    def __init__(
        self,
        stepper: Stepper,
        data: RoundData,
        hooks: Sequence[Hooks] = (),
        *,
        seed: int,
        round_index: int,
        measure_each_epoch: bool = False,
    ) -> None:
        settings = stepper.settings
        if settings.bucketing is not None and data.train.lengths is None:
            raise WarmstartError(
                f"training.bucketing is for texts, whose lengths differ; it is {settings.bucketing}, and one input has "
                f"shape {tuple(data.train.inputs.shape[1:])}; leave it out"
            )
        self.stepper = stepper
        self.model = stepper.model
        self.rule = StopRule(settings.until)
        self.status: Status | None = None
        self.epochs = 0
        self.steps = 0
        self.samples_seen = 0
        self.best_state: dict[str, torch.Tensor] | None = None  # on validation data, where the rule asks for it

        self._data = data
        self._settings = settings
        self._hooks = hooks
        self._place = (seed, round_index)
        self._measure = measure_each_epoch
        self._device = data.train_indices.device
        self._sizes = batch_sizes(len(data.train_indices), settings.batch_size)
        self._recorded_before = stepper.capture_seconds
        stepper.begin(data.train, hooks)

    @property
    def capture_seconds(self) -> float:
        """What this round has spent on recording steps; it is part of no epoch's seconds."""
        return self.stepper.capture_seconds - self._recorded_before

    def run_epoch(self) -> Epoch:
        """Trains for one epoch, checks the stop rule, and says what happened."""
        return run_to_end(self.epoch())

    def epoch(self) -> TrainingCoroutine[Epoch]:
        """One epoch in turns: it yields its minibatches, which the caller has to step, and waits for its numbers."""
        started = self._now()
        requests = self._prepared()
        rate = self._set_learning_rate()
        running_accuracy, running_loss = yield from self._train_on(requests)
        train_seconds = self._now() - started

        started = self._now()
        checked = yield from self._check_train_accuracy()
        criterion_seconds = self._now() - started

        started = self._now()
        validation, test = yield from self._evaluate_held_out()
        evaluation_seconds = self._now() - started

        if math.isfinite(running_loss):
            self.status = self.rule.after_epoch(self.epochs, self.steps, running_accuracy, checked, validation)
            if self.rule.needs_validation_accuracy and self.rule.epochs_without_validation_improvement == 0:
                self.best_state = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        else:
            self.status = "diverged"
        return Epoch(
            self.epochs, self.steps, rate, running_accuracy, running_loss, checked, validation, test,
            train_seconds, criterion_seconds, evaluation_seconds,
        )  # fmt: skip

    def _prepared(self) -> list[StepRequest]:
        """The minibatches of the next epoch, and recordings of their steps where there are to be any."""
        order, sizes = self._epoch_order()
        indices = self._data.train_indices[order.to(self._device)]
        widths = [self.stepper.width(width) for width in self._data.train.widths(indices, sizes)]
        requests = [StepRequest(self.stepper, *each) for each in zip(indices.split(sizes), widths, strict=True)]
        self.stepper.prepare(set(zip(sizes, widths, strict=True)))
        return requests

    def _train_on(self, requests: Sequence[StepRequest]) -> TrainingCoroutine[tuple[float, float]]:
        """Running (accuracy, mean loss) of one pass. Nothing waits for the device before the pass is over."""
        seed, round_index = self._place
        stepper = self.stepper
        stepper.clear_sums()
        stepper.seed_augmentation(seed, round_index, self.epochs)
        self.model.train()
        with scoped_torch_seed(seed, "dropout", round_index, self.epochs, device=self._device):
            yield from requests
        count = sum(len(each.index) for each in requests)
        self.epochs += 1
        self.steps += len(requests)
        self.samples_seen += count
        for hook in self._hooks:
            if hook.after_epoch:
                hook.after_epoch(self.model)
        correct, loss_sum = yield from wait_for_values(torch.stack((stepper.correct, stepper.loss_sum.double())))
        return correct / count, loss_sum / count

    def _epoch_order(self) -> tuple[torch.Tensor, list[int]]:
        """Order and batch sizes of the next epoch, which a `steps` rule may cut short."""
        seed, round_index = self._place
        indices, lengths = self._data.train_indices, self._data.train.lengths
        order, sizes = epoch_order(len(indices), seed, round_index, self.epochs), self._sizes
        if self._settings.bucketing is not None:
            assert lengths is not None  # as the constructor made sure
            generator = torch_generator(seed, "bucketing", round_index, self.epochs)
            order, sizes = bucketed(order, sizes, lengths[indices.cpu()], self._settings.bucketing, generator)
        if self._settings.until.steps is not None:
            sizes = sizes[: self._settings.until.steps - self.steps]
        return order[: sum(sizes)], sizes

    def _set_learning_rate(self) -> float:
        rate = self._settings.schedule.learning_rate(self._settings.optimizer.lr, self.epochs, self._settings.until.cap)
        self.stepper.set_learning_rate(rate)
        return rate

    def _check_train_accuracy(self) -> TrainingCoroutine[float | None]:
        if not (self.rule.needs_train_accuracy or self._measure):
            return None
        at_least = None if self._measure or self.epochs >= self._settings.until.cap else self.rule.threshold
        samples, indices = self._data.train, self._data.train_indices
        return (yield from criterion(self.model, self.stepper.batch_metrics(samples), samples, indices, at_least))

    def _evaluate_held_out(self) -> TrainingCoroutine[tuple[float | None, float | None]]:
        data = self._data
        validation = test = None
        if self._measure or self.rule.needs_validation_accuracy:
            validation = yield from self._accuracy(data.train, data.validation_indices)
        if self._measure:
            test = yield from self._accuracy(data.test, data.test_indices)
        return validation, test

    def _accuracy(self, samples: DeviceSamples, indices: torch.Tensor) -> TrainingCoroutine[float | None]:
        if len(indices) == 0:
            return None
        accuracy, _ = yield from evaluation(self.model, self.stepper.batch_metrics(samples), samples, indices)
        return accuracy

    def _now(self) -> float:
        """A clock that stands while steps are recorded, read once this training's own work on the device is done."""
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        return time.perf_counter() - self.stepper.capture_seconds

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed round needs, at an epoch's border; generators are made anew from their place."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.stepper.optimizer.state_dict(),
            "rule": self.rule.memory(),
            "best_state": self.best_state,
            "counters": (self.epochs, self.steps, self.samples_seen),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what `state_dict` gave."""
        self.model.load_state_dict(state["model"])
        self.stepper.load_optimizer(state["optimizer"])
        self.rule.restore(state["rule"])
        self.best_state = state["best_state"]
        self.epochs, self.steps, self.samples_seen = state["counters"]


def train(training: RoundTraining) -> list[Epoch]:
    """Runs a round to its end; `training.status` says how it ended."""
    epochs = []
    while training.status is None:
        epochs.append(training.run_epoch())
    return epochs
