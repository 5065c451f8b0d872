"""Claims: the grammar, and verdicts beside scipy's and numpy's, on tables made by hand."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from warmstart_sim import scenario as scenarios
from warmstart_sim.errors import WarmstartError
from warmstart_sim.results.claim_checks import check_claim, check_claims
from warmstart_sim.results.claims import Side, parse_claim
from warmstart_sim.results.columns import EPOCH_COLUMNS, ROUND_COLUMNS
from warmstart_sim.results.tables import Run
from warmstart_sim.scenario.overrides import prepare_scenario

ARMS = {"random_init": {}, "warm_start": {}, "shrink_perturb": {"lambda": 0.6, "sigma": 0.1}}
SENTENCES = {
    "warm_start below random_init": ("below", "warm_start", None, "random_init", None),
    "warm_start below random_init in the last round": ("below", "warm_start", None, "random_init", None),
    "train_seconds of warm_start below random_init": (
        "below", "warm_start", "train_seconds", "random_init", "train_seconds",
    ),
    "test_accuracy of warm_start above train_accuracy of random_init in round 3": (
        "above", "warm_start", "test_accuracy", "random_init", "train_accuracy",
    ),
    "shrink_perturb (lambda=0.6, sigma=0.01) within 1.5 of random_init over all rounds": (
        "within", "shrink_perturb", None, "random_init", None,
    ),
    "gap of warm_start shrinks as stream.fraction grows": ("shrinks", "warm_start", None, None, None),
    "gap of warm_start to shrink_perturb in test_accuracy grows as round grows": (
        "grows", "warm_start", "test_accuracy", "shrink_perturb", "test_accuracy",
    ),
    "weight_norm of warm_start rises as epoch grows in the first round": (
        "rises", "warm_start", "weight_norm", None, None,
    ),
    "warm_start falls as lambda grows where data.name = cifar10 and sigma = 0.01": (
        "falls", "warm_start", None, None, None,
    ),
}  # fmt: skip


def run_of(values: Mapping[tuple[Any, ...], float], axes: Sequence[str] = (), **columns: Any) -> Run:
    """A run with the metric of (arm, varied values ..., seed, round); `columns` are functions of the same."""
    rounds = []
    for (arm, *varied, seed, index), value in values.items():
        row = dict.fromkeys(ROUND_COLUMNS, 1.0) | {
            "strategy": arm, **dict(zip(axes, varied, strict=True)), "seed": seed, "round": index, "shared": False,
            "status": "converged", "converged": True, "cell_complete": True, "timing": "isolated", "device_name": "cpu",
            "test_accuracy": value,
        }  # fmt: skip
        rounds.append(row | {name: of(arm, *varied, seed, index) for name, of in columns.items()})
    order = ["strategy", *axes, "seed", *ROUND_COLUMNS]
    table = pd.DataFrame(rounds)[[*order, *(name for name in columns if name not in order)]]
    table["strategy"] = pd.Categorical(table["strategy"], list(ARMS), ordered=True)
    scenario = {"metric": "test_accuracy", "strategies": ARMS, "stream": {"name": "online"}, "seeds": [0]}
    return Run(scenario, {}, table, pd.DataFrame(columns=["strategy", *axes, "seed", *EPOCH_COLUMNS]), tuple(axes), {})


def checked(run: Run, text: str) -> Any:
    return check_claim(run, parse_claim(text))


def of_seeds(warm: Sequence[float], random: Sequence[float], index: int = 0) -> dict[tuple[Any, ...], float]:
    """The metric of two arms by seed."""
    arms = {"warm_start": warm, "random_init": random}
    return {(arm, seed, index): value for arm, values in arms.items() for seed, value in enumerate(values)}


WARM, RANDOM = [0.50, 0.53, 0.49, 0.52], [0.55, 0.57, 0.56, 0.55]


@pytest.mark.parametrize("text", SENTENCES)
def test_every_form_is_read(text: str):
    claim = parse_claim(text)
    right = claim.right or Side("")
    found = (claim.relation, claim.left.arm, claim.left.column, right.arm or None, right.column)
    assert found == SENTENCES[text]
    assert parse_claim("  ".join(text.split())) == parse_claim(f" {text} ".replace(" ", "\n")).__class__(
        **{**vars(claim), "text": "  ".join(text.split())}
    )


def test_the_words_after_a_claim_are_read():
    claim = parse_claim(
        "shrink_perturb (lambda=0.6, sigma = 0.01) above a (x=1) in round 2 where data.name = c and y = d e"
    )
    assert claim.left.setting == {"lambda": "0.6", "sigma": "0.01"}
    assert claim.right == Side("a", None, {"x": "1"})
    assert (claim.place, claim.where) == ("in round 2", {"data_name": "c", "y": "d e"})
    assert parse_claim("gap of warm_start shrinks as stream.fraction grows").along == "stream_fraction"
    assert parse_claim("a within .5 of b").number == 0.5
    assert parse_claim("x of a within 2 of y of b").right == Side("b", "y")


@pytest.mark.parametrize(
    "text",
    [
        "", "warm_start", "warm_start is below random_init", "a below", "a within of b", "a within 1.2.3 of b",
        "a within -1 of b", "gap of a shrinks", "a rises as x", "a below b in round -1", "a below b in the middle",
        "a below b where", "a below b where x", "a (x) below b", "a (x=) below b", "a below b in the last round, too",
        "a rises as round grows in the last round", "a falls as epoch grows over all rounds",
        "a falls as epoch grows in the first epoch",
    ],
)  # fmt: skip
def test_what_is_not_in_the_grammar_is_refused(text: str):
    with pytest.raises(ValueError, match=r"no claim|KEY = VALUE|grows' cannot be"):
        parse_claim(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("warm_strat below random_init", "unknown strategy 'warm_strat'; did you mean 'warm_start'?"),
        ("tets_loss of warm_start below random_init", "unknown column 'tets_loss'; did you mean 'test_loss'?"),
        ("status of warm_start below random_init", "unknown column 'status'"),
        ("learning_rate of warm_start below random_init", "unknown column 'learning_rate'"),
        ("gap of warm_start shrinks as stream.fractoin grows", "did you mean 'stream_fraction'?"),
        ("shrink_perturb (lamda=0.6) below random_init", "unknown varied value 'lamda'; did you mean 'lambda'?"),
        ("shrink_perturb (lambda=0.5) below random_init", "unknown value of lambda '0.5'"),
        ("warm_start below random_init where stream.fraction = 0.7", "unknown value of stream_fraction '0.7'"),
        ("warm_start under random_init", "is no claim (such as 'warm_start below random_init in the last round'"),
    ],
)  # fmt: skip
def test_names_that_do_not_exist_are_refused_when_the_scenario_is_checked(text: str, message: str):
    with pytest.raises(WarmstartError, match=re.escape("scenario: claims.1: ")) as error:
        scenarios.plan(scenario_with("warm_start below random_init", text), "scenario")
    assert message in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "learning_rate of warm_start below random_init in the last epoch",
        "weight_norm_0 of warm_start below random_init",
        "weight_norm_at_start of warm_start below random_init",
        "gradient_norm_new of warm_start falls as epoch grows",
        "shrink_perturb (lambda=0.60) below random_init where stream.fraction = 5e-1",
    ],
)
def test_columns_of_probes_and_values_in_another_form_are_accepted(text: str):
    scenario, _ = scenarios.plan(scenario_with(text), "scenario")
    assert scenario.header.claims == (text,)


def scenario_with(*claims: str) -> dict[str, Any]:
    return {
        "name": "mine", "data": "digits", "stream": {"name": "split"}, "model": "mlp", "strategies": ARMS,
        "vary": {"stream.fraction": [0.1, 0.5], "strategies.shrink_perturb.lambda": [0.6, 0.9]},
        "measure": {"each_epoch": ["gradient_norm"], "each_round": ["weight_norm"]}, "claims": list(claims),
    }  # fmt: skip


def test_a_probe_of_ones_own_may_add_columns_but_strategies_are_checked():
    raw = scenario_with("whatever of warm_start below random_init") | {"measure": {"each_round": ["mine:probe"]}}
    scenarios.plan(raw, "scenario")
    with pytest.raises(WarmstartError, match="unknown strategy 'nobody'"):
        scenarios.plan({**raw, "claims": ["whatever of nobody below random_init"]}, "scenario")


@pytest.mark.parametrize(
    ("warm", "random", "below", "above"),
    [
        (WARM, RANDOM, "holds", "fails"),
        (RANDOM, WARM, "fails", "holds"),
        ([0.5, 0.6, 0.4, 0.5], [0.5, 0.5, 0.5, 0.51], "undecided", "undecided"),
    ],
)
def test_a_comparison_rests_on_the_paired_interval(warm: list[float], random: list[float], below: str, above: str):
    run = run_of(of_seeds(warm, random))
    found = checked(run, "warm_start below random_init")
    expected = stats.ttest_rel(warm, random).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.value == pytest.approx(np.mean(np.subtract(warm, random)))
    assert (found.verdict, found.seeds, found.unit) == (below, 4, "points")
    assert checked(run, "warm_start above random_init").verdict == above


def test_within_needs_the_whole_interval_inside_in_points():
    run = run_of(of_seeds(WARM, RANDOM))
    found = checked(run, "warm_start within 9 of random_init")
    assert -0.09 < found.low < found.high < 0
    assert found.verdict == "holds"
    assert checked(run, "warm_start within 4 of random_init").verdict == "undecided"
    assert checked(run, "warm_start within 0.1 of random_init").verdict == "fails"
    assert found.evidence == f"{100 * found.value:.1f} points [{100 * found.low:.1f}, {100 * found.high:.1f}], 4 seeds"


def test_costs_are_compared_by_the_ratio_of_their_sums_over_rounds():
    seconds = {("warm_start", 0): 2, ("warm_start", 1): 3, ("random_init", 0): 8, ("random_init", 1): 10}
    values = {(arm, seed, index): 0.5 for arm, seed in seconds for index in (0, 1)}
    run = run_of(values, train_seconds=lambda arm, seed, index: seconds[arm, seed] * (1 + index))
    found = checked(run, "train_seconds of warm_start below random_init")
    logs = np.log([2 / 8, 3 / 10])
    expected = np.exp(stats.t.interval(0.95, 1, logs.mean(), stats.sem(logs)))
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert (found.value, found.unit) == (pytest.approx(np.exp(logs.mean())), "ratio")
    assert "ratio" in found.evidence
    in_first = checked(run, "train_seconds of warm_start within 6.9 of random_init in the first round")
    assert (in_first.value, in_first.unit) == (pytest.approx(-6.5), "")  # seconds, not a ratio


def test_cost_of_zero_supports_no_ratio():
    run = run_of(of_seeds(WARM, RANDOM), train_seconds=lambda arm, seed, index: float(arm == "random_init"))
    assert checked(run, "train_seconds of warm_start below random_init").reason


AXIS = (0.1, 0.3, 0.9, 1.0)
TREND = {("warm_start", at, seed, 0): 0.5 + 0.1 * np.sin(7 * at + seed) + 0.2 * at for at in AXIS for seed in range(3)}


def test_within_per_cent_compares_the_ratio():
    run = run_of(of_seeds(WARM, RANDOM))
    ratio = np.exp(np.log(np.divide(WARM, RANDOM)).mean())
    found = checked(run, "warm_start within 90 % of random_init")
    assert (found.verdict, found.unit, found.value) == ("holds", "ratio", pytest.approx(ratio))
    assert checked(run, "warm_start within 0.01 % of random_init").verdict == "fails"


def test_a_trend_is_the_least_squares_slope_over_ranks_within_seeds():
    found = checked(run_of(TREND, ["fraction"]), "warm_start rises as fraction grows")
    slopes = [np.polyfit(range(4), [TREND["warm_start", at, seed, 0] for at in AXIS], 1)[0] for seed in range(3)]
    expected = stats.t.interval(0.95, 2, np.mean(slopes), stats.sem(slopes))
    assert found.value == pytest.approx(np.mean(slopes))
    assert (found.low, found.high) == pytest.approx(expected)
    assert "a step" in found.evidence


def test_a_trend_of_a_cost_is_in_its_own_unit_and_that_of_a_gap_is_a_factor():
    both = {(arm, at, seed, 0): 0.5 for arm in ("warm_start", "random_init") for at in (0.1, 0.5) for seed in (0, 1)}
    seconds = {"warm_start": {0.1: 10, 0.5: 30}, "random_init": {0.1: 40, 0.5: 60}}
    run = run_of(both, ["fraction"], train_seconds=lambda arm, at, seed, index: seconds[arm][at] + seed)
    found = checked(run, "train_seconds of warm_start rises as fraction grows")
    assert (found.value, found.unit) == (pytest.approx(20), "")
    gap = checked(run, "gap of warm_start in train_seconds shrinks as fraction grows")
    factors = [(60 + seed) / (30 + seed) / ((40 + seed) / (10 + seed)) for seed in (0, 1)]
    assert (gap.value, gap.unit) == (pytest.approx(np.sqrt(np.prod(factors))), "ratio")


def test_a_gap_is_the_reference_minus_the_arm_along_an_axis():
    values = dict(TREND)
    for at, seed in itertools.product(AXIS, range(3)):
        values["random_init", at, seed, 0] = TREND["warm_start", at, seed, 0] + 0.3 - 0.1 * at + 0.001 * seed * at
    found = checked(run_of(values, ["fraction"]), "gap of warm_start shrinks as fraction grows")
    slopes = [np.polyfit(range(4), [0.3 + (0.001 * seed - 0.1) * at for at in AXIS], 1)[0] for seed in range(3)]
    assert found.value == pytest.approx(np.mean(slopes))
    assert found.verdict == "holds"
    named = checked(run_of(values, ["fraction"]), "gap of warm_start to random_init grows as fraction grows")
    assert (named.verdict, named.value) == ("fails", pytest.approx(found.value))


def test_a_gap_to_an_arm_that_the_axis_does_not_concern():
    values = {("random_init", None, seed, 0): 0.5 for seed in range(3)}
    settings = itertools.product((0.2, 0.4, 0.8), range(3))
    values |= {("shrink_perturb", lam, seed, 0): 0.5 - lam * (1 + seed) / 10 for lam, seed in settings}
    found = checked(run_of(values, ["lambda"]), "gap of shrink_perturb grows as lambda grows")
    slopes = [np.polyfit(range(3), [lam * (1 + seed) / 10 for lam in (0.2, 0.4, 0.8)], 1)[0] for seed in range(3)]
    assert (found.value, found.seeds) == (pytest.approx(np.mean(slopes)), 3)


def test_a_trend_along_rounds():
    values = {("warm_start", seed, index): 0.1 * index + 0.01 * seed * index for seed in range(3) for index in range(5)}
    assert checked(run_of(values), "warm_start rises as round grows").value == pytest.approx(0.11)
    run = run_of(values, train_samples=lambda arm, seed, index: 1000 * 2**index)
    assert checked(run, "warm_start rises as train_samples grows").value == pytest.approx(0.11)
    run = run_of(values, train_seconds=lambda arm, seed, index: 3.0 * index)  # each round's, not their sum
    assert checked(run, "train_seconds of warm_start rises as round grows").value == pytest.approx(3)


def epochs_of(values: Mapping[tuple[str, int, int, int], float]) -> Run:
    """A run with the train accuracy of (arm, seed, round, epoch)."""
    run = run_of({(arm, seed, index): 0.5 for arm, seed, index, _ in values})
    rows = [
        dict.fromkeys(EPOCH_COLUMNS, 1.0)
        | {"strategy": arm, "seed": seed, "round": index, "epoch": epoch, "shared": False, "train_accuracy": value}
        for (arm, seed, index, epoch), value in values.items()
    ]  # fmt: skip
    epochs = pd.DataFrame(rows)
    epochs["strategy"] = pd.Categorical(epochs["strategy"], list(ARMS), ordered=True)
    return Run(run.scenario, {}, run.rounds, epochs, (), {})


def test_epochs_are_those_of_the_last_round():
    values = {
        (arm, seed, index, epoch): (0.4 if arm == "warm_start" else 0.1) * index + 0.1 * epoch + 0.001 * seed * epoch
        for arm in ("warm_start", "random_init") for seed in range(3) for index in (0, 1)
        for epoch in range(1, 4 if arm == "warm_start" else 6)
    }  # fmt: skip
    run = epochs_of(values)
    first = checked(run, "train_accuracy of warm_start above random_init in the first epoch")
    last = checked(run, "train_accuracy of warm_start above random_init in the last epoch")
    assert first.value == pytest.approx(0.3)
    assert last.value == pytest.approx(0.4 + 0.3 - 0.1 - 0.5 - 0.002)
    assert checked(run, "train_accuracy of warm_start rises as epoch grows").value == pytest.approx(0.101)
    assert checked(run, "train_seconds of warm_start rises as epoch grows").value == pytest.approx(0)


def test_a_filter_chooses_the_cells_and_does_not_concern_arms_without_the_axis():
    values = {("random_init", None, seed, 0): 0.5 + 0.01 * seed for seed in range(3)}
    values |= {("shrink_perturb", lam, seed, 0): lam + 0.012 * seed for lam in (0.3, 0.9) for seed in range(3)}
    run = run_of(values, ["lambda"])
    for text in (
        "shrink_perturb below random_init where lambda = 0.30",
        "shrink_perturb (lambda=0.3) below random_init",
    ):
        assert checked(run, text).value == pytest.approx(-0.2 + 0.002)
    assert checked(run, "shrink_perturb above random_init").value == pytest.approx(0.1 + 0.002)  # the mean over lambdas
    assert checked(run, "shrink_perturb (lambda=0.9) above shrink_perturb (lambda=0.3)").value == pytest.approx(0.6)


def test_arms_are_paired_by_the_varied_values_that_both_have():
    values = {
        (arm, data, seed, 0): {"easy": 0.9, "hard": 0.2}[data] + 0.01 * seed - (0.05 if arm == "warm_start" else 0)
        for arm in ("random_init", "warm_start") for data in ("easy", "hard") for seed in range(3)
    }  # fmt: skip
    found = checked(run_of(values, ["data_name"]), "warm_start below random_init")
    assert (found.value, found.seeds) == (pytest.approx(-0.05), 3)
    only = checked(run_of(values, ["data_name"]), "warm_start below random_init where data.name = hard")
    assert only.value == pytest.approx(-0.05)
    nothing = checked(run_of(values, ["data_name"]), "warm_start below random_init where data.name = other")
    assert (nothing.verdict, nothing.reason) == ("undecided", "no seed has all the cells that it needs")


def test_a_seed_that_lacks_a_cell_is_left_out():
    values = {
        (arm, data, seed, 0): 0.5 + (0.4 if data == "easy" and arm == "warm_start" else 0) + 0.001 * seed
        for arm in ("random_init", "warm_start") for data in ("easy", "hard") for seed in range(3)
    }  # fmt: skip
    whole = checked(run_of(values, ["data_name"]), "warm_start above random_init")
    del values["warm_start", "hard", 2, 0]
    found = checked(run_of(values, ["data_name"]), "warm_start above random_init")
    assert (found.seeds, found.value) == (2, pytest.approx(whole.value))  # not the mean over the easy data alone


@pytest.mark.parametrize("status", ["diverged", "gave_up"])
def test_failed_cells_do_not_count(status: str):
    values = of_seeds([*WARM, 0.01], [*RANDOM, 0.6])
    expected = checked(run_of(of_seeds(WARM, RANDOM)), "warm_start below random_init")
    for column, value in (("status", status), ("cell_complete", False)):
        run = run_of(values)
        run.rounds.loc[(run.rounds["strategy"] == "warm_start") & (run.rounds["seed"] == 4), column] = value
        assert checked(run, "warm_start below random_init") == expected


def test_a_shared_first_round_counts_only_where_a_round_is_named():
    values = {
        (arm, seed, index): 0.3 + 0.1 * index
        for arm in ("warm_start", "random_init")
        for seed in (0, 1)
        for index in (0, 1)
    }
    run = run_of(values, train_loss=lambda arm, seed, index: [7.0, 1.0][index])
    run.rounds["shared"] = run.rounds["round"] == 0
    for place in ("in the first round", "in round 0", "in the last round where round = 0"):
        found = checked(run, f"train_loss of warm_start within 0 of test_accuracy of warm_start {place}")
        assert found.value == pytest.approx(7.0 - 0.3)
    assert checked(run, "train_loss of warm_start within 0 of test_accuracy of warm_start").value == pytest.approx(0.6)


def test_one_seed_is_undecided_and_equal_values_are():
    assert checked(run_of(of_seeds([0.1], [0.9])), "warm_start below random_init").verdict == "undecided"
    assert "one seed" in checked(run_of(of_seeds([0.1], [0.9])), "warm_start below random_init").evidence
    tied = checked(run_of(of_seeds([0.25] * 3, [0.5] * 3)), "warm_start below random_init")
    assert (tied.verdict, tied.value) == ("undecided", -0.25)
    assert checked(run_of(of_seeds(WARM, WARM)), "warm_start within 0.1 of random_init").verdict == "holds"


def test_stored_claims_are_checked_in_order_and_damaged_ones_refused():
    run = run_of(of_seeds(WARM, RANDOM))
    texts = ["warm_start below random_init", "warm_start above random_init"]
    stored = Run({**run.scenario, "claims": texts}, {}, run.rounds, run.epochs, (), {})
    assert [each.verdict for each in check_claims(stored)] == ["holds", "fails"]
    damaged = Run({**run.scenario, "claims": ["gibberish"]}, {}, run.rounds, run.epochs, (), {})
    with pytest.raises(WarmstartError, match="claims: 'gibberish' is no claim"):
        check_claims(damaged)
    lacking = replace(run, scenario={**run.scenario, "claims": ["tset_loss of warm_start below random_init"]})
    (found,) = check_claims(lacking)
    assert (found.verdict, found.evidence) == (
        "undecided", "the tables have no column 'tset_loss' of numbers; did you mean 'test_loss'?",
    )  # fmt: skip
    with pytest.raises(WarmstartError, match="the tables have no column 'width'"):
        checked(run, "warm_start below random_init where width = 3")


def test_strategies_and_axes_that_a_command_leaves_out_take_their_claims_with_them():
    texts = [
        "warm_start below random_init",
        "shrink_perturb (lambda=0.6) above random_init",
        "gap of warm_start shrinks as stream.fraction grows",
    ]
    raw = scenario_with(*texts)
    assert prepare_scenario(raw)[0]["claims"] == texts
    assert prepare_scenario(raw, strategies=["random_init", "warm_start"])[0]["claims"] == [texts[0], texts[2]]
    changed, where = prepare_scenario(raw, set=["stream.fraction=0.5", "strategies.shrink_perturb.lambda=0.6"])
    assert changed["claims"] == texts[:1]
    scenarios.plan(changed, where)
    with pytest.raises(WarmstartError, match="unknown strategy 'nobody'"):  # the file's own mistake stays one
        scenarios.plan(*prepare_scenario({**raw, "claims": ["nobody below warm_start"]}, strategies=["warm_start"]))


accuracies = st.lists(st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)), min_size=1, max_size=6)


@settings(max_examples=10, deadline=None)
@given(accuracies, st.floats(0, 1, width=32))
def test_properties_of_comparisons(pairs: list[tuple[float, float]], more: float):
    warm, random = zip(*pairs, strict=True)
    run = run_of(of_seeds(warm, random))
    below, above = checked(run, "warm_start below random_init"), checked(run, "warm_start above random_init")
    assert not below.verdict == above.verdict == "holds"
    assert {"holds": "fails", "fails": "holds"}.get(below.verdict, below.verdict) == above.verdict
    swapped = checked(run, "random_init above warm_start")
    assert swapped.verdict == below.verdict
    assert swapped.value == pytest.approx(-below.value)
    if len(pairs) == 1:
        assert below.verdict == "undecided"
    shifted = checked(
        run_of(of_seeds([each + more for each in warm], [each + more for each in random])), below.claim.text
    )
    assert shifted.value == pytest.approx(below.value, abs=1e-9)
    if abs(below.low) > 1e-6 and abs(below.high) > 1e-6:  # away from the borders, where the last bits decide
        assert shifted.verdict == below.verdict


def test_a_claim_about_the_table_of_an_analysis_is_paired_by_seed(tmp_path):
    """The other columns of the table are averaged over; columns that it lacks leave the claim undecided."""
    by_seed = {0: (0.5, 0.4), 1: (0.6, 0.48), 2: (0.7, 0.61)}
    rows = [
        {"strategy": "random_init", "seed": seed, "weights_times": scale, "statistics": how, "test_accuracy": value}
        for seed, (whole, half) in by_seed.items()
        for scale, mean in ((1.0, whole), (0.5, half))
        for how, value in (("kept", mean - 0.01), ("of_batch", mean + 0.01))
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "shrunk.csv", index=False)
    run = replace(run_of({("random_init", seed, 0): 0.5 for seed in by_seed}), folder=tmp_path)
    below = check_claim(run, parse_claim(
        "random_init (weights_times=0.5) below random_init (weights_times=1) in table shrunk"
    ))  # fmt: skip
    expected = stats.ttest_rel(*([each[k] for each in by_seed.values()] for k in (1, 0))).confidence_interval()
    assert below.verdict == "holds"
    assert [below.low, below.high] == pytest.approx([expected.low, expected.high])
    kept = check_claim(run, parse_claim(
        "random_init rises as weights_times grows in table shrunk where statistics = kept"
    ))  # fmt: skip
    assert (kept.verdict, kept.value) == ("holds", pytest.approx(-below.value))
    with pytest.raises(WarmstartError, match="no column 'test_acuracy'; did you mean 'test_accuracy'"):
        check_claim(run, parse_claim("test_acuracy of random_init rises as weights_times grows in table shrunk"))
