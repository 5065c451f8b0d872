"""`--rehearse`: the same scenario end to end in about a minute on a CPU, offline, on stand-in data.

`rehearsal` leaves out seeds, arms and values of axes, and marks the scenario with `rehearsal: true`. `plan` reduces the
cells of a marked scenario with `reduced`, so that scenario.yaml of a rehearsal always means the same reduced cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from warmstart_sim.datasets.known_sizes import IMAGE_SETS, PHOTO_SETS, TEXT_SETS, known_shape
from warmstart_sim.registry import DATASETS
from warmstart_sim.scenario.axes import axes_of
from warmstart_sim.scenario.cells import Cell
from warmstart_sim.scenario.component import Component, model_to_dict
from warmstart_sim.scenario.named_results import with_claims_that_apply
from warmstart_sim.scenario.sections import DataSettings
from warmstart_sim.scenario.yaml_files import to_plain_values

MAX_CELLS, MAX_ROUNDS, MAX_SAMPLES = 12, 3, 300
INCLUDED = ("digits", "noisy_digits")  # of the sets known by name; the others might have to be downloaded
SAMPLES = {"train_samples": MAX_SAMPLES, "test_samples": MAX_SAMPLES}

# The most that a setting of a cell may be, by its path from `Cell`.
DATA_OPTIONS = {**SAMPLES, "length": 40, "vocabulary": 500, "shape": 16}
MODEL_OPTIONS = {"width": 4, "widths": 16, "channels": 8, "embedding": 8, "hidden": 8}
TRAINING = {"batch_size": 64, "until.max_epochs": 4, "until.epochs": 4, "until.steps": 40, "schedule.anneal": 2}
LIMITS = {
    f"{place}.{key}": most
    for place, limits in {
        "data.options": DATA_OPTIONS,
        "data_settings": SAMPLES,
        "arm.training": TRAINING,
        "arm.training.later_rounds": TRAINING,
        "model.options": MODEL_OPTIONS,
        "pretraining.source.data.options": DATA_OPTIONS,
        "pretraining.source.settings": SAMPLES,
        "pretraining.source.training": TRAINING,
    }.items()
    for key, most in limits.items()
} | {"rounds": MAX_ROUNDS, "first_phase_epochs": 2}
ALL_BY_DEFAULT = ("rounds", *SAMPLES)  # None means no limit here; elsewhere it means that the setting is not used


def rehearsal(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a valid scenario that is marked as a rehearsal and has at most twelve cells.

    It keeps both ends of each axis, two seeds and all arms. If these are too many cells, it leaves out the second seed,
    then all but two arms, those without an axis of their own and the last first, and then second ends of axes, the last
    first. Claims about what is left out go, too.
    """
    small: dict[str, Any] = {**to_plain_values(raw), "name": f"{raw['name']}-rehearsal", "rehearsal": True}
    arms = small["strategies"]
    seeds = small["seeds"] = (small.get("seeds") or [0])[:2]
    vary = small["vary"] = {axis.key: _ends(axis.written) for axis in axes_of(small, small["name"])}
    while _count_cells(small) > MAX_CELLS:
        varied = {axis.arm for axis in axes_of(small, small["name"])}
        spare = [label for label in list(arms)[1:] if label not in varied]
        long = [key for key, values in vary.items() if len(values) > 1]
        if len(seeds) > 1:
            seeds.pop()
        elif spare and len(arms) > 2:
            del arms[spare[-1]]
        elif long:
            vary[long[-1]] = _ends(vary[long[-1]], 1)
        else:
            break
    return with_claims_that_apply(small, raw, small["name"])


def _ends(values: Any, count: int = 2) -> Any:
    """Keeps the first and the last value of an axis, or with `count` 1 the first only; of a bundle, these labels."""
    if isinstance(values, dict):
        return {label: values[label] for label in _ends(list(values), count)}
    return [values[0], values[-1]][: min(count, len(values))]


def _count_cells(raw: Mapping[str, Any]) -> int:
    axes = axes_of(raw, raw["name"])
    of_arms = (math.prod(len(axis.values) for axis in axes if axis.arm in (None, arm)) for arm in raw["strategies"])
    return len(raw["seeds"]) * sum(of_arms)


