"""What a scenario file may say under `training:`. Importing this module never imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, PositiveFloat, PositiveInt, model_validator

from warmstart_sim.registry import OPTION_RULES
from warmstart_sim.training.schedules import Schedule

Fraction = Annotated[float, Field(gt=0, le=1)]


def none_if(default: object) -> AfterValidator:
    """Makes a setting's default the same as leaving its key out, also in a cell's digest."""
    return AfterValidator(lambda value: None if value == default else value)


class Settings(BaseModel):
    """Immutable settings that refuse unknown keys."""

    model_config = OPTION_RULES


class Optimizer(Settings):
    """The optimiser. Every round begins with a new state, unless `training.optimizer_state` keeps the last one.

    Attributes:
        name: "adam" (default), "adamw" or "sgd".
        lr: Learning rate, above 0. Default 0.001, the papers'.
        momentum: For sgd only, in [0, 1). Default 0.
        weight_decay: At least 0. Default 0. An L2 penalty in adam and sgd, decoupled in adamw.
        decay_biases: Whether `weight_decay` also acts on biases, scales and shifts, that is, on parameters with fewer
            than two dimensions. Default true, as in PyTorch; false is Keras's `kernel_regularizer`.
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    lr: PositiveFloat = 0.001
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    decay_biases: bool | None = None  # true; None leaves the identity of older cells as it was

    @model_validator(mode="after")
    def _momentum_is_for_sgd(self) -> Optimizer:
        if self.momentum and self.name != "sgd":
            raise ValueError(f"momentum is an option of sgd, not of {self.name}")
        return self


class Plateau(Settings):
    """Train accuracy has stopped improving.

    Attributes:
        patience: Epochs in a row without an improvement of at least `min_delta` over the best. Default 10.
        min_delta: A fraction, at least 0. Default 0.001 (0.1 points).
    """

    patience: PositiveInt = 10
    min_delta: Annotated[float, Field(ge=0, lt=1)] = 0.001


class GiveUp(Settings):
    """Ends a round that does not train: after `epochs` epochs, running train accuracy is still below `below`."""

    epochs: PositiveInt
    below: Annotated[float, Field(gt=0, lt=1)]


RULES = ("train_accuracy", "running_accuracy", "plateau", "validation_patience", "epochs", "steps")


class Until(Settings):
    """When a round ends: as soon as one of its rules holds, and at the cap at the latest.

    Attributes:
        train_accuracy: The share of all training samples so far that the model classifies correctly after an epoch,
            in evaluation mode, on clean inputs, reaches this value, in (0, 1]. The papers': 0.99.
        running_accuracy: The accuracy on the batches of the epoch as they were trained on reaches this value.
        plateau: Train accuracy has stopped improving; see `Plateau`.
        validation_patience: Validation accuracy has not improved for this many epochs. The accuracies reported are then
            those of the best weights on validation data; the next round starts from the last.
        epochs: A fixed number of epochs.
        steps: A fixed number of steps; the epoch in which they are reached is cut short.
        max_epochs: The cap. A round that reaches it has `converged = false`, and the run goes on. Default 500.
        give_up: See `GiveUp`; the status of such a round is `gave_up`.
    """

    train_accuracy: Fraction | None = None
    running_accuracy: Fraction | None = None
    plateau: Plateau | None = None
    validation_patience: PositiveInt | None = None
    epochs: PositiveInt | None = None
    steps: PositiveInt | None = None
    max_epochs: PositiveInt = 500
    give_up: GiveUp | None = None

    @model_validator(mode="after")
    def _has_a_rule(self) -> Until:
        if not any(getattr(self, rule) is not None for rule in RULES):
            raise ValueError(f"needs at least one rule: {', '.join(RULES)}")
        return self

    @property
    def cap(self) -> int:
        """The most epochs that a round can take (`steps` may end it earlier)."""
        return self.epochs or self.max_epochs


class Training(Settings):
    """How a round trains.

    Attributes:
        optimizer: See `Optimizer`.
        schedule: See `Schedule`.
        batch_size: Default 128. No batch is dropped; a last batch of one sample joins the one before it.
        bucketing: For texts: batches of similar length, which need less padding. Each group of this many consecutive
            batches is sorted by length and split again, and then all batches are shuffled. Default none.
        until: See `Until`. Default 99 % train accuracy, at most 500 epochs.
        precision: "float32" (default, the papers'); "tf32": on CUDA, matrix products and convolutions round their
            inputs to 10 bits (elsewhere it is float32); "bf16": autocast of the forward pass, weights stay float32.
        compile: On a CPU, torch.compile for full batches of training and evaluation. Default false.
        threads: CPU threads of one cell. Default 1: workers use the other cores, and numbers do not depend on how many
            there are.
        report: "best_validation": a round's accuracies and losses are those of the weights after the epoch with its
            highest validation accuracy; the next round starts from the last weights. Default: those of its last
            weights, unless `until.validation_patience` is set.
        optimizer_state: What a round begins with, from the second on: "rebuild" (default) a new state of the optimiser;
            or "keep" the one with which the last round ended, such as Adam's moments and its count of steps.
    """

    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    batch_size: PositiveInt = 128
    bucketing: PositiveInt | None = None
    until: Until = Until(train_accuracy=0.99)
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    compile: Annotated[bool, none_if(False)] | None = None
    threads: PositiveInt = 1
    report: Literal["best_validation"] | None = None
    optimizer_state: Annotated[Literal["keep", "rebuild"], none_if("rebuild")] | None = None

    @model_validator(mode="after")
    def _the_rate_decays(self) -> Training:
        constant = self.schedule.constant_lr
        if constant is not None and constant > self.optimizer.lr:
            raise ValueError(
                f"schedule.constant_lr is {constant}, above optimizer.lr, {self.optimizer.lr}, from which it decays"
            )
        return self

    @property
    def keeps_optimizer(self) -> bool:
        """Whether a round begins with the optimiser's state of the last one."""
        return self.optimizer_state == "keep"

    @property
    def carries_over(self) -> bool:
        """Whether a round depends on earlier ones beyond their weights: on the optimiser's state or the epochs."""
        return self.keeps_optimizer or self.schedule.spans_rounds

    @property
    def reports_best(self) -> bool:
        """Whether a round's accuracies are those of its best weights on validation data."""
        return self.report == "best_validation" or self.until.validation_patience is not None

    @property
    def validates_with(self) -> str | None:
        """The setting that looks at validation accuracy after each epoch, such as "until.validation_patience"."""
        if self.until.validation_patience is not None:
            return "until.validation_patience"
        if self.report == "best_validation":
            return "report"
        return "schedule" if self.schedule.name == "reduce_on_plateau" else None


class ScenarioTraining(Training):
    """Everything under `training:`.

    Attributes:
        later_rounds: Settings of the second and all later rounds, merged over the others key by key; an `optimizer` or
            `schedule` with another name replaces the whole. Default: as in the first round.
    """

    later_rounds: Training | None = None

    def in_round(self, index: int) -> Training:
        """The settings of round `index`, counted from 0."""
        if index > 0 and self.later_rounds:
            return self.later_rounds
        return Training.model_construct(**{name: getattr(self, name) for name in Training.model_fields})
