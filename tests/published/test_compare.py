"""A run beside published numbers and beside another run: verdicts beside scipy's, and which cells a condition meets."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from warmstart_sim import scenario as scenarios
from warmstart_sim.errors import WarmstartError
from warmstart_sim.published import PublishedNumber, compare, paper_rows, published_numbers
from warmstart_sim.published.compare import compare_with_papers, published_points
from warmstart_sim.results.agreement import UNITS
from warmstart_sim.results.columns import EPOCH_COLUMNS, ROUND_COLUMNS, column_of
from warmstart_sim.results.compare_runs import compare_runs
from warmstart_sim.results.inference import welch_interval
from warmstart_sim.results.selection import tuned_columns
from warmstart_sim.results.tables import Run
from warmstart_sim.scenario.resolved import resolved_scenario
from warmstart_sim.scenario.yaml_files import bundled_scenarios, load

OURS, THEIRS = np.array([0.561, 0.572, 0.550, 0.568]), np.array([0.55, 0.56, 0.545, 0.571, 0.562])
SCENARIO: dict[str, Any] = {
    "name": "mine", "reproduces": ["A-T1"], "metric": "test_accuracy", "seeds": [0],
    "data": {"name": "cifar10", "train_samples": 1000}, "stream": {"name": "split", "fraction": 0.5},
    "model": {"name": "mlp", "widths": [100, 100], "bias": True},
    "training": {"optimizer": {"name": "sgd", "lr": 0.001, "momentum": 0.9}, "batch_size": 128},
    "strategies": {"random_init": {"start": "random_init"}, "warm_start": None},
}  # fmt: skip


def run_of(
    values: Mapping[tuple[Any, ...], float],
    axes: Sequence[str] = (),
    vary: Mapping[str, Any] | None = None,
    **columns: Any,
) -> Run:
    """A run with the test accuracy of (arm, varied values ..., seed, round); the first of two rounds is shared."""
    rows = [
        dict.fromkeys(ROUND_COLUMNS, 1.0) | dict(zip(axes, varied, strict=True)) | {
            "strategy": arm, "seed": seed, "round": index, "shared": index == 0, "test_accuracy": value,
            "status": "converged", "converged": True, "cell_complete": True, "timing": "isolated", "device_name": "cpu",
        }
        for (arm, *varied, seed, index), value in values.items()
    ]  # fmt: skip
    table = pd.DataFrame(rows)[["strategy", *axes, "seed", *ROUND_COLUMNS]]
    arms = list(dict.fromkeys(table["strategy"]))
    table["strategy"] = pd.Categorical(table["strategy"], arms, ordered=True)
    table["validation_accuracy"] = np.nan
    scenario = {**SCENARIO, **({"vary": vary} if vary else {}), "strategies": dict.fromkeys(arms)}
    return Run(scenario, {}, table, pd.DataFrame(columns=["strategy", *axes, "seed", *EPOCH_COLUMNS]), tuple(axes), {})


def two_arms(warm: Sequence[float] = OURS, random: Sequence[float] = OURS + 0.05) -> Run:
    arms = {"warm_start": warm, "random_init": random}
    values = {(arm, seed, 1): value for arm, found in arms.items() for seed, value in enumerate(found)}
    return run_of({(arm, seed, 0): 0.25 + seed / 100 for arm in arms for seed in range(len(warm))} | values)


def number(value: float = 55.0, **changes: Any) -> PublishedNumber:
    about: dict[str, Any] = {
        "row": "A-T1", "condition": {"strategy": "warm_start"}, "metric": "test_accuracy", "value": value,
        "spread": 1.0, "spread_kind": "std", "seeds": 5, "unit": "percent", "where": "Table 1", "note": "",
    }  # fmt: skip
    return PublishedNumber(**{**about, **changes})


@pytest.fixture
def beside(monkeypatch):
    """Compares a run with numbers made by hand."""

    def compared(run: Run, *numbers: PublishedNumber, margin: float = 2.0) -> pd.DataFrame:
        monkeypatch.setattr(compare, "published_numbers", lambda row: numbers)
        return compare_with_papers(run, margin)

    return compared


def test_the_interval_is_welchs():
    expected = stats.ttest_ind(OURS, THEIRS, equal_var=False).confidence_interval(0.95)
    found = welch_interval(OURS.mean(), OURS.std(ddof=1), 4, THEIRS.mean(), THEIRS.std(ddof=1), 5)
    assert found == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(
    ("kind", "spread"),
    [
        ("std", THEIRS.std(ddof=1)),
        ("sem", stats.sem(THEIRS)),
        ("ci95", np.diff(stats.t.interval(0.95, 4, THEIRS.mean(), stats.sem(THEIRS)))[0] / 2),
    ],
)
def test_every_kind_of_spread_gives_the_same_interval(beside, kind: str, spread: float):
    run = two_arms()
    found = beside(run, number(100 * THEIRS.mean(), spread=100 * spread, spread_kind=kind)).iloc[0]
    expected = stats.ttest_ind(100 * OURS, 100 * THEIRS, equal_var=False).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
    assert (found["measured"], found["measured_std"]) == pytest.approx((100 * OURS.mean(), 100 * OURS.std(ddof=1)))
    assert found["verdict"] == "agrees"


def test_a_published_mean_without_spread_has_ours_and_without_seeds_is_one_run(beside):
    run, std = two_arms(), 100 * OURS.std(ddof=1)
    mean = 100 * OURS.mean()
    plain = beside(run, number(spread=np.nan, spread_kind="")).iloc[0]
    half = stats.t.ppf(0.975, welch_freedom(std, 4, std, 5)) * std * np.sqrt(1 / 4 + 1 / 5)
    assert plain["high"] - plain["difference"] == pytest.approx(half)
    one = beside(run, number(spread=np.nan, spread_kind="", seeds=None)).iloc[0]
    assert one["high"] - one["difference"] == pytest.approx(stats.t.ppf(0.975, one_freedom()) * std * np.sqrt(1.25))
    assert one["difference"] == pytest.approx(mean - 55)


def one_freedom() -> float:
    """Satterthwaite's degrees of freedom of 1 / 4 and 1, both with 3."""
    return (1 / 4 + 1) ** 2 / ((1 / 4) ** 2 / 3 + 1 / 3)


