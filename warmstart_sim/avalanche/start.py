"""Our strategies as a plugin for Avalanche's: sets the weights from which an experience's training starts."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from avalanche.core import SupervisedPlugin
from avalanche.models import DynamicModule, MultiTaskModule
from torch import nn

from warmstart_sim import models
from warmstart_sim.errors import WarmstartError
from warmstart_sim.models._interface import initialize_lazy
from warmstart_sim.registry import STRATEGIES
from warmstart_sim.seeding import scoped_torch_seed
from warmstart_sim.training.model_functions import without_gradient
from warmstart_sim.training.round_context import round_context
from warmstart_sim.training.starts import freeze_all_but, never_trained, start_of_round, train_mode, trains_by_default
from warmstart_sim.types import Batch, Hooks, Part, Round, RoundContext, StateDict, Strategy


class StrategyPlugin(SupervisedPlugin):
    """Starts every experience but the first as a strategy says: from the last weights, fresh ones, or a mix of both.

    With a strategy f, the model's state before experience t is theta <- f(theta_previous, theta_fresh), parameters and
    buffers, where theta_previous is what the model holds (after Avalanche has adapted it to the experience, so that a
    grown head has all its units) and theta_fresh a new draw for each experience. It is written into the model in place.

    Fresh weights come from `model_factory`, or else from a copy of the model whose modules are all reset by their
    `reset_parameters()`. What is not a weight stays as it is: parameters that do not train, modules without any that do
    (with their BatchNorm statistics), and the buffers of Avalanche's dynamic modules, which record the classes so far.

    A strategy that returns a `Start` with `trainable` freezes the other parameters for the experience: they get no
    gradient, and BatchNorm layers in which nothing trains stay in evaluation mode.

    Args:
        strategy: A name of `warmstart-sim list`, such as "shrink_perturb" (with its defaults), a strategy object such
            as `ShrinkPerturb(0.4, 0.1)`, or a function `f(previous, fresh, context)` of two state dicts.
        seed: With the number of the experience it decides what is drawn. Default 0. Torch's generators are restored.
        model_factory: Builds a model like this one, with fresh weights. Needed where a parameter belongs to no module
            with `reset_parameters()`, or where initialisation is done elsewhere. What a head has grown since is drawn
            by `reset_parameters()`.
        reset_optimizer: Whether each of these experiences begins with a new optimiser state (default), or with the
            last one's. Rates and other options stay as they are.
        parts: Parts whose hooks are loss terms, such as `SelfDistillation()`; each is added to the loss of every batch.
        make_context: Builds the context of an experience, from its number and the model's state (None before the first
            training). By default the context's samples are those of Avalanche's adapted data set, where the last
            `len(experience.dataset)` are the new ones, as in Cumulative.

    Attributes:
        context: The context of the last experience that started, with `start`; None before the first.

    Raises:
        WarmstartError: No such strategy; or when an experience starts, a part that brings more than a loss term.

    >>> from warmstart_sim import ShrinkPerturb
    >>> StrategyPlugin(ShrinkPerturb(0.4, 0.1)).strategy.lam
    0.4

    Source: Ash & Adams 2020, section 4, for what it does; Avalanche 0.6 for when.
    """

    def __init__(
        self,
        strategy: str | Strategy,
        *,
        seed: int = 0,
        model_factory: Callable[[], nn.Module] | None = None,
        reset_optimizer: bool = True,
        parts: Sequence[Part] = (),
        make_context: Callable[[int, StateDict | None], RoundContext] | None = None,
    ) -> None:
        super().__init__()
        self.strategy: Any = STRATEGIES.get(strategy) if isinstance(strategy, str) else strategy
        if isinstance(self.strategy, type):
            self.strategy = self.strategy()
        if not callable(self.strategy):
            raise WarmstartError(f"StrategyPlugin: {strategy!r} is no strategy; give a name, an object or a function")
        self.seed = seed
        self.model_factory = model_factory
        self.reset_optimizer = reset_optimizer
        self.parts = tuple(parts)
        self.make_context = make_context
        self.context: RoundContext | None = None
        self._trains_by_default: frozenset[str] | None = None  # while an experience's start has frozen some
        self._initial: StateDict = {}
        self._totals: list[int] = []  # the sizes of the training sets so far
        self._loss_terms: list[Callable[[Batch, torch.Tensor], torch.Tensor]] = []

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Makes sure that model and optimiser belong together, before Avalanche silently adds what is missing."""
        only_one_of(StrategyPlugin, strategy)
        if strategy.optimized_param_id is None:
            _check_all_optimized(strategy.model, strategy.optimizer)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Writes the start into the model, and resets the optimiser's state."""
        number, model = strategy.clock.train_exp_counter, strategy.model
        initialize_lazy(model, lambda: _two_inputs(strategy))
        current = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        if number == 0:
            self._initial = current
        make_context = self.make_context or (lambda number, previous: self._context(strategy, number, previous))
        context = make_context(number, current if number else None)
        name = getattr(self.strategy, "__name__", type(self.strategy).__name__)
        start = start_of_round(self.strategy, name, context, never_trained(model, _without_gradient(strategy)))
        weights = {**start.weights, **{entry: current[entry] for entry in _structure(model)}}
        model.load_state_dict(weights)
        self.context = dataclasses.replace(context, start=weights, trainable=start.trainable)
        self._loss_terms = list(self._made_loss_terms(self.context))
        if number and self.reset_optimizer:
            make_new(strategy.optimizer)
        if start.trainable is not None:
            self._trains_by_default = trains_by_default(model)
            freeze_all_but(model, frozenset(start.trainable), self._trains_by_default)
            model.zero_grad()  # an optimiser leaves alone what has no gradient
        train_mode(model)

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Frozen BatchNorm stays in evaluation mode, also after an evaluation."""
        train_mode(strategy.model)

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Adds the loss terms of the parts."""
        inputs, labels = strategy.mb_x, strategy.mb_y
        batch = Batch(inputs, labels, torch.Generator(inputs.device), model_inputs=inputs, model=strategy.model)
        for term in self._loss_terms:
            strategy.loss = strategy.loss + term(batch, strategy.mb_output)

    def _made_loss_terms(self, context: RoundContext) -> Iterator[Callable[[Batch, torch.Tensor], torch.Tensor]]:
        """The loss terms of the parts in an experience."""
        for part in self.parts:
            hooks = part(context.previous or context.fresh, context.fresh, context)
            if hooks != Hooks(loss_term=hooks.loss_term):
                raise WarmstartError(
                    f"StrategyPlugin: the part {type(part).__name__} brings more than a loss term, and Avalanche's "
                    "loop takes nothing else; leave it out, or use our own engine"
                )
            if hooks.loss_term:
                yield hooks.loss_term

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Unfreezes what the experience's start had frozen."""
        if self._trains_by_default is not None:
            freeze_all_but(strategy.model, None, self._trains_by_default)
            self._trains_by_default = None

    def _built(self, strategy: Any) -> nn.Module:
        assert self.model_factory is not None
        made = self.model_factory()
        if isinstance(made, nn.Module):
            initialize_lazy(made, lambda: _two_inputs(strategy).to(next(made.parameters()).device))
        return made

    def _context(self, strategy: Any, number: int, previous: StateDict | None) -> RoundContext:
        """The context of an experience, whose samples are those of the adapted data set, by their position in it."""
        model = strategy.model
        if previous is None:
            fresh: StateDict = self._initial
        else:
            with scoped_torch_seed(self.seed, "init", number):
                fresh = fresh_state(model, self.model_factory and (lambda: self._built(strategy)))
        count = len(strategy.adapted_dataset)
        everything = np.arange(count, dtype=np.int64)
        begin = count - len(strategy.experience.dataset)  # of the new samples
        edges = [*(total for total in self._totals if total < begin), begin]
        self._totals.append(count)
        round_ = Round(number, everything, everything[begin:])
        return round_context(
            model, models.layout(model), _AdaptedSamples(strategy), round_, seed=self.seed, previous=previous,
            fresh=fresh, initial=lambda: self._initial, arrived=np.split(everything, edges),
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _AdaptedSamples:
    """Reads an experience's samples by position, with the data set's "eval" transforms."""

    strategy: Any

    def batch(self, index: torch.Tensor, width: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and labels on the strategy's device."""
        dataset = self.strategy.adapted_dataset.eval()
        samples = [dataset[position] for position in index.tolist()]
        inputs = torch.stack([torch.as_tensor(sample[0]) for sample in samples])
        labels = torch.tensor([int(sample[1]) for sample in samples])
        return inputs.to(self.strategy.device), labels.to(self.strategy.device)


def _two_inputs(strategy: Any) -> torch.Tensor:
    return _AdaptedSamples(strategy).batch(torch.arange(min(2, len(strategy.adapted_dataset))))[0]


def _without_gradient(strategy: Any) -> frozenset[str]:
    """The parameters that get no gradient, tried with two samples; other tasks' heads wait for their tasks."""
    model = strategy.model
    trains = trains_by_default(model)
    frozen = frozenset(name for name, _ in model.named_parameters(remove_duplicate=False)) - trains
    if isinstance(model, MultiTaskModule):
        return frozen
    try:
        return without_gradient(model, _two_inputs(strategy), trains)
    except Exception:  # the strategy calls its model in a way of its own
        return frozen


def fresh_state(model: nn.Module, factory: Callable[[], nn.Module] | None = None) -> StateDict:
    """A fresh initialisation of a model, drawn on the CPU from torch's default generator, on the model's device.

    Args:
        model: Stays as it is.
        factory: Builds one like it; None resets a copy.

    Raises:
        WarmstartError: There is a parameter that cannot be drawn, or the factory builds another model, or this one.
    """
    current = model.state_dict()
    same = _built(model, factory) if factory else {}
    if same.keys() != current.keys():  # no factory, or modules that have grown since
        same = _reset_copy(model, known=same.keys()) | same
    # Copied even where the device is the same: the factory may give the same model every time.
    return {name: same[name].detach().to(current[name].device, current[name].dtype, copy=True) for name in current}


def _built(model: nn.Module, factory: Callable[[], nn.Module]) -> dict[str, torch.Tensor]:
    """What a factory's model has of this one's state: all of it, but for what has grown in dynamic modules."""
    made = factory()
    if not isinstance(made, nn.Module):
        raise WarmstartError(f"model_factory gave a {type(made).__name__}, not a torch.nn.Module")
    if made is model:
        raise WarmstartError("model_factory gave the very model that is trained; it must build one with fresh weights")
    current, built = model.state_dict(), made.state_dict()
    if unknown := sorted(built.keys() - current.keys()):
        raise WarmstartError(f"model_factory: its model has '{unknown[0]}', which the strategy's model lacks")
    same = {name: tensor for name, tensor in built.items() if tensor.shape == current[name].shape}
    if other := sorted(
        current.keys() - same.keys() - set(_of(model, lambda module: isinstance(module, DynamicModule)))
    ):
        shape = tuple(built[other[0]].shape) if other[0] in built else "nothing"
        raise WarmstartError(
            f"model_factory: its model has {shape} for '{other[0]}' of shape {tuple(current[other[0]].shape)}; it must "
            "build a model like the strategy's"
        )
    return same


def _reset_copy(model: nn.Module, known: Any) -> dict[str, torch.Tensor]:
    """The state of a copy, all of whose modules are reset; parameters that are `known` need not be resettable."""
    try:
        fresh = copy.deepcopy(model).cpu()
    except Exception as error:
        raise WarmstartError(
            f"the model cannot be copied ({type(error).__name__}: {error}); pass StrategyPlugin a model_factory"
        ) from error
    trained = {name: parameter for name, parameter in fresh.named_parameters() if parameter.requires_grad}
    with torch.no_grad():
        for parameter in trained.values():
            parameter.fill_(torch.nan)  # to tell what no module resets
    fresh.apply(_reset)  # children before their parents, which may have an initialisation of their own for them
    for name, parameter in trained.items():
        if name not in known and parameter.isnan().any():
            owner = type(fresh.get_submodule(name.rpartition(".")[0])).__name__
            raise WarmstartError(
                f"parameter '{name}' cannot be drawn anew: {owner} has no reset_parameters() that draws it; define "
                "it, or pass StrategyPlugin a model_factory that builds the model"
            )
    return dict(fresh.state_dict())


def _reset(module: nn.Module) -> None:
    if callable(reset := getattr(module, "reset_parameters", None)):
        reset()


def _of(model: nn.Module, wanted: Callable[[nn.Module], bool]) -> Iterator[str]:
    """Entries of the state dict that belong to such modules, and to what is inside them."""
    for prefix, module in model.named_modules():
        if wanted(module):
            yield from (f"{prefix}.{name}" if prefix else name for name in module.state_dict())


def _structure(model: nn.Module) -> Iterator[str]:
    for prefix, module in model.named_modules():
        if isinstance(module, DynamicModule):
            yield from (name for name, _ in module.named_buffers(prefix, recurse=False))


def make_new(optimizer: Any) -> None:
    """Gives an optimiser the state of a new one of its class, in place: schedulers hold on to the object.

    Raises:
        WarmstartError: It is none of torch's kind, or its class cannot be called again.
    """
    try:
        groups = [dict(group) for group in optimizer.param_groups]
        known = inspect.signature(type(optimizer)).parameters.keys() & optimizer.defaults.keys()
        options = {name: optimizer.defaults[name] for name in known}  # Adagrad takes its first sums from here
        state = type(optimizer)(groups, **options).state
        optimizer.state.clear()
        optimizer.state.update(state)
    except Exception as error:
        raise WarmstartError(
            f"the optimiser {type(optimizer).__name__} cannot be rebuilt ({type(error).__name__}: {error}); pass "
            "StrategyPlugin reset_optimizer=False, and reset its state in a plugin of your own if it has to be"
        ) from error


def only_one_of(kind: type, strategy: Any) -> None:
    """Makes sure that a plugin was not added twice.

    Raises:
        WarmstartError: It was.
    """
    count = sum(isinstance(plugin, kind) for plugin in strategy.plugins)
    if count > 1:
        raise WarmstartError(
            f"the strategy has {count} plugins of class {kind.__name__}: each would act; leave one in `plugins`"
        )


def _check_all_optimized(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    missing = [name for name, parameter in trained.items() if id(parameter) not in held]
    if missing and len(missing) == len(trained):
        raise WarmstartError(
            "the optimiser holds none of the model's parameters, but perhaps those of a copy of it: make the optimiser "
            "from the parameters of the very model that the strategy gets"
        )
    if missing:
        raise WarmstartError(
            f"parameter '{missing[0]}' ({len(missing)} in all) is not on the optimiser, and Avalanche would add it in "
            "silence: give the optimiser all parameters, or set requires_grad=False on those that are not to train"
        )
