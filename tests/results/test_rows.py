"""Rows of rounds.csv and epochs.csv: of cells that are not finished, and where and when each round was trained."""

from __future__ import annotations

import datetime
import platform
import resource
import signal
from pathlib import Path

import pandas as pd
import pytest

from warmstart_sim import report
from warmstart_sim.errors import WarmstartError
from warmstart_sim.execution import launch
from warmstart_sim.experiment.run_cell import run_cell
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.preemption import Preempted
from warmstart_sim.results import environment
from warmstart_sim.results.cell_folder import CellFolder
from warmstart_sim.results.columns import MEASURED
from warmstart_sim.results.store import RunFolder
from warmstart_sim.results.tables import load
from warmstart_sim.scenario import plan


@pytest.fixture
def one_seed(tiny_scenario) -> dict:
    """Three arms, one seed, three rounds of two epochs."""
    return {**tiny_scenario, "seeds": [0], "training": {"batch_size": 32, "until": {"epochs": 2}}}


def run_cells(raw: dict, folder: Path) -> None:
    launch.run_scenario(raw, "scenario", launch.RunOptions(out=folder, quiet=True, device="cpu", workers=1))


def run_until(raw: dict, folder: Path, checkpoints: int, monkeypatch) -> None:
    """Runs the cells, one after another, until SIGTERM arrives after so many checkpoints."""
    save, saved = CellFolder.save_checkpoint, 0

    def save_and_stop(self: CellFolder, state: dict) -> None:
        nonlocal saved
        save(self, state)
        saved += 1
        if saved == checkpoints:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(CellFolder, "save_checkpoint", save_and_stop)
        with pytest.raises(Preempted):
            run_cells(raw, folder)


def written(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    launch.collect(folder)
    return tuple(pd.read_csv(folder / f"{name}.csv").drop(columns=[*MEASURED], errors="ignore") for name in TABLES)


TABLES = ("rounds", "epochs")


def test_finished_rounds_of_an_interrupted_run_are_in_its_tables_and_count_as_unfinished(
    one_seed, tmp_path, monkeypatch
):
    run_cells(one_seed, tmp_path / "through")
    whole, whole_epochs = written(tmp_path / "through")
    run_until(one_seed, tmp_path / "stopped", 3, monkeypatch)  # random_init has three rounds, warm_start one
    rounds, epochs = written(tmp_path / "stopped")

    assert list(rounds["strategy"]) == ["random_init"] * 3 + ["warm_start"]
    assert list(rounds["cell_complete"]) == [True] * 3 + [False]
    numbers = whole.columns.drop("cell_complete")
    pd.testing.assert_frame_equal(rounds[numbers], whole[numbers].head(4), check_exact=True)
    pd.testing.assert_frame_equal(epochs, whole_epochs.head(8), check_exact=True)

    report.write(tmp_path / "stopped")
    summary = load(tmp_path / "stopped").summary().set_index("strategy")
    assert summary[["seeds", "unfinished"]].to_dict("index") == {
        "random_init": {"seeds": 1, "unfinished": 0},
        "warm_start": {"seeds": 0, "unfinished": 1},
    }
    run_cells(one_seed, tmp_path / "stopped")
    for one, other in zip(written(tmp_path / "stopped"), (whole, whole_epochs), strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert not list((tmp_path / "stopped").glob("cells/*/rows.json"))


def test_no_cell_counts_as_complete_while_all_are_in_the_same_round(one_seed, tmp_path, monkeypatch):
    run_until(one_seed, tmp_path, 1, monkeypatch)
    launch.collect(tmp_path)
    report.write(tmp_path)
    assert load(tmp_path).summary()[["seeds", "unfinished"]].to_numpy().tolist() == [[0, 1]]


def test_every_round_says_where_when_and_by_which_code_it_was_trained(one_seed, tmp_path):
    environment.machine.cache_clear()
    before = datetime.datetime.now().astimezone().replace(microsecond=0)
    run_cells(one_seed, tmp_path)
    after = datetime.datetime.now().astimezone()
    rounds = load(tmp_path).rounds
    recorded = environment.environment("cpu")
    assert set(rounds["host"]) == {platform.node()}
    assert set(rounds["device_name"]) == {recorded["device_name"]}
    assert set(rounds["commit"].fillna("none")) == {recorded["commit"] or "none"}
    for row in rounds.to_dict("records"):
        started, ended = (datetime.datetime.fromisoformat(row[name]) for name in ("started", "ended"))
        assert before <= started <= ended <= after
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert rounds["peak_memory"].between(50e6, used).all()  # torch alone takes more than 50 MB


@pytest.mark.parametrize("within", [False, True], ids=["between rounds", "within a round"])
def test_a_cell_that_moves_to_another_machine_keeps_the_machine_of_each_round(one_seed, tmp_path, monkeypatch, within):
    (cell, *_), run = plan(one_seed, "scenario")[1], RunFolder(tmp_path)
    seconds = 0.0 if within else 600.0  # with 0, every epoch but a round's last is checkpointed
    execution = ExecutionSettings(tmp_path, checkpoint_seconds=seconds)

    def here(name: str) -> None:
        monkeypatch.setattr(platform, "node", lambda: name)
        environment.machine.cache_clear()

    save = CellFolder.save_checkpoint

    def save_and_stop(self: CellFolder, state: dict) -> None:
        save(self, state)
        if len(state["rounds"]) == 1 and bool(state["training"]) == within:
            raise KeyboardInterrupt

    here("one")
    with monkeypatch.context() as patch:
        patch.setattr(CellFolder, "save_checkpoint", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            run_cell(cell, run, execution)
    here("two")
    run_cell(cell, run, execution)
    environment.machine.cache_clear()
    hosts = [row["host"] for row in run.cell(cell.id).result()["rounds"]]
    assert hosts == (["one", "one + two", "two"] if within else ["one", "two", "two"])


def test_columns_of_varied_keys_need_no_backticks(one_seed, tmp_path):
    one_seed["vary"] = {"training.batch_size": [16, 32], "strategies.shrink_perturb.sigma": [0.01, 0.1]}
    run_cells(one_seed, tmp_path)
    run = load(tmp_path)
    assert run.axes == ("training_batch_size", "sigma")
    assert len(run.rounds.query("training_batch_size == 16 and sigma == 0.1")) == 3
    assert all(str(name).isidentifier() for name in [*run.rounds, *run.epochs, *run.summary()])
    assert not list(tmp_path.glob("cells/*training_*"))  # folders keep their names


def test_keys_with_one_column_are_refused(tiny_scenario):
    tiny_scenario["vary"] = {"model.channels.x": [1], "model.channels_x": [2]}
    with pytest.raises(WarmstartError, match=r"vary\.model\.channels\.x: `model\.channels_x` has the column"):
        plan(tiny_scenario, "scenario")