def test_verdicts(beside):
    run = two_arms()
    mean = 100 * OURS.mean()
    assert beside(run, number(mean + 0.5))["verdict"].tolist() == ["agrees"]
    assert beside(run, number(mean + 5))["verdict"].tolist() == ["differs"]
    assert beside(run, number(mean + 0.5), margin=0.5)["verdict"].tolist() == ["too uncertain to say"]
    assert beside(two_arms(OURS[:1]), number(mean))["verdict"].tolist() == ["too uncertain to say"]
    assert beside(run, number(mean / 100, unit="fraction", spread=0.01))["verdict"].tolist() == ["agrees"]
    assert beside(run, number(mean / 100, unit="fraction", spread=0.01), margin=0.5)["verdict"].tolist() == [
        "too uncertain to say"
    ]
    everywhere = two_arms(np.ones(4))  # as where every seed classifies all samples
    assert beside(everywhere, number(100, spread=np.nan, spread_kind=""))["verdict"].tolist() == ["agrees"]
    assert beside(everywhere, number(99, spread=np.nan, spread_kind=""))["verdict"].tolist() == ["too uncertain to say"]
    assert beside(two_arms(np.ones(1)), number(100))["verdict"].tolist() == ["too uncertain to say"]


def test_seconds_are_converted_and_summed_and_get_no_verdict(beside):
    run = two_arms()
    run.rounds["train_seconds"] = np.where(run.rounds["round"] == 1, 90.0, 1000.0)
    found = beside(run, number(2.0, metric="train_seconds", unit="minutes")).iloc[0]
    assert (found["measured"], found["difference"]) == (1.5, -0.5)  # without the shared first phase
    assert (found["verdict"], np.isnan(found["low"])) == ("time not comparable", True)
    first = {"strategy": "warm_start", "round": "0"}
    assert beside(run, number(1.0, metric="train_seconds", unit="seconds", condition=first)).iloc[0]["measured"] == 1000
    everything = {"strategy": "warm_start", "round": "all"}
    assert beside(run, number(1.0, metric="train_seconds", unit="hours", condition=everything))["measured"][0] == 0.025


