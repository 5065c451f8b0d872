"""Last layer only: what trains in which round, and its identity with warm start."""

import dataclasses

import pytest
import torch

from tests.strategies.test_shrink_perturb import CONTEXT, FRESH, PREVIOUS, same_bits
from warmstart_sim import scenario as scenarios
from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.strategies.basic import WarmStart
from warmstart_sim.strategies.last_layer import LastLayer
from warmstart_sim.training.loop import train
from warmstart_sim.types import Start

STATES = PREVIOUS.state_dict(), FRESH.state_dict()


def in_round(index, rounds):
    return LastLayer(rounds)(*STATES, dataclasses.replace(CONTEXT, round=index))


@pytest.mark.parametrize(("index", "rounds"), [(1, 0), (2, 1), (9, 8)])
def test_after_its_rounds_it_is_warm_start_to_the_bit(index, rounds):
    assert same_bits(in_round(index, rounds), WarmStart()(*STATES, CONTEXT))


@pytest.mark.parametrize(("index", "rounds"), [(1, 1), (8, 8), (100, None)])
def test_in_its_rounds_only_the_head_trains_from_the_same_weights(index, rounds):
    start = in_round(index, rounds)
    assert isinstance(start, Start)
    assert same_bits(start.weights, WarmStart()(*STATES, CONTEXT))
    assert start.trainable == {"head.weight", "head.bias"}


def test_the_body_stays_for_one_round_and_trains_in_the_next(tiny_scenario, tmp_path):
    raw = {**tiny_scenario, "strategies": {"last_layer": {"rounds": 1}}, "seeds": [0]}
    raw["training"] = {"batch_size": 32, "until": {"epochs": 1}}
    trainer = CellTrainer(scenarios.plan(raw, "scenario")[1][0], ExecutionSettings(tmp_path))
    states = [None]
    for round_ in trainer.rounds:
        train(trainer.begin(round_, states[-1])[1])
        states.append(trainer.weights())
    _, first, second, third = states
    body = [name for name in first if not name.startswith("head.")]
    assert all(torch.equal(first[name], second[name]) for name in body)  # BatchNorm's statistics, too
    assert not any(torch.equal(first[name], second[name]) for name in ("head.weight", "head.bias"))
    assert not any(torch.equal(second[name], third[name]) for name in body)
