"""Finds and reads scenario files, and applies `--set` of the command line."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from warmstart_sim.errors import WarmstartError, nearest

PACKAGE = Path(__file__).resolve().parent.parent
MERGE = "tag:yaml.org,2002:merge"
TEXT = "tag:yaml.org,2002:str"
OWN_KEYS = ("name", "title", "reproduces")  # of a file, which do not come from its base
FLOAT = "tag:yaml.org,2002:float"


class _Loader(yaml.SafeLoader):
    """A YAML loader without YAML's traps: keys are text (`no`, `1`) and unique, and `1e-4` is a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be text", problem_mark=key.start_mark)
            if key.tag == MERGE:
                continue
            key.tag = TEXT
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key '{key.value}' is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# PyYAML follows YAML 1.1, where an exponent needs a dot before it and a sign.
_Loader.add_implicit_resolver(FLOAT, re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789"))


def bundled_scenarios() -> dict[str, Path]:
    """The scenario files that come with the package, by bare name such as "digits_online" or "ash_adams/F7_lambda".

    Files called `common...` are no scenarios: they hold what others share, who name them as `base`.
    """
    return {name: path for name, path in _bundled_files().items() if not path.name.startswith("common")}


def _bundled_files() -> dict[str, Path]:
    """All bundled files. A wheel carries them inside the package; an editable install reads those of the checkout."""
    inside, checkout = PACKAGE / "scenarios", PACKAGE.parent / "scenarios"
    folder = inside if inside.is_dir() else checkout
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def headline(path: Path) -> str:
    """The first comment line of a scenario file, which describes it."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") else ""


def find(scenario: str | Path) -> Path:
    """The file that `scenario` names: a path, or the bare name of a bundled scenario.

    Raises:
        WarmstartError: There is no such file; the message has the nearest bundled name.
    """
    if not str(scenario):
        raise WarmstartError("a scenario's name is empty; `warmstart-sim list` shows those that there are")
    if os.path.isdir(scenario):
        raise WarmstartError(f"{scenario}: is a directory, not a scenario file")
    path = Path(scenario)
    if os.path.exists(scenario):
        return path
    name = path.as_posix().removesuffix(".yaml").removeprefix("scenarios/")
    if name in (files := _bundled_files()):
        return files[name]
    bundled = bundled_scenarios()
    raise WarmstartError(f"{scenario}: no such scenario file{nearest(name, bundled)} (bundled: {', '.join(bundled)})")


def load(scenario: str | Path) -> dict[str, Any]:
    """Reads a scenario file, and the files that it names as `base`, into one plain mapping; nothing is checked yet.

    Raises:
        WarmstartError: A missing, unreadable, binary or empty file, a YAML syntax error, with its line, or a base that
            is not there or leads back to a file that is being read.
    """
    path = find(scenario)
    return with_base(_read(path, str(scenario)), str(scenario), (path,))


def with_base(raw: Mapping[str, Any], where: str, files: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A mapping merged over the scenario file that it names as `base`; see `merge`.

    Args:
        raw: What a scenario file holds.
        where: What to name in errors.
        files: That file, and before it those that name it as their base; empty for a mapping from Python.

    Raises:
        WarmstartError: There is no such file, or it is based on itself.
    """
    above = dict(raw)
    base = above.pop("base", None)
    if base is None:
        return above
    if not isinstance(base, (str, Path)):
        raise WarmstartError(f"{where}: base: found {quoted(base)} (allowed: the path of a scenario file, or its name)")
    beside = files[-1].parent / base if files else Path(base)
    try:
        path = beside if beside.is_file() else find(base)
    except WarmstartError as error:
        raise WarmstartError(f"{where}: base: {error}") from None
    if any(path.samefile(each) for each in files):
        chain = " -> ".join(each.name for each in (*files, path))
        raise WarmstartError(f"{where}: base: a scenario cannot be based on itself ({chain})")
    inside = f"{where}: base: {path}"
    below = with_base(_read(path, inside), inside, (*files, path))
    return merge({key: value for key, value in below.items() if key not in OWN_KEYS}, above)


def merge(below: Mapping[str, Any], above: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Merges a file's settings over those of its base: mappings merge, anything else replaces.

    A mapping that names something else (another model, another `start`) replaces as well, because options of the one
    mean nothing to the other. In `vary` an axis replaces an axis, and null leaves it out.

    >>> merge({"model": {"name": "mlp", "widths": [5]}}, {"model": {"bias": False}})
    {'model': {'name': 'mlp', 'widths': [5], 'bias': False}}
    >>> merge({"model": {"name": "mlp", "widths": [5]}}, {"model": {"name": "resnet18"}})
    {'model': {'name': 'resnet18'}}
    """
    merged = dict(below)
    for key, value in above.items():
        here = (*path, key)
        under = _expand_shorthand(merged.get(key), list(here))
        if path == ("vary",) and value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(under, Mapping) and _combines(under, value, here):
            merged[key] = merge(under, value, here)
        else:
            merged[key] = value
    return merged


def _combines(below: Mapping[str, Any], above: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    """Whether a mapping changes settings of the base's mapping, rather than replacing it."""
    label = path[1] if path[0] == "strategies" and len(path) == 2 else None
    starts = below.get("start", label), above.get("start")
    names = below.get("name"), above.get("name")
    other = any(new is not None and old not in (None, new) for old, new in (starts, names))
    return not other and not (path[0] == "vary" and len(path) > 1)


def _read(path: Path, where: str) -> dict[str, Any]:
    """The mapping in one scenario file."""
    try:
        raw = parse_yaml(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise WarmstartError(f"{where}: is not a text file; a scenario is YAML in UTF-8") from None
    except OSError as error:
        raise WarmstartError(f"{where}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise WarmstartError(f"{where}: {error}") from None
    if raw is None:
        raise WarmstartError(f"{where}: the file is empty; a scenario needs at least `name`, `data`, `strategies`")
    if not isinstance(raw, dict):
        raise WarmstartError(f"{where}: a scenario is a mapping of keys to values, found {quoted(raw)}")
    return raw


def parse_yaml(text: str) -> Any:
    """Parses YAML text.

    Raises:
        ValueError: A syntax error, with its line and column, or a value that contains itself.

    >>> parse_yaml("{lr: 1e-4, no: [yes]}")
    {'lr': 0.0001, 'no': [True]}
    """
    try:
        return to_plain_values(_parsed(text))
    except RecursionError:
        raise ValueError("YAML syntax: a value contains itself, or is nested too deeply") from None
    except Exception as error:  # beside its own errors PyYAML lets others through, as for `!!bool maybe`
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        words = [getattr(error, "context", None), getattr(error, "problem", None)]
        problem = ", ".join(filter(None, words)) or str(error).partition("\n")[0]
        raise ValueError(f"{place}YAML syntax: {problem}") from None


@functools.lru_cache(maxsize=100)  # scenarios of one paper have the same base
def _parsed(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def to_plain_values(value: Any) -> Any:
    """A copy made of dicts, lists and Python's own scalars; other objects are kept.

    >>> to_plain_values({"seeds": range(2), "path": Path("x.npz")})
    {'seeds': [0, 1], 'path': 'x.npz'}
    """
    if isinstance(value, Mapping):
        return {str(key): to_plain_values(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [to_plain_values(each) for each in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    return value


def mapping_or_empty(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one; for what has not been validated yet."""
    return value if isinstance(value, Mapping) else {}


def quoted(value: Any) -> str:
    """Quotes a value for a message: short, and as YAML would write it.

    >>> quoted(None), quoted("adm"), quoted({"a": 1})
    ('null', "'adm'", 'a mapping')
    """
    if isinstance(value, Mapping):
        return "a mapping"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    if len(text) <= 60:
        return text
    return f"a list of {len(value)} values" if isinstance(value, list) else f"{text[:57]}..."


def set_values(raw: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """A copy of `raw` with each `KEY=VALUE` of the command line set; VALUE is YAML and replaces the whole value.

    Raises:
        WarmstartError: An assignment without `=`, or a key that runs through something that is no mapping.

    >>> set_values({"training": {"batch_size": 128}}, ["training.optimizer.lr=1e-2"])
    {'training': {'batch_size': 128, 'optimizer': {'lr': 0.01}}}
    """
    result: dict[str, Any] = to_plain_values(raw)
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise WarmstartError(f"--set {assignment}: expected KEY=VALUE, such as training.optimizer.lr=0.01")
        try:
            set_path(result, key.strip(), parse_yaml(value))
        except ValueError as error:
            raise WarmstartError(f"--set {assignment}: {error}") from None
    return result


def split_key(raw: Any, key: str) -> list[str]:
    """Splits a dotted key into its steps through `raw`; a key in `raw`, such as a label, may itself contain dots.

    >>> split_key({"strategies": {"lambda=0.6": {}}}, "strategies.lambda=0.6.sigma")
    ['strategies', 'lambda=0.6', 'sigma']
    """
    here = mapping_or_empty(raw)
    words = key.split(".")
    heads = [".".join(words[:count]) for count in range(len(words), 0, -1)]
    head = next((head for head in heads if head in here), words[0])
    return [head] if head == key else [head, *split_key(here.get(head), key[len(head) + 1 :])]


def set_path(raw: dict[str, Any], key: str, value: Any) -> None:
    """Sets the value at a dotted key in place. Missing mappings are created, and shorthands are expanded.

    Raises:
        ValueError: The key runs through a value that is no mapping.
    """
    *parents, last = split_key(raw, key)
    place = raw
    for depth, name in enumerate(parents):
        inside = _expand_shorthand(place.get(name), parents[: depth + 1])
        if not isinstance(inside, dict):
            raise ValueError(f"{'.'.join(parents[: depth + 1])} is {quoted(inside)}, which has no keys of its own")
        place[name] = inside
        place = inside
    place[last] = value


def _expand_shorthand(value: Any, path: list[str]) -> Any:
    """The mapping that a shorthand at `path` stands for."""
    if value is None:
        return {}
    if isinstance(value, str) and (len(path) == 1 or path == ["stream", "source"]):
        return {"name": value}  # model: mlp
    if isinstance(value, str) and path[0] == "strategies" and len(path) == 2:
        return {"start": value}  # mine: warm_start
    if isinstance(value, list) and (path[0], len(path)) in (("strategies", 3), ("parts", 2)):
        return dict.fromkeys(map(str, value), True)  # augment: [random_crop, rotation]
    return value
