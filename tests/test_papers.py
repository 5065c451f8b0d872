"""The list of the papers' rows with their runs, the page made from it, and the commands `papers` and `compare`."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from warmstart_sim import papers
from warmstart_sim import scenario as scenarios
from warmstart_sim.cli import app
from warmstart_sim.errors import WarmstartError
from warmstart_sim.published import PAPERS, paper_rows
from warmstart_sim.scenario.changes import changes, changes_from_paper

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
CLAIMS = ["warm_start below random_init", "train_seconds of warm_start below random_init"]


def copied(folder: Path, **scenario: object) -> Path:
    """A copy of a published run whose scenario says something else."""
    shutil.copytree(RESULTS / "digits_online", folder, ignore=shutil.ignore_patterns("figures", "*.html"))
    path = folder / "scenario.yaml"
    stored = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(stored | scenario, sort_keys=False), encoding="utf-8")
    return folder


def command(*arguments: object) -> str:
    """What a command prints."""
    result = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_every_row_of_the_papers_is_listed(tmp_path: Path):
    found = papers.reproductions(folders=[tmp_path])
    assert [each.row.name for each in found] == list(paper_rows())
    assert all(each.commands for each in found if each.row.paper in ("ash_adams", "kireev"))
    three = next(each for each in found if each.row.name == "A-T3")
    assert (len(three.scenarios), three.numbers) == (3, 24)
    (test,) = papers.ELSEWHERE["A-P1"]
    assert (ROOT / test.removeprefix("pytest ")).is_file()


@pytest.mark.parametrize(
    ("name", "count"), [("A-T1", 1), ("A", 39), ("kireev", 17), *((name, 0) for name in ("A-T99", "E", "Zaidi"))]
)
def test_rows_and_papers_by_name(name: str, count: int, tmp_path: Path):
    if count:
        assert len(papers.reproductions([name], [tmp_path])) == count
    else:
        with pytest.raises(WarmstartError, match=f"unknown row '{name}'"):
            papers.reproductions([name], [tmp_path])


def test_an_unknown_row_has_the_nearest():
    with pytest.raises(WarmstartError, match="did you mean 'zaidi'"):
        papers.reproductions(["zaidy"])


def test_runs_are_found_and_damaged_folders_skipped(tmp_path: Path):
    run = copied(tmp_path / "mine", reproduces=["A-T1", "A-F2"])
    rehearsal = copied(tmp_path / "group" / "tried", reproduces=["A-T1"])
    about = json.loads((rehearsal / "environment.json").read_text())
    (rehearsal / "environment.json").write_text(json.dumps({**about, "rehearsal": True}))
    copied(tmp_path / "other")
    for name, content in {
        "binary": b"\xff\xfe\x00", "list": b"[1, 2]", "empty": b"", "new": b"reproduces: [A-T1]",
        "odd": b"reproduces: 7",
    }.items():  # fmt: skip
        (tmp_path / name).mkdir()
        (tmp_path / name / "scenario.yaml").write_bytes(content)
    damaged = copied(tmp_path / "damaged", reproduces=["A-T1"])
    (damaged / "rounds.csv").write_text("scenario,strategy\n1,2\n")
    found = papers.find_runs([tmp_path, tmp_path / "missing"])
    assert {row: [each.folder for each in runs] for row, runs in found.items()} == {
        "A-T1": [run, rehearsal], "A-F2": [run],
    }  # fmt: skip
    assert [each.rehearsal for each in found["A-T1"]] == [False, True]
    assert (found["A-F2"][0].cells, found["A-F2"][0].agreement) == (30, "")
    assert any("data.name: " in change for change in found["A-F2"][0].changes)


def test_hours_count_a_shared_first_phase_once(tmp_path: Path):
    run = copied(tmp_path / "mine", reproduces=["A-T1"])
    rounds = pd.read_csv(run / "rounds.csv")
    rounds = rounds.assign(shared=rounds["round"] == 0, train_seconds=3600.0, criterion_seconds=0.0)
    rounds.to_csv(run / "rounds.csv", index=False)
    own, first = (rounds["round"] > 0).sum(), rounds.loc[rounds["round"] == 0, "seed"].nunique()
    assert papers.find_runs([tmp_path])["A-T1"][0].hours == pytest.approx(own + first)


def test_the_committed_page_names_every_row_and_every_command():
    page = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    for each in papers.reproductions(folders=[RESULTS]):
        line = re.search(rf"^\| {re.escape(each.row.name)} \| .*$", page, flags=re.MULTILINE)
        assert line, each.row.name
        assert each.row.title in line[0]
        assert [command for command in each.commands if f"`{command}`" not in line[0]] == []
        assert [run.folder.name for run in each.runs if run.folder.name not in line[0]] == []
    assert [title for title in PAPERS.values() if f"## {title}" not in page] == []


def test_a_page_shows_runs_with_what_differs_and_their_first_figures(tmp_path: Path):
    found = papers.reproductions(["A-F2"], [RESULTS])
    text = papers.page(found, lambda run: [(title, path.name) for title, path in papers.first_figures(run)])
    assert "![Accuracy as data arrive](learning_curves.svg)" in text
    assert "A-F2: 3 cells" in text
    assert "stream.rounds: 5 instead of all" in text
    assert "There is none yet." in papers.page(papers.reproductions(["A-P1"], [tmp_path]), lambda run: [])


def test_changes_are_lines_and_only_of_arms_that_both_have():
    before = {
        "name": "a", "data": {"name": "cifar10", "train_samples": None}, "stream": {"name": "online", "rounds": 5},
        "strategies": {"warm_start": {"start": "warm_start"}, "mine": {"lambda": 0.6}, "gone": {"lambda": 1}},
        "vary": {"model.width": [16, 64], "pair": {"x": {"model": "mlp"}, "y": {"model": "bilstm"}}},
        "model": {"name": "mlp", "units": 3}, "seeds": list(range(20)),
    }  # fmt: skip
    after = {
        "name": "b", "data": {"name": "cifar10", "train_samples": 10}, "stream": {"name": "online", "rounds": None},
        "strategies": {"warm_start": {"start": "warm_start"}, "mine": {"lambda": 0.3}, "new": {}},
        "vary": {"strategies.mine.lambda": [0.3, 0.4], "pair": {"x": {"model": "mlp"}}},
        "model": {"name": "mlp", "width": 16}, "seeds": [0], "claims": ["a below b"],
    }  # fmt: skip
    assert changes(before, after) == [
        "stream.rounds: all instead of 5",
        "strategies.mine.lambda: 0.3, 0.4 instead of 0.6",
        "seeds: 0 instead of 20 values",
        "pair: x instead of x, y",
        "data.train_samples: 10 instead of all",
    ]
    assert changes(before, before) == []
    assert changes_from_paper({"name": "mine", "reproduces": []}) == []


def test_the_commands_papers_and_compare(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = copied(tmp_path / "runs" / "mine", reproduces=["A-F2", "C-F10"], claims=CLAIMS)
    shown = command("compare", run)
    assert re.search(r"warm_start below random_init +holds +-1.9 points \[-2.5, -1.2\], 10 seeds", shown)
    assert re.search(r"C-F10 +random init +train accuracy \(%\) +100.0 +99.\d ± 0.\d +10 +[−-]0", shown)
    assert "Settings that differ: " in shown
    assert set(pd.read_csv(run / "comparison.csv")["row"]) == {"C-F10"}
    listed = command("papers", "A-F2", "A-T3", "C-F8", "--cost")
    assert re.search(r"runs/mine: 30 cells, 0.\d+ h; \d+ settings changed. \d numbers? ", listed)
    assert "       warmstart-sim run cifar10_online\n" in listed
    assert "24 published numbers; at most " in listed


def test_compare_with_another_run_and_claims_alone(tmp_path: Path):
    run = copied(tmp_path / "mine", claims=CLAIMS)
    shown = command("compare", run)
    assert "train_seconds of warm_start below random_init" in shown
    assert "published" not in shown
    stored = yaml.safe_load((run / "scenario.yaml").read_text(encoding="utf-8"))
    other = copied(tmp_path / "other", training={**stored["training"], "batch_size": 7})
    both = command("compare", run, "--to", other)
    assert re.search(r"warm start +test accuracy \(%\)", both)
    assert re.search(r"Settings that differ: training.batch_size: \d+ instead of 7.\n", both)
    assert not (run / "comparison.csv").exists()


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        ({}, r"names nothing that it reproduces; add `reproduces: \[A-T1\]`"),
        ({"rehearsal": True, "reproduces": ["A-T1"]}, "this run is a rehearsal"),
        ({"rehearsal": True, "claims": CLAIMS}, "this run is a rehearsal"),
        ({"claims": ["nonsense"]}, "claims: 'nonsense' is no claim"),
    ],
)
def test_what_compare_refuses(tmp_path: Path, scenario: dict[str, object], message: str):
    with pytest.raises(WarmstartError, match=message):
        CliRunner().invoke(app, ["compare", str(copied(tmp_path / "mine", **scenario))], catch_exceptions=False)


def test_a_row_that_no_paper_has_is_refused_with_the_nearest():
    raw = {"name": "mine", "data": "digits", "strategies": {"warm_start": {}}, "reproduces": ["A-T11"]}
    with pytest.raises(WarmstartError, match=r"mine: reproduces.0: no paper has 'A-T11'; did you mean 'A-T1'\?"):
        scenarios.plan(raw, "mine")
