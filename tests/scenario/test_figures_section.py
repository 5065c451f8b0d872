"""Mistakes in `figures:` are found by the check of a scenario, as far as the columns are known before a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from warmstart_sim.errors import WarmstartError
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario.overrides import apply_overrides, prepare_scenario
from warmstart_sim.scenario.planning import plan
from warmstart_sim.scenario.resolved import resolved_scenario

VARIED = {"strategies.shrink_perturb.lambda": [0.5, 1.0], "training.optimizer.lr": [0.1, 0.01]}
MEASURED = {"each_epoch": ["gradient_norm"], "each_round": ["weight_norm"]}
CURVES = {"kind": "curves", "y": ["test_accuracy", "weight_norm_block2_at_start", "difference"]}
HEATMAP = {"kind": "heatmap", "rows": "lambda", "columns": "training.optimizer.lr"}


@pytest.fixture
def asking(edited: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def ask(*figures: Any, **changes: Any) -> dict[str, Any]:
        return {**edited(), "vary": VARIED, "measure": MEASURED, "figures": list(figures), **changes}

    return ask


@pytest.mark.parametrize(
    "figure",
    [
        CURVES,
        HEATMAP,
        {"kind": "curves", "x": "epoch", "y": "gradient_norm_old", "panels": ["strategy", "y"], "rounds": [1]},
        {"kind": "against", "x": "strategies.shrink_perturb.lambda", "where": {"training_optimizer_lr": 0.1}},
        {"kind": "scatter", "x": "train_seconds", "color": "training.optimizer.lr", "log": ["x"]},
        {"kind": "against", "x": "block", "y": "weight_norm_block*"},
        {"kind": "scatter", "x": "test_loss of random_init", "y": "test_loss"},
        {"kind": "scatter", "x": "anything", "table": "correlation", "panels": ["something"]},
        {"kind": "grid_curves", "rows": "lambda", "columns": "training_optimizer_lr", "title": "t", "caption": "c"},
    ],
)  # fmt: skip
def test_figures_over_columns_that_there_will_be_are_valid(asking: Callable[..., dict[str, Any]], figure: Any):
    raw = asking(figure)
    scenario, _ = plan(raw, "f.yaml")
    resolved = resolved_scenario(raw, scenario)
    assert resolved["figures"] == [figure]
    plan(resolved, "scenario.yaml")


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        ({}, "figures[0].kind: is missing (there are: curves, against, scatter, heatmap, grid_curves)"),
        ({"kind": "curve"}, "figures[0].kind: unknown kind 'curve'; did you mean 'curves'?"),
        ({"kind": "curves", "Y": "steps"}, "figures[0].Y: unknown key; did you mean 'y'?"),
        ({"kind": "curves", "x": "epochs"}, "figures[0].x: found 'epochs'; did you mean 'epoch'?"),
        ({"kind": "curves", "rounds": [-1]}, "figures[0].rounds[0]: found -1 (allowed: a whole number >= 0)"),
        ({"kind": "scatter"}, "figures[0].x: is missing"),
        (
            {"kind": "curves", "y": "test_acuracy"},
            "figures[0].y: unknown column of rounds.csv 'test_acuracy'; did you mean 'test_accuracy'?",
        ),
        ({"kind": "curves", "y": "status"}, "figures[0].y: unknown column of rounds.csv 'status'"),
        (
            {"kind": "curves", "y": "gradient_norm_old"},
            "figures[0].y: `gradient_norm_old` is measured by the probe `gradient_norm`; add it to `measure.each",
        ),
        (
            {"kind": "curves", "x": "epoch"},
            "figures[0].y: `test_accuracy` is not measured by epoch; add `measure: {each_epoch: [accuracy]}`",
        ),
        ({"kind": "scatter", "x": "steps of randominit"}, "figures[0].x: unknown strategy 'randominit'; did you mean"),
        ({"kind": "against", "x": "m", "y": "margin_q*"}, "figures[0].y: `margin_q*` is measured by the probe"),
        ({"kind": "against", "x": "sigma"}, "figures[0].x: unknown column of rounds.csv 'sigma'"),
        (
            {**HEATMAP, "rows": "sigma"},
            "figures[0].rows: unknown varied number 'sigma' (there are: lambda, training_optimizer_lr)",
        ),
        (
            {"kind": "curves", "where": {"lamda": 1}},
            "figures[0].where: unknown column of rounds.csv 'lamda'; did you mean 'lambda'?",
        ),
        (3, "figures[0]: found 3 (allowed: a mapping)"),
    ],
)  # fmt: skip
def test_mistakes_in_a_figure_are_one_line(asking: Callable[..., dict[str, Any]], figure: Any, message: str):
    with pytest.raises(WarmstartError) as caught:
        plan(asking(figure), "f.yaml")
    assert str(caught.value).startswith(f"f.yaml: {message}")
    assert "\n" not in str(caught.value)


def test_what_a_user_s_probe_measures_is_not_known(asking: Callable[..., dict[str, Any]]):
    plan(asking({"kind": "curves", "y": "sharpness"}, measure={"each_round": ["mine:probe"]}), "f.yaml")


def test_an_axis_that_is_replaced_takes_its_figures_along(asking: Callable[..., dict[str, Any]]):
    raw = asking(CURVES, HEATMAP)
    assert apply_overrides(raw, set=["training.optimizer.lr=0.3"])[0]["figures"] == [CURVES]
    assert apply_overrides(raw, set=["seeds=[3]"])[0]["figures"] == [CURVES, HEATMAP]
    assert prepare_scenario(raw, rehearse=True)[0]["figures"] == [CURVES, HEATMAP]


def test_another_figure_is_no_other_run(asking: Callable[..., dict[str, Any]], tmp_path: Path):
    first, second = asking(CURVES), asking(HEATMAP, standard_figures=False)
    (one, cells), (two, same_cells) = plan(first, ""), plan(second, "")
    assert [cell.digest for cell in cells] == [cell.digest for cell in same_cells]
    run = RunFolder(tmp_path / "run")
    run.open(resolved_scenario(first, one))
    (run.path / "cells" / "a").mkdir(parents=True)
    (run.path / "cells" / "a" / "result.json").write_text("{}")
    run.open(resolved_scenario(second, two))
    stored = run.scenario()
    assert stored is not None
    assert (stored["figures"], stored["standard_figures"]) == ([HEATMAP], False)
