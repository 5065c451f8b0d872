"""The stream `pretrain` from start to end: what is shared, heads, checkpoints, interruptions, normalisation."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from warmstart_sim import scenario as scenarios
from warmstart_sim.errors import WarmstartError
from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.run_cell import run_cell
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.models.weights import transfer_weights
from warmstart_sim.results.columns import MEASURED
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario.yaml_files import set_path

FOUR_CLASSES = {"name": "synthetic", "shape": [1, 8, 8], "classes": 4, "train_samples": 60, "test_samples": 20}
SCENARIO = {
    "name": "tiny",
    "data": {"name": "noisy_digits", "train_samples": 80, "test_samples": 40},
    "stream": {"name": "pretrain", "source": {"name": "digits", "train_samples": 60, "test_samples": 40}},
    "model": {"name": "mlp", "widths": [6], "batch_norm": True},
    "training": {"batch_size": 32, "optimizer": {"lr": 0.01}, "until": {"train_accuracy": 1.0, "max_epochs": 4}},
    "strategies": {"random_init": {}, "warm_start": {}, "shrink_perturb": {"lambda": 0.4, "sigma": 0.1}},
}
ENDS = {
    "warm_start": {},
    "all of it": {"start": "shrink_perturb", "lambda": 1, "sigma": 0},
    "random_init": {},
    "nothing of it": {"start": "shrink_perturb", "lambda": 0, "sigma": 1},
}


@pytest.fixture
def execution(tmp_path) -> ExecutionSettings:
    return ExecutionSettings(data_root=tmp_path)


def scenario(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    raw = copy.deepcopy(SCENARIO)
    for key, value in (changes or {}).items():
        set_path(raw, key, copy.deepcopy(value))
    return raw


def cells(changes: dict[str, Any] | None = None) -> list[scenarios.Cell]:
    return scenarios.plan(scenario(changes), "scenario")[1]


def arm(label: str, changes: dict[str, Any] | None = None) -> scenarios.Cell:
    return next(cell for cell in cells(changes) if cell.arm.label == label)


def timeless(rows: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in MEASURED} for row in rows]


def result(cell: scenarios.Cell, folder: Path, execution: ExecutionSettings) -> dict[str, Any]:
    run = RunFolder(folder)
    run_cell(cell, run, execution)
    stored = run.cell(cell.id).result()
    return {name: timeless(rows) for name, rows in stored.items()} | {"weights": run.cell(cell.id).weights()}


def same_weights(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def same(one: dict, other: dict, first_round: int = 0) -> bool:
    """Whether two cells have the same rounds from `first_round` on, the same epochs of them, and the same end."""
    rows = (
        [row for row in each[name] if row["round"] >= first_round]
        for name in ("rounds", "epochs")
        for each in (one, other)
    )
    rounds, other_rounds, epochs, other_epochs = rows
    return rounds == other_rounds and epochs == other_epochs and same_weights(one["weights"], other["weights"])


def first_weights(cell: scenarios.Cell, folder: Path) -> dict[str, torch.Tensor]:
    return RunFolder(folder).first_phase(cell.first_phase.id).weights()


def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Keeps a list of (data set, round) that are trained from now on."""
    seen: list[tuple[str, int]] = []
    original = CellTrainer.begin
    monkeypatch.setattr(
        CellTrainer,
        "begin",
        lambda trainer, round_, *rest: (
            seen.append((trainer.cell.data.name, round_.index)) or original(trainer, round_, *rest)
        ),
    )
    return seen


# One first phase for all.


def test_the_first_phase_is_trained_once_for_all_arms_and_fractions(tmp_path, execution, monkeypatch):
    changes = {"strategies.augmented": {"start": "warm_start", "augment": ["rotation"], "training": {"batch_size": 8}}}
    changes |= {"data": {**FOUR_CLASSES, "classes": 10}, "vary": {"stream.fraction": [0.5, 1]}}
    seen = trained(monkeypatch)
    results = [result(cell, tmp_path, execution) for cell in cells(changes)]
    assert seen == [("digits", 0)] + [("synthetic", 1)] * 8
    assert len(list((tmp_path / "first_phases").iterdir())) == 1
    assert len({str(each["rounds"][0]) for each in results}) == 1
    assert len({str(each["epochs"][0]) for each in results}) == 1


def test_rows_say_which_round_was_on_which_data(tmp_path, execution):
    first, second = result(arm("warm_start", {"stream.fraction": 0.5}), tmp_path, execution)["rounds"]
    found = [
        [row[key] for key in ("round", "shared", "dataset", "train_samples", "new_samples")] for row in (first, second)
    ]
    assert found == [[0, True, "digits", 60, 60], [1, False, "noisy_digits", 40, 40]]


