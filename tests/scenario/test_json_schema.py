"""The JSON schema accepts every scenario that `scenario` accepts, and refuses what an editor should underline."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from warmstart_sim import scenario as scenarios
from warmstart_sim.registry import DATASETS, MODELS, PARTS, STRATEGIES, STREAMS
from warmstart_sim.scenario.json_schema import json_schema
from warmstart_sim.scenario.resolved import resolved_scenario
from warmstart_sim.scenario.yaml_files import bundled_scenarios

SCHEMA = json_schema()
TYPES = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int,
    "number": (int, float),
}  # fmt: skip
# What the check below knows; the schema may use nothing else.
CHECKED = {
    "$ref", "anyOf", "type", "enum", "const", "required", "properties", "additionalProperties", "minProperties",
    "maxProperties", "patternProperties",
    "items", "prefixItems", "minItems", "maxItems", "pattern",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
}  # fmt: skip
DESCRIBING = {"$schema", "$defs", "title", "description", "default", "format"}


def accepts(schema: Any, value: Any) -> bool:
    """Whether `value` keeps `schema`, by the rules of JSON Schema 2020-12, as far as this schema uses them."""
    if isinstance(schema, bool):
        return schema
    if "$ref" in schema and not accepts(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], value):
        return False
    if "anyOf" in schema and not any(accepts(branch, value) for branch in schema["anyOf"]):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "const" in schema and value != schema["const"]:
        return False
    kinds = schema.get("type", list(TYPES))
    if not any(_is(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        return False
    if isinstance(value, dict):
        return _accepts_object(schema, value)
    if isinstance(value, list):
        items = [*schema.get("prefixItems", []), *[schema.get("items", True)] * len(value)]
        within = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        return within and all(map(accepts, items, value))
    if isinstance(value, str):
        return re.search(schema.get("pattern", ""), value) is not None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (
            schema.get("minimum", value) <= value <= schema.get("maximum", value)
            and schema.get("exclusiveMinimum", value - 1) < value < schema.get("exclusiveMaximum", value + 1)
        )  # fmt: skip
    return True


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _accepts_object(schema: dict, value: dict) -> bool:
    return (
        all(key in value for key in schema.get("required", []))
        and schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", len(value))
        and all(accepts(each_schema, each) for key, each in value.items() for each_schema in _schemas_of(schema, key))
    )


def _schemas_of(schema: dict, key: str) -> list:
    """What the value at a key of an object has to keep."""
    properties, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    named = [properties[key]] if key in properties else []
    matched = [inner for pattern, inner in patterns.items() if re.search(pattern, key)]
    return [*named, *matched] or [schema.get("additionalProperties", True)]


def keywords(schema: Any):
    """Every keyword in every schema inside `schema`."""
    if isinstance(schema, dict):
        for key, inner in schema.items():
            yield key
            if key in ("properties", "patternProperties", "$defs"):
                for each in inner.values():
                    yield from keywords(each)
            elif key in ("anyOf", "prefixItems"):
                for each in inner:
                    yield from keywords(each)
            elif key in ("items", "additionalProperties"):
                yield from keywords(inner)


def test_it_is_json_and_says_which_dialect_it_is():
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_it_uses_only_keywords_of_json_schema():
    assert set(keywords(SCHEMA)) <= CHECKED | DESCRIBING


def test_every_reference_leads_somewhere():
    references = re.findall(r'"\$ref": "([^"]*)"', json.dumps(SCHEMA))
    assert {reference.removeprefix("#/$defs/") for reference in references} <= set(SCHEMA["$defs"])


@pytest.mark.parametrize("name", bundled_scenarios())
def test_every_bundled_scenario_is_accepted(name):
    raw = scenarios.load(name)
    assert accepts(SCHEMA, raw)
    raw["seeds"] = [0]
    assert accepts(SCHEMA, resolved_scenario(raw, scenarios.plan(raw, name)[0]))


@pytest.mark.parametrize("name", bundled_scenarios())
@pytest.mark.parametrize("place", ["", "data", "stream", "model", "training", "training.until", "training.optimizer"])
def test_a_misspelt_key_is_refused_everywhere(name, place):
    raw = scenarios.load(name)
    scenarios.yaml_files.set_path(raw, f"{place}.nosuchkey".lstrip("."), 1)
    assert not accepts(SCHEMA, raw)


PRETRAINED = [name for name in bundled_scenarios() if "source" in (scenarios.load(name).get("stream") or {})]


@pytest.mark.parametrize("name", PRETRAINED)
@pytest.mark.parametrize("place", ["stream.source", "stream.source.training", "stream.source.training.until"])
def test_a_misspelt_key_under_a_source_is_refused(name, place):
    raw = scenarios.load(name)
    scenarios.yaml_files.set_path(raw, f"{place}.nosuchkey", 1)
    assert not accepts(SCHEMA, raw)


def test_a_file_with_a_base_may_leave_sections_to_it():
    assert accepts(SCHEMA, {"name": "mine", "base": "other.yaml", "seeds": [3]})
    assert not accepts(SCHEMA, {"name": "mine", "seeds": [3]})
    assert not accepts(SCHEMA, {"name": "mine", "base": "other.yaml", "seed": [3]})


ACCEPTED: list[dict] = [
    {"data": {"name": "my_package.data:load", "anything": 1}},
    {"model": "my_package.models:build"},
    {"model": {"name": "my_package.models:build", "depth": [1, 2]}},
    {"stream": {"name": "static", "rounds": 3}},
    {"stream": None, "training": None, "seeds": None, "metric": None},
    {"strategies": {"warm_start": None, "again": "warm_start", "own": "my_module:f"}},
    {"strategies": {"own": {"start": "my_module:f", "anything": 1, "augment": ["rotation"]}}},
    {"strategies": {"shrink_perturb": {"start": "warm_start"}}},  # a label may be another strategy's name
    {"strategies": {"mine": {"start": "shrink_perturb", "lambda": 0, "training": {"batch_size": 3}}}},
    {"strategies": {"mine": {"start": "warm_start", "augment": {"rotation": True, "random_crop": 3}}}},
    {"vary": {"training.optimizer.lr": [1, 2], "strategies.mine.augment": [["rotation"], []]}},
    {"vary": {"pair": {"a to b": {"data": {"name": "digits"}, "training.batch_size": 3}}}},
    {"data": "noisy_digits", "stream": {"name": "pretrain", "source": "digits"}},
    {"data": "noisy_digits", "stream": {"name": "pretrain", "source": "my_package.data:load", "fraction": 1}},
    {
        "data": "noisy_digits",
        "stream": {
            "name": "pretrain",
            "head": "fresh",
            "rounds": 1,
            "order": "balanced",
            "fraction": 0.3,
            "source": {
                "name": "synthetic",
                "like": "digits",
                "fraction": "same",
                "adapt": "pad",
                "normalize": "target",
                "validation_fraction": 0.1,
                "training": {"until": {"epochs": 3}},
            },
        },
    },
    {"stream": {"name": "pretrain", "source": None, "checkpoint": "w.pt"}},
    {"data": "noisy_digits", "stream": {"name": "pretrain", "source": {"name": "my_module:load", "anything": [1]}}},
    {"data": "noisy_digits", "stream": {"name": "pretrain", "source": {"name": "digits", "training": None}}},
    {"measure": {"each_epoch": ["accuracy", {"gradient_norm": {"samples": 5, "every": 2}}, {"dead_units": None}]}},
    {
        "analyze": [
            "gap_against",
            {"accuracy_against_lambda": {"lambdas": [0.5]}},
            "mine:f",
            {"mine:g": {"anything": 1}},
        ]
    },
    {"measure": {"each_round": ["my_probes:norm", {"my_probes:norm": {"anything": 1}}, {"accuracy": {}}]}},
]
REFUSED: list[dict] = [
    {"name": "a/b"},
    {"data": "cifar"},
    {"data": {"validation_fraction": 0.5}},
    {"data": {"name": "digits", "validation_fraction": 1}},
    {"data": {"name": "arrays"}},
    {"model": {"name": "mlp", "widths": [0]}},
    {"model": {"name": "mlp", "width": 3}},
    {"training": {"batch_size": 0}},
    {"training": {"batch_size": True}},
    {"training": {"until": {"train_accuracy": 1.5}}},
    {"seeds": []},
    {"strategies": {}},
    {"strategies": {"mine": {}}},
    {"strategies": {"mine": {"lambda": 0.5}}},
    {"strategies": {"mine": {"start": "warm_strat"}}},
    {"strategies": {"mine": {"start": "warm_start", "lambda": 0.5}}},
    {"strategies": {"shrink_perturb": {"lam": 0.5}}},
    {"strategies": {"shrink_perturb": {"lambda": 1.5}}},
    {"strategies": {"warm_start": {"augment": ["rotaton"]}}},
    {"strategies": {"warm_start": {"augment": {"rotaton": 1}}}},
    {"strategies": {"warm_start": {"augment": {"rotation": 181}}}},
    {"strategies": {"warm_start": {"training": {"batchsize": 1}}}},
    {"vary": {"training.optimizer.lr": 0.1}},
    {"vary": {"pair": {}}},
    {"vary": {"pair": {"a": {}}}},
    {"vary": {"pair": {"a": 3}}},
    {"measure": {"each_epoch": "accuracy"}},
    {"measure": {"each_epoch": ["accurac"]}},
    {"measure": {"each_epoch": [{"accurac": {}}]}},
    {"measure": {"each_epoch": [{}]}},
    {"measure": {"each_epoch": [{"accuracy": {}, "dead_units": {}}]}},
    {"measure": {"each_epoch": [{"gradient_norm": {"sampels": 3}}]}},
    {"measure": {"each_epoch": [{"gradient_norm": {"samples": 0}}]}},
    {"measure": {"each_epoch": [{"gradient_norm": {"every": 0}}]}},
    {"measure": {"each_round": [{"gradient_norm": {"every": 2}}]}},
    {"measure": {"each_round": [{"my_probes:norm": 3}]}},
    {"analyze": ["gap_agains"]},
    {"analyze": [{"gap_against": {"axs": "stream.fraction"}}]},
    {"stream": {"name": "online", "source": "digits"}},
    {"stream": {"name": "split", "checkpoint": "w.pt"}},
    *(
        {"data": "noisy_digits", "stream": {"name": "pretrain", "source": "digits", **wrong}}
        for wrong in (
            {"source": "svnh"}, {"source": 3}, {"source": ["digits"]}, {"source": {"fraction": 0.5}}, {"fraction": 0},
            {"fraction": 1.1}, {"fraction": "same"}, {"head": "old"}, {"checkpoint": 3}, {"sorce": "digits"},
        )
    ),
    *(
        {"data": "noisy_digits", "stream": {"name": "pretrain", "source": {"name": "digits", **wrong}}}
        for wrong in (
            {"frction": 1}, {"fraction": 0}, {"fraction": "all"}, {"adapt": "stretch"}, {"normalize": "targe"},
            {"training": {"batchsize": 3}}, {"training": {"until": {"epochs": 0}}}, {"train_samples": 0}, {"rounds": 1},
            {"like": "digits"}, {"validation_fraction": 1},
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("change", ACCEPTED, ids=str)
def test_what_parsing_accepts_is_accepted(edited, change):
    raw = {**edited(), **change}
    if "vary" not in change:
        scenarios.plan(raw, "f.yaml")
    assert accepts(SCHEMA, raw)


@pytest.mark.parametrize("change", REFUSED, ids=str)
def test_what_parsing_refuses_for_its_form_is_refused(edited, change):
    raw = {**edited(), **change}
    with pytest.raises(scenarios.yaml_files.WarmstartError):
        scenarios.plan(raw, "f.yaml")
    assert not accepts(SCHEMA, raw)


def test_everything_registered_is_there_with_its_summary():
    text = json.dumps(SCHEMA)
    for registry in (DATASETS, MODELS, PARTS, STRATEGIES, STREAMS):
        for name in registry.names():
            assert json.dumps(registry.summary(name)) in text
