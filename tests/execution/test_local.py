"""Executors: the same numbers whoever runs the cells, and nothing lost when a process dies."""

from __future__ import annotations

import gzip
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.execution.waiting import wait_for
from warmstart_sim import cli
from warmstart_sim import datasets as datasets
from warmstart_sim import scenario as scenarios
from warmstart_sim.errors import WarmstartError
from warmstart_sim.execution import launch, worker_pool
from warmstart_sim.execution.interleaved import run_slots
from warmstart_sim.execution.scheduler import Scheduler
from warmstart_sim.execution.tasks import Task
from warmstart_sim.execution.worker_pool import WorkerPool
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.results.columns import MEASURED
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario.overrides import prepare_scenario
from warmstart_sim.scenario.splits import load_dataset
from warmstart_sim.types import Dataset, Samples

TIMING = [*MEASURED, "timing"]
POOL = pytest.mark.xdist_group("pool")  # one fork server for all


def tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All that a run's tables say, but for seconds."""
    rounds = pd.read_csv(folder / "rounds.csv").drop(columns=TIMING, errors="ignore")
    epochs = pd.read_csv(folder / "epochs.csv").drop(columns=TIMING, errors="ignore")
    return rounds, epochs


def assert_same_tables(one: Path, other: Path) -> None:
    for left, right in zip(tables(one), tables(other), strict=True):
        pd.testing.assert_frame_equal(left, right, check_exact=True)


def run_local(scheduler: Scheduler, execution: ExecutionSettings, workers: int) -> None:
    """Runs all tasks of a scheduler in this process, or in worker processes."""
    if workers > 1:
        WorkerPool(scheduler, scheduler.queue.run, execution, workers).run_tasks()
    else:
        run_slots(scheduler, scheduler.queue.run, execution)


def run_cells(raw: dict, folder: Path, **options) -> launch.RunOutcome:
    return launch.run_scenario(raw, "scenario", launch.RunOptions(out=folder, quiet=True, device="cpu", **options))


@POOL
def test_two_workers_give_the_tables_of_one(tiny_scenario, tmp_path, quick_workers):
    tiny_scenario["stream"] = {"name": "split"}
    run_cells(tiny_scenario, tmp_path / "one", workers=1)
    run_cells(tiny_scenario, tmp_path / "two", workers=2)
    assert_same_tables(tmp_path / "one", tmp_path / "two")
    timing = [set(pd.read_csv(tmp_path / name / "rounds.csv")["timing"]) for name in ("one", "two")]
    assert timing == [{"isolated"}, {"concurrent"}]


@POOL
@pytest.mark.slow
@pytest.mark.parametrize(("workers", "kills"), [(1, (1, 3)), (2, (2,))])
def test_a_run_killed_at_any_moment_and_started_again_gives_the_tables_of_one_that_was_not(
    tiny_scenario, tmp_path, monkeypatch, started, quick_workers, workers, kills
):
    tiny_scenario |= {"seeds": [0], "training": {"batch_size": 32, "until": {"epochs": 30}}}
    scenario = tmp_path / "tiny.yaml"
    scenario.write_text(yaml.safe_dump(tiny_scenario, sort_keys=False))
    run_cells(tiny_scenario, tmp_path / "through", workers=1)

    command = ["run", str(scenario), "--out", str(tmp_path / "killed")]
    command += ["--workers", str(workers), "--device", "cpu", "--quiet"]
    for rows in kills:  # kill it once it has stored so many checkpoints and results
        process = started(*command)
        wait_for(lambda rows=rows: stored(tmp_path / "killed") >= rows, process)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    monkeypatch.setattr(sys, "argv", ["warmstart-sim", *command])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert_same_tables(tmp_path / "through", tmp_path / "killed")
    assert (tmp_path / "killed" / "report.html").exists()


def stored(folder: Path) -> int:
    return len(list(folder.glob("cells/*/checkpoint.pt"))) + len(list(folder.glob("cells/*/result.json")))