def test_the_artefact_says_what_it_is_and_how_long_it_took(tmp_path, execution):
    cell = arm("warm_start", {"stream.source.training": {"until": {"epochs": 3}}})
    result(cell, tmp_path, execution)
    (folder,) = (tmp_path / "first_phases").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["result.json", "settings.json", "weights.pt"]
    settings = json.loads((folder / "settings.json").read_text())
    assert settings == json.loads(json.dumps(cell.first_phase.settings))
    assert (settings["data"]["name"], settings["seed"], settings["training"]["until"]["epochs"]) == ("digits", 0, 3)
    (row,) = json.loads((folder / "result.json").read_text())["rounds"]
    assert row["train_seconds"] > 0
    assert (row["epochs"], row["status"]) == (3, "finished")


def test_pairs_with_the_same_source_start_from_the_same_artefact(tmp_path, execution, monkeypatch):
    seen = trained(monkeypatch)
    targets = ["noisy_digits", {"name": "synthetic", "shape": [1, 8, 8], "classes": 3}]
    pairs = {str(index): {"data": each} for index, each in enumerate(targets)}
    changes = {"vary": {"pair": pairs}, "strategies": {"warm_start": {}}, "training.until": {"epochs": 1}}
    for cell in cells({**changes, "data.train_samples": 40}):
        result(cell, tmp_path, execution)
    assert seen == [("digits", 0), ("noisy_digits", 1), ("synthetic", 1)]


def test_an_artefact_that_lost_its_weights_is_trained_again_with_the_same_result(tmp_path, execution):
    warm, random = arm("warm_start"), arm("random_init")
    before = result(warm, tmp_path / "one", execution)
    result(random, tmp_path / "other", execution)
    (path,) = (tmp_path / "other").glob("first_phases/*/weights.pt")
    path.write_bytes(b"half a file")
    assert same(result(warm, tmp_path / "other", execution), before)


@pytest.mark.parametrize("label", ["warm_start", "shrink_perturb"])
@pytest.mark.parametrize("stop_after", [1, 3, 4, 6, 7])
def test_a_cell_killed_in_either_phase_and_started_again_equals_one_that_ran_through(
    tmp_path, execution, label, stop_after
):
    changes = {"strategies.shrink_perturb.noise": "gaussian", "training.until": {"epochs": 4}}
    cell = arm(label, changes)
    through = result(cell, tmp_path / "through", execution)

    class Killed(BaseException):
        pass

    epochs: list[int] = []

    def kill(progress):
        epochs.append(progress.round)
        if len(epochs) == stop_after:
            raise Killed

    eager = ExecutionSettings(execution.data_root, checkpoint_seconds=0)  # a checkpoint at every epoch's border
    run = RunFolder(tmp_path / "killed")
    with pytest.raises(Killed):
        run_cell(cell, run, eager, kill)
    assert epochs[-1] == (0 if stop_after <= 4 else 1)
    torch.rand(3)  # whatever else draws from the global generator makes no difference
    assert same(result(cell, tmp_path / "killed", execution), through)
    assert same_weights(first_weights(cell, tmp_path / "killed"), first_weights(cell, tmp_path / "through"))


def test_a_first_phase_that_diverges_spoils_no_arm_that_forgets_it(tmp_path, execution):
    changes = {"strategies": ENDS, "stream.source.training": {"optimizer": {"name": "sgd", "lr": 1e38}}}
    good = {label: result(arm(label, {"strategies": ENDS}), tmp_path / "good", execution) for label in ENDS}
    bad = {label: result(arm(label, changes), tmp_path / "bad", execution) for label in ENDS}
    assert {each["rounds"][0]["status"] for each in bad.values()} == {"diverged"}
    assert bad["warm_start"]["rounds"][1]["status"] == "diverged"
    for label in ("random_init", "nothing of it"):
        assert same(bad[label], good[label], first_round=1)


# Where arms start.


@pytest.mark.parametrize("source", [SCENARIO["stream"]["source"], FOUR_CLASSES], ids=["same head", "another head"])
@pytest.mark.parametrize("head", ["keep", "fresh"])
def test_the_ends_of_shrink_perturb_are_warm_start_and_random_init_to_the_bit(tmp_path, execution, source, head):
    changes = {"strategies": ENDS, "stream.source": source, "stream.head": head}
    warm, like_warm, random, like_random = (result(cell, tmp_path, execution) for cell in cells(changes))
    assert same(warm, like_warm)
    assert same(random, like_random)
    assert not same(warm, random)


