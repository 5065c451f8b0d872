"""`training.compile`: the same training, compiled for full batches on a CPU, or as it is where that is not possible."""

from __future__ import annotations

import functools
import time
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from warmstart_sim import models
from warmstart_sim.acceleration.stacking import stackable
from warmstart_sim.processor import cpp_compiler
from warmstart_sim.seeding import scoped_torch_seed
from warmstart_sim.training import compiling
from warmstart_sim.training.batches import DeviceSamples, normalization
from warmstart_sim.training.compiling import compiled
from warmstart_sim.training.loop import RoundData, RoundTraining, train
from warmstart_sim.training.settings import Training
from warmstart_sim.training.stepper import Stepper
from warmstart_sim.types import Hooks, Samples

CPU = torch.device("cpu")
BATCH, COUNT = 32, 150  # four full batches and a partial one; evaluation has batches of 128 and 22
RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (COUNT, 1, 4, 4), dtype=np.uint8), RNG.integers(0, 3, COUNT)


def network(name: str = "mlp", **options) -> nn.Module:
    with scoped_torch_seed(0, "test"):
        return models.build(name, {"widths": [5], **options} if name == "mlp" else options, (1, 4, 4), 3)


def training(model: nn.Module, hooks=(), **settings) -> RoundTraining:
    samples = DeviceSamples(Samples(IMAGES, LABELS), normalization("train", IMAGES), CPU)
    indices = torch.arange(COUNT)
    settings = {"batch_size": BATCH, "until": {"epochs": 3}, "optimizer": {"lr": 0.01}, **settings}
    stepper = Stepper(model, Training(**settings))
    data = RoundData(samples, indices, indices[:0], samples, indices)
    return RoundTraining(stepper, data, hooks, seed=0, round_index=0, measure_each_epoch=True)


def without_seconds(rows):
    return [{name: value for name, value in row.items() if "seconds" not in name} for row in rows]


@pytest.fixture
def quick_compiler(monkeypatch) -> None:
    """Torch records and guards as always, but the compiled code is the recorded operators: no C++, the same bits."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    monkeypatch.setattr(compiling, "cpp_compiler", lambda: "g++")


class Passes:
    """Stands for a compiled model: it calls the model, keeps the sizes of batches, and takes a while at first."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.sizes = model, []

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        if (self.model.training, len(inputs)) not in self.sizes:
            time.sleep(0.3)
        self.sizes.append((self.model.training, len(inputs)))
        return self.model(inputs)


@pytest.fixture
def passes(monkeypatch) -> list[Passes]:
    made: list[Passes] = []

    def stand_in(model: nn.Module) -> Passes:
        made.append(Passes(model))
        return made[-1]

    monkeypatch.setattr("warmstart_sim.training.stepper.compiled", stand_in)
    return made


@pytest.mark.slow
@pytest.mark.skipif(cpp_compiler() is None, reason="needs a C++ compiler")
def test_compiled_training_equals_eager_training_and_the_next_model_of_the_kind_is_not_compiled_again(
    monkeypatch, tmp_path
):
    from torch._dynamo.utils import counters

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    warnings.filterwarnings("default")  # of the compiler
    plain, first, second = (network() for _ in range(3))
    expected, rows = train(training(plain)), train(training(first, compile=True))
    for row, other in zip(rows, expected, strict=True):
        for name in ("running_train_loss", "train_accuracy", "test_accuracy"):
            assert row[name] == pytest.approx(other[name], abs=1e-4), name
    assert first.state_dict().keys() == plain.state_dict().keys()
    graphs = counters["stats"]["unique_graphs"]
    again = training(second, compile=True)
    assert without_seconds(train(again)) == without_seconds(rows), "compiled code gives the same bits each time"
    assert counters["stats"]["unique_graphs"] == graphs
    assert again.stepper.capture_seconds < 5


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_compiling_changes_nothing_but_the_code(quick_compiler, precision):
    def hooks() -> list[Hooks]:
        state = {"mean": torch.zeros(3)}

        def term(batch, logits) -> torch.Tensor:
            state["mean"] += logits.detach().mean(0)
            return 0.1 * (logits - state["mean"]).square().mean() + 0.01 * batch.logits_of(batch.inputs).square().mean()

        return [Hooks(loss_term=term, state=state)]

    results = []
    for compile_ in (False, True):
        model = network(dropout=0.5, batch_norm=True)
        trained = training(model, hooks(), compile=compile_, precision=precision)
        results.append((without_seconds(train(trained)), [each.tolist() for each in model.state_dict().values()]))
        assert trained.stepper.compiles == compile_
    assert results[0] == results[1]


