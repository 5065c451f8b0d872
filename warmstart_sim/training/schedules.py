"""The learning rate by epoch, within a round and over all rounds. Importing this module never imports torch."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, model_validator

from warmstart_sim.registry import OPTION_RULES

# Which schedules have an option.
OPTIONS = {
    "every": ("step",),
    "gamma": ("step", "reduce_on_plateau"),
    "patience": ("reduce_on_plateau",),
    "epochs": ("cosine", "infinite"),
    "min_lr": ("cosine", "infinite"),
    "warmup": ("constant", "cosine", "infinite"),
    "constant_lr": ("infinite",),
    "anneal": ("infinite",),
}
NEEDS = {
    "step": ("every", "the epochs between two drops"),
    "reduce_on_plateau": ("patience", "the epochs without an improvement"),
    "infinite": ("epochs", "after which the rate is constant"),
}


class Schedule(BaseModel):
    """The learning rate by epoch.

    It restarts with each round: with a cosine, each round warms up and decays again. Only "infinite" goes on where the
    last round ended. Sources: Gupta et al. 2023 (https://arxiv.org/abs/2308.04014) for warming up again; Ibrahim et
    al. 2024 (https://arxiv.org/abs/2403.08763) for both. They count steps, and here it is epochs.

    Attributes:
        name: "constant" (default); "step": lr * gamma^floor(epoch / every); "cosine": from lr down to min_lr over
            `epochs` epochs, lr_e = min_lr + (lr - min_lr) (1 + cos(pi e / epochs)) / 2; "reduce_on_plateau": a drop
            when validation accuracy has not improved for `patience` epochs, lr * gamma^drops; "infinite": a cosine down
            to `constant_lr`, and then that rate, where e counts the epochs of all rounds.
        every: For step: epochs between two drops.
        gamma: For step and reduce_on_plateau: the factor of a drop, in (0, 1]. Default 0.1.
        patience: For reduce_on_plateau: epochs in a row without an improvement, since the best or the last drop.
        epochs: For cosine and infinite: its length, with the warm-up; after it the rate stays as it is. Default of
            cosine: `until`'s epochs or cap.
        min_lr: The last rate of cosine, default 0; or of infinite's `anneal`, required with it.
        warmup: For constant, cosine and infinite: epochs before the rate is lr, lr_e = lr (e + 1) / (warmup + 1).
            What follows is counted from there: e - warmup of epochs - warmup. Default none.
        constant_lr: For infinite: the rate of all epochs after the first `epochs`, at most lr.
        anneal: For infinite: epochs that are added when a round's stop rule ends it, in which the rate falls from its
            last value lr_c to min_lr, lr_c (min_lr / lr_c)^(k / anneal) in the k-th of them. The round is evaluated
            after them; the next one starts from the weights before them. Default none.
    """

    model_config = OPTION_RULES

    name: Literal["constant", "step", "cosine", "reduce_on_plateau", "infinite"] = "constant"
    every: PositiveInt | None = None
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    patience: PositiveInt | None = None
    epochs: PositiveInt | None = None
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    warmup: PositiveInt | None = None
    constant_lr: PositiveFloat | None = None
    anneal: PositiveInt | None = None

    @model_validator(mode="after")
    def _options_belong_to_the_name(self) -> Schedule:
        option, meaning = NEEDS.get(self.name, ("name", ""))
        if getattr(self, option) is None:
            article = "an" if self.name == "infinite" else "a"
            raise ValueError(f"{article} {self.name} schedule needs `{option}`, {meaning}")
        for option, names in OPTIONS.items():
            if self.name not in names and getattr(self, option) != type(self).model_fields[option].default:
                *others, last = names
                listed = f"{', '.join(others)} or {last}" if others else last
                raise ValueError(f"{option} is an option of the {listed} schedule, not of {self.name}")
        if self.warmup and self.epochs and self.warmup >= self.epochs:
            raise ValueError(
                f"warmup is {self.warmup}; it must be below `epochs`, {self.epochs}, of which it is a part"
            )
        if self.name == "infinite":
            self._check_infinite()
        return self

    def _check_infinite(self) -> None:
        if self.constant_lr is None:
            raise ValueError("an infinite schedule needs `constant_lr`, the rate after `epochs`")
        if self.anneal and not 0 < self.min_lr < self.constant_lr:
            raise ValueError(f"min_lr is {self.min_lr}; `anneal` needs one above 0 and below constant_lr")
        if self.min_lr and not self.anneal:
            raise ValueError("min_lr is the last rate of `anneal`; give both")

    @property
    def spans_rounds(self) -> bool:
        """Whether it goes on where the last round ended."""
        return self.name == "infinite"

    def learning_rate(self, base: float, epoch: int, length: int, drops: int = 0) -> float:
        """The rate in `epoch` when the base rate is `base` and the round lasts `length` epochs.

        Args:
            base: The optimiser's rate.
            epoch: 0 for the first of the round; for a schedule that spans rounds, of all rounds.
            length: The most epochs of the round.
            drops: Of reduce_on_plateau: how often validation accuracy has stalled so far.

        >>> Schedule(name="step", every=2, gamma=0.5).learning_rate(0.1, 3, 10)
        0.05
        >>> infinite = Schedule(name="infinite", warmup=1, epochs=3, constant_lr=0.02)
        >>> [infinite.learning_rate(0.1, epoch, 10) for epoch in (0, 1, 2, 3, 99)]
        [0.05, 0.1, 0.06, 0.02, 0.02]
        """
        warmup = self.warmup or 0
        if epoch < warmup:
            return base * (epoch + 1) / (warmup + 1)
        if self.name == "step":
            assert self.every is not None
            return base * self.gamma ** (epoch // self.every)
        if self.name in ("cosine", "infinite"):
            last = self.min_lr if self.constant_lr is None else self.constant_lr
            span = max((self.epochs or length) - warmup, 1)
            return last + (base - last) * (1 + math.cos(math.pi * min((epoch - warmup) / span, 1))) / 2
        return base * self.gamma**drops if self.name == "reduce_on_plateau" else base

    def annealed(self, rate: float, epoch: int) -> float:
        """The rate in an epoch of annealing, 0 for the first, when it was `rate` before.

        >>> schedule = Schedule(name="infinite", epochs=3, constant_lr=0.1, anneal=2, min_lr=0.001)
        >>> [round(schedule.annealed(0.1, epoch), 6) for epoch in (0, 1)]
        [0.01, 0.001]
        """
        assert self.anneal is not None
        share: float = (self.min_lr / rate) ** ((epoch + 1) / self.anneal)
        return rate * share