def test_the_first_round_is_that_of_the_shared_first_phase(beside):
    run = two_arms()
    condition = {"strategy": "warm_start", "round": "0"}
    found = beside(run, number(26.5, condition=condition)).iloc[0]
    assert (found["measured"], found["seeds"]) == (pytest.approx(26.5), 4)
    second = (run.rounds["round"] == 1) & (run.rounds["seed"] == 0)
    run.rounds.loc[second, "status"] = "diverged"  # does not take the first round back
    again = beside(replace(run), number(26.5, condition=condition)).iloc[0]
    assert (again["seeds"], again["failed"]) == (4, 0)
    assert beside(replace(run), number())[["seeds", "failed"]].to_numpy().tolist() == [[3, 1]]


def test_blank_numbers_agree_with_cells_that_fail(beside):
    run = two_arms()
    assert beside(run, number(np.nan, spread=np.nan))["verdict"].tolist() == ["differs"]
    run.rounds.loc[run.rounds["round"] == 1, ["status", "test_accuracy"]] = ["gave_up", np.nan]
    failed = replace(run)
    assert beside(failed, number(np.nan, spread=np.nan))["verdict"].tolist() == ["agrees"]
    assert beside(failed, number())[["verdict", "failed"]].to_numpy().tolist() == [["differs", 4]]


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"metric": "test_accuracy_gain"}, "not measured"),
        ({"metric": "validation_accuracy"}, "not measured"),
        ({"metric": "test_accuracy", "unit": "epochs"}, "not measured"),
        ({"condition": {"strategy": "layerwise"}}, "not in this run"),
        ({"condition": {"strategy": "warm_start", "round": "2"}}, "not in this run"),
        ({"condition": {"strategy": "warm_start", "data.name": "svhn"}}, "not in this run"),
        ({"condition": {"strategy": "warm_start", "setting": "none"}}, "not in this run"),
        ({"condition": {"strategy": "warm_start", "distillation": "no"}}, "not in this run"),
        ({"condition": {"strategy": "warm_start", "training.optimizer.momentum": "0"}}, "not in this run"),
    ],
)  # fmt: skip
def test_what_no_cell_measures(beside, changes: dict[str, Any], verdict: str):
    found = beside(two_arms(), number(**changes))
    assert found["verdict"].tolist() == [verdict]
    assert found["measured"].isna().all()


@pytest.mark.parametrize(
    "condition",
    [
        {"data.name": "cifar10"},
        {"model.name": "mlp", "model.bias": "true", "model.widths": "[100, 100]"},
        {"training.optimizer.name": "sgd", "training.optimizer.lr": "1e-3", "training.optimizer.momentum": "0.90"},
        {"stream.fraction": "0.5", "training.batch_size": "128"},
        {},
    ],
)
def test_settings_of_the_scenario_meet_a_condition(beside, condition: dict[str, str]):
    found = beside(two_arms(), number(condition=condition | {"strategy": "warm_start"}))
    assert found["verdict"].notna().all()
    assert found["seeds"].tolist() == [4]


def test_a_condition_without_an_arm_gives_a_row_for_each_arm(beside):
    found = beside(two_arms(), number(condition={}))
    assert found["condition"].tolist() == ["; strategy=warm_start", "; strategy=random_init"]
    assert found["seeds"].tolist() == [4, 4]


