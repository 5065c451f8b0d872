"""Whole runs side by side against the same cells alone: in workers with slots, stacked, and what their rows say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from tests.execution.test_local import POOL, run_local
from warmstart_sim import scenario as scenarios
from warmstart_sim.execution import interleaved as slots_module
from warmstart_sim.execution.scheduler import Scheduler
from warmstart_sim.execution.tasks import TaskQueue
from warmstart_sim.experiment.run_cell import run_cell
from warmstart_sim.experiment.settings import Batching, ExecutionSettings
from warmstart_sim.results.columns import MEASURED
from warmstart_sim.results.store import RunFolder
from warmstart_sim.training.step_time import StepTime

MLP = {"name": "mlp", "widths": [16]}


def rows(raw: dict, folder: Path, slots: int, batching: Batching, workers: int = 1, listeners=()) -> dict[str, list]:
    """What every cell stored, by its id, but for times; failures by their ids."""
    cells = scenarios.plan(raw, "scenario")[1]
    execution = ExecutionSettings(folder, timing="concurrent", slots=slots, batching=batching)
    run = RunFolder(folder)
    scheduler = Scheduler(TaskQueue(cells, run), listeners)
    run_local(scheduler, execution, workers)
    stored = {cell.id: run.cell(cell.id).result() for cell in cells}
    assert {name for name, result in stored.items() if result is None} == set(scheduler.failures)
    return {
        name: [{key: value for key, value in row.items() if key not in MEASURED} for row in result["rounds"]]
        for name, result in stored.items()
        if result is not None
    }


@POOL
def test_two_workers_with_two_slots_each_give_the_same_bits(tiny_scenario, tmp_path, quick_workers):
    tiny_scenario["model"] = MLP
    alone = rows(tiny_scenario, tmp_path / "alone", 1, "separate")
    assert rows(tiny_scenario, tmp_path / "beside", 2, "separate", workers=2) == alone


def test_stacked_cells_are_really_stacked_and_differ_from_cells_alone_by_chance_only(
    tiny_scenario, tmp_path, monkeypatch
):
    sizes = []
    original = slots_module.Stack.step

    def spy(stack, minibatches):
        sizes.append(len(minibatches))
        original(stack, minibatches)

    monkeypatch.setattr(slots_module.Stack, "step", spy)
    tiny_scenario |= {"model": MLP, "seeds": list(range(12)), "strategies": {"random_init": {}, "warm_start": {}}}
    alone = rows(tiny_scenario, tmp_path / "alone", 1, "separate")
    stacked = rows(tiny_scenario, tmp_path / "stacked", 5, "stacked")
    assert max(sizes) == 5
    for column in ("test_accuracy", "epochs"):
        pairs = [(stacked[name][-1][column], alone[name][-1][column]) for name in alone]
        difference = np.subtract(*np.transpose(pairs))
        half = 2.07 * difference.std(ddof=1) / np.sqrt(len(difference))  # 95 % t-interval of 24 pairs
        assert abs(difference.mean()) <= half or np.all(difference == 0), column
    for name in alone:  # what does not depend on sums agrees in every round
        kept = ["round", "train_samples", "new_samples", "dataset"]
        assert [[row[key] for key in kept] for row in stacked[name]] == [
            [row[key] for key in kept] for row in alone[name]
        ]


def test_concurrent_cells_have_estimates_and_isolated_ones_none(tiny_scenario, tmp_path):
    cell = scenarios.plan(tiny_scenario, "scenario")[1][0]
    times = {cell.step_kind(0): StepTime(0.5, 0.25)}
    for timing, expected in (("concurrent", 0.5), ("isolated", None)):
        execution = replace(ExecutionSettings(tmp_path, timing=timing), step_times=times)
        run_cell(cell, RunFolder(tmp_path / timing), execution)
        table = pd.DataFrame(RunFolder(tmp_path / timing).cell(cell.id).result()["rounds"])
        if expected is None:
            assert table["estimated_isolated_seconds"].isna().all()
        else:
            by_hand = 0.5 * table["steps"] + 0.25 * table["samples_seen"]
            assert np.allclose(table["estimated_isolated_seconds"], by_hand)
