"""Starts that freeze, starts before the first round, and what never trains: in our loop and in Avalanche's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.acceleration.simulated_capture import SimulatedCapture
from tests.experiment import own_parts
from tests.experiment.test_experiment import result, same, stored
from warmstart_sim import scenario as scenarios
from warmstart_sim.acceleration.device_cache import DeviceCache
from warmstart_sim.acceleration.stacking import stackable
from warmstart_sim.avalanche.engine import avalanche_engine
from warmstart_sim.errors import WarmstartError
from warmstart_sim.execution.interleaved import run_slots
from warmstart_sim.execution.progress import ProgressEvent
from warmstart_sim.execution.tasks import Task
from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.run_cell import cell_coroutine, run_cell
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.registry import STRATEGIES
from warmstart_sim.results.store import RunFolder
from warmstart_sim.training.coroutine import run_to_end
from warmstart_sim.training.loop import train
from warmstart_sim.training.starts import freeze_all_but, trains_by_default
from warmstart_sim.types import RoundContext


@pytest.fixture
def execution(tmp_path) -> ExecutionSettings:
    return ExecutionSettings(data_root=tmp_path)


def cell_of(scenario: dict[str, Any], start: Any, **changes: Any) -> scenarios.Cell:
    raw = {**scenario, **changes, "strategies": {"mine": {"start": start}}, "seeds": [0]}
    return scenarios.plan(raw, "scenario")[1][0]


def names(trainer: CellTrainer) -> set[str]:
    """The parameters that the optimiser holds."""
    held = {id(each) for group in trainer.stepper.optimizer.param_groups for each in group["params"]}
    return {name for name, each in trainer.model.named_parameters() if id(each) in held}


def test_only_the_named_parameters_train_and_frozen_batchnorm_keeps_its_statistics(tiny_scenario, execution):
    trainer = CellTrainer(cell_of(tiny_scenario, own_parts.head_only), execution)
    _, first = trainer.begin(trainer.rounds[0], None)
    train(first)
    previous = trainer.weights()
    context, training = trainer.begin(trainer.rounds[1], previous)
    assert names(trainer) == {"head.weight", "head.bias"}
    train(training)
    after = trainer.weights()
    head = {"head.weight", "head.bias"}
    assert all(torch.equal(after[name], previous[name]) for name in after if name not in head)  # buffers, too
    assert not torch.equal(after["head.weight"], context.start["head.weight"])
    assert all(each.grad is None for name, each in trainer.model.named_parameters() if name not in head)

    trainer.begin(trainer.rounds[0], None)  # a round without frozen parameters holds all of them again
    assert names(trainer) == {name for name, _ in trainer.model.named_parameters()}
    assert all(parameter.requires_grad for parameter in trainer.model.parameters())
    trainer.stepper.train_mode()
    assert all(module.training for module in trainer.model.modules())


def test_the_frozen_body_is_the_feature_extractor_of_a_plain_loop(tiny_scenario, execution):
    """A reference that knows nothing of freezing: a linear layer on features of the body in evaluation mode."""
    tiny_scenario["training"] = {"batch_size": 1000, "optimizer": {"name": "sgd", "lr": 0.1}, "until": {"epochs": 7}}
    trainer = CellTrainer(cell_of(tiny_scenario, own_parts.head_only), execution)
    train(trainer.begin(trainer.rounds[0], None)[1])
    context, training = trainer.begin(trainer.rounds[1], trainer.weights())
    inputs, labels = context.samples(trainer.rounds[1].train)
    features = context.block_outputs(context.start, "flatten", inputs)
    head = nn.Linear(*reversed(context.start["head.weight"].shape))
    head.load_state_dict({name: context.start[f"head.{name}"] for name in ("weight", "bias")})
    for _ in range(7):
        loss = nn.functional.cross_entropy(head(features), labels)
        head.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in head.parameters():
                parameter -= 0.1 * parameter.grad
    rows = train(training)
    assert torch.allclose(trainer.model.head.weight, head.weight, atol=1e-5)
    assert rows[-1]["running_train_loss"] == pytest.approx(loss.item(), rel=1e-4)


@pytest.mark.parametrize("stop_after", [4, 7])
def test_a_frozen_round_that_was_interrupted_continues_as_if_it_had_not_been(
    tiny_scenario, tmp_path, execution, stop_after
):
    tiny_scenario["training"]["until"] = {"epochs": 3}
    cell = cell_of(tiny_scenario, "tests.experiment.own_parts:head_only")
    through = result(cell, tmp_path / "through", execution)
    assert interrupted(cell, tmp_path / "killed", execution, stop_after)
    assert same(through, result(cell, tmp_path / "killed", execution))


def test_a_frozen_round_does_not_decide_what_the_next_one_starts_from(tiny_scenario, execution):
    trainer = CellTrainer(cell_of(tiny_scenario, own_parts.fresh_features), execution)
    train(trainer.begin(trainer.rounds[0], None)[1])
    for round_ in trainer.rounds[1:]:
        context, training = trainer.begin(round_, trainer.weights())
        assert all(torch.equal(context.start[name], tensor) for name, tensor in context.fresh.items())
        train(training)


def test_freezing_a_round_does_not_reach_the_next_cell_on_the_same_stepper(tiny_scenario, execution):
    """A captured stepper goes from cell to cell, here from one that ends frozen."""
    cache = DeviceCache("cpu", lambda device: SimulatedCapture())
    first = CellTrainer(cell_of(tiny_scenario, own_parts.head_only), execution, cache)
    first.begin(first.rounds[1], first.fresh_weights(0))
    first.close()
    cell = cell_of(tiny_scenario, "random_init")
    second, alone = CellTrainer(cell, execution, cache), CellTrainer(cell, execution)
    assert second.stepper is first.stepper
    assert second.flops() == alone.flops()
    context, _ = second.begin(second.rounds[1], second.fresh_weights(0))
    assert all(torch.equal(context.start[name], tensor) for name, tensor in context.fresh.items())
    assert all(parameter.requires_grad for parameter in second.model.parameters())


def test_frozen_rounds_train_the_same_captured_and_with_stacked_steps(tiny_scenario, tmp_path):
    """The stepper's tensors are slices of a stack in the first round, and a frozen one is stepped alone."""
    scenario = {**tiny_scenario, "seeds": [0, 1], "strategies": {
        "frozen": {"start": "tests.experiment.own_parts:head_only"},
        "mixed": {"start": "tests.experiment.own_parts:head_every_other_round"},
        "plain": {"start": "warm_start"},
    }}  # fmt: skip
    scenario["training"] = {"batch_size": 32, "until": {"epochs": 2}, "optimizer": {"lr": 2**-9}}
    scenario["measure"] = {"each_epoch": ["gradient_norm"], "each_round": ["weight_norm"]}
    cells = scenarios.plan(scenario, "scenario")[1]
    alone = ExecutionSettings(data_root=tmp_path)
    expected = [result(cell, tmp_path / "alone", alone) for cell in cells]

    captured = DeviceCache("cpu", lambda device: SimulatedCapture())
    folder = RunFolder(tmp_path / "captured")
    for cell, one in zip(cells, expected, strict=True):
        run_to_end(cell_coroutine(cell, folder, captured, alone, lambda progress: None))
        assert same(one, stored(folder, cell))

    stacked = RunFolder(tmp_path / "stacked")
    queue = Tasks(cells)
    run_slots(queue, stacked, replace(alone, slots=3, batching="stacked"))
    assert queue.errors == []
    for cell, one in zip(cells, expected, strict=True):
        other = stored(stacked, cell)
        for name, tensor in one["weights"].items():
            torch.testing.assert_close(other["weights"][name], tensor, rtol=1e-3, atol=1e-4)
        for row, found in zip(one["epochs"], other["epochs"], strict=True):
            assert found["gradient_norm_new"] == pytest.approx(row["gradient_norm_new"], rel=1e-2)