def reduced(cells: Iterable[Cell]) -> list[Cell]:
    """The cells on stand-in data, with fewer samples, rounds and epochs, and smaller models.

    A user's own data set and model are used as they are. Cells that do not differ any more become one.
    """
    small = [_with_stand_ins(cell) for cell in cells]
    for path, most in LIMITS.items():
        small = _limited(small, path, most)
    small = [_with_few_chunks(cell) for cell in small]
    chunk = math.ceil(min(map(_pool, small)) / MAX_ROUNDS)
    for key in ("chunk_size", "initial", "first"):
        small = _limited(small, f"stream.options.{key}", chunk)
    small = _limited(small, "stream.options.sizes", min(map(_pool, small)) // MAX_ROUNDS)
    return list({cell.digest: cell for cell in small}.values())


def _with_stand_ins(cell: Cell) -> Cell:
    pretraining = cell.pretraining
    if pretraining and (source := pretraining.source):
        pretraining = replace(pretraining, source=replace(source, data=_stand_in(source.data, source.settings)))
    return replace(cell, data=_stand_in(cell.data, cell.data_settings), pretraining=pretraining)


def _with_few_chunks(cell: Cell) -> Cell:
    """The cell with the first of a list of chunks, and without a list of classes, some of which have no samples now."""
    options = dict(cell.stream.options)
    if options.get("sizes"):
        options["sizes"] = options["sizes"][:MAX_ROUNDS]
    if isinstance(options.get("order"), list):
        options["order"] = "given"
    return replace(cell, stream=replace(cell.stream, options=options))


def _stand_in(data: Component, settings: DataSettings) -> Component:
    """Synthetic data in the place of a data set that might have to be downloaded; LIMITS cuts the shape of images."""
    if data.name in TEXT_SETS:
        name, options = "synthetic_text", {key: data.options[key] for key in ("length", "vocabulary")}
    elif data.name in PHOTO_SETS:
        shape = known_shape(data.name, data.options)
        name, options = "synthetic", {"shape": shape, "classes": PHOTO_SETS[data.name].classes}
    elif data.name in IMAGE_SETS and data.name not in INCLUDED:
        name, options = "synthetic", {"like": data.name, "shape": known_shape(data.name, data.options)}
    else:
        return data
    size = {key: getattr(settings, key) or math.inf for key in SAMPLES}  # as of any data set; LIMITS cuts it
    return Component(name, {**model_to_dict(DATASETS.schema(name).model_validate(options)), **size})


def _limited(cells: Sequence[Cell], path: str, most: int) -> list[Cell]:
    """The cells with the setting at `path` cut to `most`; the second largest value to half of it, and so on.

    Different values thus stay different, and in their order: an axis keeps its ends.
    """
    values = [_get(cell, path) for cell in cells]
    ranked: list[Any] = []
    for value in sorted((value for value in values if value is not None), reverse=True):
        if value not in ranked:
            ranked.append(value)
    return [
        cell if value is None else _set(cell, path, _cut(value, max(1, most >> ranked.index(value))))
        for cell, value in zip(cells, values, strict=True)
    ]


def _cut(value: Any, most: int) -> Any:
    return [_cut(each, most) for each in value] if isinstance(value, list) else min(value, most)


def _pool(cell: Cell) -> int:
    """At least so many samples remain for the rounds of a reduced cell."""
    samples = min(_get(cell, "data_settings.train_samples"), _get(cell, "data.options.train_samples") or MAX_SAMPLES)
    return max(1, int(samples * (1 - cell.data_settings.validation_fraction)))


def _get(here: Any, path: str) -> Any:
    """The setting at a path: infinity if it is unlimited, None if it is not there or in a user's own component."""
    if here is None or (isinstance(here, Component) and here.is_user_defined):
        return None
    if isinstance(here, Mapping):
        return here.get(path)
    step, _, rest = path.partition(".")
    value = getattr(here, step)
    if rest:
        return _get(value, rest)
    return math.inf if value is None and step in ALL_BY_DEFAULT else value


def _set(here: Any, path: str, value: Any) -> Any:
    """A copy with another value at a path."""
    if isinstance(here, Mapping):
        return {**here, path: value}
    step, _, rest = path.partition(".")
    new = _set(getattr(here, step), rest, value) if rest else value
    return here.model_copy(update={step: new}) if isinstance(here, BaseModel) else replace(here, **{step: new})
