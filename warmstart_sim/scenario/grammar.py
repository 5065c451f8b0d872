"""The grammar of scenario files: one pydantic model for each thing that a section can name.

Validation picks the model of the name that a file gives; the JSON schema is the union of all of them.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal, Union

from pydantic import ConfigDict, Field, StringConstraints, create_model
from typing_extensions import TypeAliasType

from warmstart_sim.registry import DATASETS, MODELS, OPTION_RULES, PARTS, PROBES, STRATEGIES, STREAMS, Registry
from warmstart_sim.scenario.sections import (
    DataSettings,
    Header,
    MeasureSettings,
    PretrainSettings,
    ProbeSettings,
    SourceSettings,
    StreamSettings,
)
from warmstart_sim.training.settings import Settings, Training

OWN_NAME = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
OwnName = Annotated[str, StringConstraints(pattern=OWN_NAME), Field(description="your own, as module:attribute")]
Axis = Annotated[list[Any], Field(min_length=1, description="the values of the setting that the key names")]
Bundle = Annotated[
    dict[str, Annotated[dict[str, Any], Field(min_length=1)]],
    Field(min_length=1, description="labels, and for each the dotted keys that it sets and to what"),
]


@functools.cache
def choice(
    registry: Registry[Any], name: str, shared: type[Settings], key: str = "name", labelled: bool = False
) -> type[Settings]:
    """What a mapping that names `name` may hold: the name, the settings that all of its kind have, its own options.

    An option that is called like a shared setting replaces it: `synthetic` has `train_samples` of its own.

    Args:
        registry: Where it is registered.
        name: Its name.
        shared: The settings that all of its kind have.
        key: The key of the name: "name" or "start"; "" where the name is the key of the mapping, as a probe's.
        labelled: Whether the name may be left out, as in an arm whose label is the name.
    """
    own = {**shared.model_fields, **registry.schema(name).model_fields}
    fields: dict[str, Any] = {key: (Literal[name], name if labelled else ...)} if key else {}
    fields |= {field: (info.annotation, info) for field, info in own.items()}
    title = f"{shared.__name__}_{name}{'_labelled' if labelled else ''}"
    return create_model(title, __base__=Settings, __doc__=registry.summary(name), **fields)


def choices(registry: Registry[Any], shared: type[Settings], key: str = "name") -> Any:
    """The type of a section: a bare name, your own, or a mapping with either and its options."""
    fields: dict[str, Any] = {key: (OwnName, ...)}
    fields |= {field: (info.annotation, info) for field, info in shared.model_fields.items()}
    anything = ConfigDict(**{**OPTION_RULES, "extra": "allow"})
    own = create_model(f"{shared.__name__}_own", __config__=anything, **fields)
    named = [choice(registry, name, shared_settings(name, shared), key) for name in registry.names()]
    return Union[(Literal[tuple(registry.names())], OwnName, *named, own)]


def shared_settings(name: Any, shared: type[Settings]) -> type[Settings]:
    """The settings beside the options of `name`, which for a stream with a first phase are more than for others."""
    return pretrain_settings() if shared is StreamSettings and is_pretrained(name) else shared


def is_pretrained(stream: Any) -> bool:
    """Whether the stream of that name has a first phase on another data set."""
    return isinstance(stream, str) and STREAMS.has_trait(stream, "pretrained")


@functools.cache
def source_settings() -> type[SourceSettings]:
    """The keys of `stream.source` beside the options of the data set."""
    return create_model("Source", __base__=SourceSettings, training=(Training | None, None))


@functools.cache
def pretrain_settings() -> type[PretrainSettings]:
    """The keys of a stream with a first phase, beside its options."""
    return create_model(
        "Pretrain", __base__=PretrainSettings, source=(choices(DATASETS, source_settings()) | None, None)
    )


@functools.cache
def arm_settings() -> type[Settings]:
    """The keys of an arm beside `start` and the options of its strategy: its own training, and parts."""
    fields: dict[str, Any] = {"training": (Training | None, None)}
    for name in PARTS.names():
        schema = PARTS.schema(name)
        keys: Any = tuple(info.alias or field for field, info in schema.model_fields.items())
        fields[name] = (schema | list[Literal[keys]], Field(default=None, description=PARTS.summary(name)))  # type: ignore[valid-type]
    return create_model("Arm", __base__=Settings, **fields)


def probes(shared: type[Settings]) -> Any:
    """The type of a list of `measure`: bare names, or mappings of one name to its options; your own as well."""
    options: dict[str, Any] = {name: (choice(PROBES, name, shared, key="") | None, None) for name in PROBES.names()}
    own = {OWN_NAME: {"anyOf": [{"type": "object"}, {"type": "null"}]}}
    one_key: Any = {"minProperties": 1, "maxProperties": 1, "patternProperties": own}
    config = ConfigDict(json_schema_extra=one_key)
    with_options: Any = create_model(f"{shared.__name__}_probe", __base__=Settings, __config__=config, **options)
    item: Any = Union[(Literal[tuple(PROBES.names())], OwnName, with_options)]  # noqa: UP007
    return tuple[item, ...]


@functools.cache
def measure_settings() -> type[MeasureSettings]:
    """The key `measure`, with the options of each probe."""
    return create_model(
        "Measure",
        __base__=MeasureSettings,
        __doc__=MeasureSettings.__doc__,
        each_epoch=(probes(ProbeSettings), ()),
        each_round=(probes(Settings), ()),
    )


@functools.cache
def scenario_file() -> type[Settings]:
    """A whole scenario file."""
    arm: Any = TypeAliasType("arm", choices(STRATEGIES, arm_settings(), "start"))
    arms: dict[str, Any] = {
        name: (choice(STRATEGIES, name, arm_settings(), "start", labelled=True) | arm | None, None)
        for name in STRATEGIES.names()
    }
    arms["others"] = (arm, None)  # labels of the user's own
    sections: dict[str, Any] = {
        "data": (choices(DATASETS, DataSettings), ...),
        "stream": (choices(STREAMS, StreamSettings), "static"),
        "model": (choices(MODELS, Settings), "small_cnn"),
        "training": (Training, Training()),
        "strategies": (create_model("Strategies", **arms), ...),
        "vary": (dict[str, Axis | Bundle], {}),
        "measure": (measure_settings(), MeasureSettings()),
    }
    return create_model("warmstart-sim scenario", __base__=Header, **sections)
