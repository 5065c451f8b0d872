"""ConvergencePlugin: when an experience ends, and Avalanche's pitfalls, which are shown to exist."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import TransformGroups
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import FromScratchTrainingPlugin
from avalanche.training.supervised import Cumulative
from small import Watch, dataset, network, points, quiet, same, state, strategy, stream, train
from torch import nn

from warmstart_sim.avalanche import ConvergencePlugin, StrategyPlugin, training_metrics
from warmstart_sim.avalanche.convergence import NotConverged
from warmstart_sim.errors import WarmstartError
from warmstart_sim.training.settings import Plateau, Until


def known(right: int, wrong: int, train_transform: Any = None) -> Any:
    """Samples that `fixed` classifies correctly, followed by some that it does not."""
    labels = torch.arange(right + wrong) % 3
    inputs = torch.eye(3)[torch.cat((labels[:right], (labels[right:] + 1) % 3))]
    groups = TransformGroups({"train": (train_transform, None), "eval": (None, None)}) if train_transform else None
    return dataset(inputs, labels, groups)


def fixed() -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model that never changes: its output is its input."""
    model = nn.Linear(3, 3, bias=False)
    nn.init.eye_(model.weight)
    return nn.Sequential(model), torch.optim.SGD(model.parameters(), lr=0.0)


def taught(plugin: Any, *experiences: Any, kind: Any = None, size: int = 8, others: Any = (), **options: Any) -> Watch:
    """The `fixed` model on a list of experiences."""
    model, optimizer = fixed()
    watch = Watch()
    plugins = [plugin, *others, watch]
    trained = strategy(model, *plugins, optimizer=optimizer, train_mb_size=size, **({"kind": kind} if kind else {}),
                       **options)  # fmt: skip
    trained.train(benchmark_from_datasets(train=[*experiences]).train_stream, eval_streams=[])
    return watch


# The criterion.


class Seeded(SupervisedPlugin):
    """Dropout draws the same numbers in each step of both engines."""

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        torch.manual_seed(strategy.clock.train_iterations)


def noisy(inputs: torch.Tensor) -> torch.Tensor:
    return inputs + torch.randn(5) * 1.5


def share(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, training: bool = False) -> float:
    """The share of correctly classified samples, in one pass over all."""
    model.train(training)
    with torch.no_grad():
        return float((model(inputs).argmax(1) == labels).double().mean())


def test_an_experience_ends_after_the_epoch_in_which_a_plain_loop_finds_the_accuracy():
    groups = TransformGroups({"train": (noisy, None), "eval": (None, None)})
    experiences = [points(count, seed, groups) for seed, count in enumerate((34, 50))]  # last batches of 2 samples
    model = network(dropout=0.3)
    model.load_state_dict(network().state_dict())
    first, watch, plugin = state(model), Watch(), ConvergencePlugin(0.85, 100)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    trained = strategy(model, Seeded(), plugin, watch, optimizer=optimizer)
    train(trained, benchmark_from_datasets(train=experiences).train_stream)

    plain = network(dropout=0.3)
    plain.load_state_dict(first)
    optimizer, step, others = torch.optim.SGD(plain.parameters(), lr=0.05), 0, []
    for experience, epochs, ended in zip(experiences, watch.batches, watch.ended, strict=True):
        clean = torch.stack([experience.eval()[i][0] for i in range(len(experience))])
        labels = torch.tensor(list(experience.targets))
        found = []
        for epoch in filter(None, epochs):
            right = 0
            plain.train()
            for inputs, targets in epoch:
                torch.manual_seed(step)
                optimizer.zero_grad()
                logits = plain(inputs)
                nn.functional.cross_entropy(logits, targets).backward()
                optimizer.step()
                right += int((logits.argmax(1) == targets).sum())
                step += 1
            found.append(share(plain, clean, labels))
            others.append(right / len(labels) >= 0.85)
        assert [accuracy >= 0.85 for accuracy in found] == [False] * (len(found) - 1) + [True]
        assert same(state(plain), ended), "and the pass leaves no trace in the weights and statistics"
        assert len(found) >= 2
    assert plugin.train_accuracy == found[-1]
    assert not any(others), "the running accuracy on noisy inputs would never have ended it"


def test_accuracy_is_weighted_by_samples_and_taken_on_clean_inputs():
    def rolled(inputs):
        return inputs.roll(-1)

    plugin = ConvergencePlugin(0.85, 5)  # 8 of 9; a mean over the batches would be (1 + 0) / 2
    watch = taught(plugin, known(8, 1, rolled))
    assert (plugin.status, plugin.epochs, watch.epochs) == ("converged", 1, [1])
    assert plugin.train_accuracy == 8 / 9
    assert plugin.running_accuracy == 1 / 9, "what was trained on was rolled, which turns the last one right"


