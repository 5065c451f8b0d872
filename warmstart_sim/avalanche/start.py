"""How an experience starts: our strategies as a plugin for Avalanche's."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.models import DynamicModule
from torch import nn

from warmstart_sim import models
from warmstart_sim.errors import WarmstartError
from warmstart_sim.experiment.cell_trainer import check_start
from warmstart_sim.registry import STRATEGIES
from warmstart_sim.seeding import scoped_torch_seed, torch_generator
from warmstart_sim.types import RoundContext, StateDict, Strategy


class StrategyPlugin(SupervisedPlugin):
    """Starts every experience but the first as a strategy says: from the last weights, fresh ones, or a mix of both.

    With a strategy f, the model's state before experience t is theta <- f(theta_previous, theta_fresh), parameters and
    buffers, where theta_previous is what the model holds (after Avalanche has adapted it to the experience, so that a
    grown head has all its units) and theta_fresh a new draw for each experience. It is written into the model in place.

    Fresh weights come from `model_factory`, or else from a copy of the model whose modules are all reset by their
    `reset_parameters()`. What is no weight stays as it is: parameters that do not train, modules without any that do
    (with their BatchNorm statistics), and the buffers of Avalanche's dynamic modules, which say what classes there have
    been.

    Args:
        strategy: A name of `warmstart-sim list`, such as "shrink_perturb" (with its defaults), a strategy object such
            as `ShrinkPerturb(0.4, 0.1)`, or a function `f(previous, fresh, context)` of two state dicts.
        seed: With the number of the experience it decides what is drawn. Default 0. Torch's generators are put back.
        model_factory: Builds a model like this one, with fresh weights. Needed where a parameter belongs to no module
            with `reset_parameters()`, or where initialisation is done elsewhere. What a head has grown since is drawn
            by `reset_parameters()`.
        reset_optimizer: Whether each of these experiences begins with the optimiser's state as new (default), or with
            the last one's. Rates and other options stay as they are.

    Raises:
        WarmstartError: No such strategy.

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

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Makes sure that model and optimiser belong together, before Avalanche adds what is missing in silence."""
        only_one_of(StrategyPlugin, strategy)
        if strategy.optimized_param_id is None:
            _check_all_optimized(strategy.model, strategy.optimizer)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Gives the model the weights to start from, and the optimiser its first state."""
        number = strategy.clock.train_exp_counter
        if number == 0:
            return
        model = strategy.model
        with scoped_torch_seed(self.seed, "init", number):
            fresh = fresh_state(model, self.model_factory)
        context = RoundContext(
            number, models.layout(model), lambda purpose: torch_generator(self.seed, purpose, number)
        )
        previous = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        start = self.strategy(previous, fresh, context)
        check_start(start, fresh, getattr(self.strategy, "__name__", type(self.strategy).__name__))
        model.load_state_dict({**start, **_kept(model, previous)})
        if self.reset_optimizer:
            make_new(strategy.optimizer)


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


def _kept(model: nn.Module, previous: StateDict) -> dict[str, torch.Tensor]:
    """What is no weight: what does not train, and the buffers of Avalanche's dynamic modules."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: previous[name] for name in (*frozen, *_of(model, _is_frozen), *_structure(model)) if name in previous}


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


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
