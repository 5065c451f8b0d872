"""Weights from elsewhere: reading checkpoint files, and transferring them to a model with another head."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from warmstart_sim import models
from warmstart_sim.errors import DataError, WarmstartError
from warmstart_sim.models.weights import file_digest, read_weights, transfer_weights

CLASSES = 3


def model(classes: int = CLASSES, seed: int = 0, **options: Any) -> torch.nn.Module:
    torch.manual_seed(seed)
    return models.build("small_cnn", {"channels": (2, 4), **options}, (1, 4, 4), classes)


def state(classes: int = CLASSES, seed: int = 0, **options: Any) -> dict[str, torch.Tensor]:
    return dict(model(classes, seed, **options).state_dict())


def layout() -> models.Layout:
    return models.layout(model())


def stored(folder: Path, content: Any, **options: Any) -> Path:
    torch.save(content, folder / "weights.pt", **options)
    return folder / "weights.pt"


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# Reading.

WRAPPED = {
    "plain": lambda weights: weights,
    "state_dict": lambda weights: {"state_dict": weights, "epoch": 3, "optimizer": {"state": {}}},
    "model_state_dict": lambda weights: {"model_state_dict": weights, "loss": 0.5},
    "model": lambda weights: {"model": weights},
    "data_parallel": lambda weights: {f"module.{name}": tensor for name, tensor in weights.items()},
    "compiled": lambda weights: {f"_orig_mod.{name}": tensor for name, tensor in weights.items()},
    "both": lambda weights: {"model": {f"module._orig_mod.{name}": tensor for name, tensor in weights.items()}},
    "two_levels": lambda weights: {"state_dict": {"model": weights}},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_state_dict_is_found_under_the_keys_of_training_scripts(tmp_path, kind):
    assert same(read_weights(stored(tmp_path, WRAPPED[kind](state()))), state())


def test_the_older_file_format_is_read_as_well(tmp_path):
    assert same(read_weights(stored(tmp_path, state(), _use_new_zipfile_serialization=False)), state())


def test_a_prefix_that_only_some_names_have_is_part_of_the_names(tmp_path):
    weights = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    assert read_weights(stored(tmp_path, weights)).keys() == weights.keys()


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    stored(tmp_path, state())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert same(read_weights(Path("~/weights.pt")), state())
    assert file_digest(Path("~/weights.pt")) == file_digest(tmp_path / "weights.pt")


def test_the_digest_is_that_of_the_content(tmp_path):
    first = file_digest(stored(tmp_path, state()))
    assert file_digest(stored(tmp_path, state())) == first
    assert file_digest(stored(tmp_path, state(seed=1))) != first


@pytest.mark.parametrize(
    "content",
    [
        {}, [torch.zeros(2)], torch.zeros(2), 5, {"state_dict": {"a": {"b": torch.zeros(2)}}},
        {0: torch.zeros(2)}, {"a": torch.zeros(2), 1: torch.zeros(2)}, {"weight": [1.0, 2.0]},
        torch.optim.SGD(model().parameters(), lr=1).state_dict(),
    ],
    ids=lambda content: type(content).__name__,
)  # fmt: skip
def test_a_torch_file_without_a_state_dict_is_a_one_line_error(tmp_path, content):
    path = stored(tmp_path, content)
    with pytest.raises(DataError) as caught:
        read_weights(path)
    assert str(caught.value) == (
        f"stream.checkpoint: {path} holds no state dict (a mapping of names to tensors)"
    )  # fmt: skip


def cut_short(folder: Path) -> bytes:
    return stored(folder, state()).read_bytes()[:-200]


@pytest.mark.parametrize(
    "content",
    [lambda folder: b"", lambda folder: b"hello, world", cut_short, lambda folder: pickle.dumps(object())],
    ids=["empty", "text", "cut short", "pickle"],
)
def test_another_file_format_is_a_one_line_error(tmp_path, content):
    path = tmp_path / "weights.pt"
    path.write_bytes(content(tmp_path))
    with pytest.raises(DataError) as caught:
        read_weights(path)
    said = str(caught.value)
    assert said.startswith(f"stream.checkpoint: {path} is not a file of plain weights, or is truncated (")
    assert said.endswith("); save `model.state_dict()` with torch.save")
    assert "\n" not in said


class Malicious:
    """Runs a command when it is unpickled without care."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_nothing_in_a_file_is_executed(tmp_path, write):
    proof = tmp_path / "executed"
    write({"conv1.0.weight": torch.zeros(1), "rest": Malicious(f"touch {proof}")}, tmp_path / "weights.pt")
    with pytest.raises(DataError, match="is not a file of plain weights"):
        read_weights(tmp_path / "weights.pt")
    assert not proof.exists()


