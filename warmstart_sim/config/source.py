"""Where scenario files are, how they are read, and `--set` on the command line."""

from __future__ import annotations

import copy
import re
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import yaml

from warmstart_sim.errors import WarmstartError, nearest

PACKAGE = Path(__file__).resolve().parent.parent


class _Loader(yaml.SafeLoader):
    """YAML with two traps removed: `1e-4` is a number here, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"key '{key}' is given twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def bundled_scenarios() -> dict[str, Path]:
    """The scenario files that come with the package, by bare name such as "digits_online" or "ash_adams/F7_lambda".

    A wheel carries them inside the package; an editable install reads those of the checkout.
    """
    inside, checkout = PACKAGE / "scenarios", PACKAGE.parent / "scenarios"
    folder = inside if inside.is_dir() else checkout
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def headline(path: Path) -> str:
    """The first comment line of a scenario file: what it is."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") else ""


def find(scenario: str | Path) -> Path:
    """The file that `scenario` names: a path, or the bare name of a bundled scenario.

    Raises:
        WarmstartError: There is no such file; the message has the nearest bundled name.
    """
    path = Path(scenario)
    if path.is_dir():
        raise WarmstartError(f"{scenario}: is a directory, not a scenario file")
    if path.exists():
        return path
    bundled = bundled_scenarios()
    name = path.with_suffix("").as_posix().removeprefix("scenarios/")
    if name in bundled:
        return bundled[name]
    raise WarmstartError(f"{scenario}: no such scenario file{nearest(name, bundled)} (bundled: {', '.join(bundled)})")


def load(scenario: str | Path) -> dict[str, Any]:
    """Reads a scenario file into a plain mapping; nothing in it is checked yet.

    Raises:
        WarmstartError: A missing, unreadable, binary or empty file, or a YAML syntax error, with its line.
    """
    path = find(scenario)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise WarmstartError(f"{scenario}: is not a text file; a scenario is YAML in UTF-8") from None
    except OSError as error:
        raise WarmstartError(f"{scenario}: cannot be read ({error.strerror})") from error
    try:
        raw = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise WarmstartError(f"{scenario}: {place}YAML syntax: {problem}") from None
    if raw is None:
        raise WarmstartError(f"{scenario}: the file is empty; a scenario needs at least `data` and `strategies`")
    if not isinstance(raw, dict):
        raise WarmstartError(f"{scenario}: a scenario is a mapping of keys to values, found a {type(raw).__name__}")
    return raw


def set_values(raw: dict[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """A copy of `raw` with each `KEY=VALUE` of the command line put in; VALUE is read as YAML and replaces the whole value.

    Raises:
        WarmstartError: An assignment without `=`, or a key that runs through something that is no mapping.

    >>> set_values({"training": {"batch_size": 128}}, ["training.optimizer.lr=1e-2"])
    {'training': {'batch_size': 128, 'optimizer': {'lr': 0.01}}}
    """
    result = copy.deepcopy(raw)
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise WarmstartError(f"--set {assignment}: expected KEY=VALUE, such as training.optimizer.lr=0.01")
        try:
            parsed = yaml.load(value, Loader=_Loader)
        except yaml.YAMLError:
            raise WarmstartError(f"--set {assignment}: the value is not valid YAML") from None
        set_path(result, key.strip(), parsed)
    return result


def set_path(raw: dict[str, Any], key: str, value: Any) -> None:
    """Sets the value at a dotted key in place; missing mappings on the way are made.

    Raises:
        WarmstartError: The key runs through a value that is no mapping.
    """
    *parents, last = key.split(".")
    place = raw
    for depth, name in enumerate(parents):
        if place.get(name) is None:
            place[name] = {}
        place = place[name]
        if not isinstance(place, dict):
            raise WarmstartError(
                f"{key}: '{'.'.join(parents[: depth + 1])}' is {place!r}, which has no keys of its own"
            )
    place[last] = value