def test_the_accuracy_pass_stops_when_the_threshold_is_out_of_reach():
    plugin = ConvergencePlugin(8 / 9, 3)
    taught(plugin, known(8, 1))
    assert plugin.status == "converged"
    seen = []

    class Peeking(SupervisedPlugin):
        def after_training_epoch(self, strategy, **kwargs):
            seen.append(plugin.train_accuracy)

    plugin = ConvergencePlugin(0.9, 3)
    with pytest.warns(NotConverged, match="experience 0 capped after 3 epochs with train accuracy 0.8889"):
        taught(plugin, known(8, 1), others=[Peeking()])
    assert seen == [None, None, 8 / 9], "the last count of an experience is full"


def test_accuracy_of_cumulative_includes_old_samples():
    plugin = ConvergencePlugin(0.7, 2)
    watch = taught(plugin, known(6, 0), known(1, 2), kind=Cumulative)
    assert watch.epochs == [1, 1]
    assert plugin.train_accuracy == 7 / 9  # on the new ones alone it would be 1 / 3


def test_any_stop_rule_can_end_an_experience():
    plugin = ConvergencePlugin(until=Until(plateau=Plateau(patience=2), max_epochs=50))
    assert taught(plugin, known(5, 5)).epochs == [3]
    plugin = ConvergencePlugin(until=Until(epochs=4))
    assert taught(plugin, known(5, 5), known(2, 1)).epochs == [4, 4]
    assert (plugin.status, plugin.train_accuracy) == ("finished", None)


def test_a_steps_rule_ends_within_an_epoch_or_at_its_end():
    plugin = ConvergencePlugin(until=Until(steps=5))
    watch = taught(plugin, known(16, 0), known(40, 0), known(24, 0), known(9, 0))  # epochs of 2, 5, 3 and 2 steps
    assert watch.steps == [5, 5, 5, 5]
    assert watch.epochs == [3, 1, 2, 3]
    assert (plugin.status, plugin.steps) == ("finished", 5)
    assert plugin.samples_seen == 9 + 9 + 8


def test_patience_on_validation_data_keeps_the_best_weights():
    with pytest.raises(WarmstartError, match="validation_patience needs `validation`, an Avalanche data set"):
        ConvergencePlugin(until=Until(validation_patience=2))

    scripted = iter([2.0, -1.0, 1.0, 0.5, 3.0])  # right, wrong, right, right: the first stays the best

    class Scripted(SupervisedPlugin):
        def after_training_iteration(self, strategy, **kwargs):
            with torch.no_grad():
                strategy.model[0].weight.copy_(next(scripted) * torch.eye(3))

    plugin = ConvergencePlugin(until=Until(validation_patience=3), validation=known(5, 1))
    model, optimizer = fixed()
    trained = strategy(model, plugin, optimizer=optimizer)
    trained.plugins.insert(0, Scripted())
    train(trained, benchmark_from_datasets(train=[known(6, 0)]).train_stream)
    assert (plugin.status, plugin.epochs) == ("converged", 4)
    assert plugin.validation_accuracy == 5 / 6
    assert torch.equal(plugin.best_state["0.weight"], 2.0 * torch.eye(3))
    assert torch.equal(model[0].weight, 0.5 * torch.eye(3)), "the last weights go on"


def test_modules_in_evaluation_mode_stay_in_it():
    model, modes = network(dropout=0.2), []

    class Freezing(SupervisedPlugin):
        def before_training_epoch(self, strategy, **kwargs):
            strategy.model[1].eval()

    class Looking(SupervisedPlugin):
        def after_training_epoch(self, strategy, **kwargs):
            modes.append([module.training for module in strategy.model])

    with pytest.warns(NotConverged):
        train(strategy(model, Freezing(), ConvergencePlugin(1.0, 2), Looking()), stream(30))
    assert modes == [[True, False, True, True, True]] * 2


# How an experience ends.


def test_the_cap_warns_skips_nothing_and_restores_train_epochs():
    plugin = ConvergencePlugin(1.0, 3)
    model, optimizer = fixed()
    watch = Watch()
    trained = strategy(model, plugin, watch, optimizer=optimizer, train_epochs=7)
    experiences = benchmark_from_datasets(train=[known(2, 2), known(4, 0), known(1, 2), known(3, 0)]).train_stream
    with pytest.warns(NotConverged) as said:
        trained.train(experiences, eval_streams=[])
    assert watch.epochs == [3, 1, 3, 1]
    assert trained.train_epochs == 7
    assert [str(each.message).partition(" after")[0] for each in said] == ["experience 0 capped", "experience 2 capped"]


