"""Backward and forward transfer: Avalanche's numbers on the same accuracies, and where they come from in a run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import warmstart_sim.avalanche  # noqa: F401  it lets Avalanche be imported without its warnings
from tests.experiment.test_experiment import result
from warmstart_sim import scenario as scenarios
from warmstart_sim.errors import WarmstartError
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.probes.transfer import transfer
from warmstart_sim.types import Layout, RoundContext

INITIAL, TRAINED = {"w": torch.zeros(1)}, {"w": torch.ones(1)}


class Accuracies:
    """In the place of a model: its accuracies after each round on the test data of each, and before the first."""

    def __init__(self, after: np.ndarray, before: np.ndarray, now: int) -> None:
        self.after, self.before, self.now = after, before, now

    def evaluate(self, weights, split):
        return (self.before if weights is INITIAL else self.after[self.now])[split], 0.0


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_transfer_is_what_avalanche_calls_so(rounds):
    from avalanche.evaluation.metrics import BWT, ForwardTransfer

    numbers = np.random.default_rng(rounds)
    after, before = numbers.random((rounds, rounds)), numbers.random(rounds)
    backward, forward = BWT(), ForwardTransfer()
    for k in range(rounds):
        forward.update(k, before[k], initial=True)
    context = RoundContext(
        round=0, layout=Layout(frozenset(), frozenset(), (), "head"), generator=lambda purpose: torch.Generator(),
        initial=lambda: INITIAL, weights=TRAINED, epoch=3, tested_rounds=tuple(range(rounds)),
    )  # fmt: skip
    rows = []
    for t in range(rounds):
        context = replace(context, round=t, rows=list(rows), functions=Accuracies(after, before, t))
        found = transfer(context, matrix=True)
        for k in range(rounds):  # as StreamBWT and StreamForwardTransfer do after the training on experience t
            backward.update(k, after[t, k], initial=k == t)
            if k == t + 1:
                forward.update(k, after[t, k])
        expected = {
            "backward_transfer": list(backward.result().values())[:t],
            "forward_transfer": list(forward.result().values()),
            "forward_transfer_to_next": [forward.result_key(t + 1)] if t + 1 < rounds else [],
            "present_accuracy": [after[t, t]],
            "past_accuracy": after[t, :t],
            "future_accuracy": after[t, t + 1 :],
            **{f"accuracy_on_round_{k}": [after[t, k]] for k in range(rounds)},
        }
        assert found == {name: pytest.approx(np.mean(each)) if len(each) else None for name, each in expected.items()}
        rows.append({"round": t, **found})
    assert transfer(replace(context, epoch=0)) == {}


def test_in_a_run_it_is_measured_on_the_test_data_of_each_round(tiny_scenario, tmp_path):
    """Classes arrive alone, so a model that forgets the others has a large negative backward transfer."""
    tiny_scenario["stream"] = {"name": "class_incremental", "classes_per_round": 4, "accumulate": False}
    tiny_scenario["data"] = {"name": "digits", "train_samples": 150, "test_samples": 100}
    tiny_scenario["training"] = {"batch_size": 8, "until": {"epochs": 12}}
    tiny_scenario["measure"] = {"each_round": [{"transfer": {"matrix": True}}]}
    cells = scenarios.plan(tiny_scenario, "scenario")[1]
    cell = next(cell for cell in cells if cell.arm.label == "warm_start")
    rows = result(cell, tmp_path, ExecutionSettings(data_root=tmp_path))["rounds"]
    matrix = np.array([[row[f"accuracy_on_round_{k}"] for k in range(3)] for row in rows])
    assert [row["present_accuracy"] for row in rows] == np.diag(matrix).tolist()
    assert matrix[2, 2] > 0.6
    assert rows[2]["backward_transfer"] == pytest.approx(np.mean(matrix[2, :2] - np.diag(matrix)[:2]))
    assert rows[2]["backward_transfer"] < -0.4
    assert rows[0]["backward_transfer"] is rows[2]["future_accuracy"] is None
    assert "present_accuracy_at_start" not in rows[0]
    assert rows[0]["test_accuracy"] == matrix[0, 0]  # of the classes so far
    assert rows[1]["test_accuracy"] < matrix[1, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, r"f: measure.each_round\[0\].transfer: needs a stream whose rounds have test data of their own"),
        (
            {"stream.changes": {"label_noise": {}}},
            r"f: measure.each_round\[0\].transfer: needs a stream.*; it is online$",
        ),
        (
            {"measure": {"each_epoch": ["transfer"]}},
            r"f: measure.each_epoch\[0\].transfer: compares rounds; list it under",
        ),
    ],
)
def test_streams_that_are_tested_on_the_same_data_have_no_transfer(tiny_scenario, changes, message):
    from warmstart_sim.scenario.yaml_files import set_path

    raw = {**tiny_scenario, "measure": {"each_round": ["transfer"]}}
    for key, value in changes.items():
        set_path(raw, key, value)
    with pytest.raises(WarmstartError, match=message):
        scenarios.plan(raw, "f")
    scenarios.plan({**raw, "stream": "class_incremental", "measure": {"each_round": ["transfer"]}}, "f")
