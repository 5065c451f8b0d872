"""`select:` names axes that there are, and needs validation data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from warmstart_sim import api
from warmstart_sim.errors import WarmstartError
from warmstart_sim.scenario.overrides import apply_overrides, prepare_scenario
from warmstart_sim.scenario.planning import plan
from warmstart_sim.scenario.resolved import resolved_scenario

VARIED = {"training.optimizer.lr": [0.1, 0.01], "training.batch_size": [32, 64]}


@pytest.fixture
def tuned(edited: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def make(**changes: Any) -> dict[str, Any]:
        raw = {**edited({"data.validation_fraction": 0.2}), "vary": VARIED}
        return {**raw, "select": {"over": ["training.optimizer.lr"]}, **changes}

    return make


def test_selecting_changes_no_cell(tuned: Callable[..., dict[str, Any]]):
    (scenario, cells), (_, plain) = plan(tuned(), ""), plan(tuned(select=None), "")
    assert [cell.id for cell in cells] == [cell.id for cell in plain]
    resolved = resolved_scenario(tuned(), scenario)
    assert resolved["select"] == {"over": ["training.optimizer.lr"], "by": "validation_accuracy"}
    plan(resolved, "scenario.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"select": {"over": ["training.optimizer.lrs"]}},
            "select.over[0]: unknown key of `vary` 'training.optimizer.lrs'; did you mean 'training.optimizer.lr'?",
        ),
        ({"select": {"over": []}}, "select.over: found [] (allowed: a list of one or more, each text)"),
        ({"select": {}}, "select.over: is missing"),
        ({"select": {"over": ["a"], "by": "test_accuracy"}}, "select.by: found 'test_accuracy'"),
        ({"data": "digits"}, "select: needs validation data; set data.validation_fraction above 0"),
    ],
)
def test_mistakes_are_one_line(tuned: Callable[..., dict[str, Any]], changes: dict[str, Any], message: str):
    with pytest.raises(WarmstartError) as caught:
        plan(tuned(**changes), "s.yaml")
    assert str(caught.value).startswith(f"s.yaml: {message}")


def test_an_axis_that_is_replaced_is_not_tuned(tuned: Callable[..., dict[str, Any]]):
    raw = tuned(select={"over": list(VARIED)})
    assert apply_overrides(raw, set=["training.optimizer.lr=1"])[0]["select"] == {"over": ["training.batch_size"]}
    both = [f"{key}=1" for key in VARIED]
    assert apply_overrides(raw, set=both)[0]["select"] is None
    small, _ = prepare_scenario(raw, rehearse=True)
    plan(small, "")


def test_a_run_marks_and_reports_what_it_chose(tuned: Callable[..., dict[str, Any]], tmp_path: Path):
    figures = [{"kind": "heatmap", "rows": "training.optimizer.lr", "columns": "training.batch_size"}]
    raw = tuned(
        select={"over": list(VARIED)}, figures=figures, standard_figures=False, seeds=[0], metric="test_accuracy",
        strategies={"random_init": {}, "warm_start": {}},
    )  # fmt: skip
    api.run(raw, out=tmp_path / "run", workers=1, quiet=True)
    rounds = pd.read_csv(tmp_path / "run" / "rounds.csv")
    last = rounds[rounds["round"] == rounds["round"].max()]
    best = last.groupby("strategy")["validation_accuracy"].max()
    assert last[last["selected"]].set_index("strategy")["validation_accuracy"].to_dict() == best.to_dict()
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Settings chosen for each arm" in page
    assert "learning rate and batch size" in page  # the heatmap shows all settings
    assert len(pd.read_csv(tmp_path / "run" / "summary.csv")) == 2
