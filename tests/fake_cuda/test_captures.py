"""Captures that fail, or for which memory is short, on the simulated device."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.fake_cuda import Machine, fake_cuda
from tests.fake_cuda.runs import assert_same_results, run, scenario
from warmstart_sim import models
from warmstart_sim.acceleration.device_cache import KEPT_STEPPERS, DeviceCache
from warmstart_sim.acceleration.graph_capture import CudaGraphCapture, graph_capture
from warmstart_sim.acceleration.stacking import Stack
from warmstart_sim.execution import interleaved, throughput
from warmstart_sim.execution.autotune import Parallelism, choose_parallelism
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario import Cell
from warmstart_sim.seeding import scoped_torch_seed
from warmstart_sim.training import step_time
from warmstart_sim.training import stepper as stepper_module
from warmstart_sim.training.batches import DeviceSamples
from warmstart_sim.training.loop import RoundData, RoundTraining
from warmstart_sim.training.settings import Training
from warmstart_sim.training.stepper import Stepper, StepRequest
from warmstart_sim.types import Batch, Hooks, Samples

HERE = torch.device("cuda:0")
RNG = np.random.default_rng(0)
IMAGES = Samples(RNG.normal(size=(40, 3, 8, 8)).astype(np.float32), RNG.integers(0, 4, 40))


@pytest.fixture
def machine() -> Iterator[Machine]:
    with fake_cuda() as machine:
        yield machine


def network(name: str = "mlp", **options: Any) -> nn.Module:
    with scoped_torch_seed(0, "test"):
        return models.build(name, options or {"widths": (5,)}, (3, 8, 8), 4).to(HERE)


def begun(hooks: Sequence[Hooks] = (), model: nn.Module | None = None, **options: Any) -> Stepper:
    stepper = Stepper(model or network(), Training(batch_size=16), graph_capture(HERE), **options)
    stepper.begin(DeviceSamples(IMAGES, None, HERE), hooks)
    stepper.train_mode()
    return stepper


def index(size: int = 16) -> torch.Tensor:
    return torch.arange(size, device=HERE)


def make_step(stepper: Stepper, size: int = 16) -> None:
    stepper.prepare({(size, None, 1)})
    stepper.step(index(size), None)


# Failures


def test_weights_are_put_back_only_after_a_warm_up_that_failed(machine):
    stepper = begun()
    with torch.cuda.stream(torch.cuda.Stream()):
        work = stepper._composition.eager_step

        def step_and_fail() -> None:
            work(index(), None)
            raise RuntimeError("a part's own mistake")

        with pytest.raises(RuntimeError, match="own mistake"), stepper.preserve_state():
            stepper.graph_capture(step_and_fail, [stepper.generator])
    assert not machine.reports


def test_a_part_that_keeps_a_tensor_of_its_step_does_not_end_capturing(machine):
    kept: list[torch.Tensor] = []

    def keeps(batch: Batch, logits: torch.Tensor) -> torch.Tensor:
        kept.append(logits * 2)
        return kept[-1].square().mean()

    stepper = begun([Hooks(loss_term=keeps)])
    make_step(stepper)
    stepper.drop_captured_graphs()
    make_step(stepper)
    assert machine.captures == 2
    assert machine.replays == 2


def test_the_warning_names_what_went_wrong_first(machine):
    stepper = begun([Hooks(loss_term=lambda batch, logits: logits.mean() * batch.labels.sum().item())])
    with pytest.warns(UserWarning, match=r"cannot be captured as a CUDA graph \(CUDA error: .*_local_scalar_dense"):
        make_step(stepper)


# Memory


class Scarce:
    """A graph capture without memory for its first captures."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self._capture = CudaGraphCapture(HERE)

    def __call__(
        self, work: Callable[[], None], generators: Sequence[torch.Generator], warm_up: Callable[[], None] | None = None
    ) -> Callable[[], None]:
        if self.failures:
            self.failures -= 1
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self._capture(work, generators, warm_up)


def test_a_capture_without_memory_is_tried_again_after_some_was_freed(machine):
    cache = DeviceCache("cuda:0", lambda device: Scarce(1))
    idle = cache.borrow("other", Training(), network)
    cache.give_back(idle)
    stepper = cache.borrow("kind", Training(batch_size=16), network)
    stepper.begin(DeviceSamples(IMAGES, None, HERE), ())
    make_step(stepper)
    assert machine.replays == 1
    assert cache.borrow("other", Training(), network) is not idle  # it was dropped


def test_a_capture_that_stays_without_memory_says_so(machine):
    stepper = begun()
    stepper.graph_capture = Scarce(2)
    with pytest.raises(torch.OutOfMemoryError):
        make_step(stepper)
    make_step(stepper)  # later there is some
    assert machine.replays == 1


