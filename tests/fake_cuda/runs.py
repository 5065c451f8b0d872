"""Whole runs on the simulated device, compared with those on the CPU."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from tests.fake_cuda import Machine, fake_cuda
from warmstart_sim import scenario as scenarios
from warmstart_sim.acceleration import graph_capture
from warmstart_sim.execution.interleaved import run_slots
from warmstart_sim.execution.progress import ProgressEvent
from warmstart_sim.execution.scheduler import Scheduler
from warmstart_sim.execution.tasks import TaskQueue
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.results.columns import MEASURED
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario import Cell
from warmstart_sim.training import evaluation, stepper_metrics

EVALUATION_BATCH = 16  # in place of 512, so that there are several and no time is lost on padding

# Rates are powers of two, which a captured step's float32 tensor holds exactly: weights then agree to the bit.
SGD: dict[str, Any] = {"name": "sgd", "lr": 2**-5, "momentum": 0.5}


def scenario(**changes: Any) -> dict[str, Any]:
    """Two rounds of two epochs with a partial batch, on 24 and 40 images of 8x8 pixels."""
    return {
        "name": "tiny",
        "data": {"name": "noisy_digits", "train_samples": 40, "test_samples": 20},
        "stream": {"name": "online", "chunk_size": 20},
        "model": {"name": "mlp", "widths": [8]},
        "training": {"batch_size": 16, "until": {"epochs": 2}, "optimizer": SGD},
        "strategies": {"warm_start": {}},
        "seeds": [0],
        **changes,
    }


Prepare = Callable[[ExecutionSettings, Sequence[Cell], RunFolder], ExecutionSettings]


@dataclass
class Run:
    """A run that has ended.

    Attributes:
        results: What each cell has stored, by its id.
        failures: Why cells have failed, by id.
        machine: The simulated machine; None on the CPU.
    """

    results: dict[str, dict[str, Any]]
    failures: dict[str, str]
    machine: Machine | None = None


def run(
    raw: dict[str, Any],
    folder: Path,
    device: str = "cuda:0",
    devices: int = 1,
    *,
    interrupt_after: int | None = None,
    prepare: Prepare = lambda execution, cells, run: execution,
    **execution: Any,
) -> Run:
    """Runs all cells of a scenario, and reads what they have stored.

    Args:
        raw: The scenario.
        folder: Where results go.
        device: "cpu", or one of the simulated ones.
        devices: How many are simulated.
        interrupt_after: Interrupts the run after so many epochs.
        prepare: Changes the settings before the run, on the device.
        **execution: Slots, batching and so on, as in `ExecutionSettings`.
    """
    _, cells = scenarios.plan(copy.deepcopy(raw), "scenario")
    stored = RunFolder(folder)
    with contextlib.ExitStack() as stack:
        machine = None if device == "cpu" else stack.enter_context(fake_cuda(devices))
        stack.enter_context(_less_work())
        settings = prepare(ExecutionSettings(folder, device, **execution), cells, stored)
        scheduler = Scheduler(TaskQueue(cells, stored), [_Interrupt(interrupt_after)] if interrupt_after else [])
        run_slots(scheduler, stored, settings)
    complete = [cell for cell in cells if cell.folder(stored).complete]
    results = {cell.id: {**cell.folder(stored).result(), "weights": cell.folder(stored).weights()} for cell in complete}
    return Run(results, scheduler.failures, machine)


class _Interrupt:
    """Interrupts a run, as Ctrl-C does, after so many epochs."""

    def __init__(self, epochs: int) -> None:
        self._left = epochs

    def __call__(self, event: ProgressEvent) -> None:
        self._left -= event.kind == "epoch"
        if self._left <= 0:
            raise KeyboardInterrupt


@contextlib.contextmanager
def _less_work() -> Iterator[None]:
    """Small evaluation batches, on both devices, so that losses are sums in the same order; one warm-up."""
    with (
        mock.patch.dict(evaluation.BATCH, dict.fromkeys(evaluation.BATCH, EVALUATION_BATCH)),
        mock.patch.object(stepper_metrics, "CAPTURED_EVALUATION_BATCH", EVALUATION_BATCH),
        mock.patch.object(graph_capture, "WARM_UPS", 1),
    ):
        yield


def assert_same_results(found: Run, expected: Run, tolerance: float = 0.0) -> None:
    """Equal rows, but for what is measured, and equal weights.

    Args:
        found: On the simulated device.
        expected: On the CPU.
        tolerance: Of numbers and weights, relative; losses are means whose last digits differ in any case.
    """
    assert found.failures == expected.failures
    assert found.results.keys() == expected.results.keys()
    for cell, result in expected.results.items():
        other = found.results[cell]
        for table in ("rounds", "epochs"):
            for row, same in zip(other[table], result[table], strict=True):
                assert row.keys() == same.keys()
                differences = [key for key in row if not _same(key, row[key], same[key], tolerance)]
                assert not differences, [(cell, table, key, row[key], same[key]) for key in differences]
        for name, tensor in result["weights"].items():
            torch.testing.assert_close(
                other["weights"][name], tensor, rtol=tolerance, atol=tolerance, equal_nan=True, msg=f"{cell} {name}"
            )


def _same(key: str, found: Any, expected: Any, tolerance: float) -> bool:
    if key in {*MEASURED, "device", "timing"}:
        return True
    if isinstance(found, float) and isinstance(expected, float):
        close = math.isclose(found, expected, rel_tol=max(tolerance, 1e-5), abs_tol=max(tolerance, 1e-7))
        return close or (math.isnan(found) and math.isnan(expected))
    return bool(found == expected)