def test_models_of_many_kinds_are_all_compiled(quick_compiler, monkeypatch):
    monkeypatch.setattr(torch.compiler.config, "recompile_limit", 1)  # torch's own is eight
    for width in (1, 2, 3):
        forward = compiled(network(widths=[width]))
        assert forward is not None
        with torch.no_grad():
            assert forward(torch.zeros(2, 1, 4, 4)).shape == (2, 3)


def test_full_batches_alone_are_compiled_and_the_seconds_of_compiling_are_set_apart(passes):
    trained = training(network(), compile=True)
    rows = train(trained)
    (forward,) = passes
    trains = [size for training_, size in forward.sizes if training_]
    assert trains == [BATCH] * (1 + 4 * 3), "one before the first epoch, and four in each of three"
    assert [size for training_, size in forward.sizes if not training_] == [128] * (1 + 2 * 3)
    assert trained.stepper.capture_seconds >= 0.6
    assert sum(row[name] for row in rows for name in row if "seconds" in name) < 0.3


def test_small_sets_are_evaluated_as_they_are(passes):
    stepper = training(network(), compile=True).stepper
    few = DeviceSamples(Samples(IMAGES[:100], LABELS[:100]), normalization("train", IMAGES), CPU)
    stepper.batch_metrics(few)(torch.arange(100), None)
    assert not passes[0].sizes


def test_a_model_with_forward_hooks_of_a_part_is_not_compiled(passes):
    def attach(model: nn.Module):
        return [model.register_forward_hook(lambda *_: None)]

    trained = training(network(), [Hooks(attach=attach)], compile=True)
    train(trained)
    assert not passes[0].sizes
    assert not trained.stepper.compiles


def test_compiled_models_are_not_stacked(passes):
    assert [stackable(training(network(), compile=each).stepper) for each in (False, True)] == [True, False]


def test_without_a_compiler_one_line_says_so_and_training_is_as_without_it(monkeypatch):
    monkeypatch.setenv("CXX", "nonesuch")
    with pytest.warns(UserWarning, match=r"^training.compile: the model is not compiled \(there is no C\+\+ compiler"):
        trained = training(network(), compile=True)
    assert without_seconds(train(trained)) == without_seconds(train(training(network())))


def test_a_model_that_cannot_be_compiled_trains_as_it_is_after_one_line(quick_compiler):
    class Peeks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(16, 3)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            logits = self.head(inputs.flatten(1))
            return logits if logits.sum().item() > 0 else 2 * logits

    with scoped_torch_seed(0, "test"):
        model, same = Peeks(), Peeks()
    same.load_state_dict(model.state_dict())
    with pytest.warns(UserWarning, match="training.compile") as caught:
        rows = train(training(model, compile=True))
    (line,) = [str(each.message) for each in caught]
    assert line.startswith("training.compile: the model is not compiled (")
    assert "\n" not in line
    assert without_seconds(rows) == without_seconds(train(training(same)))


def test_texts_are_not_compiled(passes):
    tokens = RNG.integers(1, 20, (40, 6))
    samples = DeviceSamples(Samples(tokens, LABELS[:40]), None, CPU)
    model = models.build("bilstm", {"hidden": 2, "embedding": 2}, (6,), 3, 20)
    indices = torch.arange(40)
    stepper = Stepper(model, Training(batch_size=BATCH, until={"epochs": 1}, compile=True))
    data = RoundData(samples, indices, indices, samples, indices)
    train(RoundTraining(stepper, data, seed=0, round_index=0, measure_each_epoch=True))
    assert not passes[0].sizes


def test_a_compiled_pass_keeps_the_models_mode_and_names(quick_compiler):
    model = network(batch_norm=True)
    forward = compiled(model)
    assert forward is not None
    inputs = torch.randn(BATCH, 1, 4, 4)
    for mode in (True, False):
        model.train(mode)
        torch.testing.assert_close(forward(inputs), model(inputs))
    assert not any("_orig_mod" in name for name in model.state_dict())
