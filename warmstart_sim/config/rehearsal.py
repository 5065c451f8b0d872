"""`--rehearse`: the same scenario end to end in about a minute on a CPU, offline, on stand-in data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from warmstart_sim.config.cells import plan, record
from warmstart_sim.config.sections import DataSettings, SourceSettings
from warmstart_sim.config.source import plain, split_key
from warmstart_sim.data.image_sets import IMAGE_SETS
from warmstart_sim.data.text_sets import TEXT_SETS

# The settings that any data set has, at the two places that name one.
DATA_KEYS = {"data": tuple(DataSettings.model_fields), "scenario.source": (*SourceSettings.model_fields, "training")}

CELLS = 12
ROUNDS = 3
# Data sets that need no stand-in.
LOCAL = ("digits", "noisy_digits", "synthetic", "synthetic_text", "image_folder", "text_folder", "arrays")
SOURCE = "scenario.source"

# The most that a setting may be in a rehearsal: in its section, in an arm's own training, or on an axis.
MOST = {
    "data.train_samples": 300,
    "data.test_samples": 300,
    "data.length": 40,
    "data.vocabulary": 500,
    "scenario.rounds": ROUNDS,
    "scenario.source.train_samples": 300,
    "scenario.source.test_samples": 300,
    "scenario.source.training.until.max_epochs": 4,
    "scenario.source.training.until.epochs": 4,
    "model.width": 4,
    "model.widths": 16,
    "model.channels": 8,
    "model.embedding": 8,
    "model.hidden": 8,
    "training.batch_size": 64,
    "training.until.max_epochs": 4,
    "training.until.epochs": 4,
    "training.until.steps": 40,
}
ALWAYS = (  # set where absent
    "data.train_samples",
    "data.test_samples",
    "scenario.rounds",
    "scenario.source.train_samples",
    "scenario.source.test_samples",
    "scenario.source.training.until.max_epochs",
    "training.until.max_epochs",
)


def rehearsal(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A reduced copy of a valid scenario: stand-in data of the same shape, fewer samples, rounds, epochs and cells.

    At most twelve cells remain: the ends of each axis, one seed or two, and as many arms as fit.
    """
    small = _spelt_out(raw)
    small["name"] = f"{small['name']}-rehearsal"
    _stand_in(small)
    _reduce(small, MOST)
    _reduce(small, {"scenario.chunk_size": math.ceil(_smallest_pool(small) / ROUNDS)})
    return _fewer_cells(small)


