"""Summaries against scipy's own statistics, and what may and may not enter a mean."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from warmstart_sim.errors import WarmstartError
from warmstart_sim.results.columns import column_of
from warmstart_sim.results.statistics import cells, summary
from warmstart_sim.results.tables import Run, bundles, load, missing_cells, write_summary

METRIC = "test_accuracy"
PUBLISHED = Path(__file__).resolve().parents[2] / "results"


def cell(
    strategy: str, seed: int, accuracies: list[float], seconds: list[float] | None = None, **other: Any
) -> list[dict[str, Any]]:
    """The rows of one cell; `other` are columns, a list where they differ by round."""
    rows = []
    for index, accuracy in enumerate(accuracies):
        row = {
            "scenario": "s", "strategy": strategy, "seed": seed, "round": index, "shared": False, METRIC: accuracy,
            "epochs": 3, "steps": 30, "samples_seen": 300, "flops": 1e6, "criterion_seconds": 0.1,
            "converged": True, "status": "converged", "timing": "isolated",
            "train_seconds": seconds[index] if seconds else 1.0,
        }  # fmt: skip
        rows.append(row | {key: each[index] if isinstance(each, list) else each for key, each in other.items()})
    return rows


def table(*cells: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame([row for rows in cells for row in rows])


def two_arms(a: list[float], b: list[float], seconds_b: list[float] | None = None) -> pd.DataFrame:
    """Random init ends at `a[seed]`, warm start at `b[seed]`, both after a first round at 0.3."""
    seconds_b = seconds_b or [0.5] * len(b)
    return table(
        *(cell("random_init", seed, [0.3, each]) for seed, each in enumerate(a)),
        *(
            cell("warm_start", seed, [0.3, each], [s / 2, s / 2])
            for seed, (each, s) in enumerate(zip(b, seconds_b, strict=True))
        ),
    )


def row(result: pd.DataFrame, strategy: str, **values: Any) -> pd.Series:
    chosen = result[result["strategy"] == strategy]
    for column, wanted in values.items():
        chosen = chosen[chosen[column] == wanted]
    assert len(chosen) == 1
    return chosen.iloc[0]


A, B, SECONDS = [0.71, 0.74, 0.70, 0.73], [0.66, 0.70, 0.68, 0.65], [0.5, 0.6, 0.4, 0.55]


def test_means_and_intervals_are_those_of_scipy():
    warm = row(summary(two_arms(A, B, SECONDS), [], METRIC, "random_init"), "warm_start")
    low, high = stats.t.interval(0.95, 3, loc=np.mean(B), scale=stats.sem(B))
    assert warm["seeds"] == 4
    assert warm["final_accuracy"] == pytest.approx(np.mean(B))
    assert warm["final_accuracy_std"] == pytest.approx(np.std(B, ddof=1))
    assert (warm["final_accuracy_low"], warm["final_accuracy_high"]) == pytest.approx((low, high))
    assert warm["curve_accuracy"] == pytest.approx((0.3 + np.mean(B)) / 2)
    assert warm["train_seconds"] == pytest.approx(np.mean(SECONDS))
    assert (warm["epochs"], warm["steps"], warm["converged_share"], warm["timing"]) == (6, 60, 1, "isolated")


def test_limits_of_seconds_are_positive_and_those_of_the_logarithm():
    seconds = [1.0, 9.0, 1.0, 1.0]  # a t-interval reaches from -3.4 to 9.4
    warm = row(summary(two_arms(A, B, seconds), [], METRIC, "random_init"), "warm_start")
    mean, error = np.mean(seconds), stats.sem(seconds)
    low, high = stats.t.interval(0.95, 3, loc=np.log(mean), scale=error / mean)  # the delta method
    assert (warm["compared_seconds_low"], warm["compared_seconds_high"]) == pytest.approx((np.exp(low), np.exp(high)))
    assert 0 < warm["compared_seconds_low"] < warm["compared_seconds"] < warm["compared_seconds_high"]


def test_a_summary_says_what_it_is_about(tmp_path: Path):
    run = load(write(tmp_path, two_arms(A, B), ["random_init", "warm_start"]))
    for found in run.summary().to_dict("records"):
        assert (found["scenario"], found["metric"], found["reference"]) == ("s", METRIC, "random_init")
        assert (found["samples_seen"], found["flops"], found["criterion_seconds"]) == (600, 2e6, pytest.approx(0.2))
    assert list(run.summary()["timed_pairs"]) == [0, 4]


def test_differences_are_a_paired_t_test():
    warm = row(summary(two_arms(A, B), [], METRIC, "random_init"), "warm_start")
    expected = stats.ttest_rel(B, A)
    low, high = expected.confidence_interval(0.95)
    assert warm["pairs"] == 4
    assert warm["difference"] == pytest.approx(np.mean(np.subtract(B, A)))
    assert (warm["difference_low"], warm["difference_high"]) == pytest.approx((low, high))
    assert warm["difference_p"] == pytest.approx(expected.pvalue)
    assert warm["curve_difference"] == pytest.approx(np.mean(np.subtract(B, A)) / 2)


def test_time_ratio_is_the_geometric_mean_of_ratios_within_a_seed():
    warm = row(summary(two_arms(A, B, SECONDS), [], METRIC, "random_init"), "warm_start")
    logs = np.log(np.array(SECONDS) / 2.0)
    low, high = stats.t.interval(0.95, 3, loc=logs.mean(), scale=stats.sem(logs))
    assert warm["time_ratio"] == pytest.approx(stats.gmean(np.array(SECONDS) / 2.0))
    assert (warm["time_ratio_low"], warm["time_ratio_high"]) == pytest.approx((np.exp(low), np.exp(high)))


def test_the_reference_is_not_compared_with_itself():
    reference = row(summary(two_arms(A, B), [], METRIC, "random_init"), "random_init")
    assert reference["pairs"] == 0
    assert reference[["difference", "difference_low", "difference_p", "time_ratio"]].isna().all()


accuracies = st.lists(st.floats(0.1, 0.9), min_size=2, max_size=5)


@settings(max_examples=5)
@given(accuracies, st.floats(-0.1, 0.1))
def test_shifting_an_arm_shifts_its_difference_and_keeps_the_width(values: list[float], shift: float):
    before, after = (
        row(summary(two_arms((A + A)[: len(values)], [v + s for v in values]), [], METRIC, "random_init"), "warm_start")
        for s in (0.0, shift)
    )
    assert after["difference"] - before["difference"] == pytest.approx(shift, abs=1e-9)
    widths = [each["difference_high"] - each["difference_low"] for each in (before, after)]
    assert widths[0] == pytest.approx(widths[1], abs=1e-9)


@settings(max_examples=5)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(random: Any):
    rounds = two_arms(A, B, SECONDS)
    order = list(range(len(rounds)))
    random.shuffle(order)
    expected, found = (summary(each, [], METRIC, "random_init") for each in (rounds, rounds.iloc[order]))
    pd.testing.assert_frame_equal(expected, found, check_exact=True)


@settings(max_examples=5)
@given(st.floats(0.01, 100))
def test_slowing_an_arm_multiplies_its_ratio(factor: float):
    before, after = (
        row(summary(two_arms(A, B, [f * s for s in SECONDS]), [], METRIC, "random_init"), "warm_start")
        for f in (1.0, factor)
    )
    for column in ("time_ratio", "time_ratio_low", "time_ratio_high"):
        assert after[column] == pytest.approx(factor * before[column])


def test_one_seed_has_values_but_no_interval():
    warm = row(summary(two_arms(A[:1], B[:1]), [], METRIC, "random_init"), "warm_start")
    assert warm["difference"] == pytest.approx(B[0] - A[0])
    assert warm["time_ratio"] == pytest.approx(0.25)
    empty = [c for c in warm.index if c.endswith(("_low", "_high", "_std", "_p"))]
    assert len(empty) > 8
    assert warm[empty].isna().all()


def test_the_same_difference_in_every_seed_has_no_interval():
    warm = row(summary(two_arms([0.5, 0.75], [0.25, 0.5]), [], METRIC, "random_init"), "warm_start")
    assert (warm["difference"], warm["difference_std"]) == (-0.25, 0)
    ends = ("low", "high", "p", "low_holm", "high_holm", "p_holm")
    assert warm[[f"difference_{end}" for end in ends]].isna().all()


def test_adjusted_intervals_agree_with_adjusted_p_values():
    rng = np.random.default_rng(0)
    rounds = table(
        *(cell("random_init", seed, [0.5 + rng.normal(0, 0.01)]) for seed in range(4)),
        *(
            cell(f"arm{k}", seed, [0.5 + 0.004 * k + rng.normal(0, 0.01)])
            for k in range(10)
            for seed in range(4)
        ),
    )  # fmt: skip
    found = summary(rounds, [], METRIC, "random_init").dropna(subset="difference_p")
    rejected = found["difference_p_holm"] <= 0.05
    assert 0 < rejected.sum() < (found["difference_p"] <= 0.05).sum()
    outside = (found["difference_low_holm"] > 0) | (found["difference_high_holm"] < 0)
    assert list(outside) == list(rejected)
    assert (found["difference_high_holm"] >= found["difference_high"]).all()


def test_estimates_above_what_was_measured_are_not_compared():
    def beside(arm: str, seed: int, estimate: float) -> list[dict[str, Any]]:
        return cell(arm, seed, [0.5], [2.0], timing="concurrent", estimated_isolated_seconds=estimate)

    sound = [beside(arm, seed, 1.0) for arm in ("random_init", "warm_start") for seed in range(5)]
    one = summary(table(*sound[:-1], beside("warm_start", 4, 2.2)), [], METRIC, "random_init")
    warm = row(one, "warm_start")
    assert (warm["timing"], warm["compared_seconds"], warm["pairs"], warm["timed_pairs"]) == ("estimated", 1.0, 5, 4)
    many = table(*sound[:7], *(beside("warm_start", seed, 2.2) for seed in (2, 3, 4)))
    assert set(summary(many, [], METRIC, "random_init")["timing"]) == {"concurrent"}
    assert row(summary(many, [], METRIC, "random_init"), "warm_start")["time_ratio"] == 1


def test_the_best_of_many_arms_beside_one_reference_shares_their_deviation():
    values = {0: [0.70, 0.72], 1: [0.71, 0.71], 2: [0.69, 0.74]}
    rounds = table(
        *(cell("random_init", seed, [0.7], **{"lambda": np.nan}) for seed in range(2)),
        *(cell("shrink", seed, [each], **{"lambda": k}) for k, of in values.items() for seed, each in enumerate(of)),
    )
    found = summary(rounds, ["lambda"], METRIC, "random_init").dropna(subset="difference")
    expected = np.mean([np.var(of, ddof=1) for of in values.values()]) ** 0.5
    np.testing.assert_allclose(found["difference_bound_std"], expected)
    assert (found["difference_bound"] < found["difference"]).all()


def test_equal_arms_have_a_zero_interval_and_no_p_value():
    warm = row(summary(two_arms(A, A), [], METRIC, "random_init"), "warm_start")
    assert (warm["difference"], warm["difference_low"], warm["difference_high"]) == (0, 0, 0)
    assert np.isnan(warm["difference_p"])


@settings(max_examples=8)
@given(st.permutations([32 / 36, 32 / 36, 33 / 36, 31 / 36, 0.7]), st.permutations(range(5)))
def test_arms_with_the_same_accuracies_in_another_order_have_the_same_mean(accuracies: list[float], order: list[int]):
    other = [accuracies[index] for index in order]
    found = summary(two_arms(accuracies, other), [], METRIC, "random_init")
    assert found["final_accuracy"].nunique() == 1
    assert row(found, "warm_start")["difference"] == 0


def test_shared_rounds_are_reported_apart():
    shared = [True, False]
    rounds = table(
        *(cell("random_init", seed, [0.5, A[seed]], [7.0, 2.0], shared=shared) for seed in range(2)),
        *(cell("warm_start", seed, [0.5, B[seed]], [7.0, 1.0], shared=shared) for seed in range(2)),
    )
    warm = row(summary(rounds, [], METRIC, "random_init"), "warm_start")
    assert (warm["first_phase_seconds"], warm["train_seconds"], warm["epochs"]) == (7, 1, 3)
    assert warm["curve_accuracy"] == warm["final_accuracy"]
    assert warm["time_ratio"] == pytest.approx(0.5)


@pytest.mark.parametrize("status", ["diverged", "gave_up"])
def test_failed_cells_are_counted_and_enter_no_mean(status: str):
    nan = float("nan") if status == "diverged" else 0.1
    rounds = table(
        *(cell("random_init", seed, [0.3, A[seed]]) for seed in range(4)),
        *(cell("warm_start", seed, [0.3, B[seed]]) for seed in range(3)),
        cell("warm_start", 3, [0.3, nan], status=["converged", status]),
    )
    warm = row(summary(rounds, [], METRIC, "random_init"), "warm_start")
    assert (warm["seeds"], warm[status], warm["pairs"]) == (3, 1, 3)
    assert warm["final_accuracy"] == pytest.approx(np.mean(B[:3]))
    assert warm["difference"] == pytest.approx(np.mean(np.subtract(B[:3], A[:3])))


def test_a_cell_that_is_not_at_the_last_round_is_unfinished():
    rounds = table(
        *(cell("random_init", seed, [0.3, A[seed]]) for seed in range(2)),
        cell("warm_start", 0, [0.3, B[0]]),
        cell("warm_start", 1, [0.9]),
    )
    warm = row(summary(rounds, [], METRIC, "random_init"), "warm_start")
    assert (warm["seeds"], warm["unfinished"], warm["pairs"]) == (1, 1, 1)
    assert warm["final_accuracy"] == B[0]


def test_arms_may_have_different_numbers_of_rounds_where_the_table_says_what_is_complete():
    """As in a stream of stages, where an arm has a number of its own."""
    whole = table(*(cell("random_init", seed, [A[seed]]) for seed in range(2)), cell("warm_start", 0, [0.3, B[0]]))
    begun = table(cell("warm_start", 1, [0.9]))
    rounds = pd.concat([whole.assign(cell_complete=True), begun.assign(cell_complete=False)], ignore_index=True)
    found = summary(rounds, [], METRIC, "random_init")
    assert list(found[["seeds", "unfinished"]].itertuples(index=False, name=None)) == [(2, 0), (1, 1)]
    assert row(found, "warm_start")["difference"] == pytest.approx(B[0] - A[0])


def test_cells_of_different_lengths_are_complete_where_their_setting_has_other_rounds():
    rounds = table(
        cell("random_init", 0, [0.3, 0.4], **{"stream.chunk_size": 500}),
        cell("random_init", 0, [0.3, 0.4, 0.5, 0.6], **{"stream.chunk_size": 250}),
    )
    result = summary(rounds, ["stream.chunk_size"], METRIC, "random_init")
    assert list(result["unfinished"]) == [0, 0]


def test_an_axis_that_the_reference_lacks_pairs_by_seed_alone():
    rounds = table(
        *(cell("random_init", seed, [A[seed]], **{"lambda": np.nan}) for seed in range(3)),
        *(
            cell("shrink_perturb", seed, [A[seed] + gain], **{"lambda": lam})
            for seed in range(3)
            for lam, gain in ((0.2, 0.01), (0.8, -0.03))
        ),
    )
    result = summary(rounds, ["lambda"], METRIC, "random_init")
    assert list(result["strategy"]) == ["random_init", "shrink_perturb", "shrink_perturb"]
    assert row(result, "shrink_perturb", **{"lambda": 0.2})["difference"] == pytest.approx(0.01)
    assert row(result, "shrink_perturb", **{"lambda": 0.8})["difference"] == pytest.approx(-0.03)


def test_an_axis_that_the_reference_has_pairs_within_its_values():
    rounds = table(
        *(
            cell(arm, seed, [A[seed] + gain], **{"stream.fraction": fraction})
            for seed in range(3)
            for fraction, base in ((0.1, 0.0), (0.5, 0.1))
            for arm, gain in (("random_init", base), ("warm_start", base - fraction))
        )
    )
    result = summary(rounds, ["stream.fraction"], METRIC, "random_init")
    for fraction in (0.1, 0.5):
        warm = row(result, "warm_start", **{"stream.fraction": fraction})
        assert (warm["pairs"], warm["difference"]) == (3, pytest.approx(-fraction))


def test_times_that_were_not_measured_alike_give_no_ratio():
    rounds = table(
        cell("random_init", 0, [0.5, 0.7], timing="isolated"),
        cell("random_init", 1, [0.5, 0.7], timing="isolated"),
        cell("warm_start", 0, [0.5, 0.6], timing="concurrent"),
        cell("warm_start", 1, [0.5, 0.6], timing=["isolated", "concurrent"]),
    )
    warm = row(summary(rounds, [], METRIC, "random_init"), "warm_start")
    assert (warm["timing"], warm["pairs"]) == ("mixed", 2)
    assert np.isnan(warm["time_ratio"])


def in_kind(kind: str) -> dict[str, Any]:
    """The columns that make a round's seconds isolated, estimated (as 0.2 s) or concurrent."""
    return {
        "timing": "isolated" if kind == "isolated" else "concurrent",
        "estimated_isolated_seconds": 0.2 if kind == "estimated" else None,
    }


