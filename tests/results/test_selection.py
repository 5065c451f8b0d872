"""Tuned settings are chosen by mean validation accuracy, on tables that are made by hand."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from warmstart_sim.results.columns import EPOCH_COLUMNS, ROUND_COLUMNS
from warmstart_sim.results.selection import is_selected, list_candidates
from warmstart_sim.results.tables import load, missing_cells, write_summary

RATES, SIZES, ARMS = [0.1, 0.01, 0.001], [16, 64], ["random_init", "warm_start"]
AXES = ["training_optimizer_lr", "stream_chunk_size"]
SCENARIO: dict[str, Any] = {
    "name": "tuned", "strategies": {arm: {"start": arm} for arm in ARMS}, "seeds": [0, 1],
    "vary": {"training.optimizer.lr": RATES, "stream.chunk_size": SIZES},
    "select": {"over": ["training.optimizer.lr"], "by": "validation_accuracy"},
    "metric": "test_accuracy", "stream": {"name": "online"}, "data": {"name": "digits"},
}  # fmt: skip
SETTINGS = list(itertools.product(ARMS, RATES, SIZES))


def made(accuracies: dict[tuple[str, float, int, int], float], gone: tuple = (), failed: tuple = ()) -> pd.DataFrame:
    """Two rounds of each cell (arm, rate, size, seed); the accuracies are those of the last."""
    rows = [
        {
            "scenario": "tuned", "strategy": arm, "seed": seed, AXES[0]: rate, AXES[1]: size, "round": index,
            "shared": False, "train_samples": 100 * (index + 1), "epochs": 3, "steps": 9, "samples_seen": 300,
            "flops": 1.0, "converged": True, "status": "gave_up" if (arm, rate, size, seed) in failed else "finished",
            "validation_accuracy": accuracy if index else 0.99, "test_accuracy": 1 - accuracy, "train_accuracy": 1.0,
            "train_seconds": 1.0, "criterion_seconds": 0.0, "timing": "isolated",
        }
        for (arm, rate, size, seed), accuracy in accuracies.items() if (arm, rate, size, seed) not in gone
        for index in range(2)
    ]  # fmt: skip
    return pd.DataFrame(rows).reindex(columns=["scenario", "strategy", "seed", *AXES, *ROUND_COLUMNS])


def constant(value: float = 0.5) -> dict[tuple[str, float, int, int], float]:
    return {(*setting, seed): value for setting in SETTINGS for seed in (0, 1)}


def chosen(rounds: pd.DataFrame) -> dict[tuple[str, int], float]:
    """The rate of each arm at each size."""
    table = list_candidates(SCENARIO, rounds, AXES)
    return {(row["strategy"], row[AXES[1]]): row[AXES[0]] for row in table[table["selected"]].to_dict("records")}


def test_each_arm_gets_its_most_accurate_setting_at_each_value_of_the_other_axes():
    accuracies = constant()
    accuracies |= {("random_init", 0.01, 16, seed): 0.6 for seed in (0, 1)}
    accuracies |= {
        ("warm_start", 0.001, 16, 0): 0.9,
        ("warm_start", 0.001, 16, 1): 0.4,
        ("warm_start", 0.1, 16, 0): 0.7,
    }
    assert chosen(made(accuracies)) == {
        ("random_init", 16): 0.01,
        ("random_init", 64): 0.1,  # a tie: the first in the file
        ("warm_start", 16): 0.001,  # 0.65 on average, against 0.6
        ("warm_start", 64): 0.1,
    }


@pytest.mark.parametrize("how", ["gone", "failed"])
def test_a_setting_of_which_a_seed_failed_or_is_missing_is_not_chosen(how: str):
    accuracies = constant() | {("warm_start", 0.1, 16, seed): 0.9 for seed in (0, 1)}
    assert chosen(made(accuracies, **{how: (("warm_start", 0.1, 16, 1),)}))["warm_start", 16] == 0.01
    every = tuple(("warm_start", rate, 16, 0) for rate in RATES)
    assert ("warm_start", 16) not in chosen(made(accuracies, **{how: every}))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=24, max_size=24), st.randoms(use_true_random=False))
def test_the_choice_is_the_maximum_whatever_the_order_of_the_rows(numbers: list[int], random: Any):
    accuracies = dict(zip(constant(), (number / 3 for number in numbers), strict=True))
    rounds = made(accuracies)
    table = list_candidates(SCENARIO, rounds, AXES)
    means = {setting: np.mean([accuracies[*setting, seed] for seed in (0, 1)]) for setting in SETTINGS}
    for (arm, size), rate in chosen(rounds).items():
        best = max(means[arm, each, size] for each in RATES)
        assert rate == next(each for each in RATES if means[arm, each, size] > best - 1e-9)
    mixed = list(rounds.index)
    random.shuffle(mixed)
    pd.testing.assert_frame_equal(list_candidates(SCENARIO, rounds.loc[mixed], AXES), table)


def write(folder: Path, rounds: pd.DataFrame) -> Path:
    rounds.to_csv(folder / "rounds.csv", index=False)
    columns = ["scenario", "strategy", "seed", *AXES, *EPOCH_COLUMNS]
    pd.DataFrame(columns=columns).to_csv(folder / "epochs.csv", index=False)
    (folder / "scenario.yaml").write_text(yaml.safe_dump(SCENARIO, sort_keys=False), encoding="utf-8")
    (folder / "environment.json").write_text("{}", encoding="utf-8")
    return folder


def test_summary_and_axes_are_those_of_the_chosen_settings_which_are_compared_across_them(tmp_path: Path):
    accuracies = constant() | {("warm_start", 0.01, size, seed): 0.7 for size in SIZES for seed in (0, 1)}
    summary = write_summary(write(tmp_path, made(accuracies)))
    run = load(tmp_path)
    assert run.axes == (AXES[1],)
    assert run.every is not None
    assert (run.every.axes, len(run.every.rounds), len(run.rounds)) == (tuple(AXES), 48, 16)
    assert set(run.rounds.loc[run.rounds["strategy"] == "warm_start", AXES[0]]) == {0.01}
    assert len(summary) == 4
    warm = summary[summary["strategy"] == "warm_start"]
    np.testing.assert_allclose(warm["final_accuracy"], 0.3)
    np.testing.assert_allclose(warm["difference"], -0.2)  # from random init at its own rate
    written = pd.read_csv(tmp_path / "selection.csv")
    assert list(written) == ["strategy", *AXES, "seeds", "failed", "validation_accuracy", "selected"]
    assert (len(written), written["selected"].sum()) == (12, 4)
    assert missing_cells(run) == []
    assert run.probe_columns("rounds") == []  # the tuned keys are none


def test_rows_of_chosen_settings_are_marked():
    rounds = made(constant())
    marks = is_selected(rounds, list_candidates(SCENARIO, rounds, AXES), AXES)
    assert set(rounds.loc[marks, AXES[0]]) == {0.1}
    assert marks.sum() == 16
