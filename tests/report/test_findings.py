"""The sentence is true of the numbers in every case."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fake_runs import write_run
from hypothesis import given
from hypothesis import strategies as st

from warmstart_sim.report.findings import describe_run, describe_summary, missing_or_failed
from warmstart_sim.report.wording import axis_name
from warmstart_sim.results.tables import load

NAN = float("nan")
METRIC = "test_accuracy"


def row(strategy: str, accuracy: float = 0.7, **columns: Any) -> dict[str, Any]:
    """A row of a summary: complete, one round, nothing to compare with, unless said otherwise."""
    base = dict.fromkeys(
        f"{quantity}{end}"
        for quantity in ("difference", "curve_difference", "time_ratio", "samples_ratio")
        for end in ("", "_low", "_high", "_p", "_low_holm", "_high_holm", "_bound")
    )
    counts = {"seeds": 5, "unfinished": 0, "diverged": 0, "gave_up": 0, "pairs": 5, "timed_pairs": 5}
    of = {"strategy": strategy, "final_accuracy": accuracy, "timing": "isolated"}
    return of | dict.fromkeys(base, NAN) | counts | columns


def compared(strategy: str, difference: float, low: float = NAN, high: float = NAN, **columns: Any) -> dict[str, Any]:
    """A row of an arm that was compared with the reference in one round, its interval adjusted already."""
    same = {"difference": difference, "difference_low": low, "difference_high": high}
    adjusted = {"difference_low_holm": low, "difference_high_holm": high, "difference_bound": low}
    return row(strategy) | same | adjusted | {f"curve_{key}": each for key, each in same.items()} | columns


def say(*rows: dict[str, Any], axes: tuple[str, ...] = ()) -> str:
    names = {axis: "" if axis == "pair" else axis_name(axis) for axis in axes}
    return describe_summary(pd.DataFrame(rows), "random_init", names, METRIC)


def test_an_interval_below_zero_is_below():
    text = say(
        row("random_init"),
        compared("warm_start", -0.084, -0.092, -0.075, time_ratio=0.27, time_ratio_low=0.24, time_ratio_high=0.3),
    )
    assert text == (
        "Warm start is 8.4 points below random init in final test accuracy (95 % interval −9.2 to −7.5, 5 seeds) and "
        "needs 27 % (24 to 30 %) of random init's training time (timed alone)."
    )


@pytest.mark.parametrize(
    ("timing", "words"),
    [
        ("isolated", "needs 27 % of random init's training time (timed alone)"),
        ("estimated", "needs an estimated 27 % of random init's training time"),
        ("mixed", "needs an estimated 27 % of random init's training time"),
        ("concurrent", "needs 41 % of random init's training samples (27 % of its time, timed beside other cells)"),
    ],
)
def test_a_sentence_about_time_says_which_seconds(timing: str, words: str):
    cost = {"time_ratio": 0.27, "samples_ratio": 0.41, "timing": timing, "timed_pairs": 2}
    warm = compared("warm_start", -0.084, -0.092, -0.075, **cost)
    one = say(row("random_init"), warm)
    several = say(row("random_init"), *({**warm, "lambda": lam} for lam in (0.2, 0.8)), axes=("lambda",))
    assert f" and {words}." in one
    assert f"; it {words}." in several


def test_without_comparable_seconds_the_samples_are_said():
    warm = compared("warm_start", -0.084, -0.092, -0.075, samples_ratio=0.41)
    assert "and needs 41 % of random init's training samples." in say(row("random_init"), warm)


def test_an_interval_above_zero_is_above():
    assert "Warm start is 1.2 points above random init" in say(
        row("random_init"), compared("warm_start", 0.012, 0.01, 0.014)
    )


def test_an_interval_that_holds_zero_is_not_clearly_different():
    text = say(row("random_init"), compared("warm_start", 0.011, -0.02, 0.042))
    assert "is not clearly different from random init" in text
    assert "95 % interval −2.0 to +4.2, 5 seeds" in text
    assert "above" not in text


def test_what_is_surely_above_the_margin_is_at_least_as_accurate():
    close = compared("warm_start", 0.003, -0.011, 0.017, difference_bound=-0.008)
    assert "Warm start is at least as accurate as random init to within 1 point in final" in say(
        row("random_init"), close
    )
    narrow = describe_summary(pd.DataFrame([row("random_init"), close]), "random_init", {}, METRIC, margin=0.005)
    assert "Warm start is not clearly different from random init in final" in narrow


def test_the_same_difference_in_every_seed_supports_no_interval():
    text = say(row("random_init"), compared("warm_start", -0.02, pairs=2))
    assert "2.0 points below random init in final test accuracy (the same difference in every seed" in text
    assert "95 %" not in text
    several = [compared("warm_start", -0.02, pairs=2, **{"lambda": lam}) for lam in (0.2, 0.8)]
    text = say(row("random_init"), *several, axes=("lambda",))
    assert "by the same amount in every seed, which supports no interval, at all 2 settings" in text


def test_a_claim_rests_on_the_adjusted_interval():
    plain = compared("warm_start", 0.02, 0.001, 0.039, difference_p=0.04, difference_bound=0.005)
    adjusted = {"difference_low_holm": -0.002, "difference_high_holm": 0.042}
    other = compared("shrink", 0.03, 0.02, 0.04, difference_p=0.001)
    text = say(row("random_init"), plain | adjusted, other)
    assert "Warm start is at least as accurate as random init" in text
    assert "(95 % interval −0.2 to +4.2, 5 seeds)" in text
    assert "Shrink is 3.0 points above random init" in text
    assert "adjusted for 2 comparisons (Holm's method)" in text
    assert "Holm" not in say(row("random_init"), other)


def test_survivors_are_called_so():
    text = say(row("random_init"), compared("warm_start", 0.02, 0.01, 0.03, seeds=2, pairs=2, diverged=3))
    assert "(95 % interval +1.0 to +3.0, the 2 of 5 seeds that trained)" in text
    one = say(row("random_init"), compared("warm_start", 0.02, seeds=1, pairs=1, diverged=4))
    assert "(one seed of 5, the only one that trained, which supports no interval)" in one


def test_a_bound_close_to_zero_is_not_printed_as_zero():
    assert "+0.02 to +1.93" in say(row("random_init"), compared("warm_start", 0.0097, 0.0002, 0.0193))


def test_the_average_over_rounds_is_judged_by_its_own_interval():
    curve = {"curve_difference": 0.02, "curve_difference_low": 0.01, "curve_difference_high": 0.03}
    text = say(row("random_init"), compared("shrink", 0.01, -0.02, 0.04) | curve)
    assert "is not clearly different from random init in final test accuracy" in text
    assert "2.0 points above it on average over the rounds (+1.0 to +3.0)" in text


def test_one_seed_supports_no_interval():
    text = say(row("random_init", seeds=1), compared("warm_start", -0.071, pairs=1, seeds=1, time_ratio=0.3))
    assert "Warm start is 7.1 points below random init" in text
    assert "(one seed, which supports no interval)" in text
    assert "95 %" not in text


def test_equal_arms_are_level():
    assert "is exactly level with random init" in say(row("random_init"), compared("same", 0.0, 0.0, 0.0))
    assert "is exactly level with random init" in say(row("random_init"), compared("same", 0.0, pairs=1))


def test_unknown_times_are_not_mentioned():
    assert "training time" not in say(row("random_init"), compared("warm_start", -0.05, -0.06, -0.04))


def test_a_missing_reference_is_said():
    text = say(row("warm_start", 0.64, pairs=0), row("shrink", 0.7, pairs=0))
    assert "Warm start ends at 64.0 % test accuracy; there is no seed of a comparable cell to compare it with." in text
    assert "below" not in text


def test_a_single_arm_has_nothing_to_be_compared_with():
    assert say(row("random_init", 0.7)) == (
        "Random init ends at 70.0 % test accuracy; there is no other arm to compare it with."
    )


def test_nothing_measured_is_nothing_said():
    for rows in ([row("random_init", NAN, seeds=0)], []):
        summary = pd.DataFrame(rows, columns=list(row("x")))
        assert describe_summary(summary, "random_init", (), METRIC).startswith("No cell has reached its last round")


def test_an_arm_without_numbers_is_passed_over():
    text = say(
        row("random_init"), compared("warm_start", -0.05, -0.06, -0.04), row("shrink", NAN, seeds=0, unfinished=2)
    )
    assert "Shrink" not in text
    assert text.endswith("Left out: 2 of 2 cells of shrink (not finished yet).")


def test_failed_cells_are_counted():
    text = say(row("random_init"), compared("warm_start", -0.05, -0.06, -0.04, seeds=3, diverged=1, gave_up=1))
    assert "Left out: 1 of 5 cells of warm start (diverged) and 1 of 5 cells of warm start (gave up)." in text


def test_many_settings_are_sorted_by_what_their_intervals_say():
    text = say(
        row("random_init", **{"lambda": NAN}),
        compared("shrink", -0.05, -0.06, -0.04, time_ratio=0.2, **{"lambda": 1.0}),
        compared("shrink", 0.001, -0.02, 0.02, time_ratio=0.5, **{"lambda": 0.6}),
        compared("shrink", 0.02, 0.01, 0.03, time_ratio=0.9, **{"lambda": 0.2}),
        compared("shrink", 0.03, 0.02, 0.04, time_ratio=1.0, **{"lambda": 0.0}),
        axes=("lambda",),
    )
    assert "below random init at λ = 1, not clearly different from random init at λ = 0.6 and above" in text
    assert "above random init at λ = 0 and 0.2 in final test accuracy" in text
    assert "the differences range from −5.0 (λ = 1) to +3.0 (λ = 0) points" in text
    assert "it needs 20 to 100 % of random init's training time" in text


def test_settings_with_one_seed_are_named_apart():
    text = say(
        row("random_init", **{"lambda": NAN}),
        compared("shrink", -0.05, -0.06, -0.04, **{"lambda": 1.0}),
        compared("shrink", 0.02, pairs=1, **{"lambda": 0.5}),
        axes=("lambda",),
    )
    assert "below random init at λ = 1" in text
    assert "in one seed only, which supports no interval, at λ = 0.5" in text
    assert "above" not in text


def over_pairs_and_lambdas(below: Callable[[str, float], bool]) -> str:
    """What is said of shrink at three pairs and three values of lambda, below random init where `below` says so."""
    rows = [
        compared("shrink", -0.05, -0.06, -0.04, pair=pair, **{"lambda": lam})
        if below(pair, lam)
        else compared("shrink", 0.05, 0.04, 0.06, pair=pair, **{"lambda": lam})
        for pair in ("B to A", "A to C", "C to A")
        for lam in (0.0, 0.5, 1.0)
    ]
    reference = [row("random_init", pair=pair, **{"lambda": NAN}) for pair in ("B to A", "A to C", "C to A")]
    return say(*reference, *rows, axes=("pair", "lambda"))


def test_one_setting_is_said_with_its_label():
    text = say(row("random_init"), compared("warm", 0.012, 0.01, 0.014, pair="A to B", lr=0.1), axes=("pair", "lr"))
    assert "Warm is 1.2 points above random init for A to B at learning rate = 0.1 in final test accuracy" in text


@pytest.mark.parametrize(
    ("below", "text"),
    [
        (lambda pair, lam: True, "is below random init at all 9 settings in final"),
        (lambda pair, lam: lam > 0, "is below random init at λ = 0.5 and 1 and above random init at λ = 0 in final"),
        (
            lambda pair, lam: pair != "A to C",  # a label stands by itself, in the scenario's order
            "is below random init for B to A and C to A and above random init for A to C in final",
        ),
        (
            lambda pair, lam: (pair, lam) == ("C to A", 1),
            "is below random init for C to A at λ = 1 and above random init at 8 of 9 settings in final",
        ),
        (
            lambda pair, lam: lam == 1 or (pair, lam) == ("A to C", 0.5),
            "is below random init at 4 of 9 settings (all at λ = 0.5 or 1) and above random init at 5 of 9 settings "
            "(all at λ = 0 or 0.5) in final",
        ),
    ],
    ids=["all", "some lambdas", "some pairs", "one", "no rule"],
)
def test_settings_are_said_by_what_they_share(below: Callable[[str, float], bool], text: str):
    assert text in over_pairs_and_lambdas(below)


@given(st.sets(st.tuples(st.sampled_from(["B to A", "A to C", "C to A"]), st.sampled_from([0.0, 0.5, 1.0]))))
def test_what_is_said_of_settings_is_true_of_each(some: set[tuple[str, float]]):
    text = over_pairs_and_lambdas(lambda pair, lam: (pair, lam) in some)
    said = text.partition("below random init ")[2].partition(" and above")[0].partition(" in final")[0]
    if not some:
        assert said == ""
        return
    if counted := re.search(r"(\d+) of 9 settings", said):
        assert int(counted[1]) == len(some)
    for pair in {"B to A", "A to C", "C to A"} - {pair for pair, _ in some}:
        assert pair not in said
    if "λ" in said:
        assert {float(number) for number in re.findall(r"[\d.]+", said.partition("λ = ")[2])} == {
            lam for _, lam in some
        }


def test_many_arms_are_told_by_verdict_and_each_once():
    sides = {"below": (-0.05, -0.06, -0.04), "level": (0.001, -0.02, 0.02), "above": (0.05, 0.04, 0.06)}
    arms = {f"{side}_{index}": numbers for index in range(5) for side, numbers in sides.items()}
    text = say(row("random_init"), *(compared(arm, *numbers) for arm, numbers in arms.items()))
    below, level, above = text.split("; ")
    assert below == ("In final test accuracy, below 0, below 1, below 2, below 3 and below 4 are below random init")
    assert "level 4 are not clearly different from random init" in level
    assert above.endswith("above 4 are above random init.")
    assert all(text.count(arm.replace("_", " ")) == 1 for arm in arms)


@given(st.floats(-0.5, 0.5), st.floats(0.0001, 0.3))
def test_a_side_is_taken_only_if_the_interval_is_on_it(difference: float, half: float):
    text = say(row("random_init"), compared("warm_start", difference, difference - half, difference + half))
    assert ("below random init" in text) == (difference + half < 0)
    assert ("above random init" in text) == (difference - half > 0)
    level = difference - half <= 0 <= difference + half
    assert ("not clearly different" in text) == (level and difference - half <= -0.01)
    assert ("at least as accurate as" in text) == (level and difference - half > -0.01)


def test_each_missing_or_failed_cell_is_named(tmp_path: Path):
    folder = write_run(
        tmp_path,
        failed={("warm_start", 3): "diverged", ("shrink_perturb", 1): "gave_up"},
        leave_out=lambda cell: cell["strategy"] == "warm_start" and cell["seed"] == 0,
    )
    assert missing_or_failed(load(folder)) == [
        "warm start, seed 3: diverged, last round 1",
        "shrink perturb, seed 1: gave up, last round 1",
        "warm start, seed 0: missing (not run yet, or failed)",
    ]


def test_a_whole_run_reads_as_text(tmp_path: Path):
    text = " ".join(describe_run(load(write_run(tmp_path))))
    assert text.startswith("Use random init: ")
    assert " Warm start is " in text
    assert "points below random init in final validation accuracy (95 % interval" in text
    assert missing_or_failed(load(tmp_path)) == []