def grid(**scenario: Any) -> Run:
    """An arm with varied lambdas beside one without, on two data sets that a bundle sets."""
    vary = {
        "pair": {
            "a": {"data.name": "svhn", "training.optimizer": {"name": "adam"}},
            "b": {"data.name": "cifar100", "training.optimizer": {"name": "sgd"}},
        },
        "strategies.shrink_perturb.lambda": [0.3, 0.6],
        "training.batch_size": [32, 64],
    }
    places = list(itertools.product("ab", (32, 64), range(3), (0, 1)))
    values = {("random_init", pair, None, size, seed, index): 0.5 for pair, size, seed, index in places}
    values |= {
        ("shrink_perturb", pair, lam, size, seed, index): lam + size / 1000 + seed / 100 + (pair == "a") / 10
        for lam in (0.3, 0.6) for pair, size, seed, index in places
    }  # fmt: skip
    run = run_of(values, ["pair", "lambda", "training_batch_size"], vary)
    arms = {"random_init": {}, "shrink_perturb": {"start": "shrink_perturb", "lambda": 0.9, "sigma": 0.01}}
    return replace(run, scenario={**run.scenario, "strategies": arms, **scenario})


def of_grid(beside, run: Run | None = None, **condition: str) -> list[float]:
    keys = {key.replace("__", "."): value for key, value in condition.items()}
    found = beside(run or grid(), number(condition={"strategy": "shrink_perturb", **keys}))
    return found["measured"].dropna().round(6).tolist()


def test_conditions_meet_varied_values_and_settings_of_bundles(beside):
    assert of_grid(beside, **{"lambda": "0.30"}, pair="a", training__batch_size="32") == [44.2]
    assert of_grid(beside, **{"lambda": "0.3"}, data__name="svhn", training__batch_size="64") == [47.4]
    assert of_grid(beside, **{"lambda": "0.3"}, training__optimizer__name="sgd", training__batch_size="64") == [37.4]
    assert of_grid(beside, **{"lambda": "0.3"}, sigma="1e-2", pair="b") == [34.2, 37.4]  # for each batch size
    assert of_grid(beside, **{"lambda": "0.9"}) == []  # what the axis replaces
    assert of_grid(beside, data__name="cifar10") == []  # what the bundle replaces
    assert of_grid(beside, pair="a", training__optimizer__momentum="0.9") == []  # the bundle's optimiser has no such
    words = beside(grid(), number(condition={"strategy": "shrink_perturb", "lambda": "0.3", "pair": "b"}))["condition"]
    assert words.str.endswith(("training_batch_size=32", "training_batch_size=64")).all()


def test_training_of_an_arm_counts(beside):
    own = {"start": "shrink_perturb", "lambda": 0.9, "training": {"optimizer": {"lr": 0.5}, "until": {"epochs": 3}}}
    run = grid(strategies={"random_init": {}, "shrink_perturb": own})
    for key in ("training__optimizer__lr", "training__until__epochs"):
        value = {"training__optimizer__lr": "0.5", "training__until__epochs": "3"}[key]
        assert len(of_grid(beside, run, **{"lambda": "0.3", key: value})) == 4
    assert of_grid(beside, run, **{"lambda": "0.3"}, training__optimizer__lr="0.001") == []
    assert len(of_grid(beside, run, **{"lambda": "0.3"}, training__optimizer__name="adam")) == 2  # the bundle's


def test_the_difference_from_random_init_is_paired_by_seed(beside):
    run = two_arms(OURS, OURS + np.array([0.05, 0.051, 0.049, 0.05]))
    both = (number(55.0), number(60.5, spread=2.0, condition={"strategy": "random_init"}))
    found = beside(run, *both)
    assert found["metric"].tolist() == ["test_accuracy", "test_accuracy minus random_init's", "test_accuracy"]
    gap = found.iloc[1]
    assert (gap["published"], gap["published_spread"]) == (-5.5, pytest.approx(np.hypot(1, 2)))
    assert (gap["measured"], gap["measured_std"]) == pytest.approx((-5.0, np.std([5, 5.1, 4.9, 5], ddof=1)))
    expected = stats.ttest_ind_from_stats(-5, gap["measured_std"], 4, -5.5, np.hypot(1, 2), 5, equal_var=False)
    assert gap["difference"] / (gap["high"] - gap["difference"]) == pytest.approx(
        expected.statistic / stats.t.ppf(0.975, welch_freedom(gap["measured_std"], 4, np.hypot(1, 2), 5))
    )


