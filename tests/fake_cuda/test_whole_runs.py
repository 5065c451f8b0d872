"""Whole runs on the simulated device: the numbers of the CPU, and nothing that would be wrong on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.contracts.test_parts import ACTIVE
from tests.experiment import own_parts
from tests.fake_cuda import machine
from tests.fake_cuda.runs import SGD, Run, assert_same_results, run, scenario
from warmstart_sim.execution import throughput
from warmstart_sim.execution.autotune import Parallelism, choose_parallelism
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.registry import MODELS, PARTS, PROBES, STRATEGIES, Registry
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario import Cell
from warmstart_sim.training import step_time

ADAM = {"name": "adam", "lr": 2**-9}
ADAMW = {"name": "adamw", "lr": 2**-9, "weight_decay": 0.125}
WEIGHTS_ALONE = {"name": "adam", "lr": 2**-9, "weight_decay": 0.125, "decay_biases": False}
PLAIN_SGD = {"name": "sgd", "lr": 2**-6, "weight_decay": 0.125}
IMAGES = {"name": "synthetic", "train_samples": 40, "test_samples": 20}
FEW_IMAGES = {"name": "synthetic", "train_samples": 24, "test_samples": 8}
NEXT_SYMBOLS = {"name": "markov_text", "train_samples": 40, "test_samples": 20, "length": 8}
TEXTS = {"name": "synthetic_text", "train_samples": 40, "test_samples": 20, "length": 9}


def compared(raw: dict[str, Any], folder: Path, tolerance: float = 0.0, **options: Any) -> Run:
    """Runs a scenario on both devices, and returns the run on the simulated one."""
    found, expected = run(raw, folder / "cuda", **options), run(raw, folder / "cpu", "cpu")
    assert not found.machine.reports
    assert_same_results(found, expected, tolerance)
    return found


# Every model, shallow ones with every stem, with the optimisers, precisions, parts and starts in turn:
# (model, optimiser, precision, arm).
SHALLOW = {
    "logistic_regression": ({}, ADAM, "float32", {"start": "random_init", "l2": {"strength": 0.01}}),
    "mlp": ({"widths": [8], "dropout": 0.5, "batch_norm": True}, ADAMW, "bf16", {"start": "last_layer"}),
    "small_cnn": ({"channels": [4, 8]}, WEIGHTS_ALONE, "float32",
                  {"start": "shrink_perturb", "lambda": 0.5, "sigma": 0.25, "augment": ["random_crop", "rotation"]}),
    "simple_cnn": ({"width": 2}, SGD, "bf16", {"start": "layerwise", "adversarial": {"epsilon": 0.03}}),
    "mobilenet": ({"widths": [4, 8, 8], "dropout": 0.25}, PLAIN_SGD, "float32",
                  {"start": "wels", "augment": ["horizontal_flip", "color_jitter"]}),
    "mobilenet imagenet": ({"widths": [4, 8, 8], "stem": "imagenet"}, ADAM, "bf16",
                           {"start": "warm_start", "confidence_penalty": {"strength": 0.1}}),
    "vit": ({"width": 8, "depth": 1, "heads": 2}, ADAM, "float32", {"start": "head"}),
    "decoder": ({"width": 8, "depth": 1, "heads": 2}, ADAM, "float32", {"start": "shrink_perturb"}),
    "vgg16": ({"width": 2, "dropout": 0.25}, ADAM, "bf16", {"start": "random_init", "self_distillation": {}}),
}  # fmt: skip
DEEP = {
    "resnet18 cifar_maxpool": ({"width": 2, "stem": "cifar_maxpool"}, SGD, "bf16"),
    "resnet18 imagenet": ({"width": 2, "stem": "imagenet"}, PLAIN_SGD, "float32"),
    "preact_resnet18": ({"width": 2}, ADAMW, "bf16"),
    "mobilenet_v2": ({"width": 4}, WEIGHTS_ALONE, "float32"),
    "resnet50": ({"width": 2}, ADAM, "float32"),
}  # fmt: skip


def scenario_of(name: str, options: Any, optimizer: Any, precision: str, **changes: Any) -> dict[str, Any]:
    training = {"batch_size": 16, "until": {"epochs": 2}, "optimizer": optimizer, "precision": precision}
    return scenario(model={"name": name.split()[0], **options}, training=training, **changes)


def test_every_model_is_among_the_cases():
    assert {name.split()[0] for name in (*SHALLOW, *DEEP, "bilstm")} == set(MODELS.names())


@pytest.mark.parametrize("name", SHALLOW)
def test_a_model_trains_and_restarts_as_on_the_cpu(name, tmp_path):
    data = {} if name in ("logistic_regression", "mlp", "small_cnn") else {"data": IMAGES}
    data = {"data": NEXT_SYMBOLS} if name == "decoder" else data
    *settings, arm = SHALLOW[name]
    found = compared(scenario_of(name, *settings, strategies={"arm": arm}, **data), tmp_path)
    assert found.machine.captures >= 4  # steps on a full and on a partial batch, two evaluations
    assert found.machine.replays >= 2 * (2 + 3) + 5


@pytest.mark.parametrize("name", DEEP)
def test_a_deep_model_trains_as_on_the_cpu(name, tmp_path, monkeypatch):
    """One round of two steps; images are so large that no feature map is a single pixel, which has no format."""
    size = 64 if "imagenet" in name else 16
    raw = scenario_of(name, *DEEP[name], data={**FEW_IMAGES, "shape": [3, size, size]}, stream={"name": "static"})
    raw["training"]["until"] = {"epochs": 1}
    if name == "mobilenet_v2":  # of this gradient BatchNorm makes sums, whose last bits depend on its format
        monkeypatch.setattr("warmstart_sim.models._layers.keep_format", lambda images: images)
    assert compared(raw, tmp_path).machine.captures == 4


def arms_of(registry: Registry, options: dict[str, Any], start: str | None = None) -> dict[str, Any]:
    """An arm for everything that is registered, so that a new strategy or part is tested by itself."""
    found = {name: options.get(name, {}) for name in registry.names()}
    return found if start is None else {name: {"start": start, name: each} for name, each in found.items()}


def test_every_strategy_starts_as_on_the_cpu(tmp_path):
    arms = arms_of(STRATEGIES, {"shrink_perturb": {"lambda": 0.5, "sigma": 0.25}})
    compared(scenario(strategies=arms, model={"name": "small_cnn", "channels": [4]}), tmp_path)


@pytest.mark.filterwarnings("ignore:the training step cannot be captured")
def test_every_part_trains_as_on_the_cpu(tmp_path):
    compared(scenario(strategies=arms_of(PARTS, ACTIVE, "warm_start")), tmp_path)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_a_recurrent_network_trains_on_buckets_of_texts(cell, tmp_path):
    """Without dropout, whose draws depend on the width to which texts are padded."""
    model = {"name": "bilstm", "cell": cell, "embedding": 4, "hidden": 4, "dropout": 0, "pooling": "mean"}
    training = {"batch_size": 12, "until": {"epochs": 2}, "optimizer": SGD, "bucketing": 2}
    with mock.patch("warmstart_sim.training.stepper.TEXT_STEP", 4):
        compared(scenario(model=model, training=training, data=TEXTS), tmp_path, tolerance=1e-5)


@pytest.mark.parametrize("name", ["mlp", "small_cnn"])
def test_tf32_rounds_products_but_not_much(name, tmp_path):
    raw = scenario(model={"name": name})
    raw["training"] |= {"precision": "tf32"}
    found, expected = run(raw, tmp_path / "cuda"), run(raw, tmp_path / "cpu", "cpu")
    assert_same_results(found, expected, tolerance=1e-2)
    with pytest.raises(AssertionError):
        assert_same_results(found, expected, tolerance=1e-6)


THREE_ARMS = {
    "random_init": {},
    "warm_start": {"augment": ["random_crop"]},
    "shrink_perturb": {"lambda": 0.5, "sigma": 0.25},
}
PLACES: dict[str, dict[str, Any]] = {
    "alone": {},
    "apart": {"slots": 3, "batching": "separate"},
    "streams": {"slots": 3, "batching": "streams"},
    "stacked": {"slots": 3, "batching": "stacked"},
    "the second device": {"device": "cuda:1", "devices": 2},
    "streams of the second device": {"device": "cuda:1", "devices": 2, "slots": 3, "batching": "streams"},
}


ARMS_AND_SEEDS = scenario(strategies=THREE_ARMS, seeds=[0, 1], model={"name": "small_cnn", "channels": [4]})


@pytest.fixture(scope="module")
def arms_and_seeds_on_cpu(tmp_path_factory) -> Run:
    return run(ARMS_AND_SEEDS, tmp_path_factory.mktemp("cpu"), "cpu")


@pytest.mark.parametrize("place", PLACES)
def test_arms_and_seeds_give_the_numbers_of_the_cpu_wherever_they_run(place, tmp_path, arms_and_seeds_on_cpu):
    found = run(ARMS_AND_SEEDS, tmp_path, **PLACES[place])
    assert not found.machine.reports
    assert_same_results(found, arms_and_seeds_on_cpu, tolerance=1e-4 if place == "stacked" else 0)


def test_more_slots_than_streams(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "STREAMS", 2)
    compared(scenario(strategies=THREE_ARMS), tmp_path, slots=3, batching="streams")


@pytest.mark.parametrize("stream", [
    {"name": "split", "first_phase_epochs": 1},
    {"name": "pretrain", "fraction": 0.5, "source": {"name": "digits", "train_samples": 30, "test_samples": 10}},
], ids=["split", "pretrain"])  # fmt: skip
def test_a_first_phase_and_what_follows_it(stream, tmp_path):
    compared(scenario(stream=stream, strategies=THREE_ARMS), tmp_path, slots=3, batching="streams")


def test_every_probe_measures_what_it_does_on_the_cpu(tmp_path):
    names = [name for name in PROBES.names() if name != "transfer"]
    measure = {"each_epoch": names, "each_round": names}
    compared(scenario(measure=measure, model={"name": "small_cnn", "channels": [4]}), tmp_path, tolerance=1e-5)


def test_transfer_between_rounds_that_drift_is_that_of_the_cpu(tmp_path):
    stream = {"name": "online", "chunk_size": 20, "changes": {"pixel_noise": {"per_round": 0.2}}}
    compared(scenario(stream=stream, measure={"each_round": ["transfer"]}), tmp_path)


def test_a_grid_of_rates_and_stop_rules_reuses_steppers(tmp_path):
    until = {"train_accuracy": 0.6, "max_epochs": 3}
    training = {
        "batch_size": 16,
        "until": until,
        "optimizer": SGD,
        "schedule": {"name": "step", "every": 1, "gamma": 0.5},
    }
    raw = scenario(training=training, vary={"training.optimizer.lr": [2**-5, 2**-3, 2**-7]})
    assert compared(raw, tmp_path).machine.captures == 5  # of the first cell; on 16, 4 and 8 samples


@pytest.mark.parametrize("batching", ["streams", "stacked"])
def test_cells_that_fail_or_diverge_leave_the_others_as_they_are(batching, tmp_path):
    arms = {
        "random_init": {},
        "crashes": {"start": "tests.experiment.poison:crash"},
        "diverges": {"start": "tests.experiment.poison:not_a_number"},
    }
    found = run(scenario(strategies=arms), tmp_path / "cuda", slots=3, batching=batching)
    expected = run(scenario(strategies=arms), tmp_path / "cpu", "cpu")
    assert not found.machine.reports
    assert_same_results(found, expected, tolerance=1e-4)
    assert list(found.failures.values()) == ["ZeroDivisionError: one arm's own mistake"]


@pytest.mark.parametrize("resumed_on", ["cuda:0", "cpu"])
def test_an_interrupted_run_goes_on_as_one_that_was_not(resumed_on, tmp_path):
    raw = scenario(strategies={"warm_start": {"augment": ["random_crop"]}})
    with pytest.raises(KeyboardInterrupt):
        run(raw, tmp_path / "cuda", interrupt_after=3, checkpoint_seconds=0)
    found, expected = run(raw, tmp_path / "cuda", resumed_on), run(raw, tmp_path / "cpu", "cpu")
    assert found.results
    assert_same_results(found, expected)


def test_slots_are_chosen_by_measuring(tmp_path, monkeypatch):
    """How long something takes on the simulated device means nothing; that it can be measured does."""
    for module in (throughput, step_time):
        monkeypatch.setattr(module, "BLOCKS", 1)
        monkeypatch.setattr(module, "BLOCK_SECONDS", 0)
    monkeypatch.setattr(step_time, "EPOCHS", 1)

    def measured(execution: ExecutionSettings, cells: Sequence[Cell], stored: RunFolder) -> ExecutionSettings:
        chosen = choose_parallelism(execution, cells, stored, Parallelism(1, "auto", "auto"))
        assert {rate["batching"] for rate in stored.speed()["rates"]} == {"separate", "streams", "stacked"}
        return chosen

    compared(scenario(strategies=THREE_ARMS), tmp_path, tolerance=1e-4, prepare=measured)


@pytest.mark.filterwarnings("ignore:the training step cannot be captured")
def test_a_users_own_parts_and_starts(tmp_path, own_parts_registered):
    arms = {
        "averaged": {"start": "warm_start", "running_average": {}},
        "taught": {"start": "random_init", "last_round_teaches": {}},
        "head_only": {"start": own_parts.head_only},
        "doubled": {"start": own_parts.doubled},
    }
    compared(scenario(strategies=arms), tmp_path, slots=4, batching="streams")


def test_what_rounds_hand_on_is_as_on_the_cpu(tmp_path):
    """The optimiser's state, also of parameters that did not train, and the annealing after a round."""
    infinite = {"name": "infinite", "epochs": 3, "constant_lr": 2**-10, "anneal": 1, "min_lr": 2**-12}
    training = {"optimizer": ADAM, "batch_size": 16, "until": {"epochs": 2}, "schedule": infinite}
    arms = {"warm_start": {}, "last_layer": {"rounds": 1}}
    raw = scenario(training={**training, "optimizer_state": "keep"}, strategies=arms)
    compared(raw, tmp_path)
