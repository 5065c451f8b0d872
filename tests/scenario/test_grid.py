"""`warmstart-sim grid`: which cells it means, how ranges are read, and what is refused."""

from __future__ import annotations

import itertools
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import warmstart_sim
from warmstart_sim import Dataset, Samples, cli
from warmstart_sim import scenario as scenarios
from warmstart_sim.errors import WarmstartError
from warmstart_sim.scenario.grid import assignments, numbers, prepare_grid

Edited = Callable[..., dict[str, Any]]


def cells(raw: dict[str, Any]) -> list[tuple[Any, ...]]:
    """(arm, lambda, sigma, seed) of each cell."""
    planned = scenarios.plan(raw, "trial")[1]
    return [(cell.arm.label, cell.varied.get("lambda"), cell.varied.get("sigma"), cell.seed) for cell in planned]


def test_every_lambda_meets_every_sigma_beside_random_init(edited: Edited):
    raw, _ = prepare_grid(edited(), lam=[0, 0.5, 1], sigma="0,1e-4,1")
    grid = {("shrink_perturb", *each) for each in itertools.product([0, 0.5, 1], [0, 1e-4, 1], [0, 1])}
    assert set(cells(raw)) == grid | {("random_init", None, None, 0), ("random_init", None, None, 1)}
    assert len(cells(raw)) == 20
    assert raw["name"] == "trial-grid"


def test_an_arm_keeps_its_label_and_its_other_options(edited: Edited):
    gentle = {"start": "shrink_perturb", "sigma": 0.3, "buffers": "fresh", "augment": ["rotation"]}
    raw, _ = prepare_grid({**edited(), "strategies": {"gentle": gentle, "warm_start": {}}}, lam=[0, 1])
    assert list(raw["strategies"]) == ["random_init", "gentle"]
    assert raw["strategies"]["gentle"] == gentle
    assert raw["vary"] == {"strategies.gentle.lambda": [0, 1]}


@pytest.mark.parametrize("arms", [{"warm_start": {}}, {"mine": "warm_start"}])
def test_what_is_missing_is_added(edited: Edited, arms: dict[str, Any]):
    raw, _ = prepare_grid({**edited(), "strategies": arms}, sigma=[0, 1])
    assert list(raw["strategies"]) == ["random_init", "shrink_perturb"]


def test_other_arms_run_where_they_are_named(edited: Edited):
    raw, _ = prepare_grid(edited(), lam=[0, 1], strategies=["mine", "warm_start"])
    assert list(raw["strategies"]) == ["random_init", "mine", "warm_start", "shrink_perturb"]
    assert raw["strategies"]["mine"] == edited()["strategies"]["mine"]


def test_of_several_arms_the_named_one_is_varied(edited: Edited):
    arms = {**edited()["strategies"], "gentle": {"start": "shrink_perturb", "lambda": 0.9}}
    raw, _ = prepare_grid({**edited(), "strategies": arms}, sigma=[0, 1], strategies=["gentle"])
    assert list(raw["strategies"]) == ["random_init", "gentle"]
    assert list(raw["vary"]) == ["strategies.gentle.sigma"]


def test_the_file_s_own_axes_stay_but_for_those_that_are_given_and_those_of_arms_left_out(edited: Edited):
    vary = {
        "strategies.shrink_perturb.lambda": [0.1, 0.2],
        "strategies.mine.augment": [["rotation"], ["random_crop"]],
        "training.batch_size": [16, 32],
        "training.optimizer.lr": [0.1],
    }
    raw, _ = prepare_grid(edited({"vary": vary}), lam=[0, 1], vary={"training.optimizer.lr": [0.01, 0.001]})
    assert raw["vary"] == {
        "strategies.shrink_perturb.lambda": [0, 1],
        "training.optimizer.lr": [0.01, 0.001],
        "training.batch_size": [16, 32],
    }


