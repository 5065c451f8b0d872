"""The JSON schema of a scenario file, for editors that complete and check YAML."""

from __future__ import annotations

from typing import Any

from warmstart_sim.scenario.grammar import scenario_file
from warmstart_sim.scenario.messages import schema_of

REQUIRED = ["name", "data", "strategies"]


def json_schema() -> dict[str, Any]:
    """The schema of a scenario file, with the options of all registered components."""
    schema = schema_of(scenario_file())
    for key, section in schema["properties"].items():
        if key not in REQUIRED:  # null stands for the default
            schema["properties"][key] = {"anyOf": [section, {"type": "null"}]}
    base = {"type": "string", "description": "another scenario file, whose settings this file changes"}
    schema["properties"]["base"] = base
    # A label that is no strategy's name may hold any arm with `start`.
    strategies = schema["$defs"]["Strategies"]
    strategies |= {"additionalProperties": strategies["properties"].pop("others"), "minProperties": 1}
    return schema | {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "required": ["name"],
        "anyOf": [{"required": REQUIRED}, {"required": ["base"]}],
    }
