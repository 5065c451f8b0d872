"""How far a run is, as `warmstart-sim status` says it: while it runs, after it was stopped, and in its end."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from warmstart_sim import api
from warmstart_sim import scenario as scenarios
from warmstart_sim.cli import app
from warmstart_sim.errors import WarmstartError
from warmstart_sim.execution import launch
from warmstart_sim.execution import status as status_module
from warmstart_sim.execution.progress import ProgressEvent
from warmstart_sim.execution.status import StatusWriter
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario.overrides import prepare_scenario

MLP = {"name": "mlp", "widths": [5]}


@pytest.fixture
def scenario(tiny_scenario: dict[str, Any]) -> dict[str, Any]:
    return tiny_scenario | {"model": MLP, "training": {"until": {"epochs": 2}}}


def run(scenario: dict[str, Any], folder: Path, **options: Any) -> launch.RunOutcome:
    return launch.run_scenario(
        *prepare_scenario(scenario), launch.RunOptions(folder, "cpu", workers=1, quiet=True, **options)
    )


def printed(folder: Path, capsys: Any) -> str:
    app(["status", str(folder)], standalone_mode=False)
    return str(capsys.readouterr().out)


def test_a_finished_run_is_complete_and_nobody_is_at_work(scenario, tmp_path, capsys):
    run(scenario, tmp_path)
    found = api.status(tmp_path)
    assert (found.cells, found.complete, found.failed, found.running) == (6, 6, {}, {})
    assert found.process is None
    assert printed(tmp_path, capsys) == f"{tmp_path}: 6 cells; 6 complete, 0 failed, 0 running, 0 waiting\n"


def test_first_phases_count_as_cells(scenario, tmp_path):
    run(scenario | {"stream": {"name": "split"}}, tmp_path)
    assert api.status(tmp_path).complete == api.status(tmp_path).cells == 6 + 2


def test_failures_are_listed_with_their_reasons(scenario, tmp_path, capsys):
    scenario["strategies"] = {"warm_start": {}, "bad": {"start": "tests.experiment.poison:crash"}}
    outcome = run(scenario, tmp_path)
    found = api.status(tmp_path)
    assert found.failed == outcome.failures
    assert len(found.failed) == 2
    assert (found.complete, found.running) == (2, {})
    text = printed(tmp_path, capsys)
    assert "4 cells; 2 complete, 2 failed" in text
    assert all(f"failed   {name}: {reason}" in text for name, reason in outcome.failures.items())


def test_while_cells_run_it_says_where_they_are_and_how_long_the_rest_takes(scenario, tmp_path, monkeypatch):
    """The driver is asked in the middle of a cell, from within: the lock is its own."""
    monkeypatch.setattr(status_module, "WRITE_SECONDS", 0.0)
    seen: list[api.Status] = []

    write = StatusWriter.__call__

    def asked(self: StatusWriter, event: ProgressEvent) -> None:
        write(self, event)
        if event.kind == "epoch":
            seen.append(api.status(tmp_path))

    monkeypatch.setattr(StatusWriter, "__call__", asked)
    run(scenario, tmp_path)
    assert len(seen) == 6 * 3 * 2  # cells, rounds, epochs
    for number, status in enumerate(seen):
        assert status.complete == number // 6
        assert status.process is not None
        (running,) = status.running.values()
        execution = (running["round"], running["epoch"], running["rounds"])
        assert execution == (number // 2 % 3 + 1, number % 2 + 1, 3)
        if number > 2:
            assert status.remaining_seconds is not None
            assert 0 <= status.remaining_seconds < math.inf


def test_a_run_that_was_stopped_says_that_nobody_is_at_work_and_what_has_a_checkpoint(
    scenario, tmp_path, capsys, monkeypatch
):
    def interrupted(self: StatusWriter, event: ProgressEvent) -> None:
        if event.progress and event.progress.round == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(StatusWriter, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(scenario, tmp_path)
    found = api.status(tmp_path)
    assert (found.complete, found.running, found.process, found.interrupted) == (0, {}, None, 1)
    assert found.remaining_seconds is None
    text = printed(tmp_path, capsys)
    assert "6 waiting" in text
    assert "no running process" in text
    assert "1 of them from a checkpoint" in text


def test_a_folder_without_a_run_is_an_error(tmp_path):
    with pytest.raises(WarmstartError, match="holds no run"):
        api.status(tmp_path)


@pytest.mark.parametrize("content", ["", "{", json.dumps({"pid": 1})])
def test_a_status_file_that_cannot_be_read_hides_nothing_else(scenario, tmp_path, content):
    run(scenario, tmp_path)
    (tmp_path / "status.json").write_text(content)
    assert api.status(tmp_path).complete == 6


def test_asking_does_not_keep_a_driver_out(scenario, tmp_path):
    """Many who ask at once, while the run begins again and again."""
    run(scenario, tmp_path)
    cells = scenarios.plan(yaml.safe_load((tmp_path / "scenario.yaml").read_text()), "test")[1]
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            status_module.read_status(RunFolder(tmp_path), cells)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(40):
            with RunFolder(tmp_path).locked():
                pass
    finally:
        stop.set()
        for thread in threads:
            thread.join()