def test_a_rehearsal_has_the_ends_of_each_axis(edited: Edited):
    raw, _ = prepare_grid(edited(), lam="0:1:0.1", sigma="0,1e-3,1", rehearse=True)
    assert raw["name"] == "trial-grid-rehearsal"
    ends = set(itertools.product([0, 1], [0, 1]))
    assert {(lam, sigma) for arm, lam, sigma, _ in cells(raw) if arm == "shrink_perturb"} == ends
    assert {arm for arm, *_ in cells(raw)} == {"random_init", "shrink_perturb"}


# How values are read.


@given(st.integers(-30, 30), st.integers(1, 60), st.integers(1, 40), st.integers(0, 4), st.booleans())
def test_a_range_has_every_step_and_both_ends_without_rounding(
    start: int, step: int, count: int, digits: int, down: bool
):
    """Against whole numbers, of which the decimal point is moved in text."""
    step = -step if down else step
    whole = [start + step * index for index in range(count + 1)]

    def decimal(number: int) -> str:
        return f"{number}e-{digits}"

    text = f"{decimal(start)}:{decimal(whole[-1])}:{decimal(step)}"
    assert numbers(text, "--lambda") == [float(decimal(number)) for number in whole]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, unique=True))
def test_a_list_is_read_as_it_is(values: list[float]):
    assert numbers(",".join(map(repr, values)), "--sigma") == values


def test_decimal_steps_show_no_rounding():
    assert numbers("0:1:0.2", "--lambda") == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert numbers("1:0:-0.5", "--lambda") == [1, 0.5, 0]
    assert numbers("0.3:0.3:1", "--lambda") == [0.3]


