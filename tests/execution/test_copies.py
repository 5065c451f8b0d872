"""Cells whose rounds another cell of the run has too: trained once, with the tables of a run that trains them all."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.execution.test_local import run_cells, tables
from tests.streams.test_streams import SEEDS, labels_of
from warmstart_sim import api
from warmstart_sim import scenario as scenarios
from warmstart_sim.execution import launch
from warmstart_sim.execution.size import scenario_size
from warmstart_sim.models import build, layout
from warmstart_sim.registry import MODELS, PARTS, PROBES, STRATEGIES
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario import planning
from warmstart_sim.streams.basic import split
from warmstart_sim.training.model_functions import without_gradient
from warmstart_sim.training.starts import never_trained, trains_by_default

FEW = {"train_samples": 60, "test_samples": 40}
DIGITS, NOISY = {"name": "digits", **FEW}, {"name": "noisy_digits", **FEW}
RUNS: dict[str, dict[str, Any]] = {
    "first fraction": {
        "stream": {"name": "split", "repeats": 1},
        "vary": {"stream.fraction": [0.2, 0.5, 0.8]},
    },
    "epochs and training of the first phase": {
        "stream": "split",
        "vary": {"stream.first_phase_epochs": [1, 2], "training.optimizer.lr": [0.1, 0.01]},
        "training": {"until": {"epochs": 2}, "later_rounds": {"optimizer": {"lr": 0.05}}},
    },
    "source": {
        "stream": {"name": "pretrain", "source": "digits", "fraction": 0.5},
        "vary": {
            "pair": {
                "digits to noisy": {"stream.source": DIGITS, "data": NOISY},
                "noisy to digits": {"stream.source": NOISY, "data": DIGITS},
                "noisier to noisy": {
                    "stream.source": {**NOISY, "noise": 2.0, "normalize": "target"},
                    "data": NOISY,
                },
            },
            "stream.head": ["keep", "fresh"],
        },
    },
}  # fmt: skip
TRAINED = {"first fraction": 1, "epochs and training of the first phase": 1, "source": 2}


@pytest.fixture(params=RUNS)
def scenario(request) -> dict[str, Any]:
    """Random init in three arms, of which the last uses everything that ignores what came before, and warm start."""
    return {
        "name": "tiny",
        "data": {"name": "digits", **FEW, "validation_fraction": 0.2},
        "model": {"name": "mlp", "widths": [6], "activation": "relu"},
        "training": {"batch_size": 32, "until": {"epochs": 2}},
        "strategies": {
            "random_init": {},
            "warm_start": {},
            "with_parts": {
                "start": "random_init",
                "l2": {"strength": 0.01},
                "confidence_penalty": {"strength": 0.1},
                "augment": ["rotation"],
            },
        },
        "measure": {
            "each_epoch": ["accuracy", "weight_norm"],
            "each_round": ["effective_rank", "dead_units", "distance_from_start"],
        },
        **RUNS[request.param],
        "title": request.param,
    }


def test_tables_and_weights_are_those_of_a_run_that_trains_every_cell(scenario, tmp_path, monkeypatch):
    run_cells(scenario, tmp_path / "copied", workers=1)
    _, cells = scenarios.plan(scenario, "file")
    with monkeypatch.context() as without:
        without.setattr(planning, "with_copies", list)
        run_cells(scenario, tmp_path / "trained", workers=1)
    (rounds, epochs), (all_rounds, all_epochs) = tables(tmp_path / "copied"), tables(tmp_path / "trained")
    pd.testing.assert_frame_equal(epochs, all_epochs, check_exact=True)
    marks = rounds.pop("copied_from")
    assert all_rounds.pop("copied_from").isna().all()
    pd.testing.assert_frame_equal(rounds, all_rounds, check_exact=True)
    own = rounds.assign(copied=marks.notna())[~rounds["shared"]]
    trained = own[~own["copied"]].groupby("strategy")["round"].count() / own.groupby("strategy")["round"].nunique()
    combinations = sum(cell.arm.label == "warm_start" for cell in cells)
    once = TRAINED[scenario["title"]]
    assert trained.to_dict() == {"random_init": once, "warm_start": combinations, "with_parts": once}
    for cell in cells:
        one, other = (cell.folder(RunFolder(tmp_path / name)).weights() for name in ("copied", "trained"))
        assert all(torch.equal(one[name], other[name]) for name in other)


def test_check_and_status_count_what_is_trained(scenario, tmp_path):
    size = scenario_size(scenario, "file")
    _, cells = scenarios.plan(scenario, "file")
    own = {cell.id for cell in cells if cell.copy_of is None}
    assert size.cells - size.copies == len(own) < len(cells)
    run_cells(scenario, tmp_path, workers=1)
    status = api.status(tmp_path)
    assert status.cells == status.complete == len(own) + size.first_phases
    rounds = pd.read_csv(tmp_path / "rounds.csv")
    trained = rounds[~rounds["shared"] & rounds["copied_from"].isna()]
    assert size.rounds == len(trained) + size.first_phases
    assert set(rounds["copied_from"].dropna()) <= own


@pytest.mark.parametrize("scenario", ["first fraction"], indirect=True)
def test_a_copy_waits_for_the_cell_that_is_trained_and_for_its_first_phase(scenario, tmp_path):
    run_cells(scenario, tmp_path, workers=1)
    before = tables(tmp_path)
    _, cells = scenarios.plan(scenario, "file")
    (copy, *_) = (cell for cell in cells if cell.copy_of)
    run = RunFolder(tmp_path)
    for missing in (copy.copy_of, copy.first_phase):
        (copy.folder(run).path / "result.json").unlink()
        (missing.folder(run).path / "result.json").unlink()
        launch.collect(tmp_path)
        assert not copy.folder(run).complete
        run_cells(scenario, tmp_path, workers=1)
        for one, other in zip(before, tables(tmp_path), strict=True):
            pd.testing.assert_frame_equal(one, other)


def copies(raw: dict[str, Any], **changes: Any) -> set[str]:
    """The arms that have copies."""
    return {cell.arm.label for cell in scenarios.plan({**raw, **changes}, "file")[1] if cell.copy_of}


@pytest.mark.parametrize("scenario", ["first fraction"], indirect=True)
def test_a_cell_that_may_depend_on_what_came_before_is_trained(scenario):
    assert copies(scenario) == {"random_init", "with_parts"}
    assert copies(scenario, vary={"stream.order": ["random", "balanced"]}) == set()
    assert copies(scenario, vary={"stream.repeats": [1, 2]}) == set()
    assert copies(scenario, measure={"each_round": ["gradient_norm"]}) == set()  # of old and new samples
    assert copies(scenario, measure={"each_epoch": ["tests.experiment.own_probes:head"]}) == set()
    assert copies(scenario, model="tests.models.own_models:lazy") == set()
    assert copies(scenario, stream={"name": "split", "rounds": 1}) == set()  # its weights are the first phase's
    own = {"mine": lambda previous, fresh, context: fresh}
    assert copies(scenario, strategies=own) == set()


@given(seed=SEEDS, fractions=st.tuples(*[st.floats(0.1, 0.9)] * 2), order=st.sampled_from(["random", "balanced"]))
def test_later_rounds_have_the_same_samples_in_the_same_order_whatever_the_fraction(seed, fractions, order):
    labels = labels_of(50)
    pool = torch.arange(50).numpy()
    one, other = (split(labels, pool, seed, fraction=fraction, order=order, repeats=2) for fraction in fractions)
    for mine, theirs in zip(one[1:], other[1:], strict=True):
        assert mine.index == theirs.index
        assert (mine.train == theirs.train).all()


def test_strategies_that_ignore_previous_do():
    fresh = {"w": torch.ones(2)}
    for name in STRATEGIES.names():
        if STRATEGIES.has_trait(name, "ignores_previous"):
            assert STRATEGIES.get(name)()(None, fresh, None) is fresh


@pytest.mark.parametrize("name", [name for name in MODELS.names() if MODELS.has_trait(name, "trains_all")])
def test_models_that_train_all_leave_nothing_as_it_was(name):
    tokens = MODELS.has_trait(name, "tokens")
    shape, words = ((12,), 30) if tokens else ((1, 8, 8), None)
    model = build(MODELS.get(name), {}, shape, 3, words)
    inputs = torch.ones(2, *shape, dtype=torch.int64 if tokens else torch.float32)
    assert never_trained(model, without_gradient(model, inputs, trains_by_default(model))) == set()
    assert layout(model).head


def test_everything_that_ignores_previous_is_known():
    assert not PROBES.has_trait("gradient_norm", "ignores_previous")
    assert not STRATEGIES.has_trait("warm_start", "ignores_previous")
    assert all(PARTS.has_trait(name, "ignores_previous") for name in ("augment", "adversarial", "l2"))


@pytest.mark.parametrize("scenario", ["epochs and training of the first phase"], indirect=True)
def test_random_init_does_not_need_the_epoch_that_a_first_phase_did_not_reach(scenario, tmp_path):
    scenario["training"]["until"] = {"train_accuracy": 0.01, "max_epochs": 2}
    outcome = run_cells(scenario, tmp_path, workers=1)
    assert {name.partition("-")[0] for name in outcome.failures} == {"warm_start"}
    assert len(outcome.failures) == 2
    assert all("the first phase ended in epoch 1" in reason for reason in outcome.failures.values())
