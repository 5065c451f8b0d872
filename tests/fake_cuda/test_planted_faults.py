"""Faults that are planted in the package: the simulated device sees each of them, by a report, a failure or numbers."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.fake_cuda import fake_cuda
from tests.fake_cuda.runs import SGD, Run, assert_same_results, run, scenario
from warmstart_sim.acceleration.device_cache import DeviceCache
from warmstart_sim.acceleration.graph_capture import CudaGraphCapture
from warmstart_sim.training import optimizers, stepper
from warmstart_sim.training.batches import DeviceSamples, normalization
from warmstart_sim.training.coroutine import PendingValues
from warmstart_sim.training.stepper import Stepper
from warmstart_sim.types import Samples

pytestmark = pytest.mark.filterwarnings("ignore:the training step cannot be captured")
STREAMS = {"slots": 2, "batching": "streams"}
SCHEDULE = {"name": "step", "every": 1, "gamma": 0.5}


def rewritten(function: Callable[..., Any], *replaced: str) -> Callable[..., Any]:
    """The function with pieces of its source replaced: old, new, old, new ..."""
    source = textwrap.dedent(inspect.getsource(function))
    for old, new in zip(replaced[::2], replaced[1::2], strict=True):
        assert old in source, f"{function.__qualname__} has no {old!r}: this fault needs its new source"
        source = source.replace(old, new)
    scope = dict(function.__globals__)
    exec(compile(source.removeprefix("@property\n"), function.__code__.co_filename, "exec"), scope)
    found: Callable[..., Any] = scope[function.__name__]
    return found


def weights_replaced(load: Callable[..., Any]) -> Callable[..., Any]:
    """A `load_state_dict` that gives the module other tensors."""

    def loaded(self: Any, state: Any, strict: bool = True, assign: bool = False) -> Any:
        return load(self, {name: tensor.clone() for name, tensor in state.items()}, strict, True)

    return loaded


Fault = tuple[Any, str, Callable[[], Any], dict[str, Any]]  # whose, attribute, its value, options of the run
FAULTS: dict[str, Fault] = {
    "a warm-up does not wait for what is queued": (
        CudaGraphCapture, "__call__",
        lambda: rewritten(CudaGraphCapture.__call__, "self._stream.wait_stream(torch.cuda.current_stream())", "pass"),
        {},
    ),
    "a generator is not registered": (
        CudaGraphCapture, "__call__",
        lambda: rewritten(CudaGraphCapture.__call__, "graph.register_generator_state(generator)", "pass"), {},
    ),
    "an event is recorded before the copy": (
        PendingValues, "__init__",
        lambda: rewritten(PendingValues.__init__, "self._values.copy_(tensor, non_blocking=True)", "copied = tensor",
                          "self._event.record(torch.cuda.current_stream(tensor.device))",
                          "self._event.record(torch.cuda.current_stream(tensor.device)); "
                          "self._values.copy_(copied, non_blocking=True)"), {},
    ),
    "an event is recorded on another device's stream": (
        PendingValues, "__init__",
        lambda: rewritten(PendingValues.__init__, "torch.cuda.current_stream(tensor.device)",
                          "torch.cuda.current_stream(0)"),
        {"device": "cuda:1", "devices": 2},
    ),
    "nobody waits for the values": (PendingValues, "ready", lambda: property(lambda self: True), {}),
    "the index is not copied to where the graph reads it": (
        Stepper, "_captured", lambda: rewritten(Stepper._captured, "static.copy_(index.view(steps, size))", "pass"), {},
    ),
    "the learning rate is on the host": (
        stepper, "make_optimizer",
        lambda: rewritten(optimizers.make_optimizer, "torch.tensor(settings.lr, device=parameters[0].device)",
                          "torch.tensor(settings.lr)"), {},
    ),
    "new weights are other tensors": (
        torch.nn.Module, "load_state_dict", lambda: weights_replaced(torch.nn.Module.load_state_dict), {},
    ),
    "a step waits for its loss": (
        Stepper, "_compose_step",
        lambda: rewritten(Stepper._compose_step, "loss.backward()", "loss.backward(); loss.item()"), {},
    ),
    "a step reads its loss as a list": (
        Stepper, "_compose_step",
        lambda: rewritten(Stepper._compose_step, "loss.backward()", "loss.backward(); loss.tolist()"), {},
    ),
    "the slots' graphs share a pool": (
        DeviceCache, "graph_capture",
        lambda: lambda self, kept={}: kept.setdefault(id(self), self._make_capture(self.device)), STREAMS,
    ),
    "the optimiser's state is made anew in each round": (
        stepper, "set_to_zero", lambda: lambda optimizer: optimizer.state.clear(), {},
    ),
    "labels stay on the host": (
        DeviceSamples, "__init__",
        lambda: rewritten(DeviceSamples.__init__, "(samples.labels).to(device)", "(samples.labels)"), {},
    ),
}  # fmt: skip


TRAINING = {"batch_size": 16, "until": {"epochs": 3}, "optimizer": SGD, "schedule": SCHEDULE}
RAW = scenario(training=TRAINING, strategies={"warm_start": {"augment": ["random_crop"]}}, seeds=[0, 1])


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> Run:
    """A run with a schedule, augmentation and two seeds, without a fault."""
    return run(RAW, tmp_path_factory.mktemp("cpu"), "cpu")


def faults_seen(expected: Run, folder: Path, **options: Any) -> list[str]:
    """What the simulated device says of that run."""
    found = run(RAW, folder, **options)
    seen = [*found.machine.reports, *found.failures.values()]
    try:
        assert_same_results(found, expected)
    except AssertionError as error:
        seen.append(f"numbers: {error}")
    return seen


@pytest.mark.parametrize("options", [{}, STREAMS], ids=["alone", "streams"])
def test_without_a_fault_nothing_is_seen(options, expected, tmp_path, recwarn):
    assert faults_seen(expected, tmp_path, **options) == []
    assert not recwarn


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(fault, expected, tmp_path, monkeypatch, recwarn):
    owner, name, value, options = FAULTS[fault]
    monkeypatch.setattr(owner, name, value())
    seen = faults_seen(expected, tmp_path, **options)
    assert seen or any("cannot be captured" in str(each.message) for each in recwarn)


@pytest.mark.parametrize("waits", [True, False])
def test_samples_that_are_lent_to_another_stream_before_they_have_arrived_are_seen(waits, monkeypatch):
    if not waits:
        kept = rewritten(DeviceCache._kept, "torch.cuda.synchronize(self.device)", "pass")
        monkeypatch.setattr(DeviceCache, "_kept", kept)
    samples = Samples(np.ones((4, 3), dtype=np.float32), np.zeros(4, dtype=np.int64))
    with fake_cuda() as machine:
        index = torch.zeros(2, dtype=torch.int64, device="cuda:0")
        torch.cuda.synchronize()
        lent = DeviceCache("cuda:0").samples(samples, normalization("train", samples.inputs), False)
        with torch.cuda.stream(torch.cuda.Stream()):
            lent.batch(index)
    assert bool(machine.reports) != waits