def welch_freedom(s: float, n: int, p: float, m: int) -> float:
    a, b = s**2 / n, p**2 / m
    return (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (m - 1))


def test_no_difference_from_random_init_without_it(beside):
    run = two_arms()
    other_place = {"strategy": "random_init", "round": "0"}
    for reference in (number(60, condition=other_place), number(np.nan, condition={"strategy": "random_init"})):
        assert not beside(run, number(), reference)["metric"].str.contains("minus").any()


def test_a_rehearsal_and_a_run_without_rows_are_refused():
    run = two_arms()
    for rehearsal in (replace(run, environment={"rehearsal": True}),
                      replace(run, scenario={**run.scenario, "rehearsal": True})):  # fmt: skip
        with pytest.raises(WarmstartError, match="this run is a rehearsal"):
            compare_with_papers(rehearsal)
        with pytest.raises(WarmstartError, match="this run is a rehearsal"):
            compare_runs(run, rehearsal)
        assert published_points(rehearsal).empty
    with pytest.raises(WarmstartError, match=r"add `reproduces: \[A-T1\]`"):
        compare_with_papers(replace(run, scenario={**run.scenario, "reproduces": []}))


@pytest.mark.parametrize("row", [row for row in paper_rows() if published_numbers(row)])
def test_every_published_number_can_be_looked_for_in_any_run(row: str):
    run = two_arms()
    found = compare_with_papers(
        replace(run, scenario={**run.scenario, "reproduces": [row], "data": {"name": "digits"}})
    )
    assert len(found) >= len(published_numbers(row))
    if row not in ("C-F10", "D-T1", "D-T2"):  # these state a train accuracy of all models
        assert set(found["verdict"]) <= {"not in this run", "not measured"}


SCENARIOS = {name: set(load(name).get("reproduces") or ()) for name in bundled_scenarios()}
REPRODUCED = set().union(*SCENARIOS.values())
WITH_NUMBERS = [row for row in REPRODUCED if any(each.unit in UNITS for each in published_numbers(row))]


def planned(name: str) -> Run:
    """A run with the cells of a bundled scenario, each of three rounds, and of tuned settings the first."""
    raw = {**load(name), "seeds": [0]}
    scenario, planned = scenarios.plan(raw, name)
    tuned = {column_of(key) for key in tuned_columns(raw)}
    chosen: dict[str, Any] = {}
    for cell in planned:
        fixed = {column_of(key): value for key, value in cell.varied.items() if column_of(key) not in tuned}
        chosen.setdefault(str((cell.arm.label, fixed)), cell)
    cells = list(chosen.values())
    about = dict.fromkeys(ROUND_COLUMNS, 1.0) | {"shared": False, "status": "converged", "cell_complete": True}
    rows = [
        about | {column_of(key): value for key, value in cell.varied.items()}
        | {"strategy": cell.arm.label, "seed": 0, "round": index}
        for cell in cells for index in range(3)
    ]  # fmt: skip
    table = pd.DataFrame(rows).astype({"strategy": pd.CategoricalDtype(list(raw["strategies"]), ordered=True)})
    axes = tuple(column_of(key) for key in cells[0].varied)
    return Run(resolved_scenario(raw, scenario), {}, table, pd.DataFrame(), axes, {})


@functools.cache
def compared(name: str) -> pd.DataFrame:
    return compare_with_papers(planned(name))


@pytest.mark.xdist_group("bundled comparisons")  # a scenario of several rows is compared once, in one process
@pytest.mark.parametrize("row", sorted(WITH_NUMBERS))
def test_bundled_scenarios_have_a_cell_for_every_number_of_their_rows(row: str):
    found = pd.concat(compared(name) for name, rows in SCENARIOS.items() if row in rows)
    mine = found[(found["row"] == row) & found["unit"].isin(UNITS)]
    met = mine.loc[mine["seeds"] > 0, ["condition", "metric"]].to_numpy().tolist()
    asked = {
        ("; ".join(f"{key}={value}" for key, value in each.condition.items()), each.metric)
        for each in published_numbers(row)
        if each.unit in UNITS
        and "strategy" in each.condition  # others are about all arms
        and "versus" not in each.condition  # or about two of them
    }
    # Where several settings meet a condition, such as a whole grid, it gets their varied values.
    assert {each for each in asked if not any(c.startswith(each[0]) and m == each[1] for c, m in met)} == set()