def test_steppers_of_many_kinds_are_not_kept_for_ever(machine):
    cache = DeviceCache("cuda:0")
    lent = [cache.borrow(kind, Training(), network) for kind in range(KEPT_STEPPERS + 1)]
    for stepper in lent:
        cache.give_back(stepper)
    assert cache.borrow(0, Training(), network) is not lent[0]
    assert cache.borrow(1, Training(), network) is lent[1]


def test_idle_steppers_that_hold_too_much_memory_are_dropped(machine, monkeypatch):
    alive: weakref.WeakSet[Stepper] = weakref.WeakSet()
    total = torch.cuda.mem_get_info()[1]
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: len(alive) * total // 4)
    cache = DeviceCache("cuda:0")
    for kinds in ((0, 1), (2,)):
        lent = [cache.borrow(kind, Training(), network) for kind in kinds]
        alive.update(lent)
        while lent:
            cache.give_back(lent.pop(0))
    assert sorted(stepper.kind[0] for stepper in alive) == [1, 2]


def test_stacks_that_hold_too_much_memory_are_dropped(tmp_path, monkeypatch):
    made: list[weakref.ref[Stack]] = []

    class Counted(Stack):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(weakref.ref(self))

    def full(execution: ExecutionSettings, cells: Sequence[Cell], stored: RunFolder) -> ExecutionSettings:
        total = torch.cuda.mem_get_info()[1]
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: total)
        return execution

    alive: list[int] = []
    monkeypatch.setattr(interleaved, "Stack", Counted)
    step = interleaved.StackedStep.__call__
    monkeypatch.setattr(interleaved.StackedStep, "__call__", lambda self, tasks: (
        step(self, tasks), alive.append(sum(each() is not None for each in made))
    ))  # fmt: skip
    raw = scenario(vary={"model.widths": [[8], [9]]}, seeds=[0, 1], stream={"name": "static"})
    raw["training"] |= {"until": {"epochs": 1}, "batch_size": 64}  # a step each
    run(raw, tmp_path, slots=4, batching="stacked", prepare=full)
    assert len(made) >= 2
    assert max(alive) == 1


def test_measuring_leaves_no_memory_of_the_device_behind(tmp_path, monkeypatch):
    released = []
    for module in (throughput, step_time):
        monkeypatch.setattr(module, "BLOCK_SECONDS", 0)

    def measured(execution: ExecutionSettings, cells: Sequence[Cell], stored: RunFolder) -> ExecutionSettings:
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: released.append(1))
        return choose_parallelism(execution, cells, stored, Parallelism(2, 1, "auto"))

    run(scenario(), tmp_path, prepare=measured)
    assert released


# How often the host waits, and something is captured


def test_an_epoch_waits_for_the_device_once(machine):
    """The next order is on its way before, and the criterion is queued behind the steps."""
    stepper = Stepper(network(), Training(batch_size=16, until={"train_accuracy": 1.0}), graph_capture(HERE))
    samples, everything = DeviceSamples(IMAGES, None, HERE), torch.arange(40, device=HERE)
    training = RoundTraining(
        stepper, RoundData(samples, everything, everything[:0], samples, everything[:0]), seed=0, round_index=0
    )
    training.run_epoch()
    machine.waits.clear()
    for _ in range(3):
        training.run_epoch()
    assert list(machine.waits.values()) == [3], machine.waits


@pytest.mark.parametrize("options", [{}, {"slots": 2, "batching": "streams"}], ids=["alone", "streams"])
def test_steps_of_small_models_are_captured_several_at_a_time(options, tmp_path, monkeypatch):
    """Rounds of 60 and 120 samples: three and seven full batches, and a partial one each; a part draws numbers."""
    monkeypatch.setattr(stepper_module, "RUNS", (4, 2, 1))
    arms = {"plain": {"start": "warm_start"}, "crops": {"start": "warm_start", "augment": ["random_crop"]}}
    raw = scenario(
        data={"name": "noisy_digits", "train_samples": 120, "test_samples": 20},
        stream={"name": "online", "chunk_size": 60},
        model={"name": "mlp", "widths": [8]} | ({} if options else {"dropout": 0.25}),
        strategies=arms,
    )
    found = run(raw, tmp_path / "cuda", **options)
    assert_same_results(found, run(raw, tmp_path / "cpu", "cpu"))
    assert not found.machine.reports
    # Steps on 16 samples, four, two and one at a time, on 12 and on 8, for each arm; evaluations of each model.
    assert found.machine.captures == 2 * 5 + (4 if options else 2)


def test_hooks_that_take_turns_are_captured_once(machine):
    stepper = begun()
    samples = stepper.samples
    assert samples is not None
    brighter = [Hooks(transform=Brighter())]
    for hooks in ((), brighter, (), brighter, ()):
        stepper.begin(samples, hooks)
        make_step(stepper)
    assert machine.captures == 2


