"""Advice from end to end on small data: answer, files, resuming, interrupts, budgets that are too small."""

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from warmstart_sim.advise import advisor, play
from warmstart_sim.advise.play import CHECK_SEED
from warmstart_sim.cli import app
from warmstart_sim.errors import DataError, WarmstartError
from warmstart_sim.results.tables import load

TINY = {"minutes": 5.0, "rounds": 3, "workers": 1, "device": "cpu"}
QUICK = ["training.until={epochs: 2}", "training.batch_size=16"]


@pytest.fixture(scope="module")
def blobs(tmp_path_factory) -> Path:
    """Three overlapping classes in the plane."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, size=150)
    inputs = (generator.normal(size=(150, 2)) + labels[:, None]).astype(np.float32)
    path = tmp_path_factory.mktemp("blobs") / "blobs.npz"
    np.savez(path, x_train=inputs[:90], y_train=labels[:90], x_test=inputs[90:], y_test=labels[90:])
    return path


def ask(blobs: Path, folder: Path, **options):
    options = {**TINY, "set": QUICK, "out": folder / "advice", **options}
    return advisor.advise(str(blobs), options.pop("model", "logistic_regression"), **options)


@pytest.fixture(scope="module")
def advised(blobs, tmp_path_factory):
    """A complete advice without figures; tests do not change it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warmstart_sim.report.figures.draw_figures", lambda run, published: [])
        patch.setattr("warmstart_sim.advise.plan.ENOUGH", ((2, 3),))
        patch.setattr("warmstart_sim.advise.play.MOST_CHECKED", 3)
        return ask(blobs, tmp_path_factory.mktemp("advised"), every="week")


def test_the_answer_is_three_sentences_in_every_file(advised):
    assert len(advised.advice.sentences) == 3
    assert advised.advice.sentences[0].startswith("Start with ")
    stored = json.loads((advised.folder / "advice.json").read_text())
    assert tuple(stored["sentences"]) == advised.advice.sentences
    page = (advised.folder / "report.html").read_text()
    assert '<div class="finding">\n<p>Start with ' in page
    assert advised.code.splitlines()[0] in page
    links = re.findall(r'href="([^"#:]+)"', page)
    assert links
    assert [link for link in links if not (advised.folder / link).exists()] == []


def test_the_check_has_other_seeds_and_samples_than_choosing(advised):
    choosing, check = (load(next(advised.folder.glob(f"{name}_*"))) for name in ("choosing", "check"))
    assert choosing.scenario["data"]["samples"] == 60  # two rounds of thirty; the third is for the check alone
    assert choosing.scenario["data"]["held_out"] == 0.2
    assert set(choosing.rounds["round"]) == {0, 1}
    assert set(check.rounds["round"]) == {0, 1, 2}
    assert set(check.rounds["seed"]) == {CHECK_SEED, CHECK_SEED + 1, CHECK_SEED + 2}
    assert not set(choosing.rounds["seed"]) & set(check.rounds["seed"])
    assert {"random_init"} < set(check.rounds["strategy"])


def test_the_printed_numbers_are_those_of_the_checks_later_rounds(advised):
    rounds = load(next(advised.folder.glob("check_*"))).rounds
    last = rounds[rounds["round"] == 2].pivot_table("test_accuracy", "seed", "strategy", observed=True)
    difference = (last[advised.advice.checked.label] - last["random_init"]).mean()
    assert advised.advice.row["difference"] == pytest.approx(difference)


