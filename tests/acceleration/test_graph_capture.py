"""Steps that are captured and replayed train as plain ones do, whatever changes between two replays.

The learning rates of most tests are powers of two: as float32 tensors, which captured steps have, they are the same
numbers, so that a replayed training equals a plain one to the bit.
"""

from __future__ import annotations

import gc
import io
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tests.acceleration.simulated_capture import SimulatedCapture
from tests.models.inserted import insert_drawn_normalization
from warmstart_sim import models
from warmstart_sim.parts.adversarial import Adversarial
from warmstart_sim.parts.augment import Augment
from warmstart_sim.parts.confidence_penalty import ConfidencePenalty
from warmstart_sim.parts.l2 import L2
from warmstart_sim.seeding import scoped_torch_seed
from warmstart_sim.training import evaluation, part_state
from warmstart_sim.training import stepper as stepper_module
from warmstart_sim.training.batches import DeviceSamples, normalization
from warmstart_sim.training.coroutine import run_to_end
from warmstart_sim.training.evaluation import evaluate, train_accuracy, train_accuracy_coroutine
from warmstart_sim.training.loop import EpochRow, RoundData, RoundTraining, train
from warmstart_sim.training.settings import Training
from warmstart_sim.training.stepper import Stepper
from warmstart_sim.training.stepper_metrics import CAPTURED_EVALUATION_BATCH
from warmstart_sim.types import Batch, Hooks, Samples

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (80, 3, 8, 8), dtype=np.uint8)
LABELS = RNG.integers(0, 4, 80)
NORMALIZE = normalization("train", IMAGES)
TRAIN = DeviceSamples(Samples(IMAGES[:70], LABELS[:70]), NORMALIZE, CPU)
TEST = DeviceSamples(Samples(IMAGES[70:], LABELS[70:]), NORMALIZE, CPU)
EVERYTHING = Augment(random_crop=1, horizontal_flip=0.5, color_jitter=0.25, rotation=10.0)

MODELS: dict[str, dict[str, Any]] = {
    "mlp": {},
    "small_cnn": {"channels": (4, 8)},
    "resnet18": {"width": 4},
    "mobilenet": {"widths": (4, 8, 8), "dropout": 0.25},
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd", "lr": 2**-6, "momentum": 0.9, "weight_decay": 0.1},
    "adam": {"name": "adam", "lr": 2**-9},
    "adamw": {"name": "adamw", "lr": 2**-9, "weight_decay": 0.1},
    "decay of weights alone": {"name": "adam", "lr": 2**-9, "weight_decay": 0.1, "decay_biases": False},
}
NORMALIZED = ("small_cnn", "mobilenet")  # with normalisations inserted, as `layerwise` has them
every_model = pytest.mark.parametrize("name", MODELS)
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)


def fresh(name: str = "small_cnn", seed: int = 0) -> nn.Module:
    with scoped_torch_seed(seed, "test"):
        model = models.build(name, MODELS[name], (3, 8, 8), 4)
        return insert_drawn_normalization(model) if name in NORMALIZED else model


def round_data(count: int = 60) -> RoundData:
    """`count` to train on: in batches of 16, the last one is partial."""
    return RoundData(TRAIN, torch.arange(count).flip(0), torch.arange(60, 70), TEST, torch.arange(10))


def settings(optimizer: Mapping[str, Any] = OPTIMIZERS["adam"], **options: Any) -> Training:
    schedule = {"name": "step", "every": 1, "gamma": 0.5}
    return Training(
        **{"batch_size": 16, "until": {"epochs": 3}, "schedule": schedule, **options, "optimizer": optimizer}
    )


def begun(
    stepper: Stepper, data: RoundData | None = None, hooks: Sequence[Hooks] = (), index: int = 0
) -> RoundTraining:
    return RoundTraining(stepper, data or round_data(), hooks, seed=5, round_index=index, measure_each_epoch=True)


def two_rounds(
    graph_capture: SimulatedCapture | None,
    training: Training,
    build: Callable[[], nn.Module] = fresh,
    hooks: Callable[[], Sequence[Hooks]] = tuple,
    counts: tuple[int, int] = (40, 60),
) -> tuple[list[EpochRow], nn.Module]:
    """Two rounds on one stepper, the second from other weights, which are copied into the model in place.

    Without a graph capture, the second round's stepper is a new one.
    """
    model = build().eval()
    stepper = Stepper(model, training, graph_capture)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    epochs = train(begun(stepper, round_data(counts[0]), hooks()))
    # The next start is neither where the last round began nor where it ended, and its numbers of BatchNorm are new.
    model.load_state_dict({name: tensor * 3 // 2 if name.endswith("tracked") else 0.6 * tensor + 0.5 * start[name]
                           for name, tensor in model.state_dict().items()})  # fmt: skip
    if graph_capture is None:
        stepper = Stepper(model, training)
    return epochs + train(begun(stepper, round_data(counts[1]), hooks(), index=1)), model


