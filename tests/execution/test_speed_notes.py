"""What `check` and a run's first lines say about `precision` and `compile` on this machine."""

from __future__ import annotations

import pytest

from warmstart_sim import scenario as scenarios
from warmstart_sim.execution import speed_notes
from warmstart_sim.execution.speed_notes import check_notes
from warmstart_sim.scenario.overrides import prepare_scenario


def cells(*settings: str):
    raw, where = prepare_scenario("digits_online", set=settings, seeds=[0])
    return scenarios.plan(raw, where)[1]


@pytest.fixture(autouse=True)
def machine(monkeypatch) -> None:
    monkeypatch.setattr(speed_notes, "cpp_compiler", lambda: "g++")
    monkeypatch.setattr(speed_notes, "bf16_instructions", lambda: "AMX")


def test_a_plain_scenario_needs_no_notes():
    assert check_notes(cells(), 1000) == []


@pytest.mark.parametrize(("found", "words"), [("AMX", "has AMX, so"), ("", "float32 is faster on it"), (None, None)])
def test_bf16_depends_on_the_processor(monkeypatch, found, words):
    monkeypatch.setattr(speed_notes, "bf16_instructions", lambda: found)
    notes = check_notes(cells("training.precision=bf16"), 1000)
    assert len(notes) == (words is not None)
    assert all(words in note for note in notes)
    assert check_notes(cells("training.later_rounds={precision: bf16}"), 1000) == notes
    assert list(speed_notes.speed_notes(cells("training.precision=bf16"), "cuda:0")) == []


def test_compiling_is_for_cpus_without_texts_and_stacks():
    on = cells("training.compile=true")
    assert list(speed_notes.speed_notes(on, "cpu")) == []
    (cuda,) = speed_notes.speed_notes(on, "cuda:0")
    assert "it is for CPUs and changes nothing here" in cuda
    (stacked,) = speed_notes.speed_notes(on, "cpu", slots=True)
    assert "not stacked" in stacked
    (texts,) = speed_notes.speed_notes(cells("training.compile=true", "model=bilstm", "data=synthetic_text"), "cpu")
    assert "texts are not compiled" in texts


def test_check_recommends_compiling_for_long_runs_of_models_that_gain(monkeypatch):
    least = speed_notes.LONG_RUN // 64  # 8x8 pixels
    (note,) = check_notes(cells(), least)
    assert "`--set training.compile=true`" in note
    assert check_notes(cells(), least - 1) == []
    assert check_notes(cells("model=mlp"), least) == []
    assert check_notes(cells("training.compile=true"), least) == []
    monkeypatch.setattr(speed_notes, "cpp_compiler", lambda: None)
    assert check_notes(cells(), least) == []
    (note,) = check_notes(cells("training.compile=true"), 1)
    assert "no C++ compiler" in note