def test_two_runs(beside):
    run, other = two_arms(OURS), two_arms(THEIRS[:4], THEIRS[:4])
    run.rounds["train_seconds"] = other.rounds["train_seconds"] = 100.0 + run.rounds["seed"]
    found = compare_runs(run, other).set_index(["condition", "metric"])
    warm = found.loc[("strategy=warm_start", "test_accuracy")]
    expected = stats.ttest_ind(100 * OURS, 100 * THEIRS[:4], equal_var=False).confidence_interval(0.95)
    assert (warm["low"], warm["high"]) == pytest.approx((expected.low, expected.high))
    assert warm["verdict"] == "agrees"
    assert found.loc[("strategy=random_init", "test_accuracy"), "verdict"] == "differs"
    seconds = found.loc[("strategy=warm_start", "train_seconds")]
    assert (seconds["measured"], seconds["unit"], seconds["verdict"]) == (101.5, "seconds", "agrees")


@pytest.mark.parametrize(("column", "value"), [("device_name", "gpu"), ("timing", "concurrent"), ("device_name", None)])
def test_seconds_of_other_devices_and_kinds_get_no_verdict(column: str, value: str | None):
    run, other = two_arms(), two_arms()
    other.rounds[column] = value
    found = compare_runs(run, other) if value else compare_runs(other, other)
    assert set(found.loc[found["metric"] == "train_seconds", "verdict"]) == {"time not comparable"}
    assert "time not comparable" not in set(found.loc[found["metric"] == "test_accuracy", "verdict"])


def test_an_axis_that_one_run_has_tells_settings_apart():
    found = compare_runs(grid(), two_arms())
    assert found["condition"].tolist()[::2] == [
        f"strategy=random_init; pair={pair}; training_batch_size={size}" for pair in "ab" for size in (32, 64)
    ]
    assert set(found["seeds"]) == {3}
    reverse = compare_runs(two_arms(), grid())
    assert len(reverse) == len(found)
    assert set(reverse["published_seeds"]) == {3}


def test_two_runs_without_anything_in_common_are_refused():
    other = two_arms()
    with pytest.raises(WarmstartError, match="different metrics: test_accuracy and validation_accuracy"):
        compare_runs(other, replace(other, scenario={**other.scenario, "metric": "validation_accuracy"}))
    alone = run_of({("layerwise", seed, 1): 0.5 for seed in range(2)})
    with pytest.raises(WarmstartError, match="no strategy with the same varied values in common"):
        compare_runs(alone, other)


def test_published_points_have_the_runs_own_varied_values(monkeypatch):
    numbers = (
        number(34.0, condition={"strategy": "shrink_perturb", "lambda": "0.30", "data.name": "svhn"}),
        number(20.0, condition={"strategy": "shrink_perturb", "lambda": "0.30", "round": "0"}),
        number(40.0, condition={"strategy": "shrink_perturb", "lambda": "0.6", "round": "1", "pair": "b"}),
        number(np.nan, condition={"strategy": "shrink_perturb", "lambda": "0.3"}),
        number(3.0, metric="train_seconds", unit="minutes"),
        number(3.0, unit="epochs"),
    )
    monkeypatch.setattr(compare, "published_numbers", lambda row: numbers)
    points = published_points(grid())
    assert points[["pair", "lambda", "training_batch_size", "value"]].to_numpy().tolist() == [
        ["a", 0.3, 32, 0.34], ["a", 0.3, 64, 0.34], ["b", 0.6, 32, 0.4], ["b", 0.6, 64, 0.4],
    ]  # fmt: skip
    assert (points["high"] - points["low"]).round(12).tolist() == [0.02] * 4
