"""Whole runs of the stream `pretrain`: with workers or without, killed, with a first phase that fails, other files."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from torch import nn

from tests.execution.test_local import POOL, assert_same_tables, run_cells
from tests.execution.waiting import wait_for
from warmstart_sim.errors import WarmstartError
from warmstart_sim.execution import launch


@pytest.fixture
def pretrain() -> dict[str, Any]:
    """Digits for noisy digits and back, at two fractions."""
    few = {"train_samples": 60, "test_samples": 40}
    digits, noisy = {"name": "digits", **few}, {"name": "noisy_digits", **few}
    return {
        "name": "tiny",
        "data": noisy,
        "stream": {"name": "pretrain", "source": digits},
        "model": {"name": "mlp", "widths": [6]},
        "training": {"batch_size": 32, "until": {"epochs": 2}},
        "strategies": {"random_init": {}, "warm_start": {}},
        "vary": {
            "pair": {
                "there": {"stream.source": digits, "data": noisy},
                "back": {"stream.source": noisy, "data": digits},
            },
            "stream.fraction": [0.5, 1.0],
        },
    }


def rows(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "rounds.csv")


@POOL
@pytest.mark.slow
def test_a_run_killed_in_a_first_phase_and_in_a_cell_gives_the_tables_of_one_that_was_not(pretrain, tmp_path, started):
    pretrain["training"]["until"] = {"epochs": 80}
    scenario = tmp_path / "tiny.yaml"
    scenario.write_text(yaml.safe_dump(pretrain, sort_keys=False))
    run_cells(pretrain, tmp_path / "through", workers=1)

    killed = tmp_path / "killed"
    command = ["run", str(scenario), "--out", str(killed), "--device", "cpu", "--quiet"]
    for workers, begun in (("1", "first_phases/*/settings.json"), ("2", "cells/*/result.json")):
        process = started(*command, "--workers", workers)
        wait_for(lambda begun=begun: list(killed.glob(begun)), process)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert len(list(killed.glob("cells/*/result.json"))) < 8
    run_cells(pretrain, killed, workers=1)
    assert_same_tables(tmp_path / "through", killed)
    assert len(rows(killed)) == 2 * 2 * 2 * 2
    assert len(list((killed / "first_phases").iterdir())) == 2


# Fails while it is trained on as many classes, and not before.
FAILS_ON = 4


class Fragile(nn.Module):
    """A network that cannot be trained on `FAILS_ON` classes."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.body = nn.Linear(inputs, 5)
        self.head = nn.Linear(5, classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.training and self.classes == FAILS_ON and torch.is_grad_enabled() and len(inputs) > 2:
            raise ZeroDivisionError("too fragile\nfor this")
        return self.head(torch.tanh(self.body(inputs.flatten(1))))


def fragile(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return Fragile(torch.Size(input_shape).numel(), classes)


@POOL
@pytest.mark.parametrize("workers", [1, 2])
def test_a_first_phase_that_fails_fails_its_cells_with_the_reason_and_no_others(
    pretrain, tmp_path, quick_workers, workers
):
    four = {"name": "synthetic", "shape": [1, 8, 8], "classes": FAILS_ON, "train_samples": 40}
    pretrain["model"] = "tests.execution.test_first_phases:fragile"
    pretrain["vary"]["pair"]["broken"] = {"stream.source": four, "data": "digits"}
    outcome = run_cells(pretrain, tmp_path, workers=workers)
    reasons = dict(outcome.failures)
    phases = [cell for cell in reasons if cell.startswith("first_phase-")]
    assert [reasons[phase] for phase in phases] == ["ZeroDivisionError: too fragile"]
    orphans = {cell: reason for cell, reason in reasons.items() if cell not in phases}
    assert set(orphans.values()) == {"its first phase failed: ZeroDivisionError: too fragile"}
    assert len(orphans) == 4
    assert all("pair=broken" in cell for cell in orphans)
    assert set(rows(tmp_path)["pair"]) == {"there", "back"}
    error = json.loads((tmp_path / "first_phases" / phases[0] / "error.json").read_text())
    assert error["reason"] == "ZeroDivisionError: too fragile"


def test_a_first_phase_that_failed_is_tried_again_by_the_next_run(pretrain, tmp_path, monkeypatch):
    from warmstart_sim.experiment import run_cell

    monkeypatch.setattr(run_cell, "CellTrainer", lambda *args: 1 / 0)
    assert len(run_cells(pretrain, tmp_path, workers=1).failures) == 2 + 8
    monkeypatch.undo()
    assert run_cells(pretrain, tmp_path, workers=1).failures == {}
    assert len(rows(tmp_path)) == 16
    assert not list(tmp_path.glob("*/*/error.json"))


def test_seeds_and_arms_that_are_added_share_the_first_phases_that_are_there(pretrain, tmp_path):
    few = {"random_init": {}}
    run_cells({**pretrain, "strategies": few}, tmp_path, workers=1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("first_phases/*/weights.pt")}
    run_cells({**pretrain, "seeds": [0, 1]}, tmp_path, workers=1)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.glob("first_phases/*/weights.pt")}
    assert before.items() < after.items()
    assert (len(before), len(after)) == (2, 4)


# Files that change.


def checkpoint_in(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    path = folder / "weights.pt"
    torch.save(fragile((1, 8, 8), 10).state_dict(), path)
    return path


def from_file(pretrain: dict[str, Any], path: Path) -> dict[str, Any]:
    stream = {"name": "pretrain", "checkpoint": str(path)}
    own = {"model": "tests.execution.test_first_phases:fragile", "vary": None}
    return {**pretrain, **own, "stream": stream}


def test_a_checkpoint_that_changed_under_the_same_path_is_refused(pretrain, tmp_path):
    raw = from_file(pretrain, checkpoint_in(tmp_path, seed=0))
    run_cells({**raw, "seeds": [0]}, tmp_path / "run", workers=1)
    checkpoint_in(tmp_path, seed=0)  # the same content
    run_cells({**raw, "seeds": [0, 1]}, tmp_path / "run", workers=1)
    checkpoint_in(tmp_path, seed=1)
    with pytest.raises(WarmstartError, match=r"weights\.pt.*has changed since this run began.*--fresh") as caught:
        run_cells({**raw, "seeds": [0, 1, 2]}, tmp_path / "run", workers=1)
    assert "\n" not in str(caught.value)
    run_cells({**raw, "seeds": [0, 1, 2]}, tmp_path / "run", workers=1, fresh=True)


def test_an_absent_checkpoint_leaves_no_folder_behind(pretrain, tmp_path):
    with pytest.raises(WarmstartError, match=r"^scenario: stream\.checkpoint: there is no file .*absent\.pt$"):
        run_cells(from_file(pretrain, tmp_path / "absent.pt"), tmp_path / "run", workers=1)
    assert list(tmp_path.iterdir()) == []


# Classes that a subset loses.


@pytest.mark.parametrize("quiet", [False, True])
def test_lost_classes_are_said_on_stderr_unless_quiet_and_always_kept(pretrain, tmp_path, capsys, quiet):

    pretrain["vary"]["stream.fraction"] = [0.05]
    pretrain["seeds"] = [0, 1, 2, 3, 4, 5]
    launch.run_scenario(pretrain, "scenario", launch.RunOptions(out=tmp_path, quiet=quiet, device="cpu", workers=1))
    notes = json.loads((tmp_path / "environment.json").read_text())["notes"]
    assert len(notes) == 2 * 6
    assert notes[0].startswith("noisy_digits, seed 0: the 3 training samples of the first round lack ")
    said = [line for line in capsys.readouterr().err.splitlines() if "note" in line]
    shown = [f"warmstart-sim: note: {note}" for note in notes[:10]]
    assert said == ([] if quiet else [*shown, "warmstart-sim: note: 2 more notes are in the report"])
