"""How cells are put side by side: what is measured, what is taken from the folder, what is refused."""

from __future__ import annotations

import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from warmstart_sim import scenario as scenarios
from warmstart_sim.execution import throughput
from warmstart_sim.execution.autotune import Parallelism, choose_parallelism
from warmstart_sim.execution.throughput import MIN_SPEEDUP, Rate, fastest, rates, step_times
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.results.store import RunFolder
from warmstart_sim.training import loop
from warmstart_sim.training.batches import epoch_order
from warmstart_sim.training.step_time import StepTime


@pytest.fixture
def mlp_cells(tiny_scenario) -> list[scenarios.Cell]:
    tiny_scenario["model"] = {"name": "mlp", "widths": [8]}
    return scenarios.plan(tiny_scenario, "scenario")[1]


@pytest.fixture
def execution(tmp_path) -> ExecutionSettings:
    return ExecutionSettings(tmp_path)


@pytest.fixture
def clockwork(monkeypatch) -> list[str]:
    """A machine on which n stacked cells are n / 2 times as fast as one, up to 8; what was measured on it, in order."""
    measured: list[str] = []

    def rate(cell, execution, batching, count):
        measured.append(f"{batching} {count}")
        return Rate(batching, count, 100.0 if batching == "separate" else 50.0 * min(count, 8) - count)

    def times(cells, execution):
        measured.extend(sorted({f"step {cell.step_kind(0)}" for cell in cells}))
        return {cell.step_kind(0): StepTime(0.5, 0.25) for cell in cells}

    monkeypatch.setattr(throughput, "_rate", rate)
    monkeypatch.setattr(throughput, "step_times", times)
    return measured


def put(execution, cells, tmp_path, workers=1, slots="auto", batching="auto") -> ExecutionSettings:
    return choose_parallelism(execution, cells, RunFolder(tmp_path), Parallelism(workers, slots, batching))


def test_a_cell_that_has_the_machine_to_itself_needs_no_measuring(mlp_cells, execution, clockwork, tmp_path):
    assert put(execution, mlp_cells, tmp_path, slots=1) is execution
    assert clockwork == []
    assert not (tmp_path / "speed.json").exists()


def test_cells_in_workers_get_the_time_of_a_step_alone(mlp_cells, execution, clockwork, tmp_path):
    arrangement = put(execution, mlp_cells, tmp_path, workers=2, slots=1)
    kind = mlp_cells[0].step_kind(0)
    assert clockwork == [f"step {kind}"]  # all arms and seeds make the same steps
    assert (arrangement.timing, arrangement.slots, arrangement.batching) == ("concurrent", 1, "separate")
    assert arrangement.step_times[kind].seconds(steps=2, samples=4, epochs=0) == 2.0


def test_auto_takes_what_measures_best_and_a_run_that_goes_on_measures_nothing(
    mlp_cells, execution, clockwork, tmp_path
):
    cells = mlp_cells * 4  # 24
    first = put(execution, cells, tmp_path)
    assert (first.slots, first.batching, first.timing) == (8, "stacked", "concurrent")
    assert [each for each in clockwork if "step" not in each] == [
        "separate 1",
        *(f"stacked {n}" for n in (2, 4, 8, 16)),
    ]
    clockwork.clear()
    assert put(execution, cells, tmp_path) == first
    assert clockwork == []
    assert put(execution, cells[:3], tmp_path).slots == 3  # no more slots than there are cells left
    assert put(execution, cells, tmp_path, slots=4).slots == 4  # asked for otherwise: measured again
    assert "stacked 4" in clockwork


def test_slots_are_counted_for_each_worker(mlp_cells, execution, clockwork, tmp_path):
    assert put(execution, mlp_cells, tmp_path, workers=2).slots == 3
    assert "stacked 3" in clockwork
    assert "stacked 4" not in clockwork


def test_what_was_measured_on_another_device_does_not_count(mlp_cells, execution, clockwork, tmp_path):
    put(execution, mlp_cells, tmp_path)
    run = RunFolder(tmp_path)
    run.save_speed({**run.speed(), "device": "cuda:0"})
    clockwork.clear()
    put(execution, mlp_cells, tmp_path)
    assert "separate 1" in clockwork