def test_rounds_beside_other_cells_count_with_their_estimates():
    rounds = table(
        *(
            cell(arm, seed, [0.5, A[seed]], [9.0, 7.0], timing="concurrent", estimated_isolated_seconds=estimates)
            for arm, of_seeds in (("random_init", [[1.0, 3.0], [2.0, 4.0]]), ("warm_start", [[1.0, 1.0], [0.5, 1.0]]))
            for seed, estimates in enumerate(of_seeds)
        )
    )
    result = summary(rounds, [], METRIC, "random_init")
    random, warm = row(result, "random_init"), row(result, "warm_start")
    assert (random["compared_seconds"], warm["compared_seconds"]) == (5, 1.75)
    assert warm["compared_seconds_std"] == pytest.approx(np.std([2.0, 1.5], ddof=1))
    assert (random["train_seconds"], warm["train_seconds"]) == (16, 16)
    assert warm["time_ratio"] == pytest.approx(stats.gmean([2.0 / 4.0, 1.5 / 6.0]))
    assert set(result["timing"]) == {"estimated"}


KINDS = ["isolated", "estimated", "concurrent"]


@pytest.mark.parametrize("of_random", KINDS)
@pytest.mark.parametrize("of_warm", KINDS)
def test_a_ratio_is_of_seconds_of_one_kind(of_random: str, of_warm: str):
    rounds = table(
        cell("random_init", 0, [0.7], [4.0], **in_kind(of_random)),
        cell("warm_start", 0, [0.6], [1.0], **in_kind(of_warm)),
    )
    warm = row(summary(rounds, [], METRIC, "random_init"), "warm_start")
    assert warm["timing"] == of_warm
    expected = {"isolated": 0.25, "estimated": 1.0, "concurrent": 0.25}[of_warm] if of_warm == of_random else np.nan
    assert warm["time_ratio"] == pytest.approx(expected, nan_ok=True)