def test_a_whole_model_is_refused_with_what_to_save_instead(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(model(), path)
    with pytest.raises(DataError, match=r"save `model.state_dict\(\)` with torch.save"):
        read_weights(path)


@pytest.mark.parametrize("name", ["absent.pt", "", "a_folder"])
def test_a_missing_file_is_a_one_line_error_for_both_readers(tmp_path, name):
    (tmp_path / "a_folder").mkdir()
    path = tmp_path / name
    for reader in (read_weights, file_digest):
        with pytest.raises(DataError) as caught:
            reader(path)
        assert str(caught.value) == f"stream.checkpoint: there is no file {path}"
        assert caught.value.exit_code == 3


# Transferring.


def head_and_body(weights: dict[str, torch.Tensor]) -> tuple[dict, dict]:
    inside = {name: tensor for name, tensor in weights.items() if name.startswith("head.")}
    return inside, {name: tensor for name, tensor in weights.items() if name not in inside}


def test_weights_of_the_same_size_are_transferred_completely():
    assert same(transfer_weights(state(seed=1), state(), layout()), state(seed=1))


@pytest.mark.parametrize("other", [2, 4, 100])
def test_a_head_of_another_size_is_replaced_and_the_body_is_kept(other):
    result = transfer_weights(state(other, seed=1), state(), layout())
    head, body = head_and_body(result)
    assert same(head, head_and_body(state())[0])
    assert same(body, head_and_body(state(other, seed=1))[1])
    assert list(result) == list(state())


def test_a_fresh_head_can_be_asked_for():
    head, body = head_and_body(transfer_weights(state(seed=1), state(), layout(), "fresh"))
    assert same(head, head_and_body(state())[0])
    assert same(body, head_and_body(state(seed=1))[1])


@pytest.mark.parametrize("lost", ["head.weight", "head.bias"])
def test_an_incomplete_head_is_replaced_as_a_whole(lost):
    weights = state(seed=1)
    del weights[lost]
    assert same(head_and_body(transfer_weights(weights, state(), layout()))[0], head_and_body(state())[0])


def test_a_fresh_head_is_a_copy_of_its_own():
    weights, fresh = state(4, seed=1), state()
    result = transfer_weights(weights, fresh, layout())
    for name in result:
        if result[name].is_floating_point() and name.startswith("head."):
            result[name].mul_(0)
    assert same(fresh, state())
    assert same(weights, state(4, seed=1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted_to_the_models(dtype):
    weights = {name: each.to(dtype) if each.is_floating_point() else each for name, each in state(seed=1).items()}
    result = transfer_weights(weights, state(), layout())
    for name, tensor in result.items():
        assert tensor.dtype == state()[name].dtype
        assert torch.equal(tensor, weights[name].to(tensor.dtype))
    loaded = model()
    loaded.load_state_dict(result)


@pytest.mark.parametrize(
    ("weights", "line"),
    [
        (lambda: state(batch_norm=False), "they lack 'conv1.1.weight'"),
        (lambda: state(channels=(2, 4, 4)), "they have 'conv3.0.weight', which the model does not have"),
        (lambda: state(channels=(3, 4)), "'conv1.0.weight' is (3, 1, 3, 3) there and (2, 1, 3, 3) in the model"),
        (
            lambda: {**state(), "conv2.0.weight": torch.zeros(2, 4, 3, 3)},
            "'conv2.0.weight' is (2, 4, 3, 3) there and (4, 2, 3, 3) in the model",
        ),
        (lambda: head_and_body(state())[0], "they lack 'conv1.0.weight'"),
        (lambda: {"w": torch.zeros(1)}, "they lack 'conv1.0.weight'"),
    ],
)
def test_another_architecture_is_a_one_line_error_with_the_first_mismatch(weights, line):
    with pytest.raises(WarmstartError) as caught:
        transfer_weights(weights(), state(), layout())
    assert str(caught.value) == f"the pre-trained weights have another architecture: {line}"


@pytest.mark.parametrize("name", ["mlp", "logistic_regression", "small_cnn", "resnet18"])
def test_every_image_model_keeps_its_body_under_another_number_of_classes(name):
    options = {"width": 8} if name == "resnet18" else {}
    built = [models.build(name, options, (1, 8, 8), classes) for classes in (10, 7)]
    target, source = (each.state_dict() for each in built)
    where = models.layout(built[0])
    result = transfer_weights(source, target, where)
    assert result.keys() == target.keys()
    for key in result:
        assert torch.equal(result[key], (target if where.in_head(key) else source)[key])