@POOL
def test_a_cell_that_fails_or_kills_its_worker_is_recorded_and_the_others_go_on(tiny_scenario, tmp_path, quick_workers):
    tiny_scenario["strategies"] = {
        "random_init": {},
        "crash": {"start": "tests.experiment.poison:crash"},
        "killed": {"start": "tests.experiment.poison:killed"},
    }
    tiny_scenario["seeds"] = [0]
    outcome = run_cells(tiny_scenario, tmp_path, workers=2)
    reasons = {name.partition("-")[0]: reason for name, reason in outcome.failures.items()}
    assert reasons.keys() == {"crash", "killed"}
    assert reasons["crash"] == "ZeroDivisionError: one arm's own mistake"
    assert "SIGKILL" in reasons["killed"]
    rounds = pd.read_csv(tmp_path / "rounds.csv")
    assert set(rounds.query("cell_complete")["strategy"]) == {"random_init"}
    failed = next((tmp_path / "cells").glob("crash-*"))
    assert RunFolder(tmp_path).cell(failed.name).error() == "ZeroDivisionError: one arm's own mistake"


def test_a_failed_cell_is_tried_again_by_the_next_run(tiny_scenario, tmp_path, monkeypatch):
    from warmstart_sim.experiment import run_cell

    tiny_scenario["seeds"] = [0]
    monkeypatch.setattr(run_cell, "CellTrainer", lambda *args: 1 / 0)
    assert len(run_cells(tiny_scenario, tmp_path, workers=1).failures) == 3
    monkeypatch.undo()
    assert run_cells(tiny_scenario, tmp_path, workers=1).failures == {}
    assert not list(tmp_path.glob("cells/*/error.json"))
    assert len(pd.read_csv(tmp_path / "rounds.csv")) == 9


def test_a_complete_run_started_again_trains_nothing(tiny_scenario, tmp_path, monkeypatch):
    from warmstart_sim.experiment import run_cell

    tiny_scenario["seeds"] = [0]
    run_cells(tiny_scenario, tmp_path, workers=1)
    monkeypatch.setattr(run_cell, "CellTrainer", lambda *args: pytest.fail("trained again"))
    run_cells(tiny_scenario, tmp_path, workers=1)


def test_seeds_and_strategies_can_be_added_to_a_run(tiny_scenario, tmp_path):
    everything = dict(tiny_scenario["strategies"])
    run_cells({**tiny_scenario, "seeds": [0], "strategies": {"random_init": {}}}, tmp_path / "grown", workers=1)
    run_cells({**tiny_scenario, "seeds": [0, 1]}, tmp_path / "grown", workers=1)
    last = {**tiny_scenario, "seeds": [1], "strategies": {"warm_start": {}}, "title": "Grown", "reproduces": ["A-F1"]}
    run_cells(last, tmp_path / "grown", workers=1)
    run_cells({**tiny_scenario, "strategies": everything}, tmp_path / "whole", workers=1)
    assert_same_tables(tmp_path / "grown", tmp_path / "whole")
    grown = yaml.safe_load((tmp_path / "grown" / "scenario.yaml").read_text("utf-8"))
    assert (grown["title"], grown["reproduces"]) == ("Grown", ["A-F1"])  # from the last run


def test_another_scenario_does_not_get_into_a_runs_folder(tiny_scenario, tmp_path):
    tiny_scenario["seeds"] = [0]
    run_cells(tiny_scenario, tmp_path, workers=1)
    tiny_scenario["training"]["batch_size"] = 16
    with pytest.raises(WarmstartError, match=r"training.batch_size: 32 there, 16 here.*--fresh"):
        run_cells(tiny_scenario, tmp_path, workers=1)
    run_cells(tiny_scenario, tmp_path, workers=1, fresh=True)
    assert len(list(tmp_path.glob("cells/*"))) == 3


