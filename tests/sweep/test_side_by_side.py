"""Whole runs with several cells at a time in one process: nothing is lost, and nobody notices the neighbours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from warmstart_sim import config
from warmstart_sim.experiment import Batching, Place
from warmstart_sim.results.store import MEASURED, RunFolder
from warmstart_sim.sweep import slots as slots_module
from warmstart_sim.sweep.execute import execute
from warmstart_sim.sweep.watch import Quiet
from warmstart_sim.types import Batch, Hooks

MLP = {"name": "mlp", "widths": [16]}


def rows(raw: dict, folder: Path, slots: int, batching: Batching, workers: int = 1, watcher=None) -> dict[str, list]:
    """What every cell stored, by its id, but for times; failures by their ids."""
    cells = config.plan(raw, "scenario")[1]
    place = Place(folder, timing="shared", slots=slots, batching=batching)
    run = RunFolder(folder)
    failures = execute(cells, run, place, workers, watcher or Quiet())
    stored = {cell.id: run.cell(cell.id).result() for cell in cells}
    assert {name for name, result in stored.items() if result is None} == set(failures)
    return {
        name: [{key: value for key, value in row.items() if key not in MEASURED} for row in result["rounds"]]
        for name, result in stored.items()
        if result is not None
    }


@pytest.mark.parametrize("scenario", [{"name": "online", "chunk_size": 50}, {"name": "split"}])
def test_steps_made_apart_give_the_same_bits_in_any_number_of_slots(scenario, tiny_scenario, tmp_path):
    tiny_scenario["scenario"] = scenario
    tiny_scenario["strategies"]["augmented"] = {"start": "warm_start", "augment": ["random_crop"]}
    alone = rows(tiny_scenario, tmp_path / "alone", 1, "apart")
    assert len(alone) == 8
    assert rows(tiny_scenario, tmp_path / "beside", 3, "apart") == alone


def test_two_workers_with_two_slots_each_give_the_same_bits(tiny_scenario, tmp_path):
    tiny_scenario["model"] = MLP
    alone = rows(tiny_scenario, tmp_path / "alone", 1, "apart")
    assert rows(tiny_scenario, tmp_path / "beside", 2, "apart", workers=2) == alone


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
    alone = rows(tiny_scenario, tmp_path / "alone", 1, "apart")
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


@pytest.mark.parametrize("batching", ["apart", "stacked"])
def test_cells_that_fail_or_diverge_do_not_disturb_the_others(batching, tiny_scenario, tmp_path):
    tiny_scenario |= {"model": MLP, "seeds": [0]}
    sound = rows(tiny_scenario, tmp_path / "sound", 3, batching)
    tiny_scenario["strategies"] |= {
        "crash": {"start": "tests.experiment.poison:crash"},
        "nan": {"start": "tests.experiment.poison:not_a_number"},
    }
    run = RunFolder(tmp_path / "mixed")
    mixed = rows(tiny_scenario, tmp_path / "mixed", 5, batching)
    diverged = next(mixed.pop(name) for name in list(mixed) if name.startswith("nan"))
    assert [row["status"] for row in diverged][1] == "diverged"
    failed = next(cell for cell in config.plan(tiny_scenario, "scenario")[1] if cell.arm.label == "crash")
    assert run.cell(failed.id).error() == "ZeroDivisionError: one arm's own mistake"
    if batching == "apart":
        assert mixed == sound
    else:  # the last bits depend on the neighbours
        assert mixed.keys() == sound.keys()
        assert all(row["train_accuracy"] >= 0.9 or row["status"] == "capped" for cell in mixed.values() for row in cell)


@pytest.mark.parametrize("batching", ["apart", "stacked"])
def test_a_step_that_fails_is_its_own_cells_affair(batching, tiny_scenario, tmp_path, monkeypatch):
    tiny_scenario |= {"model": MLP, "seeds": [0]}
    alone = rows(tiny_scenario, tmp_path / "alone", 3, batching)

    from warmstart_sim.parts.augment import Augment

    def broken(batch: Batch) -> Batch:
        raise ValueError("no such pixel")

    monkeypatch.setattr(Augment, "__call__", lambda *arguments: Hooks(transform=broken))
    tiny_scenario["strategies"]["broken"] = {"start": "warm_start", "augment": ["random_crop"]}
    beside = rows(tiny_scenario, tmp_path / "beside", 4, batching)
    assert beside.keys() == alone.keys()
    if batching == "apart":
        assert beside == alone
    errors = [
        RunFolder(tmp_path / "beside").cell(path.parent.name) for path in tmp_path.glob("beside/cells/*/error.json")
    ]
    assert [folder.error() for folder in errors] == ["ValueError: no such pixel"]


@pytest.mark.parametrize("batching", ["apart", "stacked"])
def test_a_run_interrupted_with_slots_goes_on_where_it_was(batching, tiny_scenario, tmp_path):
    tiny_scenario["model"] = MLP
    through = rows(tiny_scenario, tmp_path / "through", 3, batching)

    class Interrupt(Quiet):
        rounds = 0

        def progress(self, task, progress):
            self.rounds += progress.round_row is not None
            if self.rounds == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rows(tiny_scenario, tmp_path / "stopped", 3, batching, watcher=Interrupt())
    done = len(list(tmp_path.glob("stopped/cells/*/checkpoint.pt")))
    assert done > 0
    resumed = rows(tiny_scenario, tmp_path / "stopped", 3, batching)
    assert resumed.keys() == through.keys()
    if batching == "apart":
        assert resumed == through


def test_shared_cells_have_estimates_and_isolated_ones_none(tiny_scenario, tmp_path):
    from warmstart_sim.experiment import run_cell
    from warmstart_sim.training.step_time import StepTime

    cell = config.plan(tiny_scenario, "scenario")[1][0]
    times = {cell.step_kind: StepTime(0.5, 0.25)}
    for timing, expected in (("shared", 0.5), ("isolated", None)):
        place = replace(Place(tmp_path, timing=timing), step_times=times)
        run_cell(cell, RunFolder(tmp_path / timing), place)
        table = pd.DataFrame(RunFolder(tmp_path / timing).cell(cell.id).result()["rounds"])
        if expected is None:
            assert table["estimated_isolated_seconds"].isna().all()
        else:
            by_hand = 0.5 * table["steps"] + 0.25 * table["samples_seen"]
            assert np.allclose(table["estimated_isolated_seconds"], by_hand)
