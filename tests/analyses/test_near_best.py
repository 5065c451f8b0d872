"""The share of settings near the best, counted by hand on made-up tables."""

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.analyses.conftest import stored_run
from tests.report.fake_runs import write_run
from warmstart_sim.analyses.near_best import near_best
from warmstart_sim.errors import WarmstartError

LR, DECAY = "training_optimizer_lr", "training_optimizer_weight_decay"
VARY = {"training.optimizer.lr": [0.1, 0.01], "training.optimizer.weight_decay": [0, 0.001, 0.01]}
# Accuracies in points, by learning rate and weight decay; the seeds lie around them.
POINTS = {
    "random_init": [[60, 70, 69], [69.4, 50, 68.9]],
    "warm_start": [[60, 60, 60], [60, 59, 60]],
    "shrink_perturb": [[40, 41, 41.5], [39, 38, 45]],
}


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "run", "static", seeds=2, vary=VARY)


def with_points(folder, change=lambda rows: rows):
    """The run with the accuracies of `POINTS`."""
    rounds = pd.read_csv(folder / "rounds.csv")
    metric = yaml.safe_load((folder / "scenario.yaml").read_text())["metric"]
    lrs, decays = VARY["training.optimizer.lr"], VARY["training.optimizer.weight_decay"]
    rounds[metric] = [
        (POINTS[arm][lrs.index(lr)][decays.index(decay)] + 2 * seed - 1) / 100
        for arm, lr, decay, seed in rounds[["strategy", LR, DECAY, "seed"]].itertuples(index=False)
    ]
    change(rounds).to_csv(folder / "rounds.csv", index=False)
    return stored_run(folder)


def test_it_counts_settings_within_a_point_and_says_where_the_best_is(folder):
    found = {row["strategy"]: row for row in near_best(with_points(folder))}
    assert {arm: row["share"] for arm, row in found.items()} == {
        "random_init": 3 / 6, "warm_start": 1, "shrink_perturb": 1 / 6
    }  # fmt: skip
    assert all(row["settings"] == 6 for row in found.values())
    assert (found["random_init"][LR], found["random_init"][DECAY]) == (0.1, 0.001)
    assert (found["shrink_perturb"][LR], found["shrink_perturb"][DECAY]) == (0.01, 0.01)
    np.testing.assert_allclose([found["random_init"][name] for name in ("best", "worst")], [0.7, 0.5])


def test_a_wider_margin_counts_more_and_none_the_best_alone(folder):
    run = with_points(folder)
    shares = [next(near_best(run, margin=margin))["share"] for margin in (0, 1, 1.1, 10, 20)]
    assert shares == [1 / 6, 3 / 6, 4 / 6, 5 / 6, 1]


def test_other_keys_have_rows_of_their_own(folder):
    rows = list(near_best(with_points(folder), over=("training.optimizer.lr",)))
    assert len(rows) == 3 * 3
    assert [(row[DECAY], row[LR], row["share"]) for row in rows if row["strategy"] == "random_init"] == [
        (0, 0.01, 1 / 2), (0.001, 0.1, 1 / 2), (0.01, 0.1, 1)
    ]  # fmt: skip


def test_settings_that_fail_are_not_near_and_unfinished_ones_are_left_out(folder):
    def change(rows):
        at = {name: rows["strategy"].eq("random_init") & rows[LR].eq(0.1) & rows[DECAY].eq(d) for name, d in
              (("best", 0.001), ("near", 0.01))}  # fmt: skip
        rows.loc[at["best"] & rows["seed"].eq(1), "status"] = "diverged"
        rows["cell_complete"] = ~at["near"]
        return rows

    row = next(near_best(with_points(folder, change)))
    assert (row["settings"], row["share"], row["best"]) == (5, 2 / 5, pytest.approx(0.694))


def test_where_keys_are_tuned_all_settings_count(folder):
    with_points(folder)
    scenario = yaml.safe_load((folder / "scenario.yaml").read_text())
    rounds = pd.read_csv(folder / "rounds.csv")
    plain = list(near_best(stored_run(folder)))
    rounds.assign(validation_accuracy=rounds[scenario["metric"]]).to_csv(folder / "rounds.csv", index=False)
    scenario["data"]["validation_fraction"] = 0.2
    scenario["select"] = {"over": list(VARY), "by": "validation_accuracy"}
    (folder / "scenario.yaml").write_text(yaml.safe_dump(scenario, sort_keys=False))
    assert list(near_best(stored_run(folder))) == plain


@pytest.mark.parametrize(
    ("vary", "options", "message"),
    [
        (
            VARY,
            {"over": ("training.optimizer.lrr",)},
            r"^near_best.over: unknown varied key 'training.optimizer.lrr'; did",
        ),
        (None, {}, r"^near_best compares settings, and this run has one; vary a key"),
    ],
)
def test_mistakes_are_one_line(tmp_path, vary, options, message):
    with pytest.raises(WarmstartError, match=message):
        list(near_best(stored_run(write_run(tmp_path / "run", "static", seeds=1, vary=vary)), **options))
