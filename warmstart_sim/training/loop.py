"""One round's training, an epoch at a time."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from warmstart_sim.errors import WarmstartError
from warmstart_sim.seeding import scoped_torch_seed, torch_generator
from warmstart_sim.training import part_state
from warmstart_sim.training.batches import DeviceSamples, batch_sizes, bucket_by_length, epoch_order
from warmstart_sim.training.coroutine import PendingValues, TrainingCoroutine, arrived, run_to_end
from warmstart_sim.training.evaluation import evaluation_coroutine, train_accuracy_coroutine
from warmstart_sim.training.moments import Moment
from warmstart_sim.training.optimizers import NamedState, keep_state, state_by_name
from warmstart_sim.training.plateau_drops import PlateauDrops
from warmstart_sim.training.stepper import Stepper
from warmstart_sim.training.stop_rules import Status, StopRule
from warmstart_sim.types import Hooks, StateDict

EpochRow = dict[str, Any]  # a row of epochs.csv: the columns that the loop fills are listed in `RoundTraining.epoch`


@dataclass(frozen=True)
class Carried:
    """What a round hands on to the next one beside its weights.

    Attributes:
        epochs: The epochs of all rounds so far, without those of annealing: where an infinite schedule goes on.
        optimizer: The optimiser's state; None where the next round begins with a new one.
    """

    epochs: int = 0
    optimizer: NamedState | None = None


@dataclass(frozen=True)
class Annealing:
    """The annealing at the end of a round, see `Schedule.anneal`.

    Attributes:
        status: With which the stop rule ended the round.
        epochs: The round's epochs before it.
        weights: The weights before it, from which the next round starts.
        optimizer: The optimiser's state before it.
    """

    status: Status
    epochs: int
    weights: StateDict
    optimizer: NamedState


@dataclass(frozen=True)
class TrainingOutcome:
    """How a round's training ended.

    Attributes:
        status: Why it ended.
        epochs: Its number of epochs.
        steps: Its number of optimiser steps.
        samples_seen: The samples of all its epochs together.
        best_state: Weights to report instead of the last: those with the best validation accuracy.
        best_epoch: The epoch after which they were the weights, from 1; None where the last weights are reported.
        next_weights: Weights for the next round instead of the last: those before annealing.
    """

    status: Status
    epochs: int
    steps: int
    samples_seen: int
    best_state: dict[str, torch.Tensor] | None = None
    best_epoch: int | None = None
    next_weights: StateDict | None = None


@dataclass(frozen=True)
class RoundData:
    """A round's samples, all on the device.

    Attributes:
        train: The training arrays; `train_indices` and `validation_indices` point into them.
        test: The test arrays, evaluated whole.
    """

    train: DeviceSamples
    train_indices: torch.Tensor
    validation_indices: torch.Tensor
    test: DeviceSamples
    test_indices: torch.Tensor


@dataclass(frozen=True)
class EpochBatches:
    """The batches of an epoch.

    Attributes:
        indices: The samples of all batches, one batch after another, int64 on the device.
        sizes: The sizes of the batches.
        widths: The length to which the texts of each batch are cut; None for other inputs.
    """

    indices: torch.Tensor
    sizes: list[int]
    widths: list[int | None]


class RoundTraining:
    """Trains the stepper's model in place, one epoch at each call of `run_epoch`, until `status` is set.

    Args:
        stepper: Its model holds the weights to start from; its settings give batch size, schedule and stop rule.
        data: The round's samples.
        hooks: The hooks of the arm's parts; absent hooks cost nothing.
        seed: The experiment's seed.
        round_index: The round; with seed and epoch it decides batch order, augmentation and dropout.
        measure_each_epoch: Whether to measure train, validation and test accuracy in full after every epoch.
        trainable: Names of the parameters that train; None for all that train by default.
        carried: From the round before it.

    Raises:
        WarmstartError: `bucketing` is set, and the samples are not texts.
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
        trainable: Collection[str] | None = None,
        carried: Carried | None = None,
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
        self.drops = PlateauDrops(settings.schedule.patience) if settings.schedule.patience else None
        self.status: Status | None = None
        self.epochs = 0
        self.steps = 0
        self.samples_seen = 0
        self.best_state: dict[str, torch.Tensor] | None = None  # on validation data, where the settings ask for it
        self.best_epoch: int | None = None
        self.best_validation = -1.0

        self._data = data
        self._settings = settings
        self._hooks = hooks
        self._seed = seed
        self._round_index = round_index
        self._measure = measure_each_epoch
        self._device = data.train_indices.device
        self._train_indices = data.train_indices.cpu()
        self._next_batches: EpochBatches | None = None
        self._sizes = batch_sizes(len(data.train_indices), settings.batch_size)
        self._epochs_before = carried.epochs if carried else 0
        self._annealing: Annealing | None = None  # once it has begun
        stepper.begin(data.train, hooks, trainable)
        if carried and carried.optimizer:
            keep_state(self.model, stepper.optimizer, carried.optimizer)

    @property
    def outcome(self) -> TrainingOutcome:
        """How the round ended; call it once `status` is set."""
        assert self.status is not None
        return TrainingOutcome(
            self.status, self.epochs, self.steps, self.samples_seen, self.best_state, self.best_epoch,
            self._annealing.weights if self._annealing else None,
        )  # fmt: skip

    def carried(self, keep_optimizer: bool) -> Carried:
        """What the next round gets, with the optimiser's state if it is to be kept; call it once `status` is set."""
        annealing = self._annealing
        optimizer = None
        if keep_optimizer:
            optimizer = annealing.optimizer if annealing else state_by_name(self.model, self.stepper.optimizer)
        return Carried(self._epochs_before + (annealing.epochs if annealing else self.epochs), optimizer)

    def run_epoch(self) -> EpochRow:
        """Trains for one epoch, checks the stop rule, and returns the epoch's row."""
        return run_to_end(self.epoch())

    def epoch(self) -> TrainingCoroutine[EpochRow]:
        """One epoch as a coroutine: it yields step requests, and waits for its numbers.

        Accuracies in the row are fractions; None was not measured (or, for train accuracy, is too low to matter).
        """
        started = self._now()
        rate = self._set_learning_rate()
        sums, count = yield from self._train()
        trained = self._now()
        # What follows is queued right behind the steps; the first values to arrive bring the sums along.
        train_accuracy = yield from self._check_train_accuracy()
        checked = self._now()
        validation_accuracy, test_accuracy = yield from self._evaluate_held_out()
        evaluated = self._now()
        correct, loss_sum = yield from arrived(sums)
        running_accuracy, running_loss = correct / count, loss_sum / count

        self._apply_stop_rule(running_accuracy, running_loss, train_accuracy, validation_accuracy)
        return {
            "epoch": self.epochs,
            "steps": self.steps,
            "learning_rate": rate,
            "running_train_accuracy": running_accuracy,
            "running_train_loss": running_loss,
            "train_accuracy": train_accuracy,
            "validation_accuracy": validation_accuracy,
            "test_accuracy": test_accuracy,
            "train_seconds": started.seconds_until(trained),
            "criterion_seconds": trained.seconds_until(checked),
            "evaluation_seconds": checked.seconds_until(evaluated),
        }

    def train_epoch(self) -> TrainingCoroutine[float]:
        """The training of an epoch, without checks; its seconds. A rule `steps` counts from here."""
        self.steps = 0
        started = self._now()
        self._set_learning_rate()
        sums, _ = yield from self._train()
        yield from arrived(sums)
        return started.seconds_until(self._now())

    def _apply_stop_rule(
        self, running_accuracy: float, running_loss: float, train: float | None, validation: float | None
    ) -> None:
        """Sets `status` where the round ends, keeps the best weights on validation data, counts drops of the rate."""
        if not math.isfinite(running_loss):
            self.status = "diverged"
            return
        if self._annealing is None:
            self.status = self.rule.after_epoch(self.epochs, self.steps, running_accuracy, train, validation)
            self._anneal_if_asked()
        elif self.epochs == self._annealing.epochs + (self._settings.schedule.anneal or 0):
            self.status = self._annealing.status
        if self.drops:
            assert validation is not None
            self.drops.after_epoch(validation)
        if self._settings.reports_best:
            assert validation is not None
            if validation > self.best_validation:
                self.best_validation, self.best_epoch = validation, self.epochs
                self.best_state = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def _anneal_if_asked(self) -> None:
        """Lets a round that the stop rule has ended go on with annealing, if the schedule has any."""
        if self.status is None or not self._settings.schedule.anneal:
            return
        weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        optimizer = state_by_name(self.model, self.stepper.optimizer)
        self._annealing, self.status = Annealing(self.status, self.epochs, weights, optimizer), None
        self._next_batches = None  # a `steps` rule may have cut it short

    def _train(self) -> TrainingCoroutine[tuple[PendingValues, int]]:
        """Trains on one pass without waiting for the device: (correct predictions, sum of losses), and the labels."""
        stepper = self.stepper
        batches = self._next_batches or self._batches()
        requests = stepper.requests(batches.indices, batches.sizes, batches.widths)
        stepper.clear_sums()
        stepper.seed_augmentation(self._seed, self._round_index, self.epochs)
        stepper.train_mode()
        with scoped_torch_seed(self._seed, "dropout", self._round_index, self.epochs, device=self._device):
            yield from requests
        count = len(batches.indices)
        self.epochs += 1
        self.steps += len(batches.sizes)
        self.samples_seen += count
        for hook in self._hooks:
            if hook.after_epoch:
                hook.after_epoch(self.model, stepper.optimizer)
        # A CPU has no time to spare while it trains, and this may have been the last epoch.
        self._next_batches = self._batches() if self._device.type == "cuda" else None
        sums = PendingValues(torch.stack((stepper.correct, stepper.loss_sum.double())))
        return sums, count * self._data.train.labels_each

    def _batches(self) -> EpochBatches:
        """The batches of the next epoch; a `steps` rule may cut it short."""
        lengths = self._data.train.lengths
        order, sizes = epoch_order(len(self._train_indices), self._seed, self._round_index, self.epochs), self._sizes
        if self._settings.bucketing is not None:
            assert lengths is not None  # checked by the constructor
            generator = torch_generator(self._seed, "bucketing", self._round_index, self.epochs)
            order, sizes = bucket_by_length(
                order, sizes, lengths[self._train_indices], self._settings.bucketing, generator
            )
        if self._settings.until.steps is not None and self._annealing is None:
            sizes = sizes[: self._settings.until.steps - self.steps]
        indices = self._train_indices[order[: sum(sizes)]]
        widths = [self.stepper.width(width) for width in self._data.train.widths(indices, sizes)]
        if self._device.type == "cuda":
            indices = indices.pin_memory()
        return EpochBatches(indices.to(self._device, non_blocking=True), sizes, widths)

    def _set_learning_rate(self) -> float:
        settings, drops, annealing = self._settings, self.drops.drops if self.drops else 0, self._annealing
        epoch = annealing.epochs if annealing else self.epochs
        if settings.schedule.spans_rounds:
            epoch += self._epochs_before
        rate = settings.schedule.learning_rate(settings.optimizer.lr, epoch, settings.until.cap, drops)
        if annealing:
            rate = settings.schedule.annealed(rate, self.epochs - annealing.epochs)
        self.stepper.set_learning_rate(rate)
        return rate

    def _check_train_accuracy(self) -> TrainingCoroutine[float | None]:
        if not (self.rule.needs_train_accuracy or self._measure):
            return None
        at_least = None if self._measure or self.epochs >= self._settings.until.cap else self.rule.threshold
        samples, indices = self._data.train, self._data.train_indices
        return (yield from train_accuracy_coroutine(self.stepper.batch_metrics(samples), samples, indices, at_least))

    def _evaluate_held_out(self) -> TrainingCoroutine[tuple[float | None, float | None]]:
        data = self._data
        validation = test = None
        if self._measure or self._settings.validates_with:
            validation = yield from self._accuracy(data.train, data.validation_indices)
        if self._measure:
            test = yield from self._accuracy(data.test, data.test_indices)
        return validation, test

    def _accuracy(self, samples: DeviceSamples, indices: torch.Tensor) -> TrainingCoroutine[float | None]:
        if len(indices) == 0:
            return None
        accuracy, _ = yield from evaluation_coroutine(self.stepper.batch_metrics(samples), samples, indices)
        return accuracy

    def _now(self) -> Moment:
        """When this training's work so far is done; seconds between two moments do not count captures."""
        return Moment(self._device, self.stepper.capture_seconds)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed round needs, between two epochs; generators are seeded again."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.stepper.optimizer.state_dict(),
            "rule": self.rule.state_dict(),
            "drops": self.drops.state_dict() if self.drops else {},
            "best": (self.best_state, self.best_epoch, self.best_validation),
            "counters": (self.epochs, self.steps, self.samples_seen),
            "parts": [hook.state for hook in self._hooks],
            "annealing": self._annealing and vars(self._annealing),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.stepper.load_optimizer(state["optimizer"])
        self.rule.load_state_dict(state["rule"])
        if self.drops:
            self.drops = replace(self.drops, **state["drops"])
        self.best_state, self.best_epoch, self.best_validation = state["best"]
        self.epochs, self.steps, self.samples_seen = state["counters"]
        self._next_batches = None
        if state.get("annealing"):  # checkpoints of earlier versions have none
            self._annealing = Annealing(**state["annealing"])
        for hook, saved in zip(self._hooks, state["parts"], strict=True):
            if hook.state is not None:
                part_state.restore(hook.state, saved, self._device)


def train(training: RoundTraining) -> list[EpochRow]:
    """Runs a round to its end, and returns its epochs' rows; `training.status` says how it ended."""
    rows = []
    while training.status is None:
        rows.append(training.run_epoch())
    return rows
