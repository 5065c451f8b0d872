"""Weights from elsewhere: reading checkpoint files, and transferring them to a model with another head."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from warmstart_sim import models
from warmstart_sim.errors import DataError, WarmstartError
from warmstart_sim.models.checkpoint_files import file_digest
from warmstart_sim.models.weights import read_weights, transfer_weights

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


def read(path: Path, built: torch.nn.Module | None = None, which: str | None = None) -> dict[str, torch.Tensor]:
    built = built or model()
    return read_weights(path, built, models.layout(built), which)[0]


def notes(path: Path, built: torch.nn.Module | None = None, which: str | None = None) -> list[str]:
    built = built or model()
    return read_weights(path, built, models.layout(built), which)[1]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# Reading.


def prefixed(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in weights.items()}


WRAPPED = {
    "plain": lambda weights: weights,
    "state_dict": lambda weights: {"state_dict": weights, "epoch": 3, "optimizer": {"state": {}}},
    "model_state_dict": lambda weights: {"model_state_dict": weights, "loss": 0.5},
    "model": lambda weights: {"model": weights},
    "net under another key": lambda weights: {"my_net": weights, "step": torch.tensor(5)},
    "DataParallel": lambda weights: prefixed(weights, "module."),
    "torch.compile": lambda weights: prefixed(weights, "_orig_mod."),
    "both": lambda weights: {"model": prefixed(weights, "module._orig_mod.")},
    "two levels": lambda weights: {"state_dict": {"model": weights}},
    "Lightning": lambda weights: {
        "state_dict": prefixed(weights, "model.") | {"criterion.weight": torch.ones(3)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(1)}}}], "pytorch-lightning_version": "2.5",
    },
    "Lightning, compiled": lambda weights: {"state_dict": prefixed(weights, "model._orig_mod.")},
    "compiled in the middle": lambda weights: {
        name.replace("conv2.", "conv2._orig_mod."): tensor for name, tensor in weights.items()
    },
    **{
        prefix: lambda weights, prefix=prefix: {"model": prefixed(weights, f"{prefix}.")}
        for prefix in ("net", "backbone", "encoder", "student.backbone", "module.encoder_q")
    },
    "options of argparse": lambda weights: {"state_dict": weights, "args": argparse.Namespace(lr=0.1)},
    "accuracy of NumPy": lambda weights: {"state_dict": weights, "best": np.float64(0.9), "file": Path("x")},
}  # fmt: skip


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_state_dict_is_found_under_the_keys_of_training_scripts(tmp_path, kind):
    assert same(read(stored(tmp_path, WRAPPED[kind](state()))), state())


def test_the_older_file_format_is_read_as_well(tmp_path):
    assert same(read(stored(tmp_path, state(), _use_new_zipfile_serialization=False)), state())


def test_a_prefix_that_only_some_names_have_is_part_of_the_names(tmp_path):
    built = torch.nn.Sequential()
    built.module, built.b = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    weights = {name: torch.rand_like(tensor) for name, tensor in built.state_dict().items()}
    assert same(read(stored(tmp_path, weights), built), weights)


# Several sets of weights, and entries that are no part of the model.

SEVERAL = {
    "timm": (lambda raw, mean: {"state_dict": raw, "state_dict_ema": mean}, "state_dict", "state_dict_ema"),
    "torchvision": (
        lambda raw, mean: {"model_ema": {"n_averaged": torch.tensor(1)} | prefixed(mean, "module."), "model": raw},
        "model", "model_ema",
    ),
    "Lightning": (
        lambda raw, mean: {"state_dict": prefixed(mean, "ema_model.") | prefixed(raw, "model.")},
        "state_dict.model", "state_dict.ema_model",
    ),
    "DINO": (lambda raw, mean: {"teacher": mean, "student": raw}, "student", "teacher"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SEVERAL)
def test_of_several_sets_the_weights_themselves_are_taken_and_the_others_can_be(tmp_path, kind):
    wrap, taken, other = SEVERAL[kind]
    path = stored(tmp_path, wrap(state(seed=1), state(seed=2)))
    assert same(read(path), state(seed=1))
    assert f"'{taken}' was taken; `stream.weights` takes another ({other})" in notes(path)[0]
    assert same(read(path, which=other), state(seed=2))
    with pytest.raises(DataError, match=rf"stream.weights: .*unknown set of weights 'emma'.*{taken}"):
        read(path, which="emma")


def test_entries_beside_the_model_are_named_in_a_note_and_a_plain_file_has_none(tmp_path):
    path = stored(tmp_path, prefixed(state(), "model.") | {f"metric.{k}": torch.ones(1) for k in range(5)})
    assert notes(path) == [
        f"{path}: 'metric.0', 'metric.1', 'metric.2', and 2 more of the file are not used"
    ]  # fmt: skip
    assert notes(stored(tmp_path, state())) == []


class OnBackbone(torch.nn.Module):
    """torchvision's ResNet-18 without its last layer, in a module of the user's."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torchvision.models.resnet18()
        self.backbone.fc = torch.nn.Identity()
        self.classifier = torch.nn.Linear(512, 3)


