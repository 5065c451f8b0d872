"""One round's training, an epoch at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from warmstart_sim.errors import WarmstartError
from warmstart_sim.seeding import scoped_torch_seed, torch_generator
from warmstart_sim.training.batches import DeviceSamples, batch_sizes, bucketed, epoch_order
from warmstart_sim.training.evaluation import evaluate, train_accuracy
from warmstart_sim.training.settings import Optimizer, Training
from warmstart_sim.training.stopping import Status, StopRule
from warmstart_sim.types import Batch, Hooks

Step = Callable[[torch.Tensor, int | None], None]  # the batch's indices, and the length to which its texts are cut


def make_optimizer(model: nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    """A new optimiser over the parameters that train. Fused: one kernel for all tensors, on CPUs too."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rate, decay = settings.lr, settings.weight_decay
    if settings.name == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=settings.momentum, weight_decay=decay, fused=True)
    adam = torch.optim.Adam if settings.name == "adam" else torch.optim.AdamW
    return adam(parameters, lr=rate, weight_decay=decay, fused=True)


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
    """Trains `model` in place, one epoch at each call of `run_epoch`, until `status` is set.

    Args:
        model: On the device, holding the weights to start from.
        data: The round's samples.
        settings: Optimiser, schedule, batch size, stop rule, precision.
        hooks: What the arm's parts add; absent hooks are not looked at inside the epoch.
        seed: The experiment's seed.
        round_index: The round; with the seed and the epoch it decides order, augmentation and dropout.
        measure_each_epoch: Whether to measure train, validation and test accuracy in full after every epoch.

    Raises:
        WarmstartError: `settings.bucketing` is set, and the samples are no texts.
    """

    def __init__(
        self,
        model: nn.Module,
        data: RoundData,
        settings: Training,
        hooks: Sequence[Hooks] = (),
        *,
        seed: int,
        round_index: int,
        measure_each_epoch: bool = False,
    ) -> None:
        if settings.bucketing is not None and data.train.lengths is None:
            raise WarmstartError(
                f"training.bucketing is for texts, whose lengths differ; it is {settings.bucketing}, and one input has "
                f"shape {tuple(data.train.inputs.shape[1:])}; leave it out"
            )
        self.model = model
        self.optimizer = make_optimizer(model, settings.optimizer)
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
        self._loss_sum = torch.zeros((), device=self._device)
        self._correct = torch.zeros((), dtype=torch.int64, device=self._device)

    def run_epoch(self) -> Epoch:
        """Trains for one epoch, checks the stop rule, and says what happened."""
        started = self._now()
        rate = self._set_learning_rate()
        running_accuracy, running_loss = self._train_one_epoch()
        train_seconds = self._now() - started

        started = self._now()
        checked = self._check_train_accuracy()
        criterion_seconds = self._now() - started

        started = self._now()
        validation, test = self._evaluate_held_out()
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

    def _train_one_epoch(self) -> tuple[float, float]:
        """Running (accuracy, mean loss) of one pass. Nothing waits for the device before the pass is over."""
        seed, round_index = self._place
        data = self._data
        order, sizes = self._epoch_order()
        indices = data.train_indices[order.to(self._device)]
        widths = data.train.widths(indices, sizes)
        step = self._compose_step()
        self._loss_sum.zero_()
        self._correct.zero_()
        self.model.train()
        with scoped_torch_seed(seed, "dropout", round_index, self.epochs, device=self._device):
            for index, width in zip(indices.split(sizes), widths, strict=True):
                step(index, width)
        self.epochs += 1
        self.steps += len(sizes)
        self.samples_seen += sum(sizes)
        for hook in self._hooks:
            if hook.after_epoch:
                hook.after_epoch(self.model)
        return self._correct.item() / sum(sizes), self._loss_sum.item() / sum(sizes)

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

    def _compose_step(self) -> Step:
        """The step of this epoch, made of what is present; the common case has no branches in it."""
        transforms = [hook.transform for hook in self._hooks if hook.transform]
        loss_terms = [hook.loss_term for hook in self._hooks if hook.loss_term]
        after_step = [hook.after_step for hook in self._hooks if hook.after_step]
        data, model, optimizer = self._data.train, self.model, self.optimizer
        loss_sum, correct = self._loss_sum, self._correct
        forward = self._forward()

        def finish(loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum.add_(loss.detach(), alpha=len(labels))
            correct.add_((logits.detach().argmax(1) == labels).sum())

        def plain_step(index: torch.Tensor, width: int | None) -> None:
            inputs, labels = data.batch(index, width)
            logits = forward(inputs)
            finish(F.cross_entropy(logits, labels), logits, labels)

        if not (transforms or loss_terms or after_step):
            return plain_step
        generator = torch_generator(self._place[0], "augment", self._place[1], self.epochs, device=self._device)

        def step_with_parts(index: torch.Tensor, width: int | None) -> None:
            batch = Batch(*data.raw_batch(index, width), generator)
            for transform in transforms:
                batch = transform(batch)
            logits = forward(data.finished(batch.inputs))
            loss = F.cross_entropy(logits, batch.labels)
            for term in loss_terms:
                loss = loss + term(batch, logits)
            finish(loss, logits, batch.labels)
            for call in after_step:
                call(model)

        return step_with_parts

    def _forward(self) -> Callable[[torch.Tensor], torch.Tensor]:
        if self._settings.precision == "float32":
            return self.model

        def autocast(inputs: torch.Tensor) -> torch.Tensor:
            with torch.autocast(self._device.type, dtype=torch.bfloat16):
                logits: torch.Tensor = self.model(inputs)
            return logits.float()

        return autocast

    def _set_learning_rate(self) -> float:
        rate = self._settings.schedule.learning_rate(self._settings.optimizer.lr, self.epochs, self._settings.until.cap)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _check_train_accuracy(self) -> float | None:
        if not (self.rule.needs_train_accuracy or self._measure):
            return None
        at_least = None if self._measure or self.epochs >= self._settings.until.cap else self.rule.threshold
        return train_accuracy(self.model, self._data.train, self._data.train_indices, at_least)

    def _evaluate_held_out(self) -> tuple[float | None, float | None]:
        validation = test = None
        if self._measure or self.rule.needs_validation_accuracy:
            validation = _accuracy(self.model, self._data.train, self._data.validation_indices)
        if self._measure:
            test = _accuracy(self.model, self._data.test, self._data.test_indices)
        return validation, test

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed round needs, at an epoch's border; generators are made anew from their place."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rule": self.rule.memory(),
            "best_state": self.best_state,
            "counters": (self.epochs, self.steps, self.samples_seen),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what `state_dict` gave."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rule.restore(state["rule"])
        self.best_state = state["best_state"]
        self.epochs, self.steps, self.samples_seen = state["counters"]


def _accuracy(model: nn.Module, samples: DeviceSamples, indices: torch.Tensor) -> float | None:
    return evaluate(model, samples, indices)[0] if len(indices) else None


def train(training: RoundTraining) -> list[Epoch]:
    """Runs a round to its end; `training.status` says how it ended."""
    epochs = []
    while training.status is None:
        epochs.append(training.run_epoch())
    return epochs
