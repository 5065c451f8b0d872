"""`warmstart-sim run SCENARIO --engine avalanche`: the same tables as our engine, and what it refuses."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from warmstart_sim import cli
from warmstart_sim.execution.status import StatusWriter
from warmstart_sim.results.columns import MEASURED


@pytest.fixture
def command(tmp_path, monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """Runs `warmstart-sim ARGUMENTS` in this process and an empty folder: (exit code, stderr). No report is written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(cli, "_report", lambda folder, track: None)

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["warmstart-sim", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, capsys.readouterr().err

    return run


@pytest.fixture
def scenario(tmp_path, tiny_scenario) -> Path:
    tiny_scenario["seeds"] = [0]
    tiny_scenario["model"] = {"name": "mlp", "widths": [10], "batch_norm": True}
    tiny_scenario["data"]["validation_fraction"] = 0.1
    tiny_scenario["training"]["until"] = {"train_accuracy": 0.8, "max_epochs": 12}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_scenario, sort_keys=False))
    return path


HERE = ["--quiet", "--device", "cpu"]


def tables(folder: Path) -> list[pd.DataFrame]:
    """Of the rounds and of the epochs, without what was measured."""
    read = [pd.read_csv(folder / name) for name in ("rounds.csv", "epochs.csv")]
    return [table.drop(columns=[*MEASURED], errors="ignore") for table in read]


def assert_same(one: Path, other: Path) -> None:
    for mine, theirs in zip(tables(one), tables(other), strict=True):
        assert len(mine)
        # The running loss is summed in float32 by one engine, and in float64 by the other.
        pd.testing.assert_frame_equal(mine, theirs, rtol=1e-5)


def test_its_tables_are_those_of_our_engine_but_for_the_seconds(command, scenario, tmp_path):
    assert command("run", scenario, *HERE, "--workers", 1) == (0, "")
    assert command("run", scenario, *HERE, "--workers", 1, "--engine", "avalanche") == (0, "")
    assert_same(tmp_path / "runs" / "tiny", tmp_path / "runs" / "tiny-avalanche")
    rounds = pd.read_csv(tmp_path / "runs" / "tiny-avalanche" / "rounds.csv")
    assert len(rounds) == 9
    assert (rounds["train_seconds"] > 0).all()
    assert rounds["epochs"].max() > 1


@pytest.mark.xdist_group("pool")
def test_workers_give_the_tables_of_one(command, scenario, tmp_path, quick_workers):
    arms = ["--strategies", "random_init,warm_start"]
    for workers in (1, 2):
        ended = command("run", scenario, *HERE, *arms, "--workers", workers, "--engine", "avalanche", "--out", workers)
        assert ended == (0, "")
    one, two = (tables(tmp_path / str(workers)) for workers in (1, 2))
    for mine, theirs in zip(one, two, strict=True):
        pd.testing.assert_frame_equal(*(each.drop(columns="timing", errors="ignore") for each in (mine, theirs)))


class Killed(BaseException):
    """As by a signal."""


def test_a_run_that_was_killed_after_a_round_and_started_again_gives_the_same_tables(
    command, scenario, tmp_path, monkeypatch
):
    options = [*HERE, "--strategies", "warm_start,shrink_perturb", "--workers", 1, "--engine", "avalanche"]
    assert command("run", scenario, *options, "--out", "through") == (0, "")
    for after in (2, 1, 2):
        ended: list[Any] = []

        def count_rounds(self, event, ended=ended, after=after):
            if event.progress and event.progress.round_row is not None:
                ended.append(event.progress.round)
            if len(ended) == after:
                raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(StatusWriter, "__call__", count_rounds)
            patched.setattr(sys, "argv", ["warmstart-sim", "run", str(scenario), *map(str, options), "--out", "killed"])
            with pytest.raises(Killed):
                cli.main()
        assert not (tmp_path / "killed" / "rounds.csv").exists()
    assert list(tmp_path.glob("killed/cells/*/checkpoint.pt"))
    assert command("run", scenario, *options, "--out", "killed") == (0, "")
    for mine, theirs in zip(tables(tmp_path / "through"), tables(tmp_path / "killed"), strict=True):
        pd.testing.assert_frame_equal(mine, theirs)


def test_another_engine_is_refused_in_the_same_folder(command, scenario, tmp_path):
    options = [*HERE, "--strategies", "warm_start", "--set", "stream.rounds=1", "--workers", 1, "--out", "here"]
    assert command("run", scenario, *options) == (0, "")
    code, said = command("run", scenario, *options, "--engine", "avalanche")
    assert code == 2
    assert said == (
        "warmstart-sim: error: --engine avalanche: here holds cells trained by engine 'native'; choose another --out\n"
    )
    assert command("run", scenario, *options, "--engine", "avalanche", "--fresh") == (0, "")
    assert "holds cells trained by engine 'avalanche'" in command("run", scenario, *options)[1]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            "--set 'strategies={careful: {start: warm_start, augment: [horizontal_flip]}}'",
            "--engine avalanche: strategy 'careful' has part 'augment'; that engine does starts, stop",
        ),
        ("--set training.precision=bf16", "--engine avalanche: strategy 'random_init' has precision: bf16; that"),
        ("--set training.compile=true", "--engine avalanche: strategy 'random_init' has compile: true; that engine"),
        (
            "--set 'training.schedule={name: reduce_on_plateau, patience: 5}' --set data.validation_fraction=0.3",
            "--engine avalanche: strategy 'random_init' has schedule reduce_on_plateau; that engine",
        ),
        (
            "--set training.optimizer_state=keep",
            "--engine avalanche: strategy 'random_init' has optimizer_state: keep; that engine",
        ),
        ("--set training.bucketing=4", "--engine avalanche: strategy 'random_init' has bucketing; that engine"),
        ("--set model=bilstm --set data=synthetic_text", "--engine avalanche: strategy 'random_init' has model"),
        ("--slots 2", "--engine avalanche: trains one cell at a time; leave --slots and --batching out"),
        ("--batching stacked", "--engine avalanche: trains one cell at a time; leave --slots and --batching out"),
        ("--engine lightning", "Invalid value for '--engine': "),
    ],
)  # fmt: skip
def test_what_it_cannot_do_is_one_line_and_leaves_no_folder(command, scenario, tmp_path, arguments, line):
    code, said = command("run", scenario, *HERE, "--engine", "avalanche", *shlex.split(arguments))
    assert code == 2
    assert said.startswith(f"warmstart-sim: error: {line}")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == [scenario]
