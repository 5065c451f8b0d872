"""A component that a scenario names (data set, stream, model, strategy, part, probe), with its options."""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import BaseModel

from warmstart_sim.errors import WarmstartError, error_summary
from warmstart_sim.registry import Registry
from warmstart_sim.scenario.yaml_files import to_plain_values


@dataclass(frozen=True)
class Component:
    """A registered or user-defined component with its validated options.

    Attributes:
        name: The registered name, "module:attribute", or the name of a Python object with its digest.
        options: All options with their defaults, under the names that scenario files use.
        target: The Python object, if the user passed one; it is used instead of looking up the name.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    target: Callable[..., Any] | None = field(default=None, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The component as it is written in a scenario file."""
        return {"name": self.name, **self.options}

    @property
    def is_user_defined(self) -> bool:
        """Whether the user defined it, rather than this package."""
        return self.target is not None or ":" in self.name

    def bind(self, registry: Registry[Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
        """The function or class, and its options as keyword arguments."""
        if self.is_user_defined:
            return self.target or registry.get(self.name), dict(self.options)
        checked = registry.schema(self.name).model_validate(self.options)
        return registry.get(self.name), {name: getattr(checked, name) for name in type(checked).model_fields}

    def make(self, registry: Registry[Any]) -> Callable[..., Any]:
        """Creates the strategy or part: an instance of the class, or the function with its options bound."""
        target, options = self.bind(registry)
        if isinstance(target, type):
            made: Callable[..., Any] = target(**options)
            return made
        return functools.partial(target, **options) if options else target


def from_object(registry: Registry[Any], value: Any, options: Mapping[str, Any]) -> Component:
    """Creates a component from a Python object: an instance of a registered dataclass, or a callable.

    Raises:
        TypeError: The object is neither.
    """
    for name in registry.names():
        if type(value) is registry.get(name):
            schema = registry.schema(name)
            return Component(
                name, model_to_dict(schema.model_validate({k: getattr(value, k) for k in schema.model_fields}))
            )
    if not callable(value):
        raise TypeError
    return Component(_object_name(value), to_plain_values(options), target=value)


def objects_to_names(value: Any) -> Any:
    """Replaces callables in nested values by their names, for a stored scenario."""
    if isinstance(value, Mapping):
        return {key: objects_to_names(each) for key, each in value.items()}
    if isinstance(value, list):
        return [objects_to_names(each) for each in value]
    return _object_name(value) if callable(value) else value


def check_user_component(component: Component, registry: Registry[Any], where: str) -> None:
    """Imports a user-defined component and checks that it accepts its options, without calling it.

    Args:
        component: The component.
        registry: The registry of its kind.
        where: Name of the scenario in error messages.

    Raises:
        WarmstartError: It cannot be imported, or does not accept an option.
    """
    try:
        target, options = component.bind(registry)
        if options:
            inspect.signature(target).bind_partial(**options)
    except WarmstartError as error:
        raise WarmstartError(f"{where}: {error}") from error
    except (Exception, SystemExit) as error:  # importing a user's module may raise anything
        raise WarmstartError(f"{where}: {registry.kind} '{component.name}': {error_summary(error)}") from error


def model_to_dict(model: BaseModel) -> dict[str, Any]:
    """A pydantic model as plain values, under the names that scenario files use."""
    return model.model_dump(mode="json", by_alias=True)


def _object_name(value: Any) -> str:
    """The name of a user's object with a digest of its source and state, so that a changed object gives other cells."""
    defined = value if hasattr(value, "__qualname__") else type(value)
    source = _source(cast(Hashable, defined)) or str(getattr(getattr(value, "__code__", None), "co_code", ""))
    state = re.sub(r" at 0x[0-9a-f]+", "", repr(_state(value)))  # addresses differ between processes
    digest = hashlib.blake2b(f"{source}{state}".encode(), digest_size=4).hexdigest()
    return f"{defined.__module__}:{defined.__qualname__}#{digest}"


@functools.cache  # a grid needs it for the same object in thousands of cells
def _source(defined: Hashable) -> str | None:
    """The source code; None if it was typed into an interpreter, or is not written in Python."""
    try:
        return inspect.getsource(defined)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return None


def _state(value: Any) -> Any:
    """The state of a callable beside its source: a function's defaults and closure, or an instance's attributes."""
    if inspect.isfunction(value):
        code = value.__code__ if value.__name__ == "<lambda>" else None  # two lambdas on one line share their source
        captured = [cell.cell_contents for cell in value.__closure__ or ()]
        return value.__defaults__, value.__kwdefaults__, captured, code and (code.co_code, code.co_consts)
    plain_object = type(value).__repr__ is object.__repr__  # type: ignore[comparison-overlap]
    return vars(value) if plain_object and hasattr(value, "__dict__") else value