one_round = st.tuples(
    st.sampled_from(["isolated", "concurrent"]), st.floats(0.1, 9), st.one_of(st.none(), st.floats(0.1, 9))
)


@settings(max_examples=40)
@given(st.lists(one_round, min_size=1, max_size=4))
def test_a_cell_s_kind_is_the_one_of_its_rounds_or_mixed(rows: list[tuple[str, float, float | None]]):
    timing, seconds, estimates = map(list, zip(*rows, strict=True))
    several = cell(
        "random_init", 0, [0.5] * len(rows), seconds, timing=timing, estimated_isolated_seconds=estimates
    )  # fmt: skip
    (found,) = cells(table(several), [], METRIC).to_dict("records")
    counted, kinds = [], set()
    beside = [(measured, estimate) for how, measured, estimate in rows if how == "concurrent" and estimate is not None]
    impossible = sum(estimate for _, estimate in beside) > 1.05 * sum(measured for measured, _ in beside)
    for how, measured, estimate in rows:
        if how == "concurrent" and estimate is not None and not impossible:
            counted.append(estimate)
            kinds.add("estimated")
        else:
            counted.append(measured)
            kinds.add(how)
    assert found["compared_seconds"] == pytest.approx(sum(counted))
    assert found["train_seconds"] == pytest.approx(sum(seconds))
    assert found["timing"] == (kinds.pop() if len(kinds) == 1 else "mixed")