def test_a_published_backbone_fits_a_models_body_and_its_own_head_is_left_out(tmp_path):
    published = torchvision.models.resnet18()
    path = stored(tmp_path, published.state_dict())
    built = OnBackbone()
    result = transfer_weights(read(path, built), built.state_dict(), models.layout(built))
    assert torch.equal(result["backbone.layer4.1.conv2.weight"], published.layer4[1].conv2.weight)
    assert torch.equal(result["classifier.weight"], built.classifier.weight)
    assert notes(path, built) == [f"{path}: 'fc.weight', 'fc.bias' of the file are not used"]
    deeper = stored(tmp_path, torchvision.models.resnet34().state_dict())
    with pytest.raises(WarmstartError, match=r"they have 'backbone\.layer1\.2\.conv1\.weight'"):
        transfer_weights(read(deeper, built), built.state_dict(), models.layout(built))


def test_weights_for_a_part_of_the_body_leave_the_rest_to_be_named(tmp_path):
    built = OnBackbone()
    built.neck, built.classifier, built.head_name = torch.nn.Linear(512, 8), torch.nn.Linear(8, 3), "classifier"
    path = stored(tmp_path, torchvision.models.resnet18().state_dict())
    with pytest.raises(WarmstartError, match=r": 100 of the 102 entries.*\n  they lack 'neck\.weight' \(8, 512\)"):
        transfer_weights(read(path, built), built.state_dict(), models.layout(built))


def test_tied_parameters_may_be_in_a_file_under_one_of_their_names(tmp_path):
    built = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    built[1].weight = built[0].weight
    weights = {name: torch.rand_like(each) for name, each in built.state_dict().items() if name != "1.weight"}
    assert same(read(stored(tmp_path, weights), built), weights | {"1.weight": weights["0.weight"]})


def in_safetensors(weights: dict[str, torch.Tensor]) -> bytes:
    """The format, written by its specification."""
    names = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int64: "I64"}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, tensor in weights.items():
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        offsets = [len(body), len(body) + len(raw)]
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        body += raw
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_safetensors_are_read(tmp_path, dtype):
    weights = {name: each.to(dtype) if each.is_floating_point() else each for name, each in state(seed=1).items()}
    (tmp_path / "odd.safetensors").write_bytes(in_safetensors({"model." + name: weights[name] for name in weights}))
    assert same(read(tmp_path / "odd.safetensors"), weights)
    (tmp_path / "short.safetensors").write_bytes(in_safetensors(weights)[:-4])
    with pytest.raises(DataError, match=r"is not a file of plain weights, or is truncated"):
        read(tmp_path / "short.safetensors")


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    stored(tmp_path, state())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert same(read(Path("~/weights.pt")), state())
    assert file_digest(Path("~/weights.pt")) == file_digest(tmp_path / "weights.pt")


def test_the_digest_is_that_of_the_content(tmp_path):
    first = file_digest(stored(tmp_path, state()))
    assert file_digest(stored(tmp_path, state())) == first
    assert file_digest(stored(tmp_path, state(seed=1))) != first