def test_models_that_draw_from_the_default_generator_train_alone(tiny_scenario, execution, clockwork, tmp_path):
    """Whatever kind they are of: two thirds of these cells have no dropout."""
    tiny_scenario["model"] = {"name": "mlp", "widths": [8]}
    tiny_scenario["vary"] = {"model.dropout": [0.0, 0.5], "training.batch_size": [16, 32]}
    cells = scenarios.plan(tiny_scenario, "scenario")[1]
    plain = [cell for cell in cells if not cell.varied["model.dropout"]]
    assert put(execution, plain, tmp_path / "plain", slots=4).slots == 4
    for slots in (4, "auto"):
        assert put(execution, cells, tmp_path / str(slots), slots=slots).slots == 1


def test_a_model_that_fails_is_left_to_its_cells(tiny_scenario, execution, tmp_path):
    tiny_scenario["model"] = {"name": "tests.execution.test_autotune:that_fails_in_training"}
    cells = scenarios.plan(tiny_scenario, "scenario")[1]
    arrangement = put(execution, cells, tmp_path, workers=2)
    assert (arrangement.slots, arrangement.step_times) == (1, {})


def test_measuring_leaves_torchs_threads_and_generators_alone(mlp_cells, execution, tmp_path):
    torch.set_num_threads(2)
    before = torch.get_rng_state()
    arrangement = put(execution, mlp_cells, tmp_path, workers=2)
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.get_rng_state(), before)
    assert all(times.step_seconds > 0 for times in arrangement.step_times.values())


def test_cells_of_different_work_are_of_different_kinds(tiny_scenario, execution):
    tiny_scenario["vary"] = {"training.batch_size": [16, 32], "training.optimizer.lr": [0.1, 0.01]}
    tiny_scenario["strategies"]["augmented"] = {"start": "warm_start", "augment": ["random_crop"]}
    cells = scenarios.plan(tiny_scenario, "scenario")[1]
    kinds = {(cell.arm.training.batch_size, bool(cell.arm.parts)): cell.step_kind(0) for cell in cells}
    assert len({cell.step_kind(0) for cell in cells}) == len(kinds) == 4
    assert step_times(cells[:1], execution).keys() == {cells[0].step_kind(0)}


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=8))
def test_side_by_side_is_chosen_only_where_it_is_clearly_the_fastest(speeds):
    found = [Rate("separate" if n == 0 else "stacked", n + 1, each) for n, each in enumerate(speeds)]
    chosen = fastest(found)
    assert chosen is found[0] or chosen.steps_per_second == max(speeds)
    assert (chosen is not found[0]) == (max(speeds) > MIN_SPEEDUP * speeds[0])


def with_dropout(input_shape, classes):
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.5), nn.Linear(8, classes))


class Fragile(torch.nn.Linear):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.training and torch.is_grad_enabled() and len(inputs) > 2:
            raise ZeroDivisionError("too fragile")
        return super().forward(inputs.flatten(1))


def that_fails_in_training(input_shape, classes):
    return torch.nn.Sequential(Fragile(64, classes))


def test_a_rate_counts_what_an_epoch_costs_beside_its_steps(mlp_cells, execution, monkeypatch):
    def slow_order(*arguments: int) -> torch.Tensor:
        time.sleep(0.02)
        return epoch_order(*arguments)

    monkeypatch.setattr(loop, "epoch_order", slow_order)
    monkeypatch.setattr(throughput, "BLOCK_SECONDS", 0.0)  # one step in an epoch
    for rate in rates(mlp_cells[0], execution, most=2, counts=(2,)):
        assert rate.steps_per_second < 1 / 0.02


def test_what_cannot_be_stacked_has_no_rate_of_a_stack(tiny_scenario, execution):
    tiny_scenario["model"] = {"name": "tests.execution.test_autotune:that_branches"}
    cell = scenarios.plan(tiny_scenario, "scenario")[1][0]
    assert [rate.batching for rate in rates(cell, execution, most=4)] == ["separate"]


def test_compiled_cells_are_not_measured_in_slots(tiny_scenario, execution, monkeypatch):
    tiny_scenario["training"]["compile"] = True
    cell = scenarios.plan(tiny_scenario, "scenario")[1][0]
    monkeypatch.setattr(throughput, "_rate", lambda cell, execution, batching, slots: Rate(batching, slots, 1e3))
    for counts in (None, (4,)):
        assert [rate.slots for rate in rates(cell, execution, 4, counts)] == [1]
    assert [rate.slots for rate in rates(cell, execution, 4, (4,), "separate")] == [1, 4]


class Branching(torch.nn.Linear):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        values = super().forward(inputs.flatten(1))
        return values if values.sum() > 0 else -values


def that_branches(input_shape, classes):
    return torch.nn.Sequential(Branching(64, classes))
