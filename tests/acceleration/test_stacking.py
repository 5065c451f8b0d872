"""Models that are trained as one stack against the same models trained one by one, in float64."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.acceleration.simulated_capture import SimulatedCapture
from tests.models.inserted import insert_drawn_normalization
from warmstart_sim import models
from warmstart_sim.acceleration.stacked_layers import SampleMask, StackedBatchNorm, Unstackable, stacked_network
from warmstart_sim.acceleration.stacking import Stack, stackable
from warmstart_sim.parts.augment import Augment
from warmstart_sim.seeding import scoped_torch_seed
from warmstart_sim.training.batches import DeviceSamples
from warmstart_sim.training.evaluation import evaluate
from warmstart_sim.training.optimizers import keep_state, state_by_name
from warmstart_sim.training.settings import Training
from warmstart_sim.training.stepper import Stepper, StepRequest
from warmstart_sim.types import Batch, Hooks, Samples

CPU = torch.device("cpu")
SHAPE, CLASSES, COUNT = (2, 8, 8), 3, 40
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "logistic regression": ("logistic_regression", {}),
    "mlp": ("mlp", {"widths": (7, 5)}),
    "mlp with relu": ("mlp", {"widths": (7, 5), "activation": "relu", "bias": False}),
    # With biases before BatchNorm, whose gradients are zero but for rounding, Adam would make steps of the rounding.
    "mlp with BatchNorm": ("mlp", {"widths": (7, 5), "batch_norm": True, "bias": False}),
    "cnn": ("small_cnn", {"channels": (3, 5), "batch_norm": False}),
    "cnn with BatchNorm": ("small_cnn", {"channels": (3, 5)}),
    "resnet": ("resnet18", {"width": 4}),
    "resnet with pooling": ("resnet18", {"width": 4, "stem": "cifar_maxpool"}),
    "simple cnn": ("simple_cnn", {"width": 2}),
}
NORMALIZED = ("simple cnn", "mlp with relu", "cnn")  # with normalisations inserted, as `layerwise` has them
# Powers of two, which are the same numbers as the float32 tensors that captured steps have.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adam": {"name": "adam", "lr": 2**-8},
    "adamw": {"name": "adamw", "lr": 2**-8, "weight_decay": 0.1},
    "sgd": {"name": "sgd", "lr": 2**-6, "momentum": 0.9, "weight_decay": 0.01},
    "adam, decay of weights alone": {"name": "adam", "lr": 2**-8, "weight_decay": 0.1, "decay_biases": False},
    "sgd without momentum": {"name": "sgd", "lr": 2**-6},
}
RATES = (1.0, 0.5, 1.0)  # of each model, times the optimiser's; models of one rate are updated in one call
FULL = 12
# Of the models' batches, step by step. BatchNorm of very few samples would enlarge the rounding errors.
SIZES = ((12, 12, 12), (12, 7, 5), (5, 12, 12), (7, 7, 7), (12, 12, 12), (6, 11, 9))


def data(seed: int = 0) -> DeviceSamples:
    rng = np.random.default_rng(seed)
    return DeviceSamples(Samples(rng.normal(size=(COUNT, *SHAPE)), rng.integers(0, CLASSES, COUNT)), None, CPU)


def network(name: str, seed: int) -> nn.Module:
    model, options = MODELS[name]
    with scoped_torch_seed(seed, "test"):
        built = models.build(model, options, SHAPE, CLASSES)
        return (insert_drawn_normalization(built) if name in NORMALIZED else built).double()


@dataclass
class Pair:
    """The same training twice: one stepper is stepped alone, the other one in stacks."""

    alone: Stepper
    stacked: Stepper

    def both(self, do: Callable[[Stepper], object]) -> None:
        do(self.alone)
        do(self.stacked)

    def step(self, index: torch.Tensor) -> None:
        self.both(lambda stepper: stepper.step(index, None))


def pairs(
    name: str = "cnn with BatchNorm",
    optimizer: str = "adam",
    samples: Sequence[DeviceSamples] | None = None,
    graph_capture: Callable[[], SimulatedCapture | None] = lambda: None,
    count: int = 3,
    channels_last: bool = False,
) -> list[Pair]:
    """Models of different weights and rates, on data of their own unless `samples` are given."""
    found = []
    for r in range(count):

        def stepper(graph_capture: SimulatedCapture | None, r: int = r) -> Stepper:
            model = network(name, seed=r)
            if channels_last:
                model = model.to(memory_format=torch.channels_last)
            settings = {**OPTIMIZERS[optimizer]}
            if "weight_decay" in settings:
                settings["weight_decay"] *= r  # models of different weight decay share a stack
            return Stepper(model.train(), Training(optimizer=settings), graph_capture, captures_steps=False)

        pair = Pair(stepper(None), stepper(graph_capture()))
        own = samples[r] if samples else data(r)
        pair.both(lambda stepper, own=own: stepper.begin(own, ()))
        rate = OPTIMIZERS[optimizer]["lr"] * RATES[r % 3]
        pair.both(lambda stepper, rate=rate: stepper.set_learning_rate(rate))
        found.append(pair)
    return found


def indices(seed: int, sizes: Sequence[int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(COUNT, generator=generator)[:size] for size in sizes]


def advance(stack: Stack, trained: Sequence[Pair], steps: range, sizes: Sequence[Sequence[int]] = SIZES) -> None:
    """Makes steps of the pairs, on the one side alone and on the other as a stack; each model has its own batches."""
    for step in steps:
        batches = indices(step, list(itertools.islice(itertools.cycle(sizes[step % len(sizes)]), len(trained))))
        for pair, index in zip(trained, batches, strict=True):
            pair.alone.step(index, None)
        stack.step([StepRequest(pair.stacked, index, None) for pair, index in zip(trained, batches, strict=True)])


def stack_of(trained: Sequence[Pair], graph_capture: SimulatedCapture | None = None) -> Stack:
    return Stack([pair.stacked for pair in trained], graph_capture)


def assert_equal(trained: Sequence[Pair]) -> None:
    for pair in trained:
        one, other = pair.alone.model.state_dict(), pair.stacked.model.state_dict()
        torch.testing.assert_close(dict(other), dict(one), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(moments(pair.stacked), moments(pair.alone), rtol=1e-9, atol=1e-9)
        assert pair.stacked.correct == pair.alone.correct
        torch.testing.assert_close(pair.stacked.loss_sum, pair.alone.loss_sum, rtol=1e-5, atol=1e-5)  # in float32


def moments(stepper: Stepper) -> dict[tuple[int, str], torch.Tensor]:
    """The optimiser's state; SGD without momentum has none."""
    state = stepper.optimizer.state_dict()["state"]
    return {(k, name): value for k, each in state.items() for name, value in each.items() if value is not None}


