"""The JSON schema of a scenario file, for editors that complete and check YAML."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from warmstart_sim.registry import DATASETS, MODELS, PARTS, STRATEGIES, STREAMS, Registry
from warmstart_sim.scenario.messages import schema_of
from warmstart_sim.scenario.parsing import is_pretrained
from warmstart_sim.scenario.sections import DataSettings, Header, PretrainSettings, SourceSettings, StreamSettings
from warmstart_sim.training.settings import Settings, Training

Schema = dict[str, Any]

OWN_NAME: Schema = {
    "type": "string",
    "pattern": r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
    "description": "your own, as module:attribute",
}
NOTHING: Schema = {"type": "null"}
AXIS: Schema = {"type": "array", "minItems": 1, "description": "the values of the setting that the key names"}
BUNDLE: Schema = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": {"type": "object", "minProperties": 1},
    "description": "labels, and for each the dotted keys that it sets and to what",
}


def json_schema() -> Schema:
    """The schema of a whole scenario file, with the options of everything that is registered."""
    definitions: Schema = {}
    definitions["Training"] = _inline(Training, definitions)
    sections = {
        **_inline(Header, definitions)["properties"],
        "data": _named(DATASETS, DataSettings, definitions),
        "stream": _streams(definitions),
        "model": _named(MODELS, Settings, definitions),
        "training": {"$ref": "#/$defs/Training"},
        "strategies": _strategies(definitions),
        "vary": {"type": "object", "additionalProperties": {"anyOf": [AXIS, BUNDLE]}},
    }
    required = ["name", "data", "strategies"]
    sections["base"] = {"type": "string", "description": "another scenario file, over whose settings these stand"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "warmstart-sim scenario",
        "type": "object",
        "additionalProperties": False,
        "required": ["name"],
        "anyOf": [{"required": required}, {"required": ["base"]}],
        # A section that says nothing stands for its default.
        "properties": {
            key: section if key in required else {"anyOf": [section, NOTHING]} for key, section in sections.items()
        },
        "$defs": definitions,
    }


def _inline(model: type[BaseModel], definitions: Schema) -> Schema:
    schema = schema_of(model)
    definitions.update(schema.pop("$defs", {}))
    return schema


def _named(registry: Registry[Any], settings: type[BaseModel], definitions: Schema) -> Schema:
    """A bare name, or a mapping with a name, that name's options, and the settings which all of the kind have."""
    common = _inline(settings, definitions).get("properties", {})
    branches: list[Schema] = [{"enum": registry.names()}, OWN_NAME]
    for name in registry.names():
        schema = _inline(registry.schema(name), definitions)
        properties = {"name": {"const": name}, **common, **schema.get("properties", {})}
        required = ["name", *schema.get("required", [])]
        branches.append(
            {**schema, "properties": properties, "required": required, "description": registry.summary(name)}
        )
    branches.append({"type": "object", "properties": {"name": OWN_NAME, **common}, "required": ["name"]})
    return {"anyOf": branches}


def _streams(definitions: Schema) -> Schema:
    """The streams; one with a first phase elsewhere has the keys of that as well."""
    streams = _named(STREAMS, StreamSettings, definitions)
    source = _named(DATASETS, SourceSettings, definitions)
    for branch in source["anyOf"]:
        if "properties" in branch:
            branch["properties"]["training"] = {"anyOf": [{"$ref": "#/$defs/Training"}, NOTHING]}
    for branch in streams["anyOf"]:
        if is_pretrained(branch.get("properties", {}).get("name", {}).get("const")):
            branch["properties"].update(_inline(PretrainSettings, definitions)["properties"])
            branch["properties"]["source"] = {"anyOf": [source, NOTHING]}
    return streams


def _strategies(definitions: Schema) -> Schema:
    """Labels and arms. An arm says with `start` which strategy it is, unless its label is a strategy's name."""
    arm: Schema = {"training": {"anyOf": [{"$ref": "#/$defs/Training"}, NOTHING]}}
    for name in PARTS.names():
        schema = _inline(PARTS.schema(name), definitions)
        names = {"type": "array", "items": {"enum": list(schema["properties"])}}
        arm[name] = {"anyOf": [schema, names], "description": PARTS.summary(name)}

    started: list[Schema] = [{"enum": STRATEGIES.names()}, OWN_NAME]
    labelled: Schema = {}
    for name in STRATEGIES.names():
        schema = _inline(STRATEGIES.schema(name), definitions)
        schema["properties"] = {"start": {"const": name}, **schema.get("properties", {}), **arm}
        definitions[name] = {**schema, "description": STRATEGIES.summary(name)}
        started.append({"$ref": f"#/$defs/{name}", "required": ["start"]})
        labelled[name] = {"anyOf": [{"$ref": f"#/$defs/{name}"}, NOTHING, {"$ref": "#/$defs/started"}]}
    started.append({"type": "object", "properties": {"start": OWN_NAME, **arm}, "required": ["start"]})
    definitions["started"] = {"anyOf": started}
    return {
        "type": "object",
        "minProperties": 1,
        "properties": labelled,
        "additionalProperties": {"$ref": "#/$defs/started"},
    }