def assert_same_epochs(found: Sequence[EpochRow], expected: Sequence[EpochRow]) -> None:
    timeless = {"train_seconds": 0.0, "criterion_seconds": 0.0, "evaluation_seconds": 0.0}
    assert [epoch | timeless for epoch in found] == [epoch | timeless for epoch in expected]


def assert_same_weights(found: nn.Module, expected: nn.Module) -> None:
    state = expected.state_dict()
    assert [name for name, tensor in found.state_dict().items() if not torch.equal(tensor, state[name])] == []


def assert_captured_equals_plain(training: Training, **options: Any) -> SimulatedCapture:
    capture = SimulatedCapture()
    captured_epochs, captured = two_rounds(capture, training, **options)
    plain_epochs, plain = two_rounds(None, training, **options)
    assert all(torch.isfinite(tensor).all() for tensor in plain.state_dict().values())
    assert_same_weights(captured, plain)
    assert_same_epochs(captured_epochs, plain_epochs)
    return capture


# Trainings.


@every_model
@every_optimizer
def test_a_captured_training_of_two_rounds_equals_a_plain_one_to_the_bit(name, optimizer):
    capture = assert_captured_equals_plain(settings(OPTIMIZERS[optimizer]), build=lambda: fresh(name))
    assert capture.captures == 5  # steps on 16, 8 and 12 samples; evaluation of two sets of samples
    steps = 3 * (3 + 4)
    tallies = 2 * 3 * 3  # training, validation and test samples, after every epoch
    assert capture.replays == steps + tallies  # nothing was run as it is


def test_a_hundred_captured_steps_equal_plain_ones():
    schedule = {"name": "step", "every": 12, "gamma": 0.5}
    capture = assert_captured_equals_plain(settings(until={"steps": 100}, schedule=schedule))
    assert capture.replays > 2 * 100


def test_rates_that_float32_rounds_change_next_to_nothing():
    training = settings({"name": "adam", "lr": 0.001}, schedule={"name": "step", "every": 1, "gamma": 0.3})
    captured_epochs, captured = two_rounds(SimulatedCapture(), training)
    plain_epochs, plain = two_rounds(None, training)
    for found, expected in zip(captured_epochs, plain_epochs, strict=True):
        assert found["learning_rate"] == expected["learning_rate"]
        assert found["running_train_loss"] == pytest.approx(expected["running_train_loss"], rel=1e-5)
    for key, tensor in plain.state_dict().items():
        torch.testing.assert_close(captured.state_dict()[key], tensor, rtol=1e-5, atol=1e-6)


def test_bf16_dropout_and_every_augmentation_are_captured_too():
    """All that draws numbers draws at each replay those that it draws in a plain step."""

    def build() -> nn.Module:
        return nn.Sequential(nn.Dropout(0.1), fresh())

    hooks = [EVERYTHING({}, {}, None)]
    assert_captured_equals_plain(settings(), build=build, hooks=lambda: hooks)
    assert_captured_equals_plain(settings(precision="bf16"), build=build, hooks=lambda: hooks)