def test_values_of_other_settings_are_yaml():
    found = assignments(["a.b=1e-3, 2", "data.name=cifar10,svhn", "c.d=[1, 2],[3]", "e.f=true,false", "g.h=1:3:1"])
    assert found == {
        "a.b": [0.001, 2], "data.name": ["cifar10", "svhn"], "c.d": [[1, 2], [3]], "e.f": [True, False],
        "g.h": [1.0, 2.0, 3.0],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("", "a grid needs at least one of --lambda, --sigma and --vary"),
        ("--lambda a", "--lambda 'a': expected START:STOP:STEP or values with commas, such as 0:1:0.2"),
        ("--lambda 0:1", "--lambda '0:1': expected START:STOP:STEP"),
        ("--lambda 0,,1", "--lambda '0,,1': expected START:STOP:STEP"),
        ("--sigma nan", "--sigma 'nan': expected START:STOP:STEP"),
        ("--sigma 0:inf:1", "--sigma '0:inf:1': expected START:STOP:STEP"),
        ("--lambda 0:1:0.3", "--lambda '0:1:0.3': steps of 0.3 from 0 pass over 1, the last is 0.9"),
        ("--lambda 0:1:0", "--lambda '0:1:0': steps of 0 from 0 never come to 1"),
        ("--lambda 0:1:-0.1", "--lambda '0:1:-0.1': steps of -0.1 from 0 never come to 1"),
        ("--lambda 0:1:1e-9", "--lambda '0:1:1e-9': means more than 10,000 values"),
        ("--lambda 0,0.0", "--lambda: 0.0 is there twice; each value must be given once"),
        ("--lambda 0,2", "--lambda: trial.yaml (vary strategies.shrink_perturb.lambda: 2.0): strategies.shrink"),
        ("--sigma=-1,0", "--sigma: trial.yaml (vary strategies.shrink_perturb.sigma: -1.0): strategies.shrink"),
        ("--vary x", "--vary x: expected KEY=V1,V2, such as training.optimizer.lr=0.01,0.001"),
        ("--vary x=", "--vary x=: expected KEY=V1,V2"),
        ("--vary a.b=[", "--vary a.b=[: line 1"),
        ("--vary a.b=1 --vary a.b=2", "--vary a.b=2: a.b is given twice"),
        ("--vary training.batch_size=8,8", "--vary training.batch_size: 8 is there twice"),
        ("--vary training.batch=8", "trial.yaml (vary training.batch: 8): training.batch: unknown key"),
        ("--vary seeds=1,2", "trial.yaml: vary.seeds: expected the dotted key of a setting"),
        ("--lambda 0,1 --vary strategies.shrink_perturb.lambda=0", "--vary strategies.shrink_perturb.lambda: is va"),
        ("--lambda 0,1 --strategies warm_strt", "--strategies: unknown strategy 'warm_strt'; did you mean"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_option(
    edited: Edited, tmp_path: Path, monkeypatch: Any, capsys: Any, arguments: str, line: str
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("trial.yaml").write_text(yaml.safe_dump(edited(), sort_keys=False), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["warmstart-sim", "grid", "trial.yaml", *shlex.split(arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.err.startswith(f"warmstart-sim: error: {line}")
    assert (said.err.count("\n"), said.out) == (1, "")
    assert [path.name for path in tmp_path.iterdir()] == ["trial.yaml"]


def test_values_from_python_are_values(edited: Edited):
    for wrong in (3, {"a": 1}, [], ["high"]):
        with pytest.raises(WarmstartError, match="--lambda: "):
            prepare_grid(edited(), lam=wrong)  # type: ignore[arg-type]


# Runs.


def own_model(input_shape, classes):
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(input_shape)), 8), nn.ReLU(), nn.Linear(8, classes))


def test_a_grid_of_own_arrays_and_an_own_model_has_its_corners_and_its_report(tmp_path: Path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 160)
    inputs = (rng.normal(size=(3, 5))[labels] * 3 + rng.normal(size=(160, 5))).astype(np.float32)
    data = Dataset("blobs", Samples(inputs[:120], labels[:120]), Samples(inputs[120:], labels[120:]), classes=3)
    scenario = {
        "name": "mine", "data": "digits", "stream": {"name": "online", "chunk_size": 40},
        "training": {"batch_size": 16, "until": {"train_accuracy": 0.9, "max_epochs": 20}},
        "strategies": {"random_init": {}, "warm_start": {}}, "seeds": [0, 1],
    }  # fmt: skip
    results = warmstart_sim.grid(
        scenario, lam=[0, 1], sigma="0,1", data=data, model=own_model, strategies=["warm_start"],
        out=tmp_path / "run", quiet=True, device="cpu",
    )  # fmt: skip
    assert results.axes == ("lambda", "sigma")
    rounds = results.rounds.astype({"strategy": str})
    columns = ["seed", "round", "test_accuracy", "test_loss", "steps"]

    def of(strategy: str, lam: float | None = None, sigma: float | None = None) -> pd.DataFrame:
        rows = rounds[rounds["strategy"] == strategy]
        rows = rows if lam is None else rows[(rows["lambda"] == lam) & (rows["sigma"] == sigma)]
        return rows[columns].reset_index(drop=True)

    pd.testing.assert_frame_equal(of("shrink_perturb", 0, 1), of("random_init"), check_exact=True)
    pd.testing.assert_frame_equal(of("shrink_perturb", 1, 0), of("warm_start"), check_exact=True)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Final accuracy by λ and σ" in page
    assert "The most accurate is λ = " in page


def test_the_command_line_and_python_mean_the_same_run(tmp_path: Path, tiny_scenario: Any, monkeypatch: Any):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    tiny_scenario["stream"]["rounds"] = 1
    Path("tiny.yaml").write_text(yaml.safe_dump(tiny_scenario, sort_keys=False), encoding="utf-8")
    command = "grid tiny.yaml --lambda 0:1:1 --sigma 1 --vary training.batch_size=16,32 --seeds 0 --workers 1 --quiet"
    monkeypatch.setattr(sys, "argv", ["warmstart-sim", *shlex.split(command), "--device", "cpu"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    vary = {"training.batch_size": [16, 32]}
    warmstart_sim.grid(
        "tiny.yaml", lam=[0.0, 1.0], sigma=[1.0], vary=vary, seeds=[0], out="other", quiet=True, device="cpu"
    )
    ours, theirs = (yaml.safe_load(Path(path, "scenario.yaml").read_text()) for path in ("runs/tiny-grid", "other"))
    assert ours == theirs
    names = [sorted(path.name for path in Path(folder, "cells").iterdir()) for folder in ("runs/tiny-grid", "other")]
    assert names[0] == names[1]
    assert len(names[0]) == 2 * (1 + 2)
