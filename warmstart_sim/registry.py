"""Registries of strategies, parts, probes, analyses, data sets, streams, their changes and models.

They are filled by importing packages.

To add one, write a function (or a frozen dataclass) in a file of the package and put `@NAME.register("its_name")` above
it; nothing else has to change. Its keyword-only parameters (or fields) are its options: their annotations are the
schema that scenario files are checked against, and the first line of its docstring is what `warmstart-sim list` says.
The files must import without torch, so that checking a scenario is quick: import torch inside the function.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, Generic, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model

from warmstart_sim.errors import WarmstartError, unknown

T = TypeVar("T", bound=Callable[..., Any])

OPTION_RULES = ConfigDict(
    extra="forbid",
    frozen=True,
    strict=False,
    validate_by_name=True,
    validate_by_alias=True,
    serialize_by_alias=True,
    allow_inf_nan=False,
    arbitrary_types_allowed=True,
)


def option_schema(target: Callable[..., Any], title: str) -> type[BaseModel]:
    """A pydantic model of the options of `target`: its keyword-only parameters, or the fields of a dataclass."""
    is_class = inspect.isclass(target)
    hints = get_type_hints(target, include_extras=True)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(target).parameters.items():
        if is_class or parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            fields[name] = (hints[name], default)
    return create_model(title, __config__=OPTION_RULES, **fields)


class Registry(Generic[T]):
    """All entries of one kind, such as all strategies, by name.

    Args:
        kind: What one of them is called in messages, such as "strategy".
        package: The package whose modules register them.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._targets: dict[str, T] = {}
        self._traits: dict[str, frozenset[str]] = {}
        self._details: dict[str, Mapping[str, Any]] = {}
        self._schemas: dict[str, type[BaseModel]] = {}

    def register(self, name: str, *traits: str, **details: Any) -> Callable[[T], T]:
        """A decorator that names a function or class.

        Args:
            name: Its name in scenario files.
            *traits: Facts about it that must be known without calling it, asked for by `has_trait`.
            **details: The same with values, asked for by `details`, such as a probe's columns.
        """

        def add(target: T) -> T:
            if name in self._targets:
                raise ValueError(f"two {self.kind} entries are called '{name}'")
            self._targets[name] = target
            self._traits[name] = frozenset(traits)
            self._details[name] = details
            return target

        return add

    @cached_property
    def _loaded(self) -> Mapping[str, T]:
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):  # those hold torch classes that the others import when they build
                importlib.import_module(f"{self._package}.{module.name}")
        return self._targets

    def names(self) -> list[str]:
        """The registered names, sorted."""
        return sorted(self._loaded)

    def get(self, name: str) -> T:
        """The entry that is registered as `name`, or the object that `module:attribute` names.

        Raises:
            WarmstartError: No such name; the message has the nearest one and the list.
        """
        if ":" in name:
            return _import_target(self.kind, name)
        if name not in self._loaded:
            raise WarmstartError(unknown(self.kind, name, self.names()))
        return self._loaded[name]

    def has_trait(self, name: str, trait: str) -> bool:
        """Whether `name` was registered with `trait`; a user's own `module:attribute` has none."""
        return name in self._loaded and trait in self._traits[name]

    def details(self, name: str) -> Mapping[str, Any]:
        """The details with which `name` was registered; empty for a user's own `module:attribute`."""
        return self._details[name] if name in self._loaded else {}

    def summary(self, name: str) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(self.get(name)) or "").split("\n", 1)[0]

    def schema(self, name: str) -> type[BaseModel]:
        """The options of a registered name as a pydantic model."""
        if name not in self._schemas:
            self._schemas[name] = option_schema(self.get(name), name)
        return self._schemas[name]


def user_entries() -> list[tuple[str, str, Any, frozenset[str], Mapping[str, Any]]]:
    """Every entry that is not this package's, for `register_entries` in another process."""
    return [
        (kind, name, target, registry._traits[name], registry._details[name])
        for kind, registry in REGISTRIES.items()
        for name, target in registry._targets.items()
        if not target.__module__.startswith("warmstart_sim.")
    ]


def register_entries(entries: Iterable[tuple[str, str, Any, frozenset[str], Mapping[str, Any]]]) -> None:
    """Registers the entries of another process, except those whose module registered them when it was imported."""
    for kind, name, target, traits, details in entries:
        if name not in REGISTRIES[kind]._targets:
            REGISTRIES[kind].register(name, *traits, **details)(target)


def _import_target(kind: str, name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise WarmstartError(f"{kind} '{name}': cannot import {module_name} ({error})") from error
    if not hasattr(module, attribute):
        raise WarmstartError(f"{kind} '{name}': {module_name} has no attribute '{attribute}'")
    return getattr(module, attribute)


STRATEGIES: Registry[Any] = Registry("strategy", "warmstart_sim.strategies")
PARTS: Registry[Any] = Registry("part", "warmstart_sim.parts")
PROBES: Registry[Any] = Registry("probe", "warmstart_sim.probes")
ANALYSES: Registry[Any] = Registry("analysis", "warmstart_sim.analyses")
DATASETS: Registry[Any] = Registry("data set", "warmstart_sim.datasets")
STREAMS: Registry[Any] = Registry("stream", "warmstart_sim.streams")
CHANGES: Registry[Any] = Registry("change of a stream", "warmstart_sim.streams.changes")
MODELS: Registry[Any] = Registry("model", "warmstart_sim.models")
ALL = (STRATEGIES, PARTS, PROBES, ANALYSES, DATASETS, STREAMS, CHANGES, MODELS)
REGISTRIES = {registry.kind: registry for registry in ALL}
