"""Counts hits and losses of batches for a stepper's model, replayed or compiled as the stepper's steps are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn

from warmstart_sim.training.batch_loss import Forward
from warmstart_sim.training.batches import DeviceSamples
from warmstart_sim.training.captures import GraphCapture, Replay
from warmstart_sim.training.evaluation import BATCH, BatchMetrics, batch_metrics, hits_and_loss

CAPTURED_EVALUATION_BATCH = BATCH["cuda"]  # samples of a captured evaluation batch; shorter ones are padded


class Evaluated(Protocol):
    """What is needed of a `Stepper`, whose docstrings say more."""

    model: nn.Module
    device: torch.device
    graph_capture: GraphCapture | None
    forward: Forward | None

    @property
    def compiles(self) -> bool: ...  # noqa: D102
    def width(self, width: int | None) -> int | None: ...  # noqa: D102
    def evaluation_mode(self) -> None: ...  # noqa: D102
    def replay_of(self, work: Callable[[], None], what: str, *, full: bool) -> Replay | None: ...  # noqa: D102
    def runs_compiled(self, work: Callable[[], object]) -> bool: ...  # noqa: D102


class StepperMetrics:
    """The `BatchMetrics` of a stepper's model; those that are captured or compiled are kept until `clear`."""

    def __init__(self, stepper: Evaluated) -> None:
        self._stepper = stepper
        self._kept: dict[tuple[DeviceSamples, int | None], BatchMetrics] = {}

    def clear(self) -> None:
        """Forgets all, which would keep their samples in memory."""
        self._kept.clear()

    def of(self, samples: DeviceSamples) -> BatchMetrics:
        """A function that counts hits and losses of batches; it may leave the model in evaluation mode."""
        stepper = self._stepper
        plain = self._evaluating(batch_metrics(stepper.model, samples))
        if stepper.graph_capture is None and not stepper.compiles:
            return plain
        make = self._compiled if stepper.graph_capture is None else self._captured

        def quick(index: torch.Tensor, width: int | None) -> torch.Tensor:
            key = samples, stepper.width(width)
            if key not in self._kept:
                self._kept[key] = make(*key, plain)
            return self._kept[key](index, width)

        return quick

    def _compiled(self, samples: DeviceSamples, width: int | None, plain: BatchMetrics) -> BatchMetrics:
        """`plain`, compiled for full batches; as it is if there are none, or if it cannot be compiled."""
        stepper, index = self._stepper, torch.zeros(BATCH["cpu"], dtype=torch.int64)
        if width is not None or len(samples) < len(index) or stepper.forward is None:
            return plain
        full = self._evaluating(batch_metrics(stepper.forward, samples))
        if not stepper.runs_compiled(lambda: full(index, None)):
            return plain
        return lambda index, width: (full if len(index) == BATCH["cpu"] else plain)(index, width)

    def _captured(self, samples: DeviceSamples, width: int | None, plain: BatchMetrics) -> BatchMetrics:
        static = torch.zeros(CAPTURED_EVALUATION_BATCH, dtype=torch.int64, device=self._stepper.device)
        counts = torch.zeros(CAPTURED_EVALUATION_BATCH, dtype=torch.bool, device=self._stepper.device)
        result = torch.zeros(2, dtype=torch.float64, device=self._stepper.device)

        def work() -> None:
            with torch.no_grad():
                inputs, labels = samples.batch(static, width)
                result.copy_(hits_and_loss(self._stepper.model(inputs), labels, counts))

        self._stepper.evaluation_mode()
        replay = self._stepper.replay_of(work, "evaluation", full=True)
        if replay is None:
            return plain

        def replayed(index: torch.Tensor, width: int | None) -> torch.Tensor:
            static[: len(index)].copy_(index)  # the rest are samples of an earlier batch, which do not count
            counts.copy_(torch.arange(CAPTURED_EVALUATION_BATCH, device=self._stepper.device) < len(index))
            replay()
            return result.clone()

        return replayed

    def _evaluating(self, metrics: BatchMetrics) -> BatchMetrics:
        def evaluated(index: torch.Tensor, width: int | None) -> torch.Tensor:
            self._stepper.evaluation_mode()
            return metrics(index, width)

        return evaluated