@pytest.mark.parametrize(
    "content",
    [
        {}, [torch.zeros(2)], torch.zeros(2), 5, {"state_dict": {"a": {"b": 2.0}}},
        {0: torch.zeros(2)}, {"a": torch.zeros(2), 1: torch.zeros(2)}, {"weight": [1.0, 2.0]},
        torch.optim.SGD(model().parameters(), lr=1).state_dict(),
    ],
    ids=lambda content: type(content).__name__,
)  # fmt: skip
def test_a_torch_file_without_a_state_dict_is_a_one_line_error(tmp_path, content):
    path = stored(tmp_path, content)
    with pytest.raises(DataError) as caught:
        read(path)
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
        read(path)
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
        read(tmp_path / "weights.pt")
    assert not proof.exists()


def whole_model(path: Path) -> None:
    torch.save(model(), path)


def model_in_a_checkpoint(path: Path) -> None:
    torch.save({"epoch": 1, "model": model()}, path)


def weights_beside_an_object(path: Path) -> None:
    torch.save({"state_dict": state(), "criterion": torch.nn.CrossEntropyLoss()}, path)


def torchscript(path: Path) -> None:
    torch.jit.trace(model().eval(), torch.ones(1, 1, 4, 4)).save(path)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("write", [whole_model, model_in_a_checkpoint, weights_beside_an_object, torchscript])
def test_what_is_not_plain_weights_is_refused_with_a_line_that_converts_it(tmp_path, monkeypatch, write):
    write(tmp_path / "theirs.pt")
    with pytest.raises(DataError) as caught:
        read(tmp_path / "theirs.pt")
    line = str(caught.value).splitlines()[-1].strip()
    assert line.startswith("python -c ")
    monkeypatch.chdir(tmp_path)
    code, *arguments = shlex.split(line)[2:]
    monkeypatch.setattr(sys, "argv", ["-c", *arguments])
    exec(code, {"__name__": "__main__"})
    assert same(read(tmp_path / "weights.pt"), state())


@pytest.mark.parametrize("name", ["absent.pt", "", "a_folder"])
def test_a_missing_file_is_a_one_line_error_for_both_readers(tmp_path, name):
    (tmp_path / "a_folder").mkdir()
    path = tmp_path / name
    for reader in (read, file_digest):
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


def test_files_from_before_batchnorms_counter_are_complete():
    older = {name: each for name, each in state(seed=1).items() if not name.endswith("num_batches_tracked")}
    assert same(transfer_weights(older, state(), layout()), state(seed=1))


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
    ("weights", "lines"),
    [
        (
            lambda: state(batch_norm=False),
            ["2 of the 10 entries", "they lack 'conv1.1.weight' (2,)", "they lack 'conv1.1.bias' (2,)"],
        ),
        (
            lambda: state(channels=(2, 4, 4)),
            ["10 of the 10 entries", "they have 'conv3.0.weight' (4, 4, 3, 3), which the model does not have"],
        ),
        (
            lambda: state(channels=(3, 4)),
            ["4 of the 10 entries", "'conv1.0.weight' is (3, 1, 3, 3) there and (2, 1, 3, 3) in the model"],
        ),
        (
            lambda: {**state(), "conv2.0.weight": torch.zeros(2, 4, 3, 3)},
            ["9 of the 10 entries", "'conv2.0.weight' is (2, 4, 3, 3) there and (4, 2, 3, 3) in the model"],
        ),
        (lambda: head_and_body(state())[0], ["0 of the 10 entries", "they lack 'conv1.0.weight' (2, 1, 3, 3)"]),
        (lambda: {"w": torch.zeros(1)}, ["0 of the 10 entries", "they lack 'conv1.0.weight' (2, 1, 3, 3)"]),
    ],
)
def test_another_architecture_is_said_entry_by_entry(weights, lines):
    with pytest.raises(WarmstartError) as caught:
        transfer_weights(weights(), state(), layout())
    first, *others = str(caught.value).splitlines()
    assert first == f"the pre-trained weights have another architecture: {lines[0]} of the model's body fit"
    assert [line.strip() for line in others][: len(lines) - 1] == lines[1:]
    assert len(others) <= 7


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
