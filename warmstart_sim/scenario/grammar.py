"""The grammar of scenario files: one pydantic model for each component that a section can name.

Validation uses the model of the named component; the JSON schema is the union of all models.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal, Union

from pydantic import ConfigDict, Field, PositiveInt, StringConstraints, create_model
from typing_extensions import TypeAliasType

from warmstart_sim.registry import (
    ANALYSES,
    CHANGES,
    DATASETS,
    MODELS,
    OPTION_RULES,
    PARTS,
    PROBES,
    STRATEGIES,
    STREAMS,
    Registry,
)
from warmstart_sim.results.figure_settings import FIGURES
from warmstart_sim.scenario.sections import (
    DataSettings,
    Draws,
    FirstPhaseSettings,
    Header,
    MeasureSettings,
    PretrainSettings,
    ProbeSettings,
    SourceSettings,
    StreamSettings,
)
from warmstart_sim.training.settings import ScenarioTraining, Settings, Training

OWN_NAME = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
OWN_STAGES = "with `stream: stages`, the number of stages of this arm alone; default: the stream's"
OWN_MODEL = "the model of this arm alone: another one, or options that replace those of the scenario's `model`"
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
    """The model of a mapping that names a registered component: its name, the shared settings and its own options.

    An option with the name of a shared setting replaces it: `synthetic` has its own `train_samples`.

    Args:
        registry: The registry of its kind.
        name: Its name.
        shared: The settings that all components of this kind have.
        key: The key of the name: "name" or "start"; "" if the mapping does not hold the name, as for probes.
        labelled: Whether the name may be left out, as in an arm whose label is the name.
    """
    fields: dict[str, Any] = {key: (Literal[name], name if labelled else ...)} if key else {}
    fields |= _shared_fields(shared)
    fields |= {field: (info.annotation, info) for field, info in registry.schema(name).model_fields.items()}
    title = f"{shared.__name__}_{name}{'_labelled' if labelled else ''}"
    return create_model(title, __base__=Settings, __doc__=registry.summary(name), **fields)


def choices(registry: Registry[Any], shared: type[Settings], key: str = "name") -> Any:
    """The type of a section: a registered name, `module:attribute`, or a mapping of either with its options."""
    fields: dict[str, Any] = {key: (OwnName, ...), **_shared_fields(shared)}
    anything = ConfigDict(**{**OPTION_RULES, "extra": "allow"})
    own = create_model(f"{shared.__name__}_own", __config__=anything, **fields)
    named = [choice(registry, name, shared_settings(name, shared), key) for name in registry.names()]
    return Union[(Literal[tuple(registry.names())], OwnName, *named, own)]


def _shared_fields(shared: type[Settings]) -> dict[str, Any]:
    """The fields of settings that all components of a kind have, with the options of each change of a stream."""
    fields: dict[str, Any] = {field: (info.annotation, info) for field, info in shared.model_fields.items()}
    if issubclass(shared, StreamSettings):
        changes: dict[str, Any] = {name: _optional(CHANGES, name) for name in CHANGES.names()}
        model: Any = create_model("Changes", __base__=Settings, **changes)
        fields["changes"] = (model | None, shared.model_fields["changes"])
    return fields


def shared_settings(name: Any, shared: type[Settings]) -> type[Settings]:
    """The shared settings for the component `name`: streams with a first phase have more of them."""
    if shared is not StreamSettings or not isinstance(name, str):
        return shared
    if STREAMS.has_trait(name, "pretrained"):
        return pretrain_settings()
    return FirstPhaseSettings if STREAMS.has_trait(name, "shared_first_round") else shared


@functools.cache
def source_settings() -> type[SourceSettings]:
    """The model of `stream.source`, without the options of the data set."""
    return create_model("Source", __base__=SourceSettings, training=(Training | None, None))


@functools.cache
def pretrain_settings() -> type[PretrainSettings]:
    """The model of a stream with a first phase, without the stream's own options."""
    return create_model(
        "Pretrain", __base__=PretrainSettings, source=(choices(DATASETS, source_settings()) | None, None)
    )