class Tasks:
    """A source of the cells' tasks."""

    def __init__(self, cells: Sequence[scenarios.Cell]) -> None:
        self.waiting = [Task(cell) for cell in cells]
        self.errors: list[str] = []

    def take(self, idle: bool) -> Task | None:
        return self.waiting.pop(0) if self.waiting else None

    def report(self, event: ProgressEvent) -> None:
        self.errors += [event.error] if event.error else []


def test_the_flops_of_a_frozen_round_are_those_of_the_forward_pass_and_the_head(tiny_scenario, tmp_path, execution):
    cell = cell_of(tiny_scenario, "tests.experiment.own_parts:head_only")
    rounds = result(cell, tmp_path, execution)["rounds"]
    trainer = CellTrainer(cell, execution)
    inputs = trainer.train_samples.batch(torch.zeros(2, dtype=torch.int64))[0]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        trainer.model(inputs)
    forward, head = counter.get_total_flops() // 2, 2 * trainer.model.head.weight.numel()
    assert rounds[0]["flops"] == rounds[0]["samples_seen"] * trainer.flops()
    assert rounds[1]["flops"] == rounds[1]["samples_seen"] * (forward + head)


def interrupted(cell: scenarios.Cell, folder: Path, execution: ExecutionSettings, stop_after: int) -> bool:
    """Runs a cell and kills it after so many epochs; whether it was killed within a round."""

    class Killed(BaseException):
        pass

    seen = []

    def kill(progress):
        seen.append(progress)
        if len(seen) == stop_after:
            raise Killed

    with pytest.raises(Killed):
        run_cell(cell, RunFolder(folder), replace(execution, checkpoint_seconds=0), kill)
    return seen[-1].round_row is None


