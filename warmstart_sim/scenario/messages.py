"""Validates values and builds error messages: file, key, value found, what is allowed, nearest match."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from warmstart_sim.errors import WarmstartError, nearest
from warmstart_sim.scenario.yaml_files import quoted

M = TypeVar("M", bound=BaseModel)
RENAMED = {"scenario": "stream", "rows": "reproduces"}  # keys that older versions used
Fragment = Mapping[str, Any]  # of a JSON schema

NOUNS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
    "object": "a mapping",
}
BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
PYDANTIC_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def validated(schema: type[M], value: Mapping[str, Any], where: str, key: str = "") -> M:
    """Validates `value` by the strict rules of JSON: "0.1" is not a number, and true is not an integer.

    Args:
        schema: The pydantic model to validate against.
        value: A mapping of plain values.
        where: Name of the scenario in error messages, usually the file.
        key: The dotted key of `value` in the file.

    Raises:
        WarmstartError: `value` is invalid; the message describes the first problem.
    """
    try:
        return schema.model_validate_json(json.dumps(value, default=str), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise scenario_error(where, *_place_and_problem(error, schema, value, key)) from None


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a model, under the names that scenario files use."""
    schema: dict[str, Any] = model.model_json_schema(by_alias=True)
    for model_schema in (schema, *schema.get("$defs", {}).values()):
        for each in model_schema.get("properties", {}).values():
            for name, keyword in PYDANTIC_BOUNDS.items():  # left on fields with a converting validator
                if name in each:
                    each[keyword] = each.pop(name)
    return schema


def scenario_error(where: str, key: str, text: str) -> WarmstartError:
    """Creates the error for `key`; the caller raises it."""
    return WarmstartError(": ".join(filter(None, (where, key, text))))


def unknown_key(name: object, valid: Iterable[str]) -> str:
    """The message for a key that does not exist.

    >>> unknown_key("batchsize", ["batch_size", "until"])
    "unknown key; did you mean 'batch_size'? (allowed here: batch_size, until)"
    """
    choices = list(valid)
    return f"unknown key{nearest(name, choices)} (allowed here: {', '.join(choices) or 'nothing'})"


def _place_and_problem(error: ValidationError, schema: type[BaseModel], value: Any, key: str) -> tuple[str, str]:
    # Report a misspelt key before a missing one, because it is usually the cause.
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    path = _inside(value, first["loc"])
    place = key + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    place = place.removeprefix(".")
    root = schema_of(schema)
    if first["type"] == "extra_forbidden":
        (around, *_) = _alternatives(_fragment(root, path[:-1]), root)
        return place, unknown_key(path[-1], around.get("properties", {}))
    if first["type"] == "missing" and isinstance(first["loc"][-1], str):
        return place, f"is missing (expected {allowed(_fragment(root, path), root)})"
    if first["type"] == "value_error":  # raised by our own validators
        return place, str(first["ctx"]["error"])
    found, fragment = first["input"], _fragment(root, path)
    hint = nearest(found, _choices(fragment, root)) if isinstance(found, str) else ""
    words = allowed(fragment, root)
    if first["type"] == "finite_number":
        words = words.replace("number", "finite number")
    return place, f"found {quoted(found)}{hint} (allowed: {words})"


def _inside(value: Any, location: tuple[int | str, ...]) -> list[int | str]:
    """Pydantic's error location up to the last key; names of union members that pydantic tried may follow it."""
    path: list[int | str] = []
    for step in location:
        if isinstance(step, str) and isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(step, int) and isinstance(value, list) and step < len(value):
            value = value[step]
        else:
            break
        path.append(step)
    return path


def _fragment(root: Fragment, path: Iterable[int | str]) -> Fragment:
    """The part of a JSON schema that describes the value at `path`; empty if there is none."""
    fragment = root
    for step in path:
        around = _alternatives(fragment, root)
        inner = (_items(each) if isinstance(step, int) else _property(each, step) for each in around)
        fragment = next(filter(None, inner), {})
    return fragment


def _property(fragment: Fragment, name: str) -> Fragment | None:
    """The schema of a mapping's value: of a key that is known, or of all others."""
    others = fragment.get("additionalProperties")
    found: Fragment | None = fragment.get("properties", {}).get(name)
    return found or (others if isinstance(others, dict) else None)


def _alternatives(fragment: Fragment, root: Fragment) -> list[Fragment]:
    """The types that a value can have, except null, which only stands for a default."""
    if "$ref" in fragment:
        return _alternatives(root["$defs"][fragment["$ref"].rpartition("/")[2]], root)
    if "anyOf" in fragment:
        bounds = {bound: fragment[bound] for bound in BOUNDS if bound in fragment}
        return [{**bounds, **each} for branch in fragment["anyOf"] for each in _alternatives(branch, root)]
    return [] if fragment.get("type") == "null" else [fragment]


def _items(fragment: Fragment) -> Fragment:
    """The schema of a list's items; our lists of fixed length hold items of one type."""
    items: list[Fragment] = fragment.get("prefixItems") or [fragment.get("items", {})]
    return items[0]


def _choices(fragment: Fragment, root: Fragment) -> list[str]:
    return [str(choice) for each in _alternatives(fragment, root) for choice in each.get("enum", [])]


def allowed(fragment: Fragment, root: Fragment) -> str:
    """Describes in words what a part of a JSON schema allows.

    >>> allowed({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, {})
    'a number >= 0 and < 1'
    >>> allowed({"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1}, {})
    "a list of one or more, each 'a', 'b'"
    """
    return " or ".join(dict.fromkeys(_in_words(each, root) for each in _alternatives(fragment, root)))


def _in_words(fragment: Fragment, root: Fragment) -> str:
    if "enum" in fragment or "const" in fragment:
        return ", ".join(map(quoted, fragment.get("enum") or [fragment["const"]]))
    kind = fragment.get("type", "")
    if kind == "array":
        least, most = fragment.get("minItems", 0), fragment.get("maxItems")
        count = f" of {most}" if least == most else " of one or more" if least else ""
        return f"a list{count}, each {allowed(_items(fragment), root)}"
    if kind == "string" and ("pattern" in fragment or "format" in fragment):
        return f"text that matches {fragment['pattern']}" if "pattern" in fragment else f"a {fragment['format']}"
    noun = NOUNS.get(kind, "a value")
    bounds = " and ".join(f"{sign} {fragment[bound]:g}" for bound, sign in BOUNDS.items() if bound in fragment)
    return f"{noun} {bounds}".strip() if kind in ("integer", "number") else noun
