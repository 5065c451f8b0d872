"""Rankings, by hand on made-up tables, and against published critical differences."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.analyses.conftest import stored_run
from tests.report.fake_runs import write_run
from warmstart_sim.analyses.ranking import ranking
from warmstart_sim.errors import WarmstartError
from warmstart_sim.report.analysis_tables import analysis_table
from warmstart_sim.report.ranking_plot import ranking_figures
from warmstart_sim.results.ranking import accuracy_at, critical_difference, groups_of, rank_arms, time_to
from warmstart_sim.results.tables import load


def rounds(cells: dict[tuple[str, int], list[tuple[float, float]]]) -> pd.DataFrame:
    """(arm, seed) -> the seconds and the accuracy of each round."""
    return pd.DataFrame(
        [
            {"strategy": arm, "seed": seed, "round": index, "seconds": seconds, "accuracy": accuracy}
            for (arm, seed), points in cells.items()
            for index, (seconds, accuracy) in enumerate(points)
        ]
    )


def made_up(shifts: dict[str, float], speeds: dict[str, float], seeds: int = 10) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return rounds(
        {
            (arm, seed): [
                (speeds[arm], accuracy + shift + rng.normal(0, 0.01)) for accuracy in (0.5, 0.6, 0.7)
            ]
            for arm, shift in shifts.items()
            for seed in range(seeds)
        }
    )  # fmt: skip


@given(
    st.lists(st.tuples(st.floats(0.1, 10), st.floats(0, 1)), min_size=1, max_size=6),
    st.floats(0, 1),
)
def test_the_time_to_an_accuracy_is_the_first_at_which_the_line_has_it(points, target):
    seconds, accuracy = np.cumsum([p for p, _ in points]), np.array([a for _, a in points])
    found = time_to(target, seconds, accuracy)
    if accuracy.max() < target:
        assert found == float("inf")
        return
    assert accuracy_at(found, seconds, accuracy) >= target - 1e-9
    for before in np.linspace(seconds[0], found, 50)[:-1] if found > seconds[0] else ():
        assert accuracy_at(before, seconds, accuracy) <= target + 1e-9


@pytest.mark.parametrize(("arms", "q"), [(2, 1.960), (5, 2.728), (10, 3.164)])
def test_critical_differences_are_those_of_the_table_in_demsar(arms, q):
    """Table 5a of Demšar 2006 prints q(0.05) of the two-tailed Nemenyi test."""
    assert critical_difference(arms, seeds=10) == pytest.approx(q * np.sqrt(arms * (arms + 1) / 60), abs=1e-3)


@given(st.lists(st.floats(1, 30), min_size=1, max_size=12), st.floats(0.1, 10))
def test_arms_share_a_letter_if_and_only_if_they_lie_within_the_critical_difference(ranks, difference):
    ranks = np.sort(ranks)
    letters = groups_of(ranks, difference)
    for one, other in itertools.combinations(range(len(ranks)), 2):
        assert bool(set(letters[one]) & set(letters[other])) == (ranks[other] <= ranks[one] + difference)


def test_a_gain_is_told_from_noise_by_a_paired_test_with_holms_correction():
    shifts = {"random_init": 0.0, "better": 0.05, "same": 0.0, "worse": -0.05}
    table = made_up(shifts, dict.fromkeys(shifts, 2.0))
    rows = {row["strategy"]: row for row in rank_arms(table, "random_init")}
    assert {arm: row["verdict"] for arm, row in rows.items()} == {
        "better": "gain", "random_init": "", "same": "noise", "worse": "loss",
    }  # fmt: skip
    assert [rows[arm]["rank"] for arm in ("better", "worse")] == [1, 4]
    last = table[table["round"] == 2].pivot(index="seed", columns="strategy", values="accuracy")
    for arm, row in rows.items():
        if arm == "random_init":
            continue
        test = stats.ttest_rel(last[arm], last["random_init"])
        assert row["difference"] == pytest.approx((last[arm] - last["random_init"]).mean())
        assert row["p_holm"] >= test.pvalue - 1e-9
        assert (row["difference_low"] > 0 or row["difference_high"] < 0) == (row["p_holm"] < 0.05)
    assert rows["same"]["p_holm"] == pytest.approx(stats.ttest_rel(last["same"], last["random_init"]).pvalue)
    expected = last.rank(axis=1, ascending=False).mean()
    assert {arm: row["mean_rank"] for arm, row in rows.items()} == pytest.approx(expected.to_dict())


def test_at_equal_time_a_slow_arm_is_judged_where_the_quick_one_ends():
    cells = {("random_init", seed): [(4.0, 0.4), (4.0, 0.8)] for seed in range(3)}
    cells |= {("quick", seed): [(2.0, 0.3), (4.0, 0.7)] for seed in range(3)}
    quick, slow = rank_arms(rounds(cells), "random_init")
    assert (quick["strategy"], quick["equal_seconds"], quick["equal_accuracy"]) == ("quick", 6.0, pytest.approx(0.7))
    assert (quick["accuracy"], slow["accuracy"]) == pytest.approx((0.7, 0.6))
    assert quick["time_ratio"] == pytest.approx(6.0 / 7.0)
    assert (quick["time_rank"], slow["time_rank"]) == (1, 2)
    fixed = {row["strategy"]: row for row in rank_arms(rounds(cells), "random_init", budget=8.0, target=0.75)}
    assert fixed["random_init"]["accuracy"] == pytest.approx(0.8)
    assert (fixed["quick"]["reached"], fixed["random_init"]["reached"]) == (0, 3)
    assert np.isnan(fixed["quick"]["time_ratio"])


def test_settings_are_ranked_one_by_one_and_failed_cells_left_out(tmp_path):
    folder = write_run(
        tmp_path / "run", seeds=4, vary={"training.batch_size": [16, 64]}, failed={("warm_start", 1): "diverged"}
    )
    rows = list(ranking(stored_run(folder)))
    assert [row["training_batch_size"] for row in rows] == [16] * 3 + [64] * 3
    assert {row["seeds"] for row in rows} == {3}
    for value in (16, 64):
        assert sorted(row["rank"] for row in rows if row["training_batch_size"] == value) == [1, 2, 3]


def test_a_cell_without_a_usable_time_has_that_of_its_steps_in_other_seeds(tmp_path):
    """One cell of warm start has an estimate far above what was measured, which is therefore not used."""
    cell = ("warm_start", 2)
    folder = write_run(tmp_path / "run", seeds=8, estimated=lambda cell: True)
    before = {row["strategy"]: row for row in ranking(stored_run(folder))}
    rounds = pd.read_csv(folder / "rounds.csv")
    mine = (rounds["strategy"] == cell[0]) & (rounds["seed"] == cell[1])
    rounds["estimated_isolated_seconds"] = rounds["estimated_isolated_seconds"].mask(mine, 1e6)
    rounds.to_csv(folder / "rounds.csv", index=False)
    after = {row["strategy"]: row for row in ranking(stored_run(folder))}
    assert {row["seeds"] for row in after.values()} == {8}
    others = rounds[(rounds["strategy"] == cell[0]) & ~mine]
    step = others["estimated_isolated_seconds"].sum() / others["steps"].sum()
    total = (others["estimated_isolated_seconds"].sum() + step * rounds.loc[mine, "steps"].sum()) / 8
    assert after["warm_start"]["equal_seconds"] == pytest.approx(total)
    assert before["warm_start"]["equal_seconds"] == pytest.approx(total, rel=0.1)


def test_an_arm_without_any_usable_time_has_the_measured_one(tmp_path):
    folder = write_run(
        tmp_path / "run",
        seeds=8,
        arms={f"arm{index}": {"start": "random_init"} for index in range(8)},
        estimated=lambda cell: True,
    )
    rounds = pd.read_csv(folder / "rounds.csv")
    mine = rounds["strategy"] == "arm3"
    rounds["estimated_isolated_seconds"] = rounds["estimated_isolated_seconds"].mask(mine, 1e6)
    rounds.to_csv(folder / "rounds.csv", index=False)
    rows = {row["strategy"]: row for row in ranking(stored_run(folder), seconds=1.0)}
    metric = load(folder).metric
    own = [np.interp(1.0, cell["train_seconds"].cumsum(), cell[metric]) for _, cell in rounds[mine].groupby("seed")]
    assert rows["arm3"]["accuracy"] == pytest.approx(np.mean(own))


def test_a_table_has_the_ends_of_intervals_in_brackets():
    rows = pd.DataFrame(
        {"strategy": ["a", "b"], "gap": [0.0123, 0.2], "gap_low": [0.01, np.nan], "gap_high": [0.5, np.nan]}
    )
    table, _ = analysis_table(rows, {"gap": "fraction", "gap_low": "fraction", "gap_high": "fraction"}, 10)
    assert (table.head, table.rows) == (["strategy", "gap"], [["a", "1.2 % [1.0, 50.0]"], ["b", "20.0 %"]])


def test_the_report_draws_each_setting_in_the_order_of_the_table(tmp_path):
    folder = write_run(tmp_path / "run", seeds=4, vary={"training.batch_size": [16, 64]})
    rows = pd.DataFrame(ranking(stored_run(folder)))
    rows.to_csv(folder / "ranking.csv", index=False)
    figures = list(ranking_figures(load(folder)))
    assert [figure.name for figure in figures] == ["ranking_1", "ranking_2"]
    for figure, (_, of_setting) in zip(figures, rows.groupby("training_batch_size"), strict=True):
        gain, _, time = figure.figure.axes
        labels = [label.get_text().partition(" (")[0].replace(" ", "_") for label in gain.get_yticklabels()]
        assert labels == list(of_setting["strategy"])
        drawn = [line.get_xdata()[0] for line in gain.lines if line.get_marker() == "o"]
        assert drawn == pytest.approx(100 * of_setting["difference"])
        assert [line.get_xdata()[0] for line in time.lines if line.get_marker() == "o"] == pytest.approx(
            of_setting["time_ratio"], nan_ok=True
        )


def test_an_arm_that_is_not_there_is_told(tmp_path):
    with pytest.raises(WarmstartError, match=r"^ranking.to: unknown arm 'random'"):
        list(ranking(stored_run(write_run(tmp_path / "run", seeds=2)), to="random"))