def _spelt_out(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The scenario with its defaults, so that they can be reduced; a user's own objects stay in it."""
    scenario, _ = plan(raw, "scenario")
    full = record(raw, scenario)
    named = {"data": scenario.data, "scenario": scenario.stream, "model": scenario.model}
    objects = {key: {**full[key], "name": each.target} for key, each in named.items() if each.target is not None}
    if isinstance(full["scenario"].get("source"), str):
        full["scenario"]["source"] = {"name": full["scenario"]["source"]}
    return {**full, **objects, "strategies": plain(raw["strategies"])}


def _stand_in(small: dict[str, Any]) -> None:
    """Puts synthetic data in the place of sets that might have to be downloaded: of the target, and of a source."""
    places = {"data": small, "source": small["scenario"]}
    for section, around in places.items():
        key = "data" if section == "data" else SOURCE
        if section in around:
            names = _varied_names(small, key) or [around[section]["name"]]
            if _downloaded(names):
                around[section] = _synthetic(around[section], names[0], DATA_KEYS[key])
                small["vary"] = {_like(name, key): values for name, values in small.get("vary", {}).items()}
        for bundle in _bundles(small):
            if key in bundle and _downloaded([bundle[key]["name"]]):
                bundle[key] = _synthetic(bundle[key], bundle[key]["name"], DATA_KEYS[key])
            elif f"{key}.name" in bundle and _downloaded(_varied_names(small, key)):
                bundle[f"{key}.like"] = bundle.pop(f"{key}.name")


def _varied_names(small: Mapping[str, Any], key: str) -> list[Any]:
    """The names that an axis gives to the data set at `key`, one by one or in bundles."""
    names = list(small.get("vary", {}).get(f"{key}.name", []))
    return names + [bundle[f"{key}.name"] for bundle in _bundles(small) if f"{key}.name" in bundle]


def _bundles(small: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for values in small.get("vary", {}).values():
        if isinstance(values, dict):
            yield from values.values()


def _downloaded(names: Sequence[Any]) -> bool:
    """Whether these are sets that we know the size of, and some of them might have to be downloaded."""
    known = all(isinstance(name, str) and (name in IMAGE_SETS or name in TEXT_SETS) for name in names)
    return known and not all(name in LOCAL for name in names)


def _synthetic(section: Mapping[str, Any], name: str, settings: Iterable[str]) -> dict[str, Any]:
    """A stand-in for the set of that name, with the settings that do not belong to the set itself."""
    kept = {key: section[key] for key in settings if key in section}
    if name in TEXT_SETS:
        sizes = {key: section[key] for key in ("length", "vocabulary") if key in section}
        return {"name": "synthetic_text", **sizes, **kept}
    return {"name": "synthetic", "like": name, **kept}


def _like(axis: str, key: str) -> str:
    return f"{key}.like" if axis == f"{key}.name" else axis


def _reduce(small: dict[str, Any], most: Mapping[str, int]) -> None:
    """Cuts settings to the most that they may be, and axes to their two ends, which stay apart and in their order."""
    own_training = [arm for arm in small["strategies"].values() if isinstance(arm, dict)]
    for key, bound in most.items():
        for place in (small, *own_training):
            _cut(place, key, bound)
        for bundle in _bundles(small):
            _cut_in_bundle(bundle, key, bound)
    for key, values in small.get("vary", {}).items():
        if isinstance(values, dict):
            small["vary"][key] = {label: values[label] for label in _ends(list(values), None)}
            continue
        steps = split_key(small, key)
        setting = ".".join(steps[2:]) if steps[0] == "strategies" else key
        small["vary"][key] = _ends(values, most.get(setting))


def _cut_in_bundle(bundle: dict[str, Any], key: str, bound: int) -> None:
    """Cuts a setting that a bundle gives by itself, or inside a section that it gives whole."""
    if key in bundle:
        bundle[key] = _at_most(bundle[key], bound)
    for section in ("data", SOURCE, "scenario", "model", "training"):
        if isinstance(bundle.get(section), dict) and key.startswith(f"{section}."):
            _cut(bundle[section], key.removeprefix(f"{section}."), bound, key in ALWAYS)


def _cut(place: Any, key: str, bound: int, always: bool | None = None) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        place = place.get(parent) if isinstance(place, dict) else None
    if not isinstance(place, dict):
        return
    if place.get(last) is not None:
        place[last] = _at_most(place[last], bound)
    elif key in ALWAYS if always is None else always:
        place[last] = bound


def _at_most(value: Any, bound: int) -> Any:
    return [min(each, bound) for each in value] if isinstance(value, list) else min(value, bound)


def _ends(values: list[Any], bound: int | None) -> list[Any]:
    ends = [values[0], values[-1]] if len(values) > 1 else values
    if bound is None:
        return ends
    cut = [_at_most(value, bound) for value in ends]
    if cut[0] == cut[-1] and len(ends) > 1:
        lesser = ends.index(min(ends))
        cut[lesser] = _at_most(ends[lesser], max(1, bound // 2))
    return cut if cut[0] != cut[-1] else cut[:1]


def _smallest_pool(small: Mapping[str, Any]) -> int:
    """The fewest samples that any cell has to deal out."""
    vary, data = small.get("vary", {}), small["data"]
    samples: int = min(vary.get("data.train_samples", [data["train_samples"]]))
    held_out: float = max(vary.get("data.validation_fraction", [data.get("validation_fraction", 0)]))
    return max(1, math.floor(samples * (1 - held_out)))


def _fewer_cells(small: dict[str, Any]) -> dict[str, Any]:
    """Leaves out seeds, then arms from the end, and then the second ends of axes, until at most twelve cells remain."""
    small["seeds"] = small["seeds"][:2]
    while len(plan(small, small["name"])[1]) > CELLS:
        vary = small.get("vary", {})
        needed = {split_key(small, key)[1] for key in vary if key.startswith("strategies.")}
        spare = [label for label in list(small["strategies"])[1:] if label not in needed]
        long = [key for key, values in vary.items() if len(values) > 1]
        if len(small["seeds"]) > 1:
            del small["seeds"][1:]
        elif spare:
            del small["strategies"][spare[-1]]
        elif long:
            vary[long[-1]] = _first(vary[long[-1]])
        else:
            break
    return small


def _first(values: Any) -> Any:
    return dict([next(iter(values.items()))]) if isinstance(values, dict) else values[:1]
