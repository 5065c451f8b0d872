"""Where and how cells run, and by whose training loop: what an executor hands to the experiment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import torch

from warmstart_sim.training.loop import Epoch
from warmstart_sim.training.step_time import StepTime
from warmstart_sim.training.stop_rules import Status
from warmstart_sim.types import Round, StateDict

if TYPE_CHECKING:
    from warmstart_sim.experiment.cell_trainer import CellTrainer

Batching = Literal["apart", "streams", "stacked"]


@dataclass(frozen=True)
class ExecutionSettings:
    """Where and how cells run.

    Attributes:
        data_root: The folder that holds the data sets.
        device: Such as "cpu" or "cuda:0".
        timing: "isolated" when a cell has the machine to itself, "shared" when others run beside it.
        checkpoint_seconds: How often a long round is checkpointed, at an epoch's border. Default 600.
        tensorboard: Whether to write TensorBoard logs.
        deterministic: On CUDA, only kernels that give the same bits every time.
        slots: How many cells are trained side by side in one process.
        batching: How: "apart", each step by itself; "streams", likewise, on a GPU in a stream for each slot; "stacked",
            cells whose models are alike as one.
        step_times: What a step costs alone on the idle machine, by `Cell.step_kind`.
        engine: What trains the rounds of a cell in place of our own loop; see `Engine`.
    """

    data_root: Path
    device: str = "cpu"
    timing: str = "isolated"
    checkpoint_seconds: float = 600.0
    tensorboard: bool = False
    deterministic: bool = False
    slots: int = 1
    batching: Batching = "apart"
    step_times: Mapping[str, StepTime] = field(default_factory=dict)
    engine: Engine | None = None


OnEpoch = Callable[[Epoch, bool], None]  # called after each epoch, and told whether it was the round's last


class TrainingOutcome(Protocol):
    """How a round's training ended.

    Attributes:
        status: Why it ended.
        epochs: How many there were.
        steps: Likewise.
        samples_seen: Likewise, those of all epochs.
        best_state: Weights to report instead of the last, from a rule that looks at validation data.
        recording_seconds: Of its time, what was spent on recording steps.
    """

    @property
    def status(self) -> Status | None: ...  # noqa: D102
    @property
    def epochs(self) -> int: ...  # noqa: D102
    @property
    def steps(self) -> int: ...  # noqa: D102
    @property
    def samples_seen(self) -> int: ...  # noqa: D102
    @property
    def best_state(self) -> dict[str, torch.Tensor] | None: ...  # noqa: D102
    @property
    def capture_seconds(self) -> float: ...  # noqa: D102


class Engine(Protocol):
    """Another training loop: for a cell, what starts and trains a round in the lab's model from the last weights."""

    def __call__(self, trainer: CellTrainer, /) -> Callable[[Round, StateDict | None, OnEpoch], TrainingOutcome]:
        """The function that is called with each round, the last weights (None before the first) and a listener."""
        ...