@pytest.mark.parametrize(("first", "seconds"), [("isolated", 7), ("estimated", 0.2), ("concurrent", 7)])
def test_a_first_phase_has_a_kind_of_its_own(first: str, seconds: float):
    own = in_kind("estimated")
    both = {key: [value, own[key]] for key, value in in_kind(first).items()}
    rounds = table(cell("random_init", 0, [0.5, 0.7], [7.0, 2.0], shared=[True, False], **both))
    random = row(summary(rounds, [], METRIC, "random_init"), "random_init")
    assert (random["first_phase_seconds"], random["first_phase_timing"]) == (seconds, first)
    assert (random["compared_seconds"], random["timing"]) == (0.2, "estimated")


def test_without_a_first_phase_it_has_no_kind():
    assert summary(two_arms(A, B), [], METRIC, "random_init")["first_phase_timing"].isna().all()


def test_a_reference_without_cells_leaves_differences_empty():
    rounds = table(cell("warm_start", 0, [0.5, 0.6]))
    warm = row(summary(rounds, [], METRIC, "random_init"), "warm_start")
    assert (warm["final_accuracy"], warm["pairs"]) == (0.6, 0)
    assert np.isnan(warm["difference"])


def a_run(arms: dict[str, Any], rounds: pd.DataFrame | None = None, axes: tuple[str, ...] = (), **scenario: Any) -> Run:
    rounds = rounds if rounds is not None else table(cell("random_init", 0, [0.5]))
    return Run({"strategies": arms, "metric": METRIC, **scenario}, {}, rounds, rounds, axes, {})


