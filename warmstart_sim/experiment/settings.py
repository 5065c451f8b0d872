"""Where and how cells run: device, data folder, checkpoints, how many at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from warmstart_sim.training.step_time import StepTime

Batching = Literal["separate", "streams", "stacked"]
EngineName = Literal["native", "avalanche"]


@dataclass(frozen=True)
class ExecutionSettings:
    """Where and how cells run.

    Attributes:
        data_root: The folder that holds the data sets.
        device: Such as "cpu" or "cuda:0".
        timing: "isolated" when a cell has the machine to itself, "concurrent" when others run beside it.
        checkpoint_seconds: How often a long round is checkpointed, between two epochs. Default 600.
        tensorboard: Whether to write TensorBoard logs.
        deterministic: On CUDA, only kernels that give the same bits every time.
        slots: How many cells each process trains at a time.
        batching: How they make their steps: "separate", one after another; "streams", on a GPU in a stream for each
            slot; "stacked", as one model where models are alike.
        step_times: Seconds of a step measured alone on the idle machine, by `Cell.step_kind`.
        engine: The training loop: "native" is ours.
    """

    data_root: Path
    device: str = "cpu"
    timing: str = "isolated"
    checkpoint_seconds: float = 600.0
    tensorboard: bool = False
    deterministic: bool = False
    slots: int = 1
    batching: Batching = "separate"
    step_times: Mapping[str, StepTime] = field(default_factory=dict)
    engine: EngineName = "native"