def assert_trained(trained: Sequence[Pair], since: Sequence[dict[str, torch.Tensor]]) -> None:
    """Makes sure that equality is not that of models that stayed as they were."""
    for pair, before in zip(trained, since, strict=True):
        assert not torch.allclose(pair.alone.model.state_dict()["head.weight"], before["head.weight"], atol=1e-3)


def states(trained: Sequence[Pair]) -> list[dict[str, torch.Tensor]]:
    return [{name: tensor.clone() for name, tensor in pair.alone.model.state_dict().items()} for pair in trained]


# Trainings.

QUICK = [name for name in MODELS if "resnet" not in name]
CASES = [
    *itertools.product(QUICK, ("adam", "adamw", "sgd"), ("own",)),
    *itertools.product(QUICK, ("adam",), ("shared",)),
    ("mlp", "sgd without momentum", "own"),
    ("resnet", "sgd", "shared"),
    ("resnet with pooling", "adam", "own"),
]


@pytest.mark.parametrize(("name", "optimizer", "whose"), CASES, ids=[", ".join(case) for case in CASES])
def test_thirty_stacked_steps_equal_single_ones(name, optimizer, whose):
    shared = data()
    trained = pairs(name, optimizer, [shared] * 3 if whose == "shared" else None)
    for step in range(3):  # the models are at different steps when they come together; the first begins anew
        trained[0].step(indices(step, [FULL])[0])
        trained[1].step(indices(step, [FULL])[0])
    trained[0].both(lambda stepper: stepper.begin(stepper.samples, ()))
    before = states(trained)
    stack = stack_of(trained)
    advance(stack, trained, range(12))
    assert_equal(trained)
    trained[1].both(lambda stepper: stepper.begin(stepper.samples, ()))
    trained[1].both(Stepper.clear_sums)
    trained[2].both(lambda stepper: stepper.set_learning_rate(2**-9))
    advance(stack, trained, range(12, 30))
    assert_equal(trained)
    assert_trained(trained, before)


