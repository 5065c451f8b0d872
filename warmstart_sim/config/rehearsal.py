"""`--rehearse`: the same scenario end to end in about a minute on a CPU, offline, on stand-in data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from warmstart_sim.config.cells import plan, record
from warmstart_sim.config.sections import DataSettings
from warmstart_sim.config.source import plain, split_key
from warmstart_sim.data.image_sets import IMAGE_SETS

CELLS = 12
ROUNDS = 3
LOCAL = ("digits", "noisy_digits", "synthetic", "image_folder", "arrays")  # data sets that need no stand-in

# The most that a setting may be in a rehearsal: in its section, in an arm's own training, or on an axis.
MOST = {
    "data.train_samples": 300,
    "data.test_samples": 300,
    "scenario.rounds": ROUNDS,
    "model.width": 4,
    "model.widths": 16,
    "model.channels": 8,
    "training.batch_size": 64,
    "training.until.max_epochs": 4,
    "training.until.epochs": 4,
    "training.until.steps": 40,
}
ALWAYS = ("data.train_samples", "data.test_samples", "scenario.rounds", "training.until.max_epochs")  # set where absent


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
    return {**full, **objects, "strategies": plain(raw["strategies"])}


def _stand_in(small: dict[str, Any]) -> None:
    """Puts synthetic images in the place of image sets that might have to be downloaded."""
    data, vary = small["data"], small.get("vary", {})
    names = vary.get("data.name", [data["name"]])
    known = all(isinstance(name, str) and name in IMAGE_SETS for name in names)
    if not known or all(name in LOCAL for name in names):
        return
    settings = {key: data[key] for key in DataSettings.model_fields if key in data}
    small["data"] = {"name": "synthetic", "like": names[0], **settings}
    if vary:
        small["vary"] = {"data.like" if key == "data.name" else key: values for key, values in vary.items()}


def _reduce(small: dict[str, Any], most: Mapping[str, int]) -> None:
    """Cuts settings to the most that they may be, and axes to their two ends, which stay apart and in their order."""
    own_training = [arm for arm in small["strategies"].values() if isinstance(arm, dict)]
    for key, bound in most.items():
        for place in (small, *own_training):
            _cut(place, key, bound)
    for key, values in small.get("vary", {}).items():
        steps = split_key(small, key)
        setting = ".".join(steps[2:]) if steps[0] == "strategies" else key
        small["vary"][key] = _ends(values, most.get(setting))


def _cut(place: Any, key: str, bound: int) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        place = place.get(parent) if isinstance(place, dict) else None
    if not isinstance(place, dict):
        return
    if place.get(last) is not None:
        place[last] = _at_most(place[last], bound)
    elif key in ALWAYS:
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
            del vary[long[-1]][1:]
        else:
            break
    return small
