"""What comes before the first round of a `pretrain` stream: training on another data set, or a file of weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from warmstart_sim.scenario.component import Component, model_to_dict
from warmstart_sim.scenario.sections import DataSettings
from warmstart_sim.training.settings import Training


@dataclass(frozen=True)
class PretrainingSource:
    """The data set of the first phase, and how it is trained on.

    Attributes:
        data: The data set.
        settings: Validation fraction, normalisation, limits.
        own_normalization: Whether it is normalised by itself; otherwise with the target's numbers.
        fraction: The share of it that is trained on, in (0, 1].
        adapt: How its images become as large as the target's.
        training: Optimiser, stop rule and so on.
    """

    data: Component
    settings: DataSettings
    own_normalization: bool
    fraction: float
    adapt: Literal["resize", "pad"] | None
    training: Training

    def to_dict(self) -> dict[str, Any]:
        """All that decides the first phase's numbers, as plain values."""
        return {
            **model_to_dict(self.settings),
            "normalize": self.settings.normalize if self.own_normalization else "target",
            "fraction": self.fraction,
            "adapt": self.adapt,
            **self.data.to_dict(),
            "training": model_to_dict(self.training),
        }


@dataclass(frozen=True)
class Pretraining:
    """The first phase: a source or a checkpoint, one of them None; and what becomes of its head."""

    source: PretrainingSource | None
    checkpoint: Path | None
    head: Literal["keep", "fresh"]

    def to_dict(self) -> dict[str, Any]:
        """All of it that decides numbers, as plain values."""
        return {
            "source": self.source and self.source.to_dict(),
            "checkpoint": self.checkpoint and str(self.checkpoint),
            "head": self.head,
        }
