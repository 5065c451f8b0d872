"""The JSON schema of a scenario file, for editors that complete and check YAML."""

from __future__ import annotations

from typing import Any

from warmstart_sim.config.scenario import DataSettings, Header
from warmstart_sim.registry import DATASETS, MODELS, PARTS, STRATEGIES, STREAMS, Registry
from warmstart_sim.training.settings import Training

OWN_NAME = {"type": "string", "pattern": ".+:.+", "description": "your own function, module:attribute"}


def json_schema() -> dict[str, Any]:
    """The schema of a whole scenario file, with the options of everything that is registered."""
    definitions: dict[str, Any] = {}
    header = _inline(Header, definitions)
    training = _inline(Training, definitions)
    common = _inline(DataSettings, definitions)["properties"]
    rounds = {"rounds": {"type": "integer", "minimum": 1, "description": "the most rounds that are run"}}
    definitions["training"] = training
    definitions["arm"] = _arm(definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "warmstart-sim scenario",
        "type": "object",
        "additionalProperties": False,
        "required": ["name", "data", "strategies"],
        "properties": {
            **header["properties"],
            "data": _choice(DATASETS, definitions, common),
            "scenario": _choice(STREAMS, definitions, rounds),
            "model": _choice(MODELS, definitions, {}),
            "training": {"$ref": "#/$defs/training"},
            "strategies": {"type": "object", "minProperties": 1, "additionalProperties": {"$ref": "#/$defs/arm"}},
            "vary": {"type": "object", "additionalProperties": {"type": "array", "minItems": 1}},
        },
        "$defs": definitions,
    }


def _inline(model: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    schema = model.model_json_schema(by_alias=True, ref_template="#/$defs/{model}")
    definitions.update(schema.pop("$defs", {}))
    return schema


def _choice(registry: Registry[Any], definitions: dict[str, Any], common: dict[str, Any]) -> dict[str, Any]:
    """A bare name, or a mapping with a name and that name's options."""
    branches: list[dict[str, Any]] = [{"enum": registry.names()}]
    for name in registry.names():
        schema = _inline(registry.schema(name), definitions)
        schema["properties"] = {"name": {"const": name}, **schema.get("properties", {}), **common}
        schema["required"] = ["name", *schema.get("required", [])]
        branches.append({**schema, "description": registry.summary(name)})
    branches.append({"type": "object", "properties": {"name": OWN_NAME}, "required": ["name"]})
    return {"anyOf": branches}


def _arm(definitions: dict[str, Any]) -> dict[str, Any]:
    """An arm: a start with its options, parts, and training options of its own."""
    properties: dict[str, Any] = {
        "start": {"anyOf": [{"enum": STRATEGIES.names()}, OWN_NAME]},
        "training": {"$ref": "#/$defs/training"},
    }
    for name in STRATEGIES.names():
        properties.update(_inline(STRATEGIES.schema(name), definitions).get("properties", {}))
    for name in PARTS.names():
        schema = _inline(PARTS.schema(name), definitions)
        features = {"type": "array", "items": {"enum": list(schema.get("properties", {}))}}
        properties[name] = {"anyOf": [schema, features], "description": PARTS.summary(name)}
    return {"type": ["object", "null"], "properties": properties}