@pytest.mark.parametrize("size", [FULL, 5])
def test_batches_of_equal_size_need_no_mask(size, monkeypatch):
    monkeypatch.setattr(StackedBatchNorm, "_masked", lambda *args: pytest.fail("used a mask"))
    trained = pairs()
    advance(stack_of(trained), trained, range(5), [[size] * 3])
    assert_equal(trained)


@pytest.mark.parametrize("sizes", [SIZES, [[FULL] * 3]], ids=["masked", "full"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_channels_last_models_with_optimiser_states_can_be_stacked(optimizer, sizes):
    def channels_last(seed: int) -> DeviceSamples:
        return DeviceSamples(data(seed).source, None, CPU, channels_last=True)

    trained = pairs("cnn with BatchNorm", optimizer, [channels_last(r) for r in range(3)], channels_last=True)
    for pair in trained:
        pair.step(indices(0, [FULL])[0])
    before = states(trained)
    advance(stack_of(trained), trained, range(12), sizes)
    assert_equal(trained)
    assert_trained(trained, before)


@pytest.mark.parametrize("sizes", [SIZES, [[FULL] * 3]], ids=["masked", "full"])
@pytest.mark.parametrize("shared", [False, True], ids=["own data", "shared data"])
def test_transforms_draw_for_each_model_from_its_own_generator(shared, sizes):
    trained = pairs(samples=[data()] * 3 if shared else None)
    hooks = [(Augment(random_crop=2)({}, {}, None),), (), (Augment(random_crop=1, horizontal_flip=0.5)({}, {}, None),)]
    for r, pair in enumerate(trained):
        pair.both(lambda stepper, r=r: stepper.begin(stepper.samples, hooks[r]))
        pair.both(lambda stepper, r=r: stepper.seed_augmentation(r, 0, 0))
    advance(stack_of(trained), trained, range(10), sizes)
    assert_equal(trained)
    states_of_generators = [pair.stacked.generator.get_state() for pair in trained]
    for pair, state in zip(trained, states_of_generators, strict=True):
        assert torch.equal(pair.alone.generator.get_state(), state)


def test_transforms_see_which_samples_they_change():
    def by_index(batch: Batch) -> Batch:
        return replace(batch, inputs=batch.inputs * (1 + batch.index.view(-1, 1, 1, 1) / COUNT))

    trained = pairs()
    for pair in trained:
        pair.both(lambda stepper: stepper.begin(stepper.samples, [Hooks(by_index)]))
    advance(stack_of(trained), trained, range(10))
    assert_equal(trained)


def test_a_step_that_fails_has_drawn_nothing():
    def fails(batch: Batch) -> Batch:
        raise RuntimeError("a mistake of the user's")

    trained = pairs()
    drawing = Augment(random_crop=2)({}, {}, None)
    for pair, hooks in zip(trained, ([drawing], [], [Hooks(fails)]), strict=True):
        pair.both(lambda stepper, hooks=hooks: stepper.begin(stepper.samples, hooks))
        pair.both(lambda stepper: stepper.seed_augmentation(0, 0, 0))
    stack = stack_of(trained)
    with pytest.raises(RuntimeError, match="mistake"):
        stack.step([StepRequest(pair.stacked, torch.arange(FULL), None) for pair in trained])
    trained[0].step(torch.arange(FULL))  # each by itself
    assert_equal(trained[:1])


@pytest.mark.parametrize("name", ["mlp with BatchNorm", "cnn with BatchNorm"])
@pytest.mark.parametrize("sizes", [SIZES, [[FULL] * 3]], ids=["masked", "full"])
def test_a_model_that_diverges_does_not_disturb_the_others(name, sizes):
    trained = pairs(name)
    before = states(trained)
    stack = stack_of(trained)
    advance(stack, trained, range(4), sizes)
    with torch.no_grad():
        trained[1].stacked.model.head.weight.fill_(torch.nan)
    advance(stack, trained, range(4, 8), sizes)
    assert all(tensor.isnan().any() for tensor in trained[1].stacked.model.parameters())
    others = [trained[0], trained[2]]
    assert_equal(others)
    assert_trained(others, [before[0], before[2]])


# The single models of a stack.


def stored(state: Any) -> Any:
    """What comes back from a checkpoint's file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_evaluation_sees_what_is_trained_in_the_stack():
    trained = pairs()
    stack = stack_of(trained)
    everything = torch.arange(COUNT)
    for steps in (range(6), range(6, 12)):
        advance(stack, trained, steps)
        for pair in trained:
            found, expected = (
                evaluate(stepper.model, stepper.samples, everything) for stepper in (pair.alone, pair.stacked)
            )
            assert found == pytest.approx(expected, rel=1e-9)


def test_weights_copied_into_a_single_model_are_trained_on_by_the_stack():
    trained = pairs()
    stack = stack_of(trained)
    advance(stack, trained, range(6))
    weights = {name: 0.5 * tensor if "weight" in name else tensor for name, tensor in states(trained)[0].items()}
    trained[2].both(lambda stepper: stepper.model.load_state_dict(weights))
    advance(stack, trained, range(6, 12))
    assert_equal(trained)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels last"])
def test_a_checkpoint_made_in_a_stack_can_be_gone_on_with_alone_and_the_other_way_round(optimizer, channels_last):
    """Also where the weights of a model that was never stacked lie otherwise in memory."""
    trained = pairs("cnn with BatchNorm", optimizer, channels_last=channels_last)
    stack = stack_of(trained)
    advance(stack, trained, range(6))
    checkpoints = [
        stored((stepper.model.state_dict(), stepper.optimizer.state_dict()))
        for stepper in (trained[0].alone, trained[0].stacked)
    ]
    advance(stack, trained, range(6, 9))
    # Both go on from where they were after six steps, each with what the other one stored.
    for stepper, (weights, state) in zip((trained[0].stacked, trained[0].alone), checkpoints, strict=True):
        stepper.begin(stepper.samples, ())
        stepper.clear_sums()
        stepper.model.load_state_dict(weights)
        stepper.load_optimizer(state)
        stepper.set_learning_rate(2**-7)
    advance(stack, trained, range(9, 15))
    assert_equal(trained)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_new_round_may_keep_the_optimisers_state(optimizer):
    trained = pairs("cnn with BatchNorm", optimizer)
    stack = stack_of(trained)
    advance(stack, trained, range(6))
    for pair in trained[:2]:
        for stepper in (pair.alone, pair.stacked):
            kept = state_by_name(stepper.model, stepper.optimizer)
            stepper.begin(stepper.samples, ())
            assert not any(value.any() for value in moments(stepper).values())
            keep_state(stepper.model, stepper.optimizer, kept)
    assert all(value.any() for value in moments(trained[0].stacked).values())
    advance(stack, trained, range(6, 12))
    assert_equal(trained)


def test_a_stepper_of_a_stack_can_be_stepped_alone_in_between():
    trained = pairs()
    stack = stack_of(trained)
    for steps in (range(4), range(4, 8)):
        advance(stack, trained, steps)
        trained[1].step(indices(steps.stop, [7])[0])
    assert_equal(trained)


def test_stacks_of_other_members_go_on_with_what_their_members_have_learnt():
    trained = pairs(count=4)
    before = states(trained)
    for k, members in enumerate([(0, 1, 2), (3, 1, 2), (1,), (2, 3, 1, 0), (0, 2)]):
        group = [trained[r] for r in members]
        advance(stack_of(group), group, range(6 * k, 6 * k + 6))
        assert_equal(trained)
    assert_trained(trained, before)


# Recorded stacks.


@dataclass(frozen=True)
class Scaled:
    """A transform that is equal to another one of equal strength."""

    factor: float

    def __call__(self, batch: Batch) -> Batch:
        return replace(batch, inputs=batch.inputs * self.factor)


@pytest.mark.parametrize(
    ("name", "optimizer"), [("mlp with BatchNorm", "sgd"), ("cnn with BatchNorm", "adam"), ("cnn", "adamw")]
)
def test_a_captured_stack_equals_single_models_whatever_changes_between_two_replays(name, optimizer):
    trained = pairs(name, optimizer, graph_capture=SimulatedCapture)
    capture = SimulatedCapture()
    stack = stack_of(trained, capture)
    steps = iter(range(0, 10_000, 12))

    def advance_a_little() -> None:
        start = next(steps)
        advance(stack, trained, range(start, start + 12))
        assert_equal(trained)

    advance_a_little()
    assert (capture.captures, capture.replays) == (4, 12)  # 12 and 7 samples, 12 and 11 with a mask
    trained[0].both(lambda stepper: stepper.set_learning_rate(2**-7))
    trained[1].both(lambda stepper: stepper.begin(stepper.samples, ()))
    trained[2].both(lambda stepper: stepper.model.load_state_dict(stored(trained[0].alone.model.state_dict())))
    trained[2].both(Stepper.clear_sums)
    advance_a_little()
    assert (capture.captures, capture.replays) == (4, 24)
    others = data(7)
    trained[0].both(lambda stepper: stepper.begin(others, ()))
    advance_a_little()
    for factor in (0.5, 0.25):
        trained[1].both(lambda stepper, factor=factor: stepper.begin(stepper.samples, [Hooks(Scaled(factor))]))
        advance_a_little()
    state = stored(trained[2].alone.optimizer.state_dict())
    trained[2].both(lambda stepper: stepper.load_optimizer(stored(state)))
    trained[2].both(lambda stepper: stepper.set_learning_rate(2**-7))
    advance_a_little()
    assert capture.replays == 3 * 12 + 3 * 6  # with a transform, masked batches are not replayed
    before = capture.captures
    trained[1].both(lambda stepper: stepper.begin(stepper.samples, [Hooks(Scaled(0.25))]))
    advance_a_little()
    assert capture.captures == before


def test_what_is_captured_for_evaluation_is_captured_again_when_models_are_stacked():
    trained = pairs(graph_capture=SimulatedCapture)
    everything = torch.arange(COUNT)
    for members in ((0, 1), (1, 2)):
        for pair in trained:
            batch_metrics = pair.stacked.batch_metrics(pair.stacked.samples)
            expected = evaluate(pair.alone.model.eval(), pair.alone.samples, everything)
            pair.stacked.model.eval()
            hits, loss = (batch_metrics(everything, None) / COUNT).tolist()
            assert (hits, loss) == pytest.approx(expected, rel=1e-6)
            pair.both(lambda stepper: stepper.model.train())
        group = [trained[r] for r in members]
        advance(stack_of(group), group, range(6))


def test_a_capture_of_a_stack_changes_nothing():
    trained = pairs(graph_capture=SimulatedCapture)
    stack = stack_of(trained, SimulatedCapture())
    hooks = [Hooks(Augment(random_crop=2)({}, {}, None).transform)]
    trained[0].both(lambda stepper: stepper.begin(stepper.samples, hooks))
    trained[0].both(lambda stepper: stepper.seed_augmentation(0, 0, 0))
    default = torch.random.get_rng_state()
    advance(stack, trained, range(3), [[FULL] * 3])  # the first step is captured before it is made
    assert_equal(trained)
    assert torch.equal(trained[0].alone.generator.get_state(), trained[0].stacked.generator.get_state())
    assert torch.equal(torch.random.get_rng_state(), default)


# What cannot be stacked.


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.second.weight = self.first.weight

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(torch.relu(self.first(inputs))))


class Repeated(Tied):
    """The same layer twice."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.first(self.first(inputs)))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(inputs if inputs.sum() > 0 else -inputs)


class Reshaping(Branching):
    """Calls a method on what shape it will."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(inputs.flatten(1))


class Joining(Branching):
    """Calls a function of which no stacked form is known."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([inputs[:, :2], inputs[:, 2:]], 1))


class Scaling(Branching):
    """Has a parameter of its own, in no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(inputs * self.scale)


class Keeping(Branching):
    """Has a buffer that no layer uses."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.ones(4))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(inputs)


class Idle(Branching):
    """Has a layer that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Linear(4, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(inputs)


def frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].bias.requires_grad_(False)
    return model


def on_vectors(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), *layers, nn.Linear(4, 2))


UNSTACKABLE: dict[str, nn.Module] = {
    "dropout": on_vectors(nn.Dropout(0.1)),
    "a layer of another kind": on_vectors(nn.LayerNorm(4)),
    "BatchNorm without scale": on_vectors(nn.BatchNorm1d(4, affine=False)),
    "GroupNorm without scale": on_vectors(nn.GroupNorm(2, 4, affine=False)),
    "BatchNorm without statistics": on_vectors(nn.BatchNorm1d(4, track_running_stats=False)),
    "BatchNorm with cumulative statistics": on_vectors(nn.BatchNorm1d(4, momentum=None)),
    "no linear head": nn.Sequential(nn.Linear(4, 2), nn.ReLU()),
    "another flattening": nn.Sequential(nn.Flatten(0), nn.Linear(4, 2)),
    "convolution with reflection": nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), nn.Flatten(), nn.Linear(8, 2)
    ),
    "frozen parameters": frozen(),
    "tied parameters": Tied(),
    "repeated layer": Repeated(),
    "branch on a value": Branching(),
    "method": Reshaping(),
    "function": Joining(),
    "own parameter": Scaling(),
    "unused buffer": Keeping(),
    "unused layer": Idle(),
}


@pytest.mark.parametrize("model", UNSTACKABLE.values(), ids=UNSTACKABLE)
def test_a_model_without_a_stacked_form_is_refused_and_stays_as_it_was(model):
    addresses = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    layers = list(model.modules())
    with pytest.raises(Unstackable):
        stacked_network(model, 3, SampleMask())
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == addresses
    assert list(model.modules()) == layers


def test_layers_without_parameters_of_their_own_may_be_used_twice():
    class Reused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.activation, self.head = nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.head(self.activation(self.body(self.activation(inputs)) + inputs))

    model = Reused()
    stacked, spatial = stacked_network(model, 2, SampleMask())
    assert not spatial
    with torch.no_grad():
        for name, parameter in stacked.named_parameters():
            parameter[0], parameter[1] = model.get_parameter(name), 2 * model.get_parameter(name)
    inputs = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(stacked(inputs)[0], model(inputs[0]))
    assert not torch.allclose(stacked(inputs)[1], model(inputs[1]))


@pytest.mark.parametrize(
    ("expected", "options"),
    [
        (True, {}),
        (True, {"hooks": [Hooks(transform=Scaled(2))]}),
        (True, {"hooks": [Hooks(after_epoch=print)]}),
        (False, {"hooks": [Hooks(), Hooks(loss_term=lambda batch, logits: logits.sum())]}),
        (False, {"hooks": [Hooks(after_step=print)]}),
        (False, {"hooks": [Hooks(transform=Scaled(2), state={})]}),
        (False, {"precision": "bf16"}),
        (False, {"texts": True}),
    ],
    ids=["plain", "transform", "after epoch", "loss", "after step", "state", "bf16", "texts"],
)
def test_what_each_step_of_a_model_does_for_itself_is_not_stacked(expected, options):
    stepper = Stepper(network("mlp", 0), Training(precision=options.get("precision", "float32")))
    tokens = DeviceSamples(Samples(np.ones((4, 3), dtype=np.int64), np.zeros(4, dtype=np.int64)), None, CPU)
    stepper.begin(tokens if options.get("texts") else data(), options.get("hooks", ()))
    assert stackable(stepper) == expected


# BatchNorm.


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(2, 7), min_size=1, max_size=4),
    features=st.integers(1, 4),
    images=st.booleans(),
    momentum=st.sampled_from([0.1, 0.7]),
    seed=st.integers(0, 99),
)
def test_masked_batch_norm_equals_torchs_on_the_samples_that_count(sizes, features, images, momentum, seed):
    generator = torch.Generator().manual_seed(seed)
    count, width = len(sizes), max(sizes)
    make = nn.BatchNorm2d if images else nn.BatchNorm1d
    layers = [make(features, eps=1e-3, momentum=momentum).double() for _ in sizes]
    counts = SampleMask()
    counts.mask = torch.arange(width) < torch.tensor(sizes)[:, None]
    stacked = StackedBatchNorm(layers[0], count, counts)
    with torch.no_grad():
        for r, layer in enumerate(layers):
            for tensor in (layer.weight, layer.bias, layer.running_mean):
                tensor.copy_(torch.randn(features, generator=generator, dtype=torch.float64))
            for name, tensor in layer.state_dict().items():
                stacked.state_dict()[name][r].copy_(tensor)

    shape = (width, count * features, 3, 2) if images else (count, width, features)
    inputs = (1e3 * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()
    weights = torch.randn(shape, generator=generator, dtype=torch.float64)
    for _ in range(2):
        outputs = stacked(inputs)

    def of(tensor: torch.Tensor, r: int) -> torch.Tensor:
        """The samples of one model that count, as its own layer takes them."""
        return (tensor[:, r * features : (r + 1) * features] if images else tensor[r])[: sizes[r]]

    (sum((of(outputs, r) * of(weights, r)).sum() for r in range(count))).backward()
    for r, layer in enumerate(layers):
        own = of(inputs, r).detach().requires_grad_()
        for _ in range(2):
            expected = layer(own)
        (expected * of(weights, r)).sum().backward()
        torch.testing.assert_close(of(outputs, r), expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(of(inputs.grad, r), own.grad, rtol=1e-9, atol=1e-9)
        for name, tensor in layer.state_dict().items():
            torch.testing.assert_close(stacked.state_dict()[name][r], tensor, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(stacked.weight.grad[r], layer.weight.grad, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(stacked.bias.grad[r], layer.bias.grad, rtol=1e-9, atol=1e-9)