@pytest.mark.parametrize(
    ("arms", "expected"),
    [
        ({"warm_start": {"start": "warm_start"}, "scratch": {"start": "random_init"}}, "scratch"),
        ({"augmented": {"start": "random_init", "augment": ["flip"]}, "plain": {"start": "random_init"}}, "plain"),
        ({"warm_start": {"start": "warm_start"}, "random_init": {}}, "random_init"),
        ({"warm_start": {"start": "warm_start"}, "shrink": {"start": "shrink_perturb"}}, "warm_start"),
    ],
)
def test_the_reference_is_the_plainest_random_init_else_the_first_arm(arms: dict[str, Any], expected: str):
    assert a_run(arms).reference == expected


def test_missing_cells_are_those_of_the_scenario_without_rows():
    vary = {"strategies.shrink.lambda": [1, 0.5], "data.name": ["a", "b"]}
    rounds = table(
        *(cell("random_init", 0, [0.5], **{"lambda": np.nan, "data.name": data}) for data in ("a", "b")),
        *(cell("shrink", 0, [0.5], **{"lambda": lam, "data.name": "a"}) for lam in (1.0, 0.5)),
        cell("shrink", 0, [0.5], **{"lambda": 0.5, "data.name": "b"}),
    )
    run = a_run(
        {"random_init": {}, "shrink": {}},
        rounds.rename(columns=column_of),
        ("lambda", "data_name"),
        seeds=[0, 1],
        vary=vary,
    )
    absent = missing_cells(run)
    assert {"strategy": "shrink", "lambda": 1, "data_name": "b", "seed": 0} in absent
    assert len(absent) == 1 + 2 + 4  # one cell of seed 0, all of seed 1
    assert {"strategy": "random_init", "data_name": "b", "seed": 1} in absent


