"""The decision tree that predicts the best method, on tables whose best rule is known."""

import itertools
from html import escape

import numpy as np
import pandas as pd
import pytest

from tests.analyses.conftest import stored_run
from tests.report.fake_runs import write_run
from warmstart_sim import report
from warmstart_sim.analyses._settings import final_accuracies
from warmstart_sim.analyses.decision_tree import decision_tree, designs
from warmstart_sim.report.decision_tree import draw
from warmstart_sim.report.style import to_svg
from warmstart_sim.results.decision_tree import fit, leaves, tree_of

DESIGNS = pd.DataFrame(
    itertools.product(["cnn", "resnet"], ["no", "yes"], [10, 100, 1000, 10_000]),
    columns=["model", "augment", "train_samples"],
)


def accuracies(best: list[str]) -> pd.DataFrame:
    methods = ["warm", "fresh", "mixed"]
    return pd.DataFrame([[float(name == method) for method in methods] for name in best], columns=methods)


def test_it_finds_the_rule_that_made_the_table():
    big, resnet = DESIGNS["train_samples"] > 100, DESIGNS["model"] == "resnet"
    best = np.select([resnet & big, resnet], ["mixed", "fresh"], "warm").tolist()
    tree = fit(DESIGNS, accuracies(best), leaf=1)
    assert [(row["rule"], row["strategy"], row["best"], row["gini"]) for row in leaves(tree)] == [
        ("model is not resnet", "warm", 8, 0),
        ("model is resnet and train_samples <= 550", "fresh", 4, 0),
        ("model is resnet and train_samples > 550", "mixed", 4, 0),
    ]
    svg = to_svg(draw(tree, ["warm", "fresh", "mixed"]))
    assert all(words in svg for words in ("model is resnet", "train_samples &gt; 550", "mixed 4 of 4"))


def test_its_leaves_tell_the_whole_tree():
    designs = DESIGNS.assign(augment=DESIGNS["augment"].replace("yes", "crop and flip"))
    best = np.where(designs["augment"] != "no", "mixed, slowly", designs["model"]).tolist()
    accuracies = pd.DataFrame([{arm: float(arm == name) for arm in dict.fromkeys(best)} for name in best])
    for settings in (accuracies, accuracies.assign(cnn=1.0)):
        tree = fit(designs, settings, leaf=3)
        assert tree.children
        assert tree_of(leaves(tree)) == tree
    alone = fit(designs, accuracies, leaf=16)
    assert not alone.children
    assert tree_of(leaves(alone)) == alone


def test_depth_and_leaf_limit_it():
    best = ["warm", "fresh"] * 8
    assert all(row["best"] >= 7 for row in leaves(fit(DESIGNS, accuracies(best), leaf=7)))
    assert len(list(leaves(fit(DESIGNS, accuracies(best), depth=2, leaf=1)))) <= 4
    (row,) = leaves(fit(DESIGNS.iloc[:, :0], accuracies(best)))
    assert (row["rule"], row["best"], row["share"], row["gini"]) == ("always", 16, 0.5, 0.5)


def test_a_tie_counts_once_for_each_of_the_best():
    table = accuracies(["warm"] * 16)
    table.loc[:3, "mixed"] = 1.0
    (row,) = leaves(fit(DESIGNS, table, leaf=16))
    assert (row["best"], row["arms"]) == (20, "warm 16, mixed 4")


def test_of_a_run_it_has_rules_in_varied_values_and_a_picture(tmp_path):
    vary = {"stream.fraction": [0.2, 0.8], "training.batch_size": [32, 64]}
    run = stored_run(write_run(tmp_path / "run", "split", seeds=1, vary=vary))
    rows = list(decision_tree(run, leaf=1))
    assert sum(row["best"] for row in rows) == 4
    assert all(row["strategy"] in run.tables.scenario["strategies"] for row in rows)
    assert all(row["share"] == pytest.approx(int(row["arms"].split()[1].strip(",")) / row["best"]) for row in rows)
    words = " ".join(row["rule"] for row in rows)
    assert "stream_fraction" in words or "training_batch_size" in words or "always" in words
    pd.DataFrame(rows).to_csv(tmp_path / "run" / "decision_tree.csv", index=False)
    page = report.write(tmp_path / "run").read_text()
    assert (tmp_path / "run" / "figures" / "decision_tree.png").stat().st_size > 1000
    assert '<a href="figures/decision_tree.svg">' in page
    tables = page[page.index("<h2>Analyses</h2>") :]
    assert all(f"<td>{escape(row['rule'])}</td>" in tables for row in rows)


def test_sizes_take_the_place_of_a_data_sets_name(tmp_path):
    vary = {"data.name": ["cifar10", "cifar100"], "training.batch_size": [32, 64]}
    tables = stored_run(write_run(tmp_path / "run", "split", seeds=1, vary=vary)).tables
    features = designs(tables, final_accuracies(tables).droplevel("seed"))
    assert features["classes"].tolist() == [10, 10, 100, 100]
    assert set(features) <= {"classes", "train_samples", "training_batch_size"}
