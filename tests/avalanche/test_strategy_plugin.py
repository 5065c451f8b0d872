"""StrategyPlugin: what model and optimiser hold when an experience starts, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from avalanche.benchmarks import class_incremental_benchmark
from avalanche.core import SupervisedPlugin
from avalanche.models import IncrementalClassifier
from avalanche.training.plugins import LRSchedulerPlugin, ReplayPlugin
from avalanche.training.supervised import Cumulative, Naive, Replay
from small import Watch, network, points, same, state, strategy, stream, train
from torch import nn

from warmstart_sim import ShrinkPerturb
from warmstart_sim.avalanche import ConvergencePlugin, StrategyPlugin
from warmstart_sim.errors import WarmstartError


class Halting(Naive):
    """A user's own: it skips every second step."""

    def optimizer_step(self):
        if self.clock.train_iterations % 2 == 0:
            super().optimizer_step()


KINDS: dict[str, dict[str, Any]] = {
    "Naive": {"kind": Naive},
    "Cumulative": {"kind": Cumulative},
    "Replay": {"kind": Replay, "mem_size": 20},
    "a user's own": {"kind": Halting},
}
OPTIMIZERS: dict[str, Any] = {
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, amsgrad=True),
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "Adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.05, initial_accumulator_value=0.3),
    "RMSprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, momentum=0.5, centered=True),
}


class Factory:
    """Builds networks, and remembers the weights of each."""

    def __init__(self) -> None:
        self.built: list[Any] = []

    def __call__(self) -> nn.Module:
        model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, 3))
        nn.init.normal_(model[4].weight, 0.0, 3.0)  # an initialisation of its own
        model[1].running_mean.fill_(len(self.built))
        self.built.append(state(model))
        return model


def trained_plainly(first: Any, starts: list[Any], batches: list[Any], make: Any, skip: bool, keep: bool) -> Any:
    """The states after each experience of a torch loop on the same batches, each with an optimiser of its own."""
    model = network()
    optimizer, ended, step = make(model.parameters()), [], 0
    for number, epochs in enumerate(batches):
        model.load_state_dict(starts[number](ended[-1]) if number else first)
        if not keep:
            optimizer = make(model.parameters())
        for inputs, labels in (batch for epoch in epochs for batch in epoch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            if not skip or step % 2 == 0:
                optimizer.step()
            step += 1
        ended.append(state(model))
    return ended


def mixed(fresh: Any) -> Any:
    """Shrink and perturb with 0.5 and 0.25, by hand: parameters are mixed, BatchNorm's buffers stay."""
    buffers = ("running_mean", "running_var", "num_batches_tracked")

    def start(previous: Any) -> Any:
        return {
            name: tensor if name.endswith(buffers) else 0.5 * tensor + 0.25 * fresh[name]
            for name, tensor in previous.items()
        }

    return start


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("keep", [False, True])
def test_every_experience_equals_a_plain_loop_that_starts_as_the_formula_says(name, keep):
    model, factory, watch = network(), Factory(), Watch()
    make = OPTIMIZERS["Adam"]
    start = StrategyPlugin(ShrinkPerturb(0.5, 0.25), model_factory=factory, reset_optimizer=not keep)
    first = state(model)
    train(strategy(model, start, watch, optimizer=make(model.parameters()), train_epochs=2, **KINDS[name]),
          stream(30, 20, 40))  # fmt: skip
    assert len(factory.built) == 2, "nothing is drawn before the first experience"
    starts = [None, *map(mixed, factory.built)]
    expected = trained_plainly(first, starts, watch.batches, make, skip=name == "a user's own", keep=keep)
    assert [same(one, other) for one, other in zip(watch.ended, expected, strict=True)] == [True] * 3
    assert not same(watch.ended[0], watch.began[1])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimiser_begins_as_a_new_one_or_keeps_its_state(name):
    for reset in (True, False):
        model, before, after = network(), Watch(), Watch()
        optimizer = OPTIMIZERS[name](model.parameters())
        start = StrategyPlugin("warm_start", reset_optimizer=reset)
        train(strategy(model, before, start, after, optimizer=optimizer), stream(30, 20))
        if reset:
            new = OPTIMIZERS[name](network().parameters()).state_dict()
            assert str(after.optimizers[1]) == str(new)
            assert str(before.optimizers[1]) != str(new)
        else:
            assert str(after.optimizers[1]) == str(before.optimizers[1])


def test_nothing_happens_before_the_first_experience():
    model, watch = network(), Watch()
    called = []

    def never(previous, fresh, context):
        called.append(context.round)
        return fresh

    first = state(model)
    train(strategy(model, StrategyPlugin(never), watch), stream(30))
    assert same(watch.began[0], first)
    assert called == []


def test_a_function_gets_what_was_last_trained_and_what_it_returns_is_trained():
    seen = []

    def own(previous, fresh, context):
        seen.append((previous, fresh, context))
        return {name: previous[name] if "bias" in name else fresh[name] for name in fresh}

    model, watch = network(), Watch()
    train(strategy(model, StrategyPlugin(own), watch), stream(30, 20, 40))
    assert [context.round for *_, context in seen] == [1, 2]
    for (previous, fresh, _), ended, began in zip(seen, watch.ended, watch.began[1:], strict=False):
        assert same(previous, ended)
        assert torch.equal(began["0.bias"], ended["0.bias"])
        assert torch.equal(began["4.weight"], fresh["4.weight"])
        assert torch.equal(began["1.running_var"], torch.ones(8))
    assert seen[0][2].layout.head == "4"


def test_warm_start_is_avalanche_without_the_plugin_but_for_the_optimiser():
    runs = []
    for plugins in ([], [StrategyPlugin("warm_start", reset_optimizer=False)]):
        model = network()
        train(strategy(model, *plugins, optimizer=torch.optim.Adam(model.parameters())), stream(30, 20, 40))
        runs.append(state(model))
    assert same(*runs)


def _plain() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, 3))