def write(folder: Path, rounds: pd.DataFrame, arms: list[str]) -> Path:
    scenario = {"name": "s", "strategies": {arm: {"start": arm} for arm in arms}, "seeds": [0, 1], "metric": METRIC}
    (folder / "scenario.yaml").write_text(yaml.safe_dump(scenario, sort_keys=False))
    (folder / "environment.json").write_text(json.dumps({"rehearsal": False}))
    rounds.to_csv(folder / "rounds.csv", index=False)
    rounds.to_csv(folder / "epochs.csv", index=False)
    return folder


def test_load_keeps_the_scenario_s_order_of_arms_and_finds_the_axes(tmp_path: Path):
    columns = ["scenario", "strategy", "seed", "lambda", "data.name", "round", "shared", METRIC]
    rounds = table(
        cell("warm_start", 0, [0.5], **{"lambda": np.nan, "data.name": "None"}),
        cell("random_init", 0, [0.5], **{"lambda": 0.5, "data.name": "NA"}),
    )
    rest = [column for column in rounds.columns if column not in columns]
    run = load(write(tmp_path, rounds[columns + rest], ["warm_start", "random_init"]))
    assert run.axes == ("lambda", "data_name")
    assert list(run.summary()["strategy"].astype(str)) == ["warm_start", "random_init"]
    assert list(run.rounds["data_name"]) == ["None", "NA"]  # names, not missing values


