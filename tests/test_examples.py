"""The scripts in examples/ run at a reduced size and produce the promised output."""

from __future__ import annotations

import importlib.util
import types
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def example(name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_own_strategy_prints_a_table_with_every_arm(tmp_path, capsys):
    example("own_strategy").main(seeds=[0], rounds=2, out=tmp_path / "run")
    printed = capsys.readouterr().out
    assert all(arm in printed for arm in ("random_init", "warm_start", "shrink_perturb", "renew_half"))
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.usefixtures("no_figures")
def test_own_model_and_data_prints_a_table_and_resumes(tmp_path, capsys):
    module = example("own_model_and_data")
    module.main(seeds=[0], rounds=2, runs=tmp_path)
    first = capsys.readouterr().out
    module.main(seeds=[0], rounds=2, runs=tmp_path)
    assert capsys.readouterr().out == first, "nothing was left to do, so not even a time is different"
    assert (tmp_path / "spirals" / "report.html").exists()


@pytest.mark.slow
def test_avalanche_plugin_prints_a_line_for_every_start_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example("avalanche_plugin").main(seeds=[0])
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[-5:] == ["test", "accuracy", "train", "seconds", "epochs"]
    assert [line[:32].strip() for line in lines] == ["random init", "warm start", "shrink and perturb"]
    for line in lines:
        accuracy, seconds, epochs = map(float, line[32:].split())
        assert 0.85 < accuracy < 1
        assert seconds > 0
        assert epochs >= 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_figures")
@pytest.mark.slow
def test_avalanche_benchmark_prints_a_table_and_the_streams_and_writes_only_its_run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example("avalanche_benchmark").main(seeds=[0], experiences=2, out=tmp_path / "run")
    printed = capsys.readouterr().out
    assert all(arm in printed for arm in ("random_init", "warm_start", "shrink_perturb"))
    assert "train: 12 experiences of [98, 100] samples\n" in printed
    assert "test: 1 experience of [2995] samples\n" in printed
    assert (tmp_path / "run" / "report.html").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_published_comparison_says_which_marks_of_table_3_differ_and_draws_the_tree(tmp_path, capsys):
    module = example("published_comparison")
    module.main(out=tmp_path / "tree.png")
    printed = capsys.readouterr().out
    assert "8 of 120 marks differ" in printed
    assert (tmp_path / "tree.png").stat().st_size > 10_000

    accuracies = module.published_accuracies()
    assert accuracies.shape == (144, 6)
    tests = module.compare_tests(accuracies).set_index(["model", "strategy", "versus"])
    for model in ("simple_cnn", "vgg16", "mobilenet", "resnet50"):
        assert tests.loc[(model, "layerwise", "baseline"), ["significance", "printed"]].tolist() == [2, 2]
        assert not tests.loc[model].xs("layerwise", level="versus")["significance"].any(), "nothing beats layerwise"

    complete = accuracies.dropna()
    tree = module.fit(module.designs(complete), complete)
    assert tree.children[1].rule == ("model.name is resnet50",), "the paper's exception is the first question"
    assert next(iter(tree.children[0].counts)) == "layerwise"
    large = [row for row in module.leaves(tree) if "is resnet50" in row["rule"] and "train_samples > " in row["rule"]]
    assert all(row["gini"] > 0.7 and "baseline" in row["arms"] for row in large), "most methods are as good there"


def test_when_and_how_gives_a_planner_the_costs_at_a_price():
    module = example("when_and_how")
    model = {"step": 0, "n_samples": 100, "training_cost": 4.0, "future_losses": {"0": 0.5, "1": 0.25}}
    expected = {(0, 100): {"training_cost": 2.0, "future_losses": {0: 0.5, 1: 0.25}}}
    assert module.state_costs({"num_steps": 2, "models": [model]}, price=0.5) == expected


def test_every_example_is_tested_here():
    tested = Path(__file__).read_text(encoding="utf-8")
    assert [path.stem for path in EXAMPLES.glob("*.py") if f'example("{path.stem}")' not in tested] == []
