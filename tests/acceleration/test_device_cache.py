"""What cells of one process share: steppers with their captures, and data on the device; and that it never shows."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.acceleration.simulated_capture import SimulatedCapture
from warmstart_sim import scenario as scenarios
from warmstart_sim.acceleration.device_cache import KEPT_SAMPLE_SETS, DeviceCache
from warmstart_sim.experiment.run_cell import cell_coroutine
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.results.columns import MEASURED
from warmstart_sim.results.store import RunFolder
from warmstart_sim.training import batches
from warmstart_sim.training.batches import normalization
from warmstart_sim.training.coroutine import run_to_end
from warmstart_sim.training.settings import Training
from warmstart_sim.types import Samples


class SimulatedCaptures:
    """Makes simulated captures, and keeps them."""

    def __init__(self) -> None:
        self.made: list[SimulatedCapture] = []

    def __call__(self, device: torch.device) -> SimulatedCapture:
        self.made.append(SimulatedCapture())
        return self.made[-1]

    @property
    def captures(self) -> int:
        return sum(capture.captures for capture in self.made)


def build() -> nn.Module:
    return nn.Linear(3, 2)


def settings(optimizer: str = "adam", lr: float = 0.001, **options: Any) -> Training:
    return Training(optimizer={"name": optimizer, "lr": lr}, **options)


# Steppers.


def test_where_nothing_is_captured_every_cell_has_a_stepper_of_its_own():
    cache = DeviceCache("cpu")
    first = cache.borrow("kind", settings(), build)
    cache.give_back(first)
    assert cache.borrow("kind", settings(), build) is not first
    assert cache.graph_capture() is None


def test_a_stepper_that_was_given_back_is_lent_again_and_one_that_was_not_is_not():
    cache = DeviceCache("cpu", SimulatedCaptures())
    first, second = cache.borrow("kind", settings(), build), cache.borrow("kind", settings(), build)
    assert second is not first
    assert second.graph_capture is not first.graph_capture
    cache.give_back(first)
    assert cache.borrow("kind", settings(), build) is first
    assert cache.borrow("kind", settings(), build) not in (first, second)


@pytest.mark.parametrize(
    ("kind", "then", "reused"),
    [
        ("kind", settings(lr=0.5), True),
        ("kind", settings(batch_size=7), True),
        ("kind", settings(schedule={"name": "cosine"}), True),
        ("kind", settings(until={"epochs": 3}), True),
        ("another kind", settings(), False),
        ("kind", settings("adamw"), False),
        ("kind", settings("sgd"), False),
        ("kind", settings(precision="bf16"), False),
        ("kind", settings(precision="tf32"), False),
        ("kind", Training(optimizer={"weight_decay": 0.1}), False),
        ("kind", Training(optimizer={"name": "sgd", "momentum": 0.5}), False),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else None,
)
def test_a_stepper_is_lent_to_cells_whose_captures_would_be_the_same(kind, then, reused):
    cache = DeviceCache("cpu", SimulatedCaptures())
    first = cache.borrow("kind", settings(), build)
    cache.give_back(first)
    stepper = cache.borrow(kind, then, build)
    assert (stepper is first) == reused
    assert stepper.settings == then
    assert type(stepper.optimizer).__name__.lower() == then.optimizer.name


def test_the_kind_of_steppers_that_can_be_stacked_is_the_same():
    cache = DeviceCache("cpu", SimulatedCaptures())
    kinds = [cache.borrow("kind", each, build).kind for each in (settings(), settings(lr=0.5), settings("sgd"))]
    assert kinds[0] == kinds[1] != kinds[2]


def test_without_captures_models_of_different_weight_decay_can_be_stacked():
    cache = DeviceCache("cpu", lambda device: None)
    decays = Training(), Training(optimizer={"weight_decay": 0.1}), Training(optimizer={"name": "adamw"})
    kinds = [cache.borrow("kind", each, build).kind for each in decays]
    assert kinds[0] == kinds[1] != kinds[2]


# Data.


def samples(seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    return Samples(rng.normal(size=(6, 3, 2, 2)).astype(np.float32), np.zeros(6, dtype=np.int64))


def test_samples_are_shared_by_all_who_have_them_and_normalise_them_alike():
    cache, one, other = DeviceCache("cpu"), samples(), samples(1)
    half, train = (normalization(kind, one.inputs) for kind in ("half", "train"))
    first = cache.samples(one, half, channels_last=False)
    assert cache.samples(one, normalization("half", one.inputs), channels_last=False) is first
    others = [
        cache.samples(other, half, channels_last=False),
        cache.samples(one, train, channels_last=False),
        cache.samples(one, None, channels_last=False),
        cache.samples(one, half, channels_last=True),
    ]
    assert len({id(each) for each in (first, *others)}) == 5
    assert DeviceCache("cpu").samples(one, half, channels_last=False) is not first


def test_the_last_few_samples_stay_when_nobody_has_them_and_others_are_freed():
    cache, one = DeviceCache("cpu"), samples()
    held = weakref.ref(first := cache.samples(one, None, channels_last=False))
    del first
    for seed in range(1, KEPT_SAMPLE_SETS):
        cache.samples(samples(seed), None, channels_last=False)
        assert held() is cache.samples(one, None, channels_last=False)
    second = cache.samples(one, None, channels_last=False)
    cache.samples(samples(KEPT_SAMPLE_SETS), None, channels_last=False)
    assert held() is second  # somebody has them
    del second
    gc.collect()
    assert held() is None
    assert (
        len(cache.samples(samples(KEPT_SAMPLE_SETS + 1), None, channels_last=False)) == 6
    )  # perhaps at the same address


def test_statistics_are_taken_once_for_samples_and_again_for_others(monkeypatch):
    taken = []
    original = batches._channel_statistics
    monkeypatch.setattr(batches, "_channel_statistics", lambda inputs: taken.append(1) or original(inputs))
    cache, one = DeviceCache("cpu"), samples()
    first = cache.normalization("train", one)
    assert cache.normalization("train", one) is first
    assert cache.normalization("none", one) is None
    other = cache.normalization("train", samples(1))
    assert len(taken) == 2
    assert not torch.equal(other.shift, first.shift)


# Cells.


def cells_of(raw: dict) -> list[scenarios.Cell]:
    return scenarios.plan(raw, "scenario")[1]


def result(cell: scenarios.Cell, folder: Path, cache: DeviceCache) -> dict[str, Any]:
    """What a cell stores, but for times."""
    run = RunFolder(folder)
    run_to_end(cell_coroutine(cell, run, cache, ExecutionSettings(Path("unused")), lambda progress: None))
    stored = run.cell(cell.id).result()
    rows = [
        {key: value for key, value in row.items() if key not in MEASURED}
        for part in ("rounds", "epochs")
        for row in stored[part]
    ]
    return {"rows": rows, "weights": run.cell(cell.id).weights()}


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["rows"] == other["rows"]
    assert [name for name in one["weights"] if not torch.equal(one["weights"][name], other["weights"][name])] == []


def change(raw: dict, how: str) -> dict:
    """The scenario that a cache meets first; the one that it meets then is `raw`."""
    changes: dict[str, Callable[[], dict]] = {
        "the same": dict,
        "another rate and size": lambda: {"training": {**raw["training"], "optimizer": {"lr": 0.1}, "batch_size": 17}},
        "another optimiser": lambda: {"training": {**raw["training"], "optimizer": {"name": "sgd", "lr": 0.1}}},
        "other data": lambda: {"data": {**raw["data"], "name": "noisy_digits"}},
        "augmentation": lambda: {"strategies": {"warm_start": {"augment": ["random_crop"]}}},
        "divergence": lambda: {"training": {**raw["training"], "optimizer": {"lr": 1e30}}},
    }
    return {**raw, "seeds": [5], **changes[how]()}


@pytest.mark.parametrize(
    "before", ["the same", "another rate and size", "another optimiser", "other data", "augmentation", "divergence"]
)
def test_a_cell_after_another_equals_the_cell_on_a_cache_of_its_own(tiny_scenario, tmp_path, before):
    tiny_scenario |= {"strategies": {"warm_start": {}}, "data": {**tiny_scenario["data"], "name": "digits"}}
    tiny_scenario["training"]["until"] = {"train_accuracy": 0.9, "max_epochs": 4}
    first, cell = cells_of(change(tiny_scenario, before))[0], cells_of(tiny_scenario)[1]
    records = SimulatedCaptures()
    shared = DeviceCache("cpu", records)
    result(first, tmp_path / "first", shared)
    found = result(cell, tmp_path / "after", shared)
    own = SimulatedCaptures()
    assert_same(found, result(cell, tmp_path / "alone", DeviceCache("cpu", own)))
    assert len(records.made) == (2 if before == "another optimiser" else 1)
    if before == "the same":
        assert records.captures == own.captures  # the second cell captured nothing


@pytest.mark.parametrize("stream", ["split", "pretrain"])
def test_a_cell_whose_first_phase_ran_on_the_same_bench_equals_one_whose_did_not(tiny_scenario, tmp_path, stream):
    """The first phase of a pre-training is on other data, with the same stepper."""
    options = {"pretrain": {"source": {"name": "digits", "train_samples": 90, "test_samples": 20}}, "split": {}}
    tiny_scenario |= {"stream": {"name": stream, **options[stream]}, "seeds": [0]}
    tiny_scenario["training"]["until"] = {"epochs": 3}
    cells = cells_of(tiny_scenario)
    shared = DeviceCache("cpu", SimulatedCaptures())
    for cell in cells:
        found = result(cell, tmp_path / "shared", shared)
        assert_same(found, result(cell, tmp_path / cell.id, DeviceCache("cpu", SimulatedCaptures())))


def test_rounds_with_settings_of_their_own_take_turns_on_two_steppers(tiny_scenario, tmp_path):
    later = {"optimizer": {"name": "sgd", "lr": 0.1}, "batch_size": 16}
    tiny_scenario["training"] |= {"until": {"epochs": 2}, "later_rounds": later}
    tiny_scenario["strategies"] = {"warm_start": {}}
    records = SimulatedCaptures()
    shared = DeviceCache("cpu", records)
    for cell in cells_of(tiny_scenario):
        found = result(cell, tmp_path / "shared", shared)
        assert_same(found, result(cell, tmp_path / cell.id, DeviceCache("cpu", SimulatedCaptures())))
        plain = result(cell, tmp_path / "plain", DeviceCache("cpu"))
        assert all(torch.allclose(found["weights"][name], each, atol=1e-5) for name, each in plain["weights"].items())
    assert len(records.made) == 2


def test_a_captured_cell_differs_from_one_that_is_not_by_rounding_alone(tiny_scenario, tmp_path):
    tiny_scenario["training"] |= {"optimizer": {"lr": 2**-8}, "until": {"epochs": 4}}  # the same number in float32
    for cell in cells_of(tiny_scenario)[:3]:
        one, other = (
            result(cell, tmp_path / name, cache)
            for name, cache in (("plain", DeviceCache("cpu")), ("captured", DeviceCache("cpu", SimulatedCaptures())))
        )
        assert [name for name in one["weights"] if not torch.equal(one["weights"][name], other["weights"][name])] == []
        for row, same in zip(one["rows"], other["rows"], strict=True):
            losses = {key for key in row if key.endswith("_loss") and row[key] is not None}
            assert {key: same[key] for key in losses} == pytest.approx({key: row[key] for key in losses}, rel=1e-5)
            assert {**same, **dict.fromkeys(losses)} == {**row, **dict.fromkeys(losses)}


def test_a_cell_that_fails_does_not_leave_its_stepper_to_the_next(tiny_scenario, tmp_path):
    tiny_scenario["strategies"] = {"crash": {"start": "tests.experiment.poison:crash"}, "warm_start": {}}
    tiny_scenario["training"]["until"] = {"epochs": 2}
    crash, sound = cells_of(tiny_scenario)[:2]
    records = SimulatedCaptures()
    cache = DeviceCache("cpu", records)
    run = RunFolder(tmp_path / "crash")
    execution = ExecutionSettings(Path("unused"))
    reason = run_to_end(cell_coroutine(crash, run, cache, execution, lambda progress: None))
    assert reason == "ZeroDivisionError: one arm's own mistake"
    found = result(sound, tmp_path / "after", cache)
    assert len(records.made) == 2
    assert_same(found, result(sound, tmp_path / "alone", DeviceCache("cpu", SimulatedCaptures())))


def test_the_data_of_earlier_cells_are_freed(tiny_scenario, tmp_path):
    """What stays is the data of the last cell alone."""
    tiny_scenario["training"]["until"] = {"epochs": 1}
    tiny_scenario |= {"vary": {"data.normalize": ["none", "half", "train"]}, "seeds": [0]}
    tiny_scenario["strategies"] = {"warm_start": {}}
    cache = DeviceCache("cpu", SimulatedCaptures())
    held: list[weakref.ref[Any]] = []
    original = cache.samples

    def spy(*args: Any) -> Any:
        found = original(*args)
        held.append(weakref.ref(found))
        return found

    cache.samples = spy  # type: ignore[method-assign]
    for cell in cells_of(tiny_scenario):
        result(cell, tmp_path, cache)
    gc.collect()
    assert [each() is not None for each in held] == [False, False, False, False, True, True]