LABELS = ["1.0", "01", "nan", "", "A, B to C", 'the "old" set', "日本 → 世界", "None", " blank "]


def bundled(seeds: int = 2, arms: tuple[str, ...] = ("random_init", "warm_start")) -> pd.DataFrame:
    """Complete cells of a bundle of awkward labels and a fraction, as rounds.csv has them."""
    rounds = table(
        *(
            cell(arm, seed, [A[seed] + gain * fraction], **{"pair": label, "stream.fraction": fraction})
            for arm, gain in zip(arms, (0.0, -0.1), strict=False)
            for label in LABELS
            for fraction in (0.1, 1.0)
            for seed in range(seeds)
        )
    )
    first = ["scenario", "strategy", "seed", "pair", "stream.fraction", "round"]
    return rounds[[*first, *(column for column in rounds.columns if column not in first)]]


def write_bundled(folder: Path, rounds: pd.DataFrame) -> Path:
    write(folder, rounds, ["random_init", "warm_start"])
    scenario = yaml.safe_load((folder / "scenario.yaml").read_text())
    scenario["vary"] = {"pair": {label: {"data.name": "a"} for label in LABELS}, "stream.fraction": [0.1, 1.0]}
    (folder / "scenario.yaml").write_text(
        yaml.safe_dump(scenario, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    return folder


def test_labels_of_a_bundle_come_back_as_they_were_and_in_their_order(tmp_path: Path):
    run = load(write_bundled(tmp_path, bundled()))
    assert run.axes == ("pair", "stream_fraction")
    assert list(run.rounds["pair"].unique()) == LABELS
    result = run.summary()
    assert list(result[result["strategy"] == "warm_start"]["pair"]) == [label for label in LABELS for _ in range(2)]
    write_summary(tmp_path)
    again = pd.read_csv(tmp_path / "summary.csv", keep_default_na=False, dtype=str)
    assert list(again["pair"]) == list(result["pair"])


def test_cells_are_paired_within_a_label(tmp_path: Path):
    result = load(write_bundled(tmp_path, bundled())).summary()
    for label in LABELS:
        for fraction in (0.1, 1.0):
            warm = row(result, "warm_start", pair=label, stream_fraction=fraction)
            assert (warm["pairs"], warm["difference"]) == (2, pytest.approx(-0.1 * fraction))


def test_missing_cells_of_a_bundle_are_those_of_its_labels(tmp_path: Path):
    rounds = bundled()
    assert missing_cells(load(write_bundled(tmp_path, rounds))) == []
    gone = (rounds["pair"] == "1.0") & (rounds["seed"] == 1) & (rounds["strategy"] == "warm_start")
    absent = missing_cells(load(write_bundled(tmp_path, rounds[~gone])))
    assert absent == [
        {"strategy": "warm_start", "pair": "1.0", "stream_fraction": fraction, "seed": 1} for fraction in (0.1, 1.0)
    ]


def test_arms_named_by_numbers_stay_text(tmp_path: Path):
    run = load(write(tmp_path, table(cell("01", 0, [0.5]), cell("nan", 0, [0.6])), ["nan", "01"]))
    assert list(run.summary()["strategy"]) == ["nan", "01"]


@pytest.mark.parametrize("stream", [{"name": "pretrain", "head": "keep"}, {"name": "split", "fraction": 0.5}])
def test_a_run_is_pretrained_where_something_becomes_of_a_head(stream: dict[str, Any]):
    assert a_run({"random_init": {}}, stream=stream).pretrained == (stream["name"] == "pretrain")


def test_write_summary_writes_what_summary_says(tmp_path: Path):
    write(tmp_path, two_arms(A, B), ["random_init", "warm_start"])
    written = write_summary(tmp_path)
    read = pd.read_csv(tmp_path / "summary.csv")
    pd.testing.assert_frame_equal(read, written.astype({"strategy": str}), check_dtype=False)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_run_without_a_finished_cell_has_an_empty_summary(tmp_path: Path):
    write(tmp_path, two_arms(A, B).head(0), ["random_init", "warm_start"])
    assert write_summary(tmp_path).empty
    assert len(missing_cells(load(tmp_path))) == 4


def test_a_table_of_an_earlier_version_has_no_estimates_and_its_shared_seconds_are_concurrent(tmp_path: Path):
    rounds = two_arms(A, B).assign(timing="concurrent")
    assert "estimated_isolated_seconds" not in rounds
    old, new = (tmp_path / name for name in ("old", "new"))
    for folder, written in (
        (old, rounds.assign(timing="shared")),
        (new, rounds.assign(estimated_isolated_seconds=None)),
    ):
        folder.mkdir()
        write(folder, written, ["random_init", "warm_start"])
    pd.testing.assert_frame_equal(load(old).rounds, load(new).rounds)
    assert load(old).rounds["estimated_isolated_seconds"].isna().all()
    assert set(load(old).summary()["timing"]) == {"concurrent"}


def test_summaries_of_published_runs_are_what_was_published():
    folders = [path.parent for path in PUBLISHED.glob("*/rounds.csv")]
    assert folders
    for folder in folders:
        run = load(folder)
        labels = dict.fromkeys(bundles(run.scenario), str)  # of bundles, text even if it looks like a number
        published, now = pd.read_csv(folder / "summary.csv", dtype=labels), run.summary()
        columns = [*published.select_dtypes("number"), "timing"]
        assert {"final_accuracy", "difference_bound", "compared_seconds", "time_ratio"} <= {*columns}
        pd.testing.assert_frame_equal(now[columns], published[columns], check_dtype=False)


def test_a_packed_table_is_read_as_it_is(tmp_path: Path):
    source = min(path.parent for path in PUBLISHED.glob("*/epochs.csv"))
    shutil.copytree(source, tmp_path / "run")
    plain = load(tmp_path / "run")
    content = (tmp_path / "run" / "epochs.csv").read_bytes()
    (tmp_path / "run" / "epochs.csv").unlink()
    (tmp_path / "run" / "epochs.csv.gz").write_bytes(gzip.compress(content))
    pickled = load(tmp_path / "run")
    pd.testing.assert_frame_equal(pickled.epochs, plain.epochs)


def test_recorded_errors_are_read(tmp_path: Path):
    write(tmp_path, two_arms(A, B), ["random_init", "warm_start"])
    (tmp_path / "cells" / "warm_start-seed1").mkdir(parents=True)
    (tmp_path / "cells" / "warm_start-seed1" / "error.json").write_text(json.dumps({"reason": "out of memory"}))
    assert load(tmp_path).failures == {"warm_start-seed1": "out of memory"}


@pytest.mark.parametrize("name", ["scenario.yaml", "environment.json", "rounds.csv", "epochs.csv"])
def test_a_missing_file_is_named_in_one_line(tmp_path: Path, name: str):
    write(tmp_path, two_arms(A, B), ["random_init", "warm_start"])
    (tmp_path / name).unlink()
    with pytest.raises(WarmstartError, match=f"holds no run: {name} is missing"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("scenario.yaml", "a: [1"), ("scenario.yaml", ""), ("environment.json", "{"), ("rounds.csv", ""),
     ("rounds.csv", "scenario,seed\ns,0\n"), ("rounds.csv", "\x00\x01")],
)  # fmt: skip
def test_a_file_that_cannot_be_read_ends_in_one_line(tmp_path: Path, name: str, content: str):
    write(tmp_path, two_arms(A, B), ["random_init", "warm_start"])
    (tmp_path / name).write_text(content)
    with pytest.raises(WarmstartError, match="cannot be read") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)
