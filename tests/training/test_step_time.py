"""What a step costs, measured on a machine whose clock is made of what a step is said to cost."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.acceleration.simulated_capture import SimulatedCapture
from warmstart_sim.training import stepper
from warmstart_sim.training.batches import DeviceSamples
from warmstart_sim.training.captures import GraphCapture
from warmstart_sim.training.settings import Training
from warmstart_sim.training.step_time import BLOCK_SECONDS, BLOCKS, StepTime, measure
from warmstart_sim.training.stepper import Stepper
from warmstart_sim.types import Hooks, Samples

CPU = torch.device("cpu")


class Machine:
    """A clock that only steps move, and what was stepped on it.

    Args:
        step: Seconds of a step.
        sample: What each sample adds.
        warming: What the first steps of each size take longer.
        disturbed: Every so many steps something else takes a minute; None for never.
        epoch: What an epoch costs beside its steps.
    """

    def __init__(
        self, step: float, sample: float, warming: float = 0.0, disturbed: int | None = None, epoch: float = 0.0
    ) -> None:
        self.now = 0.0
        self.epoch = epoch
        self.sizes: list[int] = []
        self.widths: list[int | None] = []
        self._step, self._sample, self._warming, self._disturbed = step, sample, warming, disturbed

    def steps(self, stepper: Stepper, index: torch.Tensor, width: int | None, steps: int = 1) -> None:
        assert steps == 1
        assert stepper.model.training
        self.sizes.append(len(index))
        self.widths.append(width)
        self.now += self._step + self._sample * len(index)
        if self.sizes.count(len(index)) <= 2:
            self.now += self._warming
        if self._disturbed and len(self.sizes) % self._disturbed == 0:
            self.now += 60.0


def measured(machine: Machine, batch_size: int = 32, samples: DeviceSamples | None = None,
             graph_capture: GraphCapture | None = None) -> StepTime:  # fmt: skip
    if samples is None:
        samples = DeviceSamples(Samples(np.zeros((10, 3), dtype=np.float32), np.zeros(10, dtype=np.int64)), None, CPU)
    stepper = Stepper(nn.Linear(3, 2).eval(), Training(batch_size=batch_size), graph_capture)

    def after_epoch(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        machine.now += machine.epoch

    stepper.begin(samples, (Hooks(after_epoch=after_epoch),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "perf_counter", lambda: machine.now)
        patch.setattr(Stepper, "step", lambda *arguments: machine.steps(*arguments))
        return measure(stepper, samples, torch.arange(len(samples)))


counts = st.integers(0, 10**6)


@given(st.floats(0, 10), st.floats(0, 1), st.floats(0, 1), counts, counts, counts, counts)
def test_seconds_are_those_of_steps_samples_and_epochs(step, sample, epoch, steps, samples, epochs, more):
    cost = StepTime(step, sample, epoch)
    assert cost.seconds(0, 0, 0) == 0
    assert (cost.seconds(1, 0, 0), cost.seconds(0, 1, 0), cost.seconds(0, 0, 1)) == (step, sample, epoch)
    both = cost.seconds(steps, samples, epochs) + cost.seconds(more, 0, 0)
    assert cost.seconds(steps + more, samples, epochs) == pytest.approx(both)


@pytest.mark.parametrize("batch_size", [3, 9, 32])
def test_what_an_epoch_costs_beside_its_steps_is_found(batch_size):
    machine = Machine(0.004, 0.001, epoch=0.03)
    assert measured(machine, batch_size).epoch_seconds == pytest.approx(0.03)


@pytest.mark.parametrize("batch_size", [3, 9, 32, 128])
@pytest.mark.parametrize(("step", "sample"), [(0.004, 0.001), (0.05, 0.0), (0.0, 0.002), (2.0, 0.5)])
def test_the_line_is_recovered_whatever_the_first_steps_take(step, sample, batch_size):
    machine = Machine(step, sample, warming=3.0)
    found = measured(machine, batch_size)
    assert (found.step_seconds, found.sample_seconds) == pytest.approx((step, sample), abs=1e-9)
    assert set(machine.sizes) == {batch_size, max(2, batch_size // 4), min(batch_size, 10)}


def test_a_disturbance_of_a_few_blocks_does_not_count():
    found = measured(Machine(0.01, 0.001, disturbed=20))
    assert (found.step_seconds, found.sample_seconds) == pytest.approx((0.01, 0.001), abs=1e-9)


def test_quick_steps_are_repeated_and_slow_ones_are_not():
    def steps(seconds: float) -> int:
        machine = Machine(seconds, 0.0)
        measured(machine)
        return machine.sizes.count(32) - 4  # the first four warm up, and say how many a block needs; epochs have 10

    assert steps(0.001) == pytest.approx(BLOCKS * BLOCK_SECONDS / 0.001, rel=0.02)
    assert steps(5.0) == BLOCKS * 2


def test_smaller_batches_that_took_longer_leave_all_of_the_time_to_the_step():
    class Odd(Machine):
        def steps(self, stepper: Stepper, index: torch.Tensor, width: int | None, steps: int = 1) -> None:
            super().steps(stepper, index, width)
            self.now += 0.01 if len(index) < 32 else 0.0

    found = measured(Odd(0.02, 0.0))
    assert (found.step_seconds, found.sample_seconds) == pytest.approx((0.02, 0.0))


@pytest.mark.parametrize("batch_size", [1, 2])
def test_batches_too_small_to_be_quartered_have_a_time_for_the_step_alone(batch_size):
    machine = Machine(0.02, 0.005)
    found = measured(machine, batch_size)
    assert (found.step_seconds, found.sample_seconds) == pytest.approx((0.02 + 0.005 * batch_size, 0.0))
    assert set(machine.sizes) == {batch_size}


@pytest.mark.parametrize("captured", [False, True])
def test_texts_are_as_long_as_they_are_on_average(captured, monkeypatch):
    monkeypatch.setattr(stepper, "TEXT_STEP", 4)
    monkeypatch.setattr(Stepper, "prepare", lambda self, shapes: None)
    lengths = np.array([1, 2, 12])
    tokens = (np.arange(12) < lengths[:, None]).astype(np.int64)
    samples = DeviceSamples(Samples(tokens, np.zeros(3, dtype=np.int64)), None, CPU)
    machine = Machine(0.01, 0.0)
    measured(machine, samples=samples, graph_capture=SimulatedCapture() if captured else None)
    assert set(machine.widths) == {8 if captured else 5}


def test_steps_are_captured_before_they_are_timed():
    capture = SimulatedCapture()
    machine = Machine(0.01, 0.0)
    measured(machine, graph_capture=capture)
    assert capture.captures == 3  # the full size, a quarter of it, and all ten samples, for an epoch