@pytest.mark.parametrize("factory", [None, _plain], ids=["reset", "factory"])
def test_weights_are_drawn_anew_for_each_experience_reproducibly_and_without_the_global_generator(factory):
    runs = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        model, before, after = network(), Watch(), Watch()
        start = StrategyPlugin("random_init", seed=seed, model_factory=factory)
        train(strategy(model, before, start, after), stream(30, 20, 40), seed=noise)
        assert all(map(torch.equal, before.generators, after.generators))
        runs.append(after.began)
    names = ["0.weight", "0.bias", "4.weight", "4.bias"]
    assert not any(torch.equal(runs[0][1][name], runs[0][2][name]) for name in names), "another draw each time"
    assert same(runs[0][1], runs[1][1])
    assert same(runs[0][2], runs[1][2])
    assert not any(torch.equal(runs[0][1][name], runs[2][1][name]) for name in names), "the seed decides"
    for began in runs[0][1:]:
        assert not began["1.running_mean"].any()
        assert began["1.num_batches_tracked"] == 0


def test_a_reset_copy_has_the_weights_that_building_the_model_would_draw():
    runs = []
    for factory in (None, _plain):
        model, watch = network(), Watch()
        train(strategy(model, StrategyPlugin("random_init", model_factory=factory), watch), stream(30, 20))
        runs.append(watch.began[1])
    assert same(*runs)


@pytest.mark.parametrize("name", KINDS)
def test_a_list_of_experiences_gives_the_weights_of_one_after_another(name):
    runs = []
    for at_once in (False, True):
        model = network()
        plugins = [StrategyPlugin("shrink_perturb"), ConvergencePlugin(0.8, 20)]
        taught = strategy(model, *plugins, **KINDS[name])
        train(taught, [stream(30, 20, 40)] if at_once else stream(30, 20, 40))
        runs.append(state(model))
    assert same(*runs)


# Heads that grow.