def assert_same_training(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """The same rounds and weights, bit for bit; Avalanche adds up an epoch's losses in another order."""
    assert ours["rounds"] == theirs["rounds"]
    assert all(torch.equal(tensor, theirs["weights"][name]) for name, tensor in ours["weights"].items())


def test_both_engines_train_a_frozen_start_to_the_same_weights(tiny_scenario, tmp_path, execution):
    cell = cell_of(tiny_scenario, "tests.experiment.own_parts:head_only")
    ours = result(cell, tmp_path / "ours", execution)
    theirs = result(cell, tmp_path / "theirs", execution, engine=avalanche_engine)
    assert_same_training(ours, theirs)


def test_frozen_steppers_are_not_stacked(tiny_scenario, execution):
    trainer = CellTrainer(cell_of(tiny_scenario, own_parts.head_only), execution)
    trainer.begin(trainer.rounds[0], None)
    assert stackable(trainer.stepper)
    trainer.begin(trainer.rounds[1], trainer.weights())
    assert not stackable(trainer.stepper)


@pytest.mark.parametrize(
    ("start", "line"),
    [
        ("body_of_nothing", "`trainable`: unknown parameter 'bodi.weight'"),
        ("nothing", "`trainable` names no parameter, so nothing would train"),
        ("what_never_trains", "`trainable` names only parameters with requires_grad=False, so nothing would train"),
    ],
)
def test_a_start_that_cannot_train_is_one_line(tiny_scenario, tmp_path, execution, start, line):
    model = "tests.experiment.test_starts:pretrained" if start == "what_never_trains" else tiny_scenario["model"]
    with pytest.raises(WarmstartError, match=line):
        result(cell_of(tiny_scenario, f"tests.experiment.own_parts:{start}", model=model), tmp_path, execution)


def test_a_strategy_may_prepare_the_first_round(tiny_scenario, tmp_path, execution):
    cell = cell_of(tiny_scenario, own_parts.doubled)
    trainer = CellTrainer(cell, execution)
    context, _ = trainer.begin(trainer.rounds[0], None)
    fresh = trainer.fresh_weights(0)
    assert torch.equal(context.start["head.weight"], 2 * fresh["head.weight"])
    assert torch.equal(trainer.model.head.weight, 2 * fresh["head.weight"])
    assert math.isclose(context.initial_norms["head.weight"], fresh["head.weight"].norm().item(), rel_tol=1e-6)
    ours = result(cell, tmp_path / "ours", execution)
    theirs = result(cell, tmp_path / "theirs", execution, engine=avalanche_engine)
    assert_same_training(ours, theirs)


def test_a_shared_first_round_cannot_be_prepared_by_one_arm(tiny_scenario, tmp_path, execution, monkeypatch):
    split = {"name": "split", "fraction": 0.5}
    cell = cell_of(tiny_scenario, "tests.experiment.own_parts:doubled", stream=split)
    with pytest.raises(WarmstartError, match="prepares the first round, but in stream split all arms share it"):
        result(cell, tmp_path, execution)

    STRATEGIES.names()  # a registered one says so, and its first round is its own
    monkeypatch.setitem(STRATEGIES._targets, "doubled", own_parts.Doubled)
    monkeypatch.setitem(STRATEGIES._traits, "doubled", frozenset({"prepares_first_round"}))
    cell = cell_of(tiny_scenario, "doubled", stream=split)
    assert cell.first_phase is None
    rounds = result(cell, tmp_path / "own", execution)["rounds"]
    assert [(row["round"], row["shared"]) for row in rounds] == [(0, False), (1, False)]
    assert cell_of(tiny_scenario, "warm_start", stream=split).first_phase is not None


class Pretrained(nn.Sequential):
    """A body that does not train, and a head that does."""

    def __init__(self, classes: int) -> None:
        super().__init__(
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()), nn.Linear(144, classes)
        )
        self[0].requires_grad_(False)


def pretrained(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return Pretrained(classes)


@pytest.mark.parametrize("engine", [None, avalanche_engine], ids=["ours", "avalanche"])
@pytest.mark.parametrize("start", ["shrink_perturb", "random_init", "warm_start"])
def test_what_never_trains_is_left_alone_by_every_start(tiny_scenario, tmp_path, execution, engine, start):
    cell = cell_of(tiny_scenario, start, model="tests.experiment.test_starts:pretrained")
    trainer = CellTrainer(cell, execution)
    initial = trainer.fresh_weights(0)
    weights = result(cell, tmp_path, execution, engine=engine)["weights"]
    assert all(torch.equal(weights[name], initial[name]) for name in weights if name.startswith("0."))
    assert not torch.equal(weights["1.weight"], initial["1.weight"])


def two_numbers(context: RoundContext) -> dict[str, torch.Tensor]:
    return {"mine": torch.zeros(2)}


def test_a_probe_that_returns_a_tensor_of_several_numbers_is_one_line(tiny_scenario, tmp_path, execution):
    cell = cell_of(tiny_scenario, "warm_start", measure={"each_round": ["tests.experiment.test_starts:two_numbers"]})
    with pytest.raises(WarmstartError, match="two_numbers' must return numbers"):
        result(cell, tmp_path, execution)


def test_a_tied_parameter_trains_if_one_of_its_names_does():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    freeze_all_but(model, frozenset({"0.weight"}), trains_by_default(model))
    assert {name for name, each in model.named_parameters() if each.requires_grad} == {"0.weight"}