@pytest.mark.filterwarnings("ignore")  # of Avalanche's own imports
def test_the_snippets_run_as_they_are(advised, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = runpy.run_path(str(advised.folder / "start_pytorch.py"))
    assert isinstance(made["model"], torch.nn.Module)
    assert (tmp_path / "last.safetensors").exists()
    made = runpy.run_path(str(advised.folder / "start_avalanche.py"))
    assert made["strategy"].model is made["model"]


def test_the_same_call_trains_nothing_again(advised, blobs, monkeypatch, no_figures):
    before = {path: path.stat().st_mtime_ns for path in advised.folder.glob("*/cells/*/result.json")}
    monkeypatch.setattr("warmstart_sim.advise.play.MOST_CHECKED", 3)
    again = ask(blobs, advised.folder.parent, every="week")
    assert again.advice.sentences == advised.advice.sentences
    assert {path: path.stat().st_mtime_ns for path in advised.folder.glob("*/cells/*/result.json")} == before


def test_an_interrupt_ends_it_with_the_advice_so_far_and_the_same_call_goes_on(
    blobs, tmp_path, monkeypatch, no_figures
):
    monkeypatch.setattr("warmstart_sim.advise.plan.ENOUGH", ((2, 2),))
    monkeypatch.setattr("warmstart_sim.advise.play.MOST_CHECKED", 2)

    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(advisor, "check", interrupt)
        outcome = ask(blobs, tmp_path)
    assert outcome.interrupted
    assert outcome.advice.start == "random_init"
    assert "is not checked in later rounds" in outcome.advice.sentences[0]
    outcome = ask(blobs, tmp_path)
    assert not outcome.interrupted
    assert len(outcome.advice.sentences) == 3


def test_when_time_is_over_the_advice_rests_on_what_is_complete(blobs, tmp_path, monkeypatch, no_figures):
    monkeypatch.setattr("warmstart_sim.advise.plan.ENOUGH", ((2, 2),))
    played = play.Player.play
    monkeypatch.setattr(
        play.Player, "play",
        lambda self, name, raw, deadline: played(self, name, raw, deadline if name == "pilot" else 0.0),
    )  # fmt: skip
    outcome = ask(blobs, tmp_path)
    assert outcome.advice.sentences[0] == "Keep random init so far: nothing is shown yet."
    assert "Time was over before all stages of choosing were complete." in outcome.advice.tried


def test_a_budget_that_is_too_small_says_what_is_enough(blobs, tmp_path):
    with pytest.raises(WarmstartError, match=r"--minutes 0.001: too little.*give (--minutes 1\b|more minutes)"):
        ask(blobs, tmp_path, minutes=0.001, set=["training.until={epochs: 50}"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk": 80}, "--chunk 80: the 90 training samples are 1 round of that size; .*rounds asks for 3"),
        ({"model": "bilstm"}, "model|bilstm"),
        ({"model": "my_models:build"}, "cannot import my_models"),
        ({"arrival": "day"}, "unknown array 'day'"),
        ({"minutes": 0}, "--minutes 0: expected a number above 0"),
        ({"every": "fortnight"}, "--every fortnight: unknown interval"),
        ({"set": ["training.until={epoch: 2}"]}, "training.until.epoch"),
    ],
)
def test_bad_input_is_one_clear_line_before_anything_is_trained(blobs, tmp_path, options, message):
    with pytest.raises(WarmstartError, match=message):
        ask(blobs, tmp_path, **options)
    assert not list(tmp_path.glob("advice/*/cells"))


def test_one_class_is_refused(tmp_path):
    np.savez(tmp_path / "one.npz", x_train=np.ones((30, 2)), y_train=np.zeros(30, int))
    with pytest.raises(DataError, match=r"nothing to learn with 1 class|only one class"):
        ask(tmp_path / "one.npz", tmp_path)


def test_the_command_prints_the_answer_the_code_and_where_the_page_is(advised, monkeypatch):
    asked = {}

    def answer(*arguments, **options):
        asked.update(options, arguments=arguments)
        return advised

    monkeypatch.setattr(advisor, "advise", answer)
    words = ["advise", "photos", "--model", "mlp", "--minutes", "2", "--arrival", "mtime", "--set", "data.size=8"]
    printed = CliRunner().invoke(app, words)
    assert printed.exit_code == 0
    assert (asked["arguments"], asked["minutes"], asked["arrival"]) == (("photos", "mlp"), 2.0, "mtime")
    text = " ".join(printed.output.split())
    assert " ".join(" ".join(advised.advice.sentences).split()) in text
    assert advised.code in printed.output
    assert "report.html" in printed.output