def start_of(
    label: str, changes: dict[str, Any], folder: Path, execution: ExecutionSettings
) -> dict[str, torch.Tensor]:
    """The weights from which the arm trains on the target."""
    cell = arm(label, changes)
    result(cell, folder, execution)
    trainer = CellTrainer(cell, execution)
    before = transfer_weights(
        first_weights(cell, folder), trainer.fresh_weights(1), trainer.layout, cell.pretraining.head
    )
    return dict(trainer.begin(trainer.rounds[0], before)[0].start)


def in_head(weights: dict[str, torch.Tensor], inside: bool) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in weights.items() if name.startswith("head.") == inside}


def test_warm_start_starts_from_the_whole_network_where_the_heads_are_alike(tmp_path, execution):
    assert same_weights(start_of("warm_start", {}, tmp_path, execution), first_weights(arm("warm_start"), tmp_path))


@pytest.mark.parametrize("changes", [{"stream.source": FOUR_CLASSES}, {"stream.head": "fresh"}], ids=str)
def test_a_new_head_is_random_inits_for_every_arm_and_the_body_is_the_sources(tmp_path, execution, changes):
    warm, random = (start_of(label, changes, tmp_path, execution) for label in ("warm_start", "random_init"))
    source = first_weights(arm("warm_start", changes), tmp_path)
    assert same_weights(in_head(warm, True), in_head(random, True))
    assert same_weights(in_head(warm, False), in_head(source, False))
    assert not same_weights(in_head(random, False), in_head(source, False))
    shrunk = start_of("shrink_perturb", changes, tmp_path, execution)
    for name, tensor in in_head(shrunk, True).items():
        assert torch.allclose(tensor, (0.4 + 0.1) * random[name])


def test_fresh_weights_differ_by_seed_and_not_by_source(tmp_path, execution):
    changes = {"seeds": [0, 1], "vary": {"stream.source": ["digits", FOUR_CLASSES]}}
    fresh = {
        (cell.seed, str(cell.varied)): CellTrainer(cell, execution).fresh_weights(1)
        for cell in cells(changes)
        if cell.arm.label == "random_init"
    }
    (zero, other_zero), (one, _) = ([each for (seed, _), each in fresh.items() if seed == wanted] for wanted in (0, 1))
    assert same_weights(zero, other_zero)
    assert not same_weights(zero, one)


# A file of weights in the place of the first phase.


@pytest.mark.parametrize(
    "wrap", [lambda weights: weights, lambda weights: {"state_dict": weights}], ids=["ours", "wrapped"]
)
@pytest.mark.parametrize("source", [SCENARIO["stream"]["source"], FOUR_CLASSES], ids=["same head", "another head"])
def test_our_own_first_phase_as_a_checkpoint_gives_the_numbers_of_the_source(tmp_path, execution, source, wrap):
    with_source = {"stream.source": source, "stream.fraction": 0.5}
    expected = {cell.arm.label: result(cell, tmp_path / "source", execution) for cell in cells(with_source)}
    (path,) = (tmp_path / "source").glob("first_phases/*/weights.pt")
    torch.save(wrap(torch.load(path, weights_only=True)), tmp_path / "weights.pt")
    stream = {"name": "pretrain", "checkpoint": str(tmp_path / "weights.pt"), "fraction": 0.5}
    for cell in cells({"stream": stream}):
        found = result(cell, tmp_path / "file", execution)
        assert [row["round"] for row in found["rounds"]] == [1]
        assert same(found, expected[cell.arm.label], first_round=1)
    assert not (tmp_path / "file" / "first_phases").exists()


def test_half_precision_weights_are_those_weights_rounded(tmp_path, execution):
    cell = arm("warm_start")
    result(cell, tmp_path / "source", execution)
    rounded = {
        name: t.half() if t.is_floating_point() else t for name, t in first_weights(cell, tmp_path / "source").items()
    }
    paths = {"half.pt": rounded, "full.pt": {n: t.float() if t.dtype == torch.half else t for n, t in rounded.items()}}
    found = []
    for name, weights in paths.items():
        torch.save(weights, tmp_path / name)
        stream = {"name": "pretrain", "checkpoint": str(tmp_path / name)}
        found.append(result(arm("warm_start", {"stream": stream}), tmp_path / name.partition(".")[0], execution))
    assert same(*found)


def test_weights_of_another_architecture_are_listed(tmp_path, execution):
    torch.save(
        CellTrainer(arm("random_init", {"model.widths": [7]}), execution).fresh_weights(0), tmp_path / "weights.pt"
    )
    cell = arm("warm_start", {"stream": {"name": "pretrain", "checkpoint": str(tmp_path / "weights.pt")}})
    with pytest.raises(WarmstartError) as caught:
        result(cell, tmp_path / "run", execution)
    assert str(caught.value).splitlines()[:2] == [
        "the pre-trained weights have another architecture: 0 of the 6 entries of the model's body fit",
        "  'hidden1.0.weight' is (7, 64) there and (6, 64) in the model",
    ]