def test_single_experiences_equal_a_list_and_no_stop_flag_remains():
    plugin = ConvergencePlugin(1.0, 2)
    model, optimizer = fixed()
    watch = Watch()
    trained = strategy(model, plugin, watch, optimizer=optimizer)
    with pytest.warns(NotConverged):
        train(trained, benchmark_from_datasets(train=[known(2, 2), known(4, 0), known(1, 2)]).train_stream)
    assert watch.epochs == [2, 1, 2]
    assert not trained._stop_training


def test_training_without_progress_is_given_up():
    plugin = ConvergencePlugin(until=Until(train_accuracy=1.0, give_up={"epochs": 2, "below": 0.5}))
    with pytest.warns(NotConverged, match="experience 0 gave up after 2 epochs with no accuracy"):
        watch = taught(plugin, known(1, 5), known(3, 0))
    assert watch.epochs == [2, 1]
    assert plugin.converged


@pytest.mark.filterwarnings("ignore::warmstart_sim.avalanche.convergence.NotConverged")
def test_a_nan_loss_ends_an_experience_and_the_next_starts_fresh():
    class Poisoned(SupervisedPlugin):
        def before_backward(self, strategy, **kwargs):
            if strategy.clock.train_exp_counter == 0 and strategy.clock.train_iterations >= 3:
                strategy.loss = strategy.loss * torch.nan

    statuses = []

    class Asking(SupervisedPlugin):
        def after_training_exp(self, strategy, **kwargs):
            statuses.append((plugin.status, plugin.epochs))

    plugin, model = ConvergencePlugin(0.9, 40), network()
    plugins = [StrategyPlugin("random_init"), Poisoned(), plugin, Asking()]
    strategy(model, *plugins).train(stream(30, 40), eval_streams=[])
    assert statuses[0] == ("diverged", 2)
    assert statuses[1][0] == "converged"


# Avalanche's pitfalls.


class Stopping(SupervisedPlugin):
    """A user's early stopping."""

    def after_training_epoch(self, strategy, **kwargs):
        strategy.stop_training()


def test_pitfall_a_stop_flag_set_in_the_last_epoch_skips_the_next_experience():
    model, optimizer = fixed()
    watch = Watch()
    experiences = benchmark_from_datasets(train=[known(4, 0), known(5, 0), known(6, 0)]).train_stream
    strategy(model, Stopping(), watch, optimizer=optimizer, train_epochs=1).train(experiences, eval_streams=[])
    assert watch.steps == [1, 0, 1], "Avalanche has mended this: so can ConvergencePlugin be"
    assert taught(ConvergencePlugin(1.0, 1), *(each.dataset for each in experiences)).steps == [1, 1, 1]


def test_pitfall_a_phantom_epoch_is_announced_but_not_counted_by_us():
    plugin = ConvergencePlugin(until=Until(epochs=3))
    model, optimizer = fixed()
    watch = Watch()
    evaluator = quiet(training_metrics())
    trained = strategy(model, plugin, watch, optimizer=optimizer, evaluator=evaluator)
    trained.train(benchmark_from_datasets(train=[known(9, 0), known(5, 0)]).train_stream, eval_streams=[])
    assert watch.announced == [4, 4]
    assert watch.epochs == [3, 3]
    assert (plugin.epochs, plugin.samples_seen) == (3, 15)
    assert plugin.running_accuracy == 1.0
    found = evaluator.get_last_metrics()
    for experience, steps in ((0, 3), (1, 3)):
        end = f"train_phase/train_stream/Exp00{experience}"
        assert found[f"Train_Epochs_Exp/{end}"] == 3
        assert found[f"Train_Steps_Exp/{end}"] == steps
        assert found[f"Converged_Exp/{end}"] == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_pitfall_from_scratch_training_leaks_buffers_and_always_restores_the_same_weights():
    seen = {}
    for name, plugin in {"theirs": FromScratchTrainingPlugin(), "ours": StrategyPlugin("random_init")}.items():
        model, watch = network(), Watch()
        train(strategy(model, plugin, watch, train_epochs=2), stream(30, 40, 50))
        seen[name] = watch
    theirs, ours = seen["theirs"], seen["ours"]
    weights, buffers = ["0.weight", "4.weight"], ["1.running_mean", "1.running_var"]
    for name in weights:
        assert torch.equal(theirs.began[1][name], theirs.began[0][name])
        assert torch.equal(theirs.began[2][name], theirs.began[0][name])
        drawn = [began[name] for began in ours.began]
        assert not any(torch.equal(one, other) for one, other in (drawn[:2], drawn[1:], drawn[::2]))
    for name in buffers:
        assert torch.equal(theirs.began[1][name], theirs.ended[0][name])
        assert torch.equal(ours.began[1][name], ours.began[0][name])
        assert not torch.equal(ours.began[1][name], ours.ended[0][name])
