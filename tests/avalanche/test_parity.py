"""Our engine and Avalanche's own loop with our plugins, from the same seed: the same weights, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from warmstart_sim.avalanche.engine import avalanche_engine
from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.run_cell import run_cell
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.results.columns import MEASURED
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario import Cell, plan

STARTS: dict[str, dict[str, Any]] = {
    "random_init": {},
    "warm_start": {},
    "shrink_perturb": {"lambda": 0.6, "sigma": 0.1},
    "layerwise": {},
    "frozen": {"start": "layerwise", "freeze": True},
}
# Batches of 32 leave last ones of 22, 12 and 2 samples, and of 1 (which joins its neighbour) in the second data set.
MODELS: dict[str, dict[str, Any]] = {
    "mlp": {
        "model": {"name": "mlp", "widths": [20, 20]},
        "data": {"name": "digits", "train_samples": 162, "validation_fraction": 0.2},
    },
    "mlp with BatchNorm": {
        "model": {"name": "mlp", "widths": [20], "batch_norm": True},
        "data": {"name": "digits", "train_samples": 97},
    },
    "resnet18": {
        "model": {"name": "resnet18", "width": 4},
        "data": {"name": "synthetic", "shape": [3, 8, 8], "train_samples": 108, "test_samples": 20},
    },
}


def cell_of(model: str, start: str = "shrink_perturb", **changes: Any) -> Cell:
    scenario = {
        "name": "parity",
        "stream": {"name": "online", "chunk_size": 54},
        "training": {
            "batch_size": 32,
            "optimizer": {"lr": 0.01},
            "until": {"train_accuracy": 0.95, "max_epochs": 4},
            **changes,
        },
        "strategies": {start: STARTS[start]},
        "seeds": [3],
        **MODELS[model],
    }
    (cell,) = plan(scenario, "test")[1]
    return cell


def ran(cell: Cell, folder: Path, avalanche: bool, monkeypatch: Any) -> tuple[list[Any], pd.DataFrame, pd.DataFrame]:
    """Weights after each round, rows of the rounds and of the epochs."""
    kept: list[dict[str, torch.Tensor]] = []
    evaluate = CellTrainer.evaluate

    def noting(trainer: CellTrainer, round_: Any) -> Any:
        kept.append(trainer.weights())
        return evaluate(trainer, round_)

    with monkeypatch.context() as patched:
        patched.setattr(CellTrainer, "evaluate", noting)
        run = RunFolder(folder)
        run_cell(cell, run, ExecutionSettings(Path()), engine=avalanche_engine if avalanche else None)
    stored = run.cell(cell.id).result()
    assert stored is not None
    return kept, *(pd.DataFrame(stored[name]) for name in ("rounds", "epochs"))


def assert_equal(cell: Cell, tmp_path: Path, monkeypatch: Any) -> pd.DataFrame:
    ours, theirs = (
        ran(cell, tmp_path / str(avalanche), avalanche=avalanche, monkeypatch=monkeypatch)
        for avalanche in (False, True)
    )
    assert len(ours[0]) == len(theirs[0]) == len(ours[1]) >= 2
    for mine, other in zip(ours[0], theirs[0], strict=True):
        assert mine.keys() == other.keys()
        assert [name for name in mine if not torch.equal(mine[name], other[name])] == []
    for mine, other in zip(ours[1:], theirs[1:], strict=True):
        timed = [name for name in mine if name in MEASURED]
        # The running loss is summed in float32 here, and in float64 there.
        pd.testing.assert_frame_equal(mine.drop(columns=timed), other.drop(columns=timed), rtol=1e-5)
    assert (theirs[2]["train_seconds"] > 0).all()
    return ours[1]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("model", MODELS)
def test_both_engines_give_the_same_weights_after_every_round(model, start, tmp_path, monkeypatch):
    rounds = assert_equal(cell_of(model, start), tmp_path, monkeypatch)
    assert rounds["epochs"].max() > 1


UNTIL: dict[str, dict[str, Any]] = {
    "running accuracy": {"until": {"running_accuracy": 0.8}},
    "plateau": {"until": {"plateau": {"patience": 2}, "max_epochs": 20}},
    "patience on validation data": {"until": {"validation_patience": 2, "max_epochs": 20}},
    "epochs": {"until": {"epochs": 3}},
    "steps within an epoch": {"until": {"steps": 5}},
    "cap": {"until": {"train_accuracy": 1.0, "max_epochs": 2}},
    "give up": {"until": {"train_accuracy": 1.0, "give_up": {"epochs": 2, "below": 0.99}}},
    "schedule": {
        "until": {"epochs": 4},
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.001},
        "schedule": {"name": "cosine"},
    },
    "later rounds": {
        "until": {"epochs": 2},
        "later_rounds": {"optimizer": {"name": "sgd", "lr": 0.1}, "batch_size": 16, "until": {"epochs": 3}},
    },
}


@pytest.mark.parametrize("changes", UNTIL.values(), ids=UNTIL)
def test_both_engines_end_a_round_by_every_rule_after_the_same_epochs(changes, tmp_path, monkeypatch):
    assert_equal(cell_of("mlp", **changes), tmp_path, monkeypatch)


def test_both_engines_add_the_same_loss_terms(tmp_path, monkeypatch):
    """The teacher's logits are cached here and computed batch by batch there, so last bits differ."""
    (cell,) = plan(
        {
            "name": "taught", "stream": {"name": "stages", "stages": 3, "epochs": 6}, "training": {"batch_size": 32},
            "strategies": {"taught": {"start": "shrink_perturb", "self_distillation": {"beta": 2, "temperature": 3}}},
            "parts": {"l2": {"strength": 0.01}, "confidence_penalty": {"strength": 0.1}},
            **MODELS["mlp with BatchNorm"],
        },
        "test",
    )[1]  # fmt: skip
    ours, theirs = (ran(cell, tmp_path / str(each), each, monkeypatch) for each in (False, True))
    for mine, other in zip(ours[0], theirs[0], strict=True):
        for name, tensor in mine.items():
            torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=1e-4)
    losses, others = (each[2]["running_train_loss"] for each in (ours, theirs))
    assert others.to_list() == pytest.approx(losses.to_list(), rel=1e-4)


def test_both_engines_call_a_round_diverged_after_the_same_epoch(tmp_path, monkeypatch):
    cell = cell_of("mlp", until={"epochs": 5}, optimizer={"name": "sgd", "lr": 1e38})
    ours, theirs = (ran(cell, tmp_path / str(each), each, monkeypatch) for each in (False, True))
    assert set(ours[1]["status"]) == {"diverged"}
    for table, other in zip(ours[1:], theirs[1:], strict=True):
        columns = [name for name in ("round", "epoch", "epochs", "status") if name in table]
        pd.testing.assert_frame_equal(table[columns], other[columns])