class Growing(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.classifier = IncrementalClassifier(8, 1)

    def forward(self, inputs):
        return self.classifier(self.features(inputs))


def growing(start: Any, **options: Any) -> tuple[Watch, Watch]:
    """What a model whose head grows by a class with each experience holds before and after the start."""
    torch.manual_seed(0)
    model, before, after = Growing(), Watch(), Watch()
    plugins = [before, *([StrategyPlugin(start, **options)] if start else []), after]
    benchmark = class_incremental_benchmark({"train": points(90)}, class_order=[0, 1, 2], num_experiences=3)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    train(strategy(model, *plugins, optimizer=optimizer), benchmark.train_stream)
    return before, after


@pytest.mark.parametrize("factory", [None, Growing], ids=["reset", "factory"])
@pytest.mark.parametrize("start", ["warm_start", "random_init", ShrinkPerturb(0.5, 0.1)], ids=str)
def test_a_head_grows_remembers_its_classes_and_all_its_units_are_trained(start, factory):
    before, after = growing(start, model_factory=factory)
    _, alone = growing(None)
    for number, (began, ended) in enumerate(zip(after.began, after.ended, strict=True)):
        assert began["classifier.classifier.weight"].shape == (number + 1, 8)
        assert began["classifier.active_units"].tolist() == [1] * (number + 1)
        assert torch.equal(began["classifier.active_units"], alone.began[number]["classifier.active_units"])
        moved = (began["classifier.classifier.weight"] != ended["classifier.classifier.weight"]).any(1)
        assert moved.all() or number == 0, "one class alone has no gradient"
    rows = [states[2]["classifier.classifier.weight"] for states in (before.began, after.began)]
    assert torch.equal(*rows) == (start == "warm_start")
    if start == "random_init":
        assert not (rows[0] == rows[1]).any()


def test_shrink_and_perturb_mixes_the_units_that_are_new_too():
    seen = []

    def noting(previous, fresh, context):
        seen.append((previous, fresh))
        return ShrinkPerturb(0.5, 0.25)(previous, fresh, context)

    before, after = growing(noting)
    for number, (previous, fresh) in enumerate(seen, 1):
        name = "classifier.classifier.weight"
        assert torch.equal(previous[name], before.began[number][name])
        assert torch.equal(after.began[number][name], 0.5 * previous[name] + 0.25 * fresh[name])


# Optimisers and schedulers.


def test_param_groups_keep_their_options_and_schedulers_their_optimiser():
    model, watch = network(), Watch()
    groups = [
        {"params": [*model[0].parameters(), *model[1].parameters()], "lr": 0.1, "weight_decay": 0.01},
        {"params": model[4].parameters(), "lr": 0.02, "momentum": 0.9, "nesterov": True},
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    plugins = [StrategyPlugin("shrink_perturb"), watch, LRSchedulerPlugin(scheduler, False, False)]
    taught = strategy(model, *plugins, optimizer=optimizer, train_epochs=2)
    train(taught, stream(30, 20))
    assert taught.optimizer is optimizer is scheduler.optimizer
    first, second = (each["param_groups"] for each in watch.optimizers)
    assert [group["lr"] for group in first] == [0.1, 0.02]
    assert [group["lr"] for group in second] == pytest.approx([0.025, 0.005]), "the schedule goes on"
    for one, other in zip(first, second, strict=True):
        assert {k: v for k, v in one.items() if k != "lr"} == {k: v for k, v in other.items() if k != "lr"}
    assert watch.optimizers[1]["state"] == {}
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.00625, 0.00125])
    assert len(optimizer.param_groups[1]["params"]) == 2


# What fresh weights are made of.