def test_losses_and_step_hooks_of_parts_are_captured_too():
    def clamp(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.clamp_(-0.2, 0.2)

    hooks = [Hooks(loss_term=lambda batch, logits: 0.5 * F.cross_entropy(2 * logits, batch.labels), after_step=clamp)]
    assert_captured_equals_plain(settings(), hooks=lambda: hooks)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize(
    "part",
    [L2(strength=0.01), ConfidencePenalty(strength=0.1), Adversarial(epsilon=0.03)],
    ids=lambda part: type(part).__name__,
)
def test_loss_terms_of_the_package_are_captured_and_stay_captured_in_the_next_round(part, precision):
    capture = assert_captured_equals_plain(
        settings(precision=precision), hooks=lambda: [part({}, {}, None)], counts=(32, 48)
    )
    assert capture.captures == 1 + 2  # steps on 16 samples, in both rounds; evaluation of two sets of samples


# Parts with state.


class Averaging:
    """Pulls the logits towards a running average of their mean; the average is kept in one of several ways."""

    def __init__(self, kept: str) -> None:
        self.kept = kept

    def __call__(self) -> Sequence[Hooks]:
        state: dict[str, Any] = {"mean": torch.zeros(()), "count": 0, "calls": 0}

        def loss_term(batch: Batch, logits: torch.Tensor) -> torch.Tensor:
            if self.kept == "number in the loss":
                state["calls"] += 1
            return (logits.mean() - state["mean"] - 0.1 * state["count"] - 0.1 * state["calls"]).square()

        def after_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
            with torch.no_grad():
                mean = next(model.parameters()).mean()
                if self.kept == "tensor in place":
                    state["mean"].lerp_(mean, 0.1)
                elif self.kept == "new tensor":
                    state["mean"] = 0.9 * state["mean"] + 0.1 * mean
                elif self.kept == "number":
                    state["count"] += 1

        def after_epoch(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
            if self.kept == "number of epochs":
                state["count"] += 1

        return [Hooks(loss_term=loss_term, after_step=after_step, after_epoch=after_epoch, state=state)]


@pytest.mark.parametrize("kept", ["tensor in place", "number of epochs"])
def test_state_of_parts_that_changes_in_place_or_between_epochs_is_captured(kept):
    capture = assert_captured_equals_plain(settings(), hooks=Averaging(kept))
    assert capture.replays == 3 * (3 + 4) + 2 * 3 * 3  # steps and evaluations: nothing was run as it is


@pytest.mark.parametrize("kept", ["new tensor", "number", "number in the loss"])
def test_state_of_parts_that_a_graph_would_not_see_change_runs_uncaptured_and_says_so(kept):
    with pytest.warns(UserWarning, match="a part replaces tensors or changes numbers in its state"):
        assert_captured_equals_plain(settings(), hooks=Averaging(kept))


class Counted:
    """A part whose hooks are equal in every round, and whose state is not."""

    def transform(self, batch: Batch) -> Batch:
        return batch

    def hooks(self) -> list[Hooks]:
        return [Hooks(transform=self.transform, state={"mean": torch.zeros(3)})]


@pytest.mark.parametrize("capture", [None, SimulatedCapture()], ids=["plain", "captured"])
def test_a_round_has_the_state_of_its_own_hooks(capture):
    stepper, part = Stepper(fresh(), settings(), capture), Counted()
    for index in range(2):
        hooks = part.hooks()
        begun(stepper, hooks=hooks, index=index)
        assert stepper.hooks[0].state is hooks[0].state


def test_state_of_parts_is_restored_whatever_it_holds_now():
    state: dict[str, Any] = {"kept": torch.ones(2), "dropped": 1, "none": torch.ones(()), "inner": {"tensor": None}}
    kept, inner = state["kept"], state["inner"]
    saved = {"kept": torch.tensor([2.0, 3.0]), "none": None, "inner": {"tensor": torch.ones(3)}, "new": 5}
    part_state.restore(state, saved, CPU)
    assert state["kept"] is kept
    assert state["inner"] is inner
    assert kept.tolist() == [2.0, 3.0]
    assert state.keys() == saved.keys()
    assert (state["none"], state["new"]) == (None, 5)
    assert inner["tensor"].tolist() == [1.0] * 3


# How often something is captured.


def test_a_capture_is_made_once_for_each_size_of_batch():
    capture = SimulatedCapture()
    stepper = Stepper(fresh(), settings(), capture)
    captures = []
    for index, count in enumerate((60, 60, 44, 33)):  # 33 samples: the lone last one joins its neighbour
        train(begun(stepper, round_data(count), index=index))
        captures.append(capture.captures)
    assert captures == [4, 4, 4, 5]


@dataclass(frozen=True)
class Brighter:
    """A transform that is equal to another one of equal strength."""

    factor: float

    def __call__(self, batch: Batch) -> Batch:
        return replace(batch, inputs=batch.inputs * self.factor)


def closure(factor: float) -> Callable[[Batch], Batch]:
    return lambda batch: replace(batch, inputs=batch.inputs * factor)


@pytest.mark.parametrize(
    ("make", "factors", "captures"),
    [(Brighter, (0.5, 0.5), 2), (Brighter, (0.5, 0.75), 4), (closure, (0.5, 0.5), 4), (closure, (0.5, 0.75), 4)],
    ids=["equal", "unequal", "equal closures", "unequal closures"],
)
def test_a_step_is_captured_again_unless_its_hooks_are_equal(make, factors, captures):
    def trained(capture: SimulatedCapture | None) -> nn.Module:
        stepper = Stepper(fresh(), settings(), capture)
        for index, factor in enumerate(factors):
            training = RoundTraining(stepper, round_data(), [Hooks(make(factor))], seed=5, round_index=index)
            train(training)
        return stepper.model

    capture = SimulatedCapture()
    assert_same_weights(trained(capture), trained(None))
    assert capture.captures == captures


def test_augmentation_of_equal_strength_is_captured_once():
    capture = assert_captured_equals_plain(settings(), hooks=lambda: [EVERYTHING({}, {}, None)], counts=(60, 60))
    assert capture.captures == 4


def test_other_samples_are_captured_again_and_those_of_before_are_released():
    held: list[weakref.ref[DeviceSamples]] = []

    def rounds(capture: SimulatedCapture | None) -> Stepper:
        stepper = Stepper(fresh(), settings(), capture)
        for index in range(3):
            samples = DeviceSamples(Samples(np.roll(IMAGES, index, axis=3), LABELS), NORMALIZE, CPU)
            held.append(weakref.ref(samples))
            train(begun(stepper, replace(round_data(), train=samples, test=samples), index=index))
        return stepper

    captured = rounds(SimulatedCapture())
    gc.collect()
    assert [each() is None for each in held] == [True, True, False]
    assert held[2]() is captured.samples
    assert_same_weights(captured.model, rounds(None).model)


class CountsModes(nn.Module):
    """Remembers the modes that it was put into."""

    def __init__(self) -> None:
        super().__init__()
        self.network = fresh("small_cnn")
        self.modes: list[bool] = []

    def train(self, mode: bool = True) -> nn.Module:
        self.modes.append(mode)
        return super().train(mode)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.network(inputs)


@pytest.mark.parametrize("captured", [False, True])
def test_modes_are_set_where_something_is_captured_or_runs_eagerly_not_for_replays(captured):
    seen: set[bool] = set()
    hooks = [Hooks(after_step=lambda model, optimizer: seen.add(model.training))]
    model = CountsModes()
    stepper = Stepper(model, settings(), SimulatedCapture() if captured else None)
    training = begun(stepper, hooks=hooks)
    for _ in range(2):
        training.run_epoch()
    model.modes.clear()
    for _ in range(3):
        training.run_epoch()
    assert model.modes == ([] if captured else 3 * [True, False])
    assert seen == {True}


# What a capture leaves as it was.


def everything(stepper: Stepper) -> dict[str, torch.Tensor]:
    """All that the next step depends on, and what it adds to. An optimiser's state that is not there yet is zero."""
    state = stepper.optimizer.state
    kept = {f"{k} {key}": value for k, each in enumerate(state.values()) for key, value in each.items()}
    return {
        **{name: tensor.clone() for name, tensor in stepper.model.state_dict().items()},
        **{name: torch.as_tensor(value).clone() for name, value in kept.items()},
        "loss_sum": stepper.loss_sum.clone(),
        "correct": stepper.correct.clone(),
        "generator": stepper.generator.get_state(),
        "default generator": torch.random.get_rng_state(),
    }


def waits(batch: Batch, logits: torch.Tensor) -> torch.Tensor:
    return logits.square().mean() * batch.labels.double().mean().item()


@pytest.mark.parametrize("fails", [False, True], ids=["captured", "fails"])
@pytest.mark.parametrize("trained", [False, True], ids=["new", "trained"])
@pytest.mark.filterwarnings("ignore:the training step cannot be captured")
def test_a_capture_changes_nothing(trained, fails):
    capture = SimulatedCapture()
    stepper = Stepper(nn.Sequential(fresh(), nn.Dropout(0.2)), settings(OPTIMIZERS["sgd"]), capture)
    hooks = [EVERYTHING({}, {}, None)]
    stepper.begin(TRAIN, hooks)
    if trained:
        train(begun(stepper, hooks=hooks))
    if fails:
        stepper.begin(TRAIN, [*hooks, Hooks(loss_term=waits)])
        train(RoundTraining(stepper, round_data(), [*hooks, Hooks(loss_term=waits)], seed=5, round_index=1))
    before, captures = everything(stepper), capture.captures
    stepper.prepare({(7, None, 1)})
    assert capture.captures == captures + (not fails)
    after = everything(stepper)
    new = after.keys() - before.keys()
    assert not any(after[name].any() for name in new)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


def test_a_captured_evaluation_changes_nothing():
    stepper = Stepper(nn.Sequential(fresh(), nn.Dropout(0.2)), settings(), SimulatedCapture())
    train(begun(stepper))
    others = DeviceSamples(Samples(IMAGES, LABELS), NORMALIZE, CPU)
    before = everything(stepper)
    run_to_end(train_accuracy_coroutine(stepper.batch_metrics(others), others, torch.arange(80), None))
    after = everything(stepper)
    assert [name for name in after if not torch.equal(before[name], after[name])] == []


# What cannot be captured.


def test_a_step_that_waits_for_the_device_runs_uncaptured_and_says_so():
    capture = SimulatedCapture()
    options = {"hooks": lambda: [Hooks(loss_term=waits)]}
    warning = r"^the training step cannot be captured as a CUDA graph \(.*\); it runs kernel by kernel"
    with pytest.warns(UserWarning, match=warning):
        epochs, model = two_rounds(capture, settings(), **options)
    plain_epochs, plain = two_rounds(None, settings(), **options)
    assert_same_weights(model, plain)
    assert_same_epochs(epochs, plain_epochs)
    assert capture.captures == 2  # of evaluations


class Waiting(nn.Module):
    """Waits for the device in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.network = fresh()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        scale = 1.0 if self.training else inputs.abs().max().item()
        return self.network(inputs / scale)


def test_an_evaluation_that_waits_for_the_device_runs_uncaptured_and_says_so():
    capture = SimulatedCapture()
    with pytest.warns(UserWarning, match="^the evaluation cannot be captured"):
        epochs, model = two_rounds(capture, settings(), build=Waiting)
    plain_epochs, plain = two_rounds(None, settings(), build=Waiting)
    assert_same_weights(model, plain)
    assert_same_epochs(epochs, plain_epochs)
    assert capture.captures == 3


# Interrupted rounds.


def stored(state: dict[str, Any]) -> dict[str, Any]:
    """What comes back from a checkpoint's file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)


@every_optimizer
@pytest.mark.parametrize(
    ("before", "after", "same_stepper"),
    [(True, True, False), (True, True, True), (False, True, False), (True, False, False)],
    ids=["another process", "the same stepper", "captured after it alone", "captured before it alone"],
)
def test_an_interrupted_round_goes_on_as_one_that_was_not(optimizer, before, after, same_stepper):
    """A run can go on on another device, so that it is captured after the interruption alone, or before it."""
    training = settings(OPTIMIZERS[optimizer], until={"epochs": 5})
    through = Stepper(fresh(), training)
    expected = train(begun(through))

    first = Stepper(fresh(), training, SimulatedCapture() if before else None)
    interrupted = begun(first)
    epochs = [interrupted.run_epoch() for _ in range(2)]
    state = stored(interrupted.state_dict())
    interrupted.run_epoch()
    second = first if same_stepper else Stepper(fresh(seed=1), training, SimulatedCapture() if after else None)
    resumed = begun(second)
    resumed.load_state_dict(state)
    epochs += train(resumed)
    assert_same_weights(second.model, through.model)
    assert_same_epochs(epochs, expected)
    if after:
        assert second.graph_capture.replays > 0


# Evaluation.


class Fixed(nn.Module):
    """Its logits are its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs * self.scale


LOGITS = RNG.normal(size=(700, 3)).astype(np.float32)
SCORED = DeviceSamples(Samples(LOGITS, RNG.integers(0, 3, 700)), None, CPU)
CAPTURED = Stepper(Fixed(), Training(), SimulatedCapture())


@examples(deadline=None, max_examples=50)
@given(count=st.integers(1, 700), batches=st.integers(1, 9), threshold=st.floats(0, 1), seed=st.integers(0, 9))
def test_a_captured_criterion_decides_as_a_plain_one_for_any_number_of_samples(count, batches, threshold, seed):
    model = CAPTURED.model
    indices = torch.randperm(700, generator=torch.Generator().manual_seed(seed))[:count]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(evaluation.BATCH, "cpu", min(CAPTURED_EVALUATION_BATCH, -(-count // batches)))
        count_hits = CAPTURED.batch_metrics(SCORED)
        accuracy, loss = run_to_end(evaluation.evaluation_coroutine(count_hits, SCORED, indices))
        for at_least in (None, threshold, train_accuracy(model, SCORED, indices)):
            found = run_to_end(train_accuracy_coroutine(count_hits, SCORED, indices, at_least))
            assert found == train_accuracy(model, SCORED, indices, at_least)
    expected = (SCORED.inputs[indices].argmax(1) == SCORED.labels[indices]).double().mean().item()
    assert accuracy == pytest.approx(expected, abs=1e-12)
    assert loss == pytest.approx(F.cross_entropy(SCORED.inputs[indices].double(), SCORED.labels[indices]).item())
    assert CAPTURED.graph_capture.captures == 1


def test_samples_that_only_fill_a_batch_up_count_nothing_whatever_they_are():
    inputs = np.array([[np.nan, np.inf], [1.0, 0.0], [0.0, 1.0]], dtype=np.float32)  # the first one fills up
    samples = DeviceSamples(Samples(inputs, np.zeros(3, dtype=np.int64)), None, CPU)
    stepper = Stepper(Fixed(), Training(), SimulatedCapture())
    count = stepper.batch_metrics(samples)
    # After the four, what lies behind the one is not a number.
    batches = [torch.tensor(indices) for indices in ([1], [1, 2], [0, 0, 0, 0], [2])]
    found = [count(index, None) for index in batches]  # a later count leaves an earlier one as it was
    expected = [evaluation.batch_metrics(stepper.model, samples)(index, None) for index in batches]
    torch.testing.assert_close(found, expected, equal_nan=True)


# Texts.

WIDTH, VOCABULARY = 14, 9
LENGTHS = RNG.integers(1, 12, 70)
TOKENS = RNG.integers(1, VOCABULARY, (70, WIDTH)) * (np.arange(WIDTH) < LENGTHS[:, None])
TEXTS = DeviceSamples(Samples(TOKENS, RNG.integers(0, 2, 70)), None, CPU)


def test_captured_texts_are_cut_to_multiples_and_train_alike(monkeypatch):
    monkeypatch.setattr(stepper_module, "TEXT_STEP", 4)
    monkeypatch.setitem(evaluation.BATCH, "cpu", 8)

    def trained(capture: SimulatedCapture | None) -> tuple[list[EpochRow], Stepper, set[int]]:
        with scoped_torch_seed(0, "test"):
            model = models.build("bilstm", {"embedding": 6, "hidden": 8, "dropout": 0}, (WIDTH,), 2, VOCABULARY)
        widths: set[int] = set()
        model.register_forward_pre_hook(lambda module, inputs: widths.add(inputs[0].shape[1]))
        stepper = Stepper(model, settings(bucketing=2, until={"epochs": 6}), capture)
        data = RoundData(TEXTS, torch.arange(60), torch.arange(60, 70), TEXTS, torch.arange(60, 70))
        return train(begun(stepper, data)), stepper, widths

    capture = SimulatedCapture()
    epochs, stepper, widths = trained(capture)
    plain_epochs, plain, plain_widths = trained(None)
    assert widths <= {4, 8, 12, 14}
    assert len(plain_widths) > len(widths)
    for found, expected in zip(epochs, plain_epochs, strict=True):
        assert found["running_train_loss"] == pytest.approx(expected["running_train_loss"], rel=1e-5)
        assert found["train_accuracy"] == expected["train_accuracy"]
    for key, tensor in plain.model.state_dict().items():
        torch.testing.assert_close(stepper.model.state_dict()[key], tensor, rtol=1e-4, atol=1e-5)
    assert evaluate(stepper.model, TEXTS, torch.arange(70)) == pytest.approx(
        run_to_end(evaluation.evaluation_coroutine(stepper.batch_metrics(TEXTS), TEXTS, torch.arange(70))),
        rel=1e-6,
    )


def test_the_simulated_capture_refuses_what_a_graph_refuses():
    """What it shares with the simulated device is tested there."""
    capture, generator = SimulatedCapture(), torch.Generator()
    with pytest.raises(RuntimeError, match="waits for the device"):
        capture(lambda: torch.ones(3).sum().item(), [])
    with pytest.raises(RuntimeError, match="a generator that was not registered"):
        capture(lambda: torch.rand(3, generator=generator), [torch.Generator()])
    assert capture.captures == 0
    capture(lambda: torch.rand(3, generator=generator), [generator])
    capture(lambda: torch.rand(3), [])
    assert capture.captures == 2
