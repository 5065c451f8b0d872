"""Settings of pretraining before the first round: training on another data set, or loading a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from warmstart_sim.scenario.component import Component, model_to_dict
from warmstart_sim.scenario.sections import DataSettings
from warmstart_sim.training.settings import ScenarioTraining


@dataclass(frozen=True)
class PretrainingSource:
    """The data set of the first phase and its training settings.

    Attributes:
        data: The data set.
        settings: Validation fraction, normalisation, limits.
        own_normalization: Whether it has its own normalisation; otherwise it uses the target's statistics.
        fraction: The fraction of the data set that is trained on, in (0, 1].
        adapt: How its images are brought to the size of the target's.
        training: Optimiser, stop rule and other training settings.
    """

    data: Component
    settings: DataSettings
    own_normalization: bool
    fraction: float
    adapt: Literal["resize", "pad"] | None
    training: ScenarioTraining

    def to_dict(self) -> dict[str, Any]:
        """All settings that decide the first phase's numbers, as plain values."""
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
    """Pretraining on a source or from a checkpoint (the other is None), whether to keep the head, which weights."""

    source: PretrainingSource | None
    checkpoint: Path | None
    head: Literal["keep", "fresh"]
    weights: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """All settings that decide the cell's numbers, as plain values."""
        return {
            "source": self.source and self.source.to_dict(),
            "checkpoint": self.checkpoint and str(self.checkpoint),
            "head": self.head,
            **({"weights": self.weights} if self.weights else {}),
        }
