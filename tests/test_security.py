"""Files that come from others execute nothing: scenario files, checkpoints, weights, results."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from warmstart_sim import api
from warmstart_sim.errors import WarmstartError
from warmstart_sim.execution import launch
from warmstart_sim.execution.progress import ProgressEvent
from warmstart_sim.execution.status import StatusWriter
from warmstart_sim.scenario.overrides import prepare_scenario
from warmstart_sim.scenario.yaml_files import load


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    return tmp_path / "sprung"


def test_the_trap_works(trap, tmp_path):
    torch.save(Trap(trap), tmp_path / "file.pt")
    torch.load(tmp_path / "file.pt", weights_only=False)
    assert trap.exists()


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir"])
def test_a_scenario_file_executes_nothing(tag, trap, tmp_path):
    path = tmp_path / "scenario.yaml"
    path.write_text(f"name: x\ndata: digits\nstrategies: {{random_init: {{}}}}\ntitle: {tag} ['{trap}']\n")
    with pytest.raises(WarmstartError):
        load(path)
    assert not trap.exists()


def scenario(tiny_scenario: dict[str, Any], **changes: Any) -> tuple[dict[str, Any], str]:
    small = {"model": {"name": "mlp", "widths": [5]}, "training": {"until": {"epochs": 1}}, "seeds": [0]}
    return prepare_scenario(tiny_scenario | small | {"strategies": {"warm_start": {}}} | changes)


def test_a_checkpoint_in_a_run_folder_executes_nothing_and_the_cell_is_trained_again(
    tiny_scenario, tmp_path, trap, monkeypatch
):
    raw, where = scenario(tiny_scenario)
    options = launch.RunOptions(tmp_path / "run", "cpu", workers=1, quiet=True)

    def interrupted(self: StatusWriter, event: ProgressEvent) -> None:
        if event.progress and event.progress.round == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(StatusWriter, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            launch.run_scenario(raw, where, options)
    (checkpoint,) = (tmp_path / "run").glob("cells/*/checkpoint.pt")
    torch.save({"weights": Trap(trap), "rounds": [], "epochs": [], "training": None}, checkpoint)
    assert launch.run_scenario(raw, where, options).failures == {}
    assert not trap.exists()
    assert api.status(tmp_path / "run").complete == 1


def test_weights_of_a_first_phase_execute_nothing(tiny_scenario, tmp_path, trap):
    raw, where = scenario(tiny_scenario, stream={"name": "split"})
    options = launch.RunOptions(tmp_path / "run", "cpu", workers=1, quiet=True)
    launch.run_scenario(raw, where, options)
    (weights,) = (tmp_path / "run").glob("first_phases/*/weights.pt")
    torch.save({"head.weight": Trap(trap)}, weights)
    for result in (tmp_path / "run").glob("cells/*/result.json"):
        result.unlink()
    assert launch.run_scenario(raw, where, options).failures == {}
    assert not trap.exists()


def test_weights_to_start_from_execute_nothing(tiny_scenario, tmp_path, trap):
    path = tmp_path / "weights.pt"
    torch.save({"head.weight": Trap(trap)}, path)
    raw, where = scenario(tiny_scenario, stream={"name": "pretrain", "checkpoint": str(path)})
    with pytest.raises(WarmstartError):
        launch.run_scenario(raw, where, launch.RunOptions(tmp_path / "run", "cpu", workers=1, quiet=True))
    assert not trap.exists()