# What the network sees in the first phase.


def seen_in_first_phase(changes: dict[str, Any], execution: ExecutionSettings) -> np.ndarray:
    """All inputs of the first phase as the network gets them."""
    trainer = CellTrainer(arm("warm_start", changes).first_phase, execution)
    return trainer.train_samples.batch(torch.arange(len(trainer.train_samples)))[0].contiguous().numpy()


def raw_inputs(source: dict[str, Any], execution: ExecutionSettings) -> np.ndarray:
    """The training inputs of a data set as a static scenario has them, pixels in [0, 1]."""
    trainer = CellTrainer(
        scenarios.plan({**scenario(), "data": source, "stream": "static"}, "scenario")[1][0], execution
    )
    inputs = trainer.dataset.train.inputs
    return inputs / np.float64(255) if inputs.dtype == np.uint8 else inputs.astype(np.float64)


def standard(inputs: np.ndarray, by: np.ndarray) -> np.ndarray:
    axes = (0, 2, 3)
    return (inputs - by.mean(axes, keepdims=True)) / by.std(axes, keepdims=True)


@pytest.mark.parametrize("target", ["none", "half", "train"])
def test_by_its_own_numbers_the_source_has_mean_0_and_deviation_1_in_each_channel(execution, target):
    changes = {"stream.source.normalize": "train", "data.normalize": target}
    digits = raw_inputs({"name": "digits"}, execution)
    assert np.allclose(seen_in_first_phase(changes, execution), standard(digits, digits), atol=1e-5)


def test_the_source_is_normalised_as_the_target_is_unless_it_says_otherwise(execution):
    digits = raw_inputs({"name": "digits"}, execution)
    assert np.allclose(seen_in_first_phase({"data.normalize": "half"}, execution), (digits - 0.5) / 0.5, atol=1e-5)
    assert np.allclose(seen_in_first_phase({"data.normalize": "none"}, execution), digits, atol=1e-6)
    assert np.allclose(seen_in_first_phase({}, execution), standard(digits, digits), atol=1e-5)


COLOUR = {"name": "synthetic", "shape": [3, 8, 8], "train_samples": 40, "test_samples": 20}


def test_with_the_targets_numbers_both_sets_have_the_same_normalisation(execution):
    source = {**COLOUR, "classes": 4, "normalize": "target"}
    changes = {"data": COLOUR, "stream.source": source}
    found = seen_in_first_phase(changes, execution)
    own = {key: value for key, value in source.items() if key != "normalize"}
    assert np.allclose(found, standard(raw_inputs(own, execution), raw_inputs(COLOUR, execution)), atol=1e-4)
    constants = seen_in_first_phase({**changes, "data.normalize": "half"}, execution)
    assert np.allclose(constants, (raw_inputs(own, execution) - 0.5) / 0.5, atol=1e-5)


def test_adapted_inputs_are_normalised_after_they_are_adapted(execution):
    changes = {"data": COLOUR, "stream.source": {"name": "digits", "adapt": "pad"}, "model": "mlp"}
    grey = raw_inputs({"name": "digits"}, execution)
    expected = np.repeat(grey, 3, axis=1)
    assert np.allclose(seen_in_first_phase(changes, execution), standard(expected, expected), atol=1e-5)
    larger = {"data": {**COLOUR, "shape": [1, 10, 12]}, "stream.source": {"name": "digits", "adapt": "pad"}}
    padded = np.pad(grey, ((0, 0), (0, 0), (1, 1), (2, 2)))
    assert np.allclose(seen_in_first_phase(larger, execution), standard(padded, padded), atol=1e-5)


@pytest.mark.parametrize("how", ["resize", "pad"])
def test_a_network_carries_over_between_images_of_different_size_and_colour(tmp_path, execution, how):
    changes = {"data": {**COLOUR, "shape": [3, 12, 10]}, "model": {"name": "small_cnn", "channels": [3]}}
    changes |= {
        "stream.source": {"name": "digits", "train_samples": 60, "adapt": how},
        "training.until": {"epochs": 1},
    }
    first, second = result(arm("warm_start", changes), tmp_path, execution)["rounds"]
    assert (first["dataset"], second["dataset"]) == ("digits", "synthetic")
    assert first["flops"] / first["samples_seen"] == second["flops"] / second["samples_seen"]
