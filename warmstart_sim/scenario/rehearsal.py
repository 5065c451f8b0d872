"""`--rehearse`: the same scenario end to end in about a minute on a CPU, offline, on stand-in data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from warmstart_sim.datasets.known_sizes import IMAGE_SETS, TEXT_SETS
from warmstart_sim.scenario.cells import plan, resolved_scenario
from warmstart_sim.scenario.component import model_to_dict
from warmstart_sim.scenario.sections import DataSettings, SourceSettings
from warmstart_sim.scenario.yaml_files import split_key, to_plain_values
from warmstart_sim.training.settings import Training

# The settings that any data set has, at the two places that name one.
DATA_KEYS = {"data": tuple(DataSettings.model_fields), "stream.source": (*SourceSettings.model_fields, "training")}

CELLS = 12
ROUNDS = 3
# Data sets that need no stand-in.
LOCAL = ("digits", "noisy_digits", "synthetic", "synthetic_text", "image_folder", "text_folder", "arrays")
SOURCE = "stream.source"

# The most that a setting may be in a rehearsal: in its section, in an arm's own training, or on an axis.
MOST = {
    "data.train_samples": 300,
    "data.test_samples": 300,
    "data.length": 40,
    "data.vocabulary": 500,
    "stream.rounds": ROUNDS,
    "stream.source.train_samples": 300,
    "stream.source.test_samples": 300,
    "stream.source.training.until.max_epochs": 4,
    "stream.source.training.until.epochs": 4,
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
    "stream.rounds",
    "stream.source.train_samples",
    "stream.source.test_samples",
    "stream.source.training.until.max_epochs",
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
    _reduce(small, {"stream.chunk_size": math.ceil(_smallest_pool(small) / ROUNDS)})
    return _fewer_cells(small)


def _spelt_out(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The scenario with its defaults, so that they can be reduced; a user's own objects stay in it."""
    scenario, _ = plan(raw, "scenario")
    full = resolved_scenario(raw, scenario)
    named = {"data": scenario.data, "stream": scenario.stream, "model": scenario.model}
    objects = {key: {**full[key], "name": each.target} for key, each in named.items() if each.target is not None}
    if "source" in full["stream"]:
        full["stream"]["source"] = to_plain_values(raw["stream"])["source"]
    small = {
        **full,
        **objects,
        "strategies": to_plain_values(raw["strategies"]),
        "vary": to_plain_values(raw.get("vary")) or {},
    }
    for key in DATA_KEYS:
        for place, at in _sections(small, key):
            place[at] = place[at] if isinstance(place[at], dict) else {"name": place[at]}
    for bundle in _bundles(small):
        if "training" in bundle:
            bundle["training"] = model_to_dict(Training.model_validate(bundle["training"] or {}))
    return small


def _sections(small: Mapping[str, Any], key: str) -> list[tuple[Any, Any]]:
    """Where data sets are named for `key`, in the scenario and on its axes: what holds the section, and at what."""
    section, _, inside = key.partition(".")
    holders = [small, *_bundles(small)]
    places: list[tuple[Any, Any]] = [(holder, key) for holder in holders]
    places += [(holder[section], inside) for holder in holders if inside and isinstance(holder.get(section), dict)]
    axis = small["vary"].get(key)
    on_axis = [(axis, index) for index in range(len(axis))] if isinstance(axis, list) else []
    return [(place, at) for place, at in places if place.get(at) is not None] + on_axis


def _bundles(small: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for values in small["vary"].values():
        if isinstance(values, dict):
            yield from values.values()


def _stand_in(small: dict[str, Any]) -> None:
    """Puts synthetic data in the place of sets that might have to be downloaded: of the target, and of a source."""
    for key, settings in DATA_KEYS.items():
        name, like = f"{key}.name", f"{key}.like"
        varied = [*small["vary"].get(name, []), *(bundle[name] for bundle in _bundles(small) if name in bundle)]
        for place, at in _sections(small, key):
            names = varied or [place[at]["name"]]
            if _downloaded(names):
                place[at] = _synthetic(place[at], names[0], settings)
        if _downloaded(varied):
            small["vary"] = {like if axis == name else axis: values for axis, values in small["vary"].items()}
            for bundle in _bundles(small):
                if name in bundle:
                    bundle[like] = bundle.pop(name)


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


def _reduce(small: dict[str, Any], most: Mapping[str, int]) -> None:
    """Cuts settings to the most that they may be, and axes to their two ends, which stay apart and in their order."""
    own_training = [arm for arm in small["strategies"].values() if isinstance(arm, dict)]
    for key, bound in most.items():
        for place in (small, *own_training):
            _cut(place, key, bound, key in ALWAYS)
        for bundle in _bundles(small):
            for at, value in bundle.items():
                bundle[at] = _cut_at(at, value, key, bound)
    for axis, values in small["vary"].items():
        if isinstance(values, dict):
            ends = {label: values[label] for label in _ends(list(values), None)}
            first, *others = ends.values()
            small["vary"][axis] = _first(ends) if first in others else ends  # cut, two may have become the same
            continue
        steps = split_key(small, axis)
        setting = ".".join(steps[2:]) if steps[0] == "strategies" else axis
        for key, bound in most.items():
            for value in values:
                if isinstance(value, dict):
                    _cut_at(setting, value, key, bound)
        small["vary"][axis] = _ends(values, most.get(setting))


def _cut_at(at: str, value: Any, key: str, bound: int) -> Any:
    """The value of the setting `at` with the setting `key` cut, which may be that value itself or lie inside it."""
    if at == key:
        return _at_most(value, bound)
    if key.startswith(f"{at}."):
        _cut(value, key.removeprefix(f"{at}."), bound, key in ALWAYS)
    return value


def _cut(place: Any, key: str, bound: int, always: bool) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        place = place.get(parent) if isinstance(place, dict) else None
    if not isinstance(place, dict):
        return
    if place.get(last) is not None:
        place[last] = _at_most(place[last], bound)
    elif always:
        place[last] = bound


def _at_most(value: Any, bound: int) -> Any:
    """A number or a list of numbers, cut; anything else, such as an option of a user's own, as it is."""
    if isinstance(value, list):
        return [_at_most(each, bound) for each in value]
    return min(value, bound) if isinstance(value, (int, float)) else value


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
    pools = (
        (cell.data_settings.train_samples or cell.data.options["train_samples"])
        * (1 - cell.data_settings.validation_fraction)
        for cell in plan(small, small["name"])[1]
    )
    return max(1, math.floor(min(pools)))


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