class Brighter:
    """A transform without a state."""

    def __call__(self, batch: Batch) -> Batch:
        return Batch(batch.inputs * 2, batch.labels, batch.generator, batch.index)


def test_a_step_outside_a_stack_is_captured_when_it_is_first_made(machine):
    stepper = begun(captures_steps=False)
    stepper.prepare({(16, None, 1), (8, None, 1)})
    assert machine.captures == 0
    for _ in range(2):
        stepper.step(index(), None)
    assert (machine.captures, machine.replays) == (1, 2)


def test_a_lone_cell_in_stacked_mode_replays_its_steps(tmp_path):
    found = run(scenario(), tmp_path / "cuda", slots=2, batching="stacked")
    assert_same_results(found, run(scenario(), tmp_path / "cpu", "cpu"))
    assert found.machine.replays >= 2 * (2 + 3)  # of steps on 16 and 4, and on 16, 16 and 8 samples


@pytest.mark.parametrize("deterministic", [False, True])
def test_cudnn_times_its_algorithms_for_full_batches_only(deterministic, tmp_path, monkeypatch):
    seen: set[tuple[int, bool]] = set()
    forward = nn.Linear.forward

    def spy(self: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
        if self.training:
            seen.add((len(inputs), torch.backends.cudnn.benchmark))
        return forward(self, inputs)

    monkeypatch.setattr(nn.Linear, "forward", spy)
    found = run(scenario(stream={"name": "static"}), tmp_path, deterministic=deterministic)
    assert found.failures == {}
    assert {size: timed for size, timed in seen if size in (8, 16)} == {8: False, 16: not deterministic}
    assert not torch.utils.deterministic.fill_uninitialized_memory


# Stacks


def test_slices_of_a_stack_keep_the_memory_format_of_their_models(machine):
    def convolutional() -> nn.Module:
        return network("small_cnn", channels=(4, 8)).to(memory_format=torch.channels_last)

    steppers = [begun(model=convolutional(), captures_steps=False) for _ in range(2)]
    before = [parameter.stride() for parameter in steppers[0].model.parameters()]
    samples = steppers[0].samples
    assert samples is not None
    for stepper in steppers:
        stepper.begin(samples, ())
    stack = Stack(steppers, graph_capture(HERE))
    stack.step([StepRequest(stepper, index(), None) for stepper in steppers])
    for stepper in steppers:
        assert [parameter.stride() for parameter in stepper.model.parameters()] == before


def test_batches_of_equal_size_are_stacked_in_one_kernel(machine, monkeypatch):
    def padded(*args: Any, **options: Any) -> torch.Tensor:
        raise AssertionError("a copy for each cell")

    monkeypatch.setattr("warmstart_sim.acceleration.stacking.pad_sequence", padded)
    steppers = [begun() for _ in range(2)]
    stack = Stack(steppers, graph_capture(HERE))
    stack.step([StepRequest(stepper, index(), None) for stepper in steppers])
    with pytest.raises(AssertionError, match="a copy for each cell"):
        stack.step([StepRequest(stepper, index(4 + k), None) for k, stepper in enumerate(steppers)])


# Precision, and a device that is lost


def test_cells_of_two_precisions_in_slots_keep_their_own(tmp_path):
    """Graphs are captured under the flags of their cell, though these belong to the process."""
    precisions = ["float32", "tf32"]
    found, expected = (
        run(scenario(vary={"training.precision": precisions}), tmp_path / name, device, **options)
        for name, device, options in (
            ("cuda", "cuda:0", {"slots": 2, "batching": "streams"}), ("cpu", "cpu", {}),
        )
    )  # fmt: skip
    assert not found.machine.reports
    same = [
        all(torch.equal(tensor, found.results[cell]["weights"][name]) for name, tensor in result["weights"].items())
        for cell, result in expected.results.items()
    ]
    assert same == [True, False]


def test_a_device_that_is_lost_ends_the_process_not_the_next_cells(tmp_path, monkeypatch):
    """After a device-side assert, whatever the process asks of the device fails."""
    asserted = "CUDA error: device-side assert triggered"
    from warmstart_sim.errors import DeviceLost

    def lose(execution: ExecutionSettings, cells: Sequence[Cell], stored: RunFolder) -> ExecutionSettings:
        def lost(device: Any = None) -> None:
            raise RuntimeError(asserted)

        def step(self: Stepper, *request: Any) -> None:
            monkeypatch.setattr(torch.cuda, "synchronize", lost)
            raise RuntimeError(asserted)

        monkeypatch.setattr(Stepper, "step", step)
        return execution

    with pytest.raises(
        DeviceLost, match="device-side assert triggered; after this error the process cannot use cuda:0"
    ):
        run(scenario(seeds=[0, 1]), tmp_path, prepare=lose)
    assert len(list(tmp_path.glob("cells/*/error.json"))) == 1  # the second cell was not begun