def test_a_second_driver_is_refused(tiny_scenario, tmp_path):
    with RunFolder(tmp_path).locked(), pytest.raises(WarmstartError, match="another warmstart-sim is running"):
        run_cells(tiny_scenario, tmp_path, workers=1)


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/full").exists(), reason="needs root to make a tiny file system")
def test_a_full_disk_ends_in_one_clear_line_and_keeps_what_is_complete(tiny_scenario, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("cannot mount a file system here")
    try:
        with pytest.raises(WarmstartError, match=r"cannot be written or read \(No space left on device\)") as caught:
            run_cells({**tiny_scenario, "model": {"name": "mlp", "widths": [400]}}, disk, workers=1)
        assert caught.value.exit_code == 1
        assert not list(disk.rglob("*.part"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_data_that_changed_under_the_same_name_are_not_mixed_into_a_run(tiny_scenario, tmp_path):
    generator = np.random.default_rng(0)
    file = tmp_path / "mine.npz"
    labels = np.arange(200) % 10
    np.savez(file, x_train=generator.normal(size=(200, 1, 8, 8)).astype(np.float32), y_train=labels)
    tiny_scenario["data"] = {"name": "arrays", "path": str(file), "train_samples": 150}
    run_cells({**tiny_scenario, "seeds": [0]}, tmp_path / "run", workers=1)
    run_cells({**tiny_scenario, "seeds": [1]}, tmp_path / "run", workers=1)
    np.savez(file, x_train=generator.normal(size=(200, 1, 8, 8)).astype(np.float32), y_train=labels)
    datasets.loading._recent.clear()  # another process
    with pytest.raises(WarmstartError, match=r"mine.npz.*has changed since this run began.*--fresh"):
        run_cells({**tiny_scenario, "seeds": [2]}, tmp_path / "run", workers=1)


def test_a_folder_in_which_nothing_was_trained_is_taken_over(tiny_scenario, tmp_path):
    with pytest.raises(WarmstartError, match="chunk_size"):
        run_cells({**tiny_scenario, "stream": {"name": "online", "chunk_size": 5000}}, tmp_path, workers=1)
    assert run_cells({**tiny_scenario, "seeds": [0]}, tmp_path, workers=1).failures == {}


@pytest.mark.parametrize("fresh", [False, True])
def test_a_users_folder_with_a_scenario_file_of_its_own_is_refused_and_nothing_in_it_is_deleted(
    tiny_scenario, tmp_path, fresh
):
    (tmp_path / "scenario.yaml").write_text(yaml.safe_dump(tiny_scenario))
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "precious.png").write_text("mine")
    with pytest.raises(WarmstartError, match="holds other files"):
        run_cells({**tiny_scenario, "seeds": [0]}, tmp_path, workers=1, fresh=fresh)
    assert (tmp_path / "figures" / "precious.png").read_text() == "mine"
    assert (tmp_path / "scenario.yaml").exists()


def test_a_published_folder_without_its_cells_keeps_its_tables_when_reported_again(tiny_scenario, tmp_path):
    run_cells({**tiny_scenario, "seeds": [0]}, tmp_path, workers=1)
    before = (tmp_path / "rounds.csv").read_text()
    shutil.rmtree(tmp_path / "cells")
    launch.collect(tmp_path)
    assert (tmp_path / "rounds.csv").read_text() == before
    (tmp_path / "rounds.csv.gz").write_bytes(gzip.compress(before.encode()))
    (tmp_path / "rounds.csv").unlink()
    launch.collect(tmp_path)
    assert not (tmp_path / "rounds.csv").exists()


def test_a_users_arrays_go_to_a_worker_once(tiny_scenario):
    samples = Samples(np.zeros((50_000, 1, 4, 4), dtype=np.float32), np.arange(50_000) % 2)
    del tiny_scenario["data"]
    raw, where = prepare_scenario(tiny_scenario, data=Dataset("mine", samples, samples, 2))
    tasks = [Task(cell) for cell in scenarios.plan(raw, where)[1][:3]]
    sent = []
    pipe = SimpleNamespace(send=lambda message: sent.append(pickle.dumps(message)))
    worker = worker_pool.WorkerProcess(None, pipe, None)
    for task in tasks:
        worker.give(task)
    assert [len(message) > samples.inputs.nbytes for message in sent] == [True, False, False]
    inbox = iter(sent)
    pipe = worker_pool.WorkerChannel(SimpleNamespace(recv=lambda: pickle.loads(next(inbox))))
    received = [pipe.recv() for _ in tasks]
    assert [task.id for task in received] == [task.id for task in tasks]
    first, *others = [load_dataset(task.cell, Path("nowhere")) for task in received]
    assert first.digest() == Dataset("mine", samples, samples, 2).digest()
    assert all(each is first for each in others)