class Scaled(nn.Module):
    """With a parameter of its own, that nothing resets."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(5))
        self.head = nn.Linear(5, 3)

    def forward(self, inputs):
        return self.head(inputs * self.scale)


def test_a_parameter_that_nothing_resets_needs_a_factory():
    model = Scaled()
    with pytest.raises(WarmstartError, match="parameter 'scale' cannot be drawn anew: Scaled has no reset_parameters"):
        train(strategy(model, StrategyPlugin("random_init")), stream(30, 20))
    model, watch = Scaled(), Watch()
    train(strategy(model, StrategyPlugin("random_init", model_factory=Scaled), watch), stream(30, 20))
    assert not (watch.began[1]["scale"] == watch.ended[0]["scale"]).any()


def test_a_reset_that_forgets_a_parameter_is_noticed():
    class Forgetful(Scaled):
        def reset_parameters(self):
            self.head.reset_parameters()

    with pytest.raises(WarmstartError, match="parameter 'scale' cannot be drawn anew: Forgetful has"):
        train(strategy(Forgetful(), StrategyPlugin("warm_start")), stream(30, 20))


def test_a_module_may_initialise_those_inside_it():
    class Zeroed(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(5, 3)

        def reset_parameters(self):
            nn.init.zeros_(self.head.weight)

        def forward(self, inputs):
            return self.head(inputs)

    watch = Watch()
    train(strategy(Zeroed(), StrategyPlugin("random_init"), watch), stream(30, 20))
    assert not watch.began[1]["head.weight"].any()
    assert watch.began[1]["head.bias"].all()


def test_a_factory_that_gives_the_same_object_each_time_is_not_trained_itself():
    shared, watch = network(seed=5), Watch()
    untouched = state(shared)
    plugin = StrategyPlugin("random_init", model_factory=lambda: shared)
    train(strategy(network(), plugin, watch), stream(30, 20, 40))
    assert same(watch.began[1], untouched)
    assert same(watch.began[2], untouched)
    assert same(state(shared), untouched)


@pytest.mark.parametrize(
    ("factory", "line"),
    [
        (
            lambda: nn.Sequential(*network(), nn.Linear(3, 3)),
            "its model has '5.bias', which the strategy's model lacks",
        ),
        (lambda: network()[:2], "its model has nothing for '4.bias' of shape .3,.; it must build a model like"),
        (
            lambda: nn.Sequential(nn.Linear(5, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Dropout(), nn.Linear(9, 3)),
            r"its model has \(9,\) for '0.bias' of shape \(8,\)",
        ),
        (lambda: "a network", "gave a str, not a torch.nn.Module"),
    ],
)
def test_a_factory_of_another_model_is_refused(factory, line):
    with pytest.raises(WarmstartError, match=f"model_factory.*{line}"):
        train(strategy(network(), StrategyPlugin("random_init", model_factory=factory)), stream(30, 20))


def test_a_factory_that_gives_the_trained_model_itself_is_refused():
    model = network()
    with pytest.raises(WarmstartError, match="model_factory gave the very model that is trained"):
        train(strategy(model, StrategyPlugin("random_init", model_factory=lambda: model)), stream(30, 20))


@pytest.mark.parametrize("factory", [None, _plain], ids=["reset", "factory"])
def test_what_does_not_train_stays_with_its_statistics(factory):
    model, watch = network(), Watch()
    model(torch.randn(50, 5))  # statistics that were learned elsewhere
    for parameter in model[:2].parameters():
        parameter.requires_grad = False
    body = state(model[:2])
    optimizer = torch.optim.SGD(model[4].parameters(), lr=0.1)

    class KeepEval(SupervisedPlugin):
        def before_training_epoch(self, strategy, **kwargs):
            strategy.model[1].eval()

    plugins = [StrategyPlugin("random_init", model_factory=factory), KeepEval(), watch]
    train(strategy(model, *plugins, optimizer=optimizer), stream(30, 20))
    assert same(state(model[:2]), body)
    assert not torch.equal(watch.began[1]["4.weight"], watch.ended[0]["4.weight"])


def test_a_frozen_parameter_that_nothing_resets_needs_no_factory():
    model, watch = Scaled(), Watch()
    model.scale.requires_grad = False
    scale = model.scale.clone()
    train(strategy(model, StrategyPlugin("random_init"), watch), stream(30, 20))
    assert torch.equal(model.scale, scale)
    assert not torch.equal(watch.began[1]["head.weight"], watch.ended[0]["head.weight"])


# Mistakes.


def test_an_unknown_strategy_is_refused_with_the_nearest():
    with pytest.raises(WarmstartError, match="unknown strategy 'shrink_pertub'; did you mean 'shrink_perturb'"):
        StrategyPlugin("shrink_pertub")
    with pytest.raises(WarmstartError, match="StrategyPlugin: 3 is no strategy; give a name, an object or a function"):
        StrategyPlugin(3)


@pytest.mark.parametrize(
    "make", [lambda: StrategyPlugin("warm_start"), lambda: ConvergencePlugin(0.9, 5)], ids=["start", "convergence"]
)
def test_a_plugin_added_twice_is_refused(make):
    model = network()
    first = state(model)
    with pytest.raises(WarmstartError, match=r"the strategy has 2 plugins of class .*: each would act; leave one in"):
        train(strategy(model, make(), make()), stream(30))
    assert same(state(model), first)


def test_parameters_that_are_not_on_the_optimiser_are_refused():
    model = network()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    with pytest.raises(WarmstartError, match=r"parameter '1.weight' \(4 in all\) is not on the optimiser.*give the"):
        train(strategy(model, StrategyPlugin("warm_start"), optimizer=optimizer), stream(30))


def test_a_copy_of_the_model_is_refused():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(WarmstartError, match="holds none of the model's parameters, but perhaps those of a copy of it"):
        train(strategy(copy.deepcopy(model), StrategyPlugin("warm_start"), optimizer=optimizer), stream(30))


class Demanding(torch.optim.SGD):
    """Its constructor wants something that it does not keep."""

    def __init__(self, parameters, *, secret):
        super().__init__(parameters, lr=secret)


def test_an_optimiser_that_cannot_be_rebuilt_is_refused_unless_it_is_kept():
    model = network()
    with pytest.raises(WarmstartError, match=r"the optimiser Demanding cannot be rebuilt \(TypeError.*pass StrategyPl"):
        train(strategy(model, StrategyPlugin("warm_start"), optimizer=Demanding(model.parameters(), secret=0.1)),
              stream(30, 20))  # fmt: skip
    model = network()
    kept = StrategyPlugin("warm_start", reset_optimizer=False)
    taught = strategy(model, kept, optimizer=Demanding(model.parameters(), secret=0.1))
    train(taught, stream(30, 20))
    assert taught.clock.train_exp_counter == 2


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (lambda previous, fresh, context: None, "must return a state dict with the keys of `fresh`"),
        (lambda previous, fresh, context: {"0.weight": fresh["0.weight"]}, "must return a state dict with the keys"),
        (
            lambda previous, fresh, context: {**fresh, "0.bias": torch.ones(3)},
            r"'0.bias' must be a tensor of shape \(8,",
        ),
    ],
)
def test_a_strategy_that_returns_no_state_of_the_model_is_refused(wrong, line):
    with pytest.raises(WarmstartError, match=line):
        train(strategy(network(), StrategyPlugin(wrong)), stream(30, 20))


def test_replay_as_a_plugin_works_beside_it():
    model, watch = network(), Watch()
    taught = strategy(model, ReplayPlugin(mem_size=10), StrategyPlugin("random_init"), watch)
    train(taught, stream(30, 20))
    assert max(len(labels) for _, labels in watch.batches[1][0]) > 16, "replayed samples come on top of the new"
    assert not torch.equal(watch.began[1]["0.weight"], watch.ended[0]["0.weight"])


class BodyWithoutGradient(nn.Sequential):
    """Computes its first layer under `torch.no_grad()`."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            features = self[0](inputs)
        return self[1](features)


def test_a_body_that_computes_without_gradient_is_left_alone():
    model = BodyWithoutGradient(nn.Linear(5, 4), nn.Linear(4, 3))
    before = state(model)
    train(strategy(model, StrategyPlugin(ShrinkPerturb(0.5, 0.1))), stream(40, 40))
    assert same(before, state(model), ["0.weight", "0.bias"])
    assert not torch.equal(before["1.weight"], model[1].weight)


@pytest.mark.parametrize("from_factory", [False, True])
def test_lazy_layers_get_their_sizes_before_the_first_experience(from_factory):
    def lazy() -> nn.Module:
        return nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(3))

    plugin = StrategyPlugin("shrink_perturb", model_factory=lazy if from_factory else None)
    model = lazy()
    train(strategy(model, plugin), stream(40, 40))
    assert model[0].weight.shape == (4, 5)
    assert plugin.context.fresh.keys() == model.state_dict().keys()
