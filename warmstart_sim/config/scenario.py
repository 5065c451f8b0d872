"""What a scenario file may say, and the one line that says what is wrong with it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, Field, PositiveInt, StringConstraints, ValidationError

from warmstart_sim.errors import WarmstartError, nearest
from warmstart_sim.registry import DATASETS, MODELS, PARTS, STRATEGIES, STREAMS, Registry
from warmstart_sim.training.settings import Settings, Training

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Component:
    """A registered name (or a user's object) and its options, checked and complete.

    Attributes:
        name: The registered name, "module:attribute", or how a Python object was called.
        options: All options with their defaults, by the names that scenario files use.
        target: A user's object given in Python; it takes the place of what the name stands for.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    target: Callable[..., Any] | None = field(default=None, compare=False)

    def record(self) -> dict[str, Any]:
        """How it is written in a scenario file."""
        return {"name": self.name, **self.options}

    def bind(self, registry: Registry[Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
        """The function or class that it names, and its options as Python keyword arguments."""
        if self.target is not None or ":" in self.name:
            return self.target or registry.get(self.name), dict(self.options)
        checked = registry.schema(self.name).model_validate(self.options)
        return registry.get(self.name), {name: getattr(checked, name) for name in type(checked).model_fields}

    def make(self, registry: Registry[Any]) -> Callable[..., Any]:
        """The strategy or part itself: an instance of the class, or the function with its options filled in."""
        target, options = self.bind(registry)
        return target(**options) if isinstance(target, type) else functools.partial(target, **options)


class DataSettings(Settings):
    """The keys of `data:` that every data set has; the rest are the data set's own options.

    Attributes:
        validation_fraction: The share of the training samples held out at random, in [0, 1). Default 0.
        normalize: "train" (default): mean and deviation of the training set; "cifar10", "imagenet", "half": constants;
            "none".
        train_samples: At most this many training samples (after holding out), drawn at random. Default all.
        test_samples: At most this many test samples. Default all.
    """

    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    normalize: Literal["train", "cifar10", "imagenet", "half", "none"] = "train"
    train_samples: PositiveInt | None = None
    test_samples: PositiveInt | None = None


class Measure(Settings):
    """Probes beyond the standard columns.

    Attributes:
        each_epoch: "accuracy": train, validation and test accuracy in full after every epoch.
    """

    each_epoch: tuple[Literal["accuracy"], ...] = ()


class Header(Settings):
    """The keys of a scenario file that are plain values.

    Attributes:
        name: Names the run's folder.
        title: A line for the report's head.
        rows: The papers' tables and figures that this reproduces, such as A-F2.
        seeds: Default [0].
        measure: See `Measure`.
        metric: Which accuracy the report is about: "validation_accuracy" or "test_accuracy". Default: validation where
            something is held out, else test.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    title: str = ""
    rows: tuple[str, ...] = ()
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    measure: Measure = Measure()
    metric: Literal["validation_accuracy", "test_accuracy"] | None = None


@dataclass(frozen=True)
class Arm:
    """One way to train that is compared with others: how rounds start, the parts, and its own training options."""

    label: str
    start: Component
    parts: tuple[Component, ...]
    training: Training


@dataclass(frozen=True)
class Scenario:
    """A validated scenario, before its `vary` axes are multiplied out.

    Attributes:
        header: Name, seeds, measure and the like.
        data: The data set and its own options.
        data_settings: What every data set has: validation fraction, normalisation, limits.
        stream: The generator of rounds.
        rounds: The most rounds that are run; None for all.
        model: The model.
        training: What holds for arms that say nothing else.
        arms: The strategies, in the file's order.
    """

    header: Header
    data: Component
    data_settings: DataSettings
    stream: Component
    rounds: int | None
    model: Component
    training: Training
    arms: tuple[Arm, ...]

    @property
    def metric(self) -> str:
        """The accuracy that the report is about."""
        held_out = self.data_settings.validation_fraction > 0
        return self.header.metric or ("validation_accuracy" if held_out else "test_accuracy")


SECTIONS = (*Header.model_fields, "data", "scenario", "model", "training", "strategies", "vary")


def parse(raw: Mapping[str, Any], where: str) -> Scenario:
    """Checks a scenario without its `vary` axes.

    Args:
        raw: The file's mapping.
        where: What to name in errors, usually the file.

    Raises:
        WarmstartError: The first thing that is wrong: the key, what was found, what is allowed, the nearest match.
    """
    check = _Checker(where)
    check.keys(raw, SECTIONS, "")
    for section in ("data", "strategies"):
        if raw.get(section) is None:
            raise WarmstartError(f"{where}: `{section}` is missing")
    header = check.model(Header, {key: raw[key] for key in Header.model_fields if key in raw}, "")
    if len(set(header.seeds)) < len(header.seeds):
        raise WarmstartError(f"{where}: seeds: {list(header.seeds)} names a seed twice; each must be given once")

    data_raw = check.mapping(raw["data"], "data", shorthand="name")
    common = {key: data_raw.pop(key) for key in DataSettings.model_fields if key in data_raw}
    data_settings = check.model(DataSettings, common, "data")
    data = check.component(DATASETS, data_raw, "data", DataSettings.model_fields)
    stream_raw = check.mapping(raw.get("scenario", "static"), "scenario", shorthand="name")
    own_rounds = (
        stream_raw.get("name") in STREAMS.names() and "rounds" in STREAMS.schema(stream_raw["name"]).model_fields
    )
    rounds = None if own_rounds else check.count(stream_raw.pop("rounds", None), "scenario.rounds")
    stream = check.component(STREAMS, stream_raw, "scenario", () if own_rounds else ("rounds",))
    model = check.component(MODELS, check.mapping(raw.get("model", "small_cnn"), "model", shorthand="name"), "model")

    training_raw = check.mapping(raw.get("training") or {}, "training")
    training = check.model(Training, training_raw, "training")
    strategies = check.mapping(raw["strategies"], "strategies")
    if not strategies:
        raise WarmstartError(
            f"{where}: strategies: there is none; name at least one of {', '.join(STRATEGIES.names())}"
        )
    arms = tuple(check.arm(label, value, training_raw) for label, value in strategies.items())
    for arm in arms:
        if arm.training.until.validation_patience and not data_settings.validation_fraction:
            raise WarmstartError(
                f"{where}: training.until.validation_patience: needs validation data; set data.validation_fraction"
            )
    if header.metric == "validation_accuracy" and not data_settings.validation_fraction:
        raise WarmstartError(f"{where}: metric: validation_accuracy needs data.validation_fraction above 0")
    return Scenario(header, data, data_settings, stream, rounds, model, training, arms)


class _Checker:
    """Checks pieces of one file; each method raises the one line that names the file and the key."""

    def __init__(self, where: str) -> None:
        self.where = where

    def fail(self, key: str, problem: str) -> WarmstartError:
        return WarmstartError(f"{self.where}: {key}: {problem}" if key else f"{self.where}: {problem}")

    def keys(self, raw: Mapping[str, Any], valid: Any, key: str) -> None:
        for name in raw:
            if name not in valid:
                raise self.fail(
                    f"{key}.{name}" if key else str(name),
                    f"unknown key{nearest(name, valid)} (allowed here: {', '.join(valid)})",
                )

    def mapping(self, value: Any, key: str, shorthand: str | None = None) -> dict[str, Any]:
        """A copy of a mapping; where there is a shorthand, `model: mlp` stands for `model: {name: mlp}`."""
        if shorthand and (isinstance(value, str) or callable(value)):
            return {shorthand: value}
        if not isinstance(value, Mapping):
            raise self.fail(key, f"expected a mapping, found {value!r}")
        return dict(value)

    def count(self, value: Any, key: str) -> int | None:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise self.fail(key, f"expected a whole number of at least 1, found {value!r}")
        return value

    def model(self, schema: type[M], value: Mapping[str, Any], key: str, also: Any = ()) -> M:
        """`value` as a pydantic model; the first problem becomes one line."""
        try:
            return schema.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in (*([key] if key else []), *first["loc"]))
            raise self.fail(place, _problem(first, schema, also)) from None

    def component(self, registry: Registry[Any], raw: dict[str, Any], key: str, also: Any = ()) -> Component:
        """A named thing and its options, where `name` may be a user's object."""
        name = raw.pop("name", None)
        if name is None:
            raise self.fail(f"{key}.name", f"is missing (there are: {', '.join(registry.names())})")
        if not isinstance(name, str):
            return from_object(registry, name, raw)
        if ":" in name:  # a user's own: imported when the run starts, so that checking a file executes nothing
            return Component(name, raw)
        try:
            schema = registry.schema(name)
        except WarmstartError as error:
            raise self.fail(f"{key}.name" if registry is not PARTS else key, str(error)) from None
        return Component(name, dump(self.model(schema, raw, key, ("name", *also))))

    def arm(self, label: Any, value: Any, training_raw: Mapping[str, Any]) -> Arm:
        key = f"strategies.{label}"
        if not isinstance(label, str) or not label or "/" in label:
            raise self.fail("strategies", f"'{label}' cannot be a label: a label is text without a slash")
        raw = {"start": value} if callable(value) or isinstance(value, str) else self.mapping(value or {}, key)
        start = raw.pop("start", label)
        if start is label and label not in STRATEGIES.names():
            names = STRATEGIES.names()
            raise self.fail(
                key,
                f"unknown strategy '{label}'{nearest(label, names)} (there are: {', '.join(names)}); "
                "a label of your own needs `start:` with one of them",
            )
        overrides = self.mapping(raw.pop("training", {}), f"{key}.training")
        parts = tuple(
            self.component(PARTS, {"name": name, **self._part_options(raw.pop(name), f"{key}.{name}")}, f"{key}.{name}")
            for name in PARTS.names()
            if name in raw
        )
        training = self.model(
            Training, _merged(training_raw, overrides), "training" if not overrides else f"{key}.training"
        )
        valid = ("start", "training", *PARTS.names())
        return Arm(label, self.component(STRATEGIES, {"name": start, **raw}, key, valid), parts, training)

    def _part_options(self, value: Any, key: str) -> dict[str, Any]:
        if isinstance(value, list):  # augment: [random_crop, rotation] names features at their default strength
            return dict.fromkeys(map(str, value), True)
        return self.mapping(value, key)


def from_object(registry: Registry[Any], value: Any, options: Mapping[str, Any]) -> Component:
    """A component from a user's Python object: a registered dataclass instance, a function, or a factory."""
    for name in registry.names():
        if type(value) is registry.get(name):
            schema = registry.schema(name)
            return Component(name, dump(schema.model_validate({k: getattr(value, k) for k in schema.model_fields})))
    if not callable(value):
        raise WarmstartError(f"{registry.kind}: expected a name or something callable, found {value!r}")
    return Component(_describe(value), dict(options), target=value)


def _describe(value: Any) -> str:
    """Names a user's object, with a digest of its source, so that a changed function is another experiment."""
    import hashlib
    import inspect

    named = value if hasattr(value, "__qualname__") else type(value)
    try:
        source = inspect.getsource(named) + repr(value if named is not value else "")
    except (OSError, TypeError):
        source = repr(value)
    return f"{named.__module__}:{named.__qualname__}#{hashlib.blake2b(source.encode(), digest_size=4).hexdigest()}"


def dump(model: BaseModel) -> dict[str, Any]:
    """A model as plain YAML-able values under the names that files use."""
    return model.model_dump(mode="json", by_alias=True)


def _merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`overrides` laid over `base`: `until` and the others are replaced whole, as `--set` does."""
    return {**base, **overrides}


def _problem(error: Any, schema: type[BaseModel], also: Any) -> str:
    """One pydantic error in our words: what was found, what is allowed, the nearest match."""
    kind, found = error["type"], error["input"]
    if kind == "extra_forbidden":
        fields = [*also, *_field_names(schema, error["loc"][:-1])]
        return f"unknown key{nearest(error['loc'][-1], fields)} (allowed here: {', '.join(fields)})"
    if kind == "missing":
        return "is missing"
    context = error.get("ctx", {})
    if kind == "literal_error":
        choices = _literal_choices(schema, error["loc"])
        return f"found {found!r}{nearest(found, choices)} (allowed: {context['expected']})"
    message = str(context.get("error") or error["msg"].replace("Input should be", "should be"))
    if kind == "value_error":
        return message
    return f"{message[0].lower()}{message[1:]}, found {found!r}"


def _field_names(schema: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    inner = _descend(schema, path)
    return [f.alias or name for name, f in inner.model_fields.items()] if inner else []


def _literal_choices(schema: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    inner = _descend(schema, path[:-1])
    hint = inner and next((f.annotation for n, f in inner.model_fields.items() if path[-1] in (n, f.alias)), None)
    return [str(choice) for choice in get_args(hint)] if hint else []


def _descend(schema: type[BaseModel], path: tuple[Any, ...]) -> type[BaseModel] | None:
    for part in path:
        field_info = next((f for n, f in schema.model_fields.items() if part in (n, f.alias)), None)
        options = [field_info.annotation, *get_args(field_info.annotation)] if field_info else []
        models = [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]
        if not models:
            return None
        schema = models[0]
    return schema