@functools.cache
def arm_settings() -> type[Settings]:
    """An arm without `start` and the options of its strategy: stages, model, training settings and parts."""
    own: dict[str, Any] = {"stages": (PositiveInt | None, Field(default=None, description=OWN_STAGES))}
    own |= {"model": (str | dict[str, Any] | None, Field(default=None, description=OWN_MODEL))}
    fields: dict[str, Any] = {**own, "training": (ScenarioTraining | None, None), **_part_fields()}
    return create_model("Arm", __base__=Settings, **fields)


def _part_fields() -> dict[str, Any]:
    """A field for each part: its options, or a list of the names of some."""
    fields: dict[str, Any] = {}
    for name in PARTS.names():
        schema = PARTS.schema(name)
        keys: Any = tuple(info.alias or field for field, info in schema.model_fields.items())
        options: Any = schema | list[Literal[keys]] if keys else schema  # type: ignore[valid-type]
        fields[name] = (options | None, Field(default=None, description=PARTS.summary(name)))
    return fields


def _optional(registry: Registry[Any], name: str) -> tuple[Any, Any]:
    """The field of a component that may be left out: its options."""
    return registry.schema(name) | None, Field(default=None, description=registry.summary(name))


def listed(registry: Registry[Any], shared: type[Settings]) -> Any:
    """The type of a list of components: their names or `module:attribute`, or mappings of one to its options."""
    names = registry.names()
    options: dict[str, Any] = {name: (choice(registry, name, shared, key="") | None, None) for name in names}
    own = {OWN_NAME: {"anyOf": [{"type": "object"}, {"type": "null"}]}}
    one_key: Any = {"minProperties": 1, "maxProperties": 1, "patternProperties": own}
    config = ConfigDict(json_schema_extra=one_key)
    title = f"{shared.__name__}_{registry.kind}"
    with_options: Any = create_model(title, __base__=Settings, __config__=config, **options)
    item: Any = Union[(Literal[tuple(names)], OwnName, with_options)]  # noqa: UP007
    return tuple[item, ...]


@functools.cache
def measure_settings() -> type[MeasureSettings]:
    """The model of `measure`, with the options of each probe."""
    return create_model(
        "Measure",
        __base__=MeasureSettings,
        __doc__=MeasureSettings.__doc__,
        each_epoch=(listed(PROBES, ProbeSettings), ()),
        each_round=(listed(PROBES, Settings), ()),
    )


@functools.cache
def scenario_file() -> type[Settings]:
    """The model of a whole scenario file."""
    arm: Any = TypeAliasType("arm", choices(STRATEGIES, arm_settings(), "start"))
    arms: dict[str, Any] = {
        name: (choice(STRATEGIES, name, arm_settings(), "start", labelled=True) | arm | None, None)
        for name in STRATEGIES.names()
    }
    arms["others"] = (arm, None)  # stands for all other labels, see json_schema.py
    figure: Any = Union[tuple(FIGURES.values())]  # noqa: UP007
    sections: dict[str, Any] = {
        "data": (choices(DATASETS, DataSettings), ...),
        "stream": (choices(STREAMS, StreamSettings), "static"),
        "model": (choices(MODELS, Settings), "small_cnn"),
        "training": (ScenarioTraining, ScenarioTraining()),
        "parts": (create_model("Parts", __base__=Settings, **_part_fields()), {}),
        "strategies": (create_model("Strategies", **arms), ...),
        "vary": (dict[str, Axis | Bundle | Draws], {}),
        "measure": (measure_settings(), MeasureSettings()),
        "analyze": (listed(ANALYSES, Settings), ()),
        "figures": (tuple[figure, ...], ()),
    }
    return create_model("warmstart-sim scenario", __base__=Header, **sections)
