"""Scripts that call `run` with several workers: unguarded, from standard input, with functions of their own."""

import os
import runpy
import subprocess
import sys
import types
from pathlib import Path

import pandas as pd
import pytest

from tests.execution.test_local import POOL, run_cells
from tests.forked import start_forked
from warmstart_sim import run
from warmstart_sim.errors import RunError, WarmstartError
from warmstart_sim.registry import STRATEGIES

SCRIPT = """
import math
from torch import nn
import warmstart_sim
from warmstart_sim.registry import STRATEGIES

print("the script runs")

@STRATEGIES.register("halved")
def halved(previous, fresh, context, *, factor: float = 0.5):
    return {name: factor * each if each.is_floating_point() else each for name, each in previous.items()}

def build(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), classes))

for workers in WORKERS:
    results = warmstart_sim.run(
        {"name": "own", "data": "digits", "stream": {"name": "online", "chunk_size": 100, "rounds": 2},
         "training": {"until": {"epochs": 1}}},
        model=build, strategies={"halved": {}, "fresh": lambda previous, fresh, context: dict(fresh)}, seeds=[0],
        workers=workers, out=f"out{workers}", device="cpu", quiet=True,
    )
    print(len(results.rounds), "rounds")
"""


def as_script(path: Path) -> None:
    os.chdir(path.parent)
    runpy.run_path(path.name, run_name="__main__")
    sys.stdout.flush()


@POOL
@pytest.mark.slow
def test_scripts_without_a_main_guard_run_once_and_give_the_numbers_of_one_worker(tmp_path, fork_server):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("WORKERS", "(1, 2)"))
    from_file = start_forked(fork_server, tmp_path / "process", as_script, script)
    assert from_file.communicate() == ("the script runs\n4 rounds\n4 rounds\n", "")
    # From standard input, with workers as users have them: spawned.
    (tmp_path / "fed").mkdir()
    fed = subprocess.run(
        [sys.executable, "-"], input=SCRIPT.replace("WORKERS", "(2,)"), cwd=tmp_path / "fed", capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (fed.stdout, fed.stderr) == ("the script runs\n4 rounds\n", "")
    columns = ["strategy", "round", "train_accuracy", "test_accuracy"]
    one, two, fed_two = (pd.read_csv(tmp_path / out / "rounds.csv")[columns] for out in ("out1", "out2", "fed/out2"))
    assert one.equals(two)
    assert one.equals(fed_two)


def ghost(previous, fresh, context):
    return fresh


@pytest.mark.usefixtures("quick_workers")
def test_a_worker_that_cannot_start_ends_the_run_in_one_line_with_its_own_reason(
    tiny_scenario, tmp_path, monkeypatch, capsys
):
    module = types.ModuleType("ghost_module")
    monkeypatch.setitem(sys.modules, "ghost_module", module)
    monkeypatch.setattr(module, "ghost", ghost, raising=False)
    monkeypatch.setattr(ghost, "__module__", "ghost_module")
    monkeypatch.setattr(STRATEGIES, "_targets", {**STRATEGIES._targets, "ghost": ghost})
    monkeypatch.setitem(STRATEGIES._traits, "ghost", frozenset())
    monkeypatch.setitem(STRATEGIES._details, "ghost", {})
    with pytest.raises(RunError) as caught:
        run_cells(tiny_scenario, tmp_path, workers=2)
    assert str(caught.value) == (
        "a worker process could not start (exit code 1: ModuleNotFoundError: No module named 'ghost_module'); "
        "with --workers 1, cells run in this process"
    )
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("quick_workers")
def test_an_object_that_cannot_be_sent_is_named_with_what_to_do(tiny_scenario, tmp_path):
    with (tmp_path / "open").open("w") as file:

        def mine(previous, fresh, context):
            file.write("a round")
            return fresh

        with pytest.raises(WarmstartError, match=r"mine, seed 0: cannot be sent .*; use one worker, or let"):
            run(tiny_scenario, strategies={"mine": mine}, out=tmp_path / "run", device="cpu", quiet=True, workers=2)
