"""A scenario multiplied out: every arm x seed x combination of varied values is one cell."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from warmstart_sim.config.component import Component, check_own, dump
from warmstart_sim.config.problems import problem
from warmstart_sim.config.scenario import Arm, Scenario, parse
from warmstart_sim.config.sections import DataSettings
from warmstart_sim.config.source import plain, set_path, shown, split_key
from warmstart_sim.errors import WarmstartError, unknown
from warmstart_sim.registry import DATASETS, MODELS, STRATEGIES, STREAMS
from warmstart_sim.results.store import EPOCH_COLUMNS, ROUND_COLUMNS

TAKEN = ("scenario", "strategy", "seed", *ROUND_COLUMNS, *EPOCH_COLUMNS)  # columns of the tables


@dataclass(frozen=True)
class Cell:
    """One training history: an arm with a seed and one combination of the varied values.

    Attributes:
        scenario: The scenario's name.
        arm: How it starts, its parts and its training options.
        seed: The seed.
        varied: The table's columns for the varied keys, with this cell's values (None where an axis is another arm's).
        data: The data set.
        data_settings: Validation fraction, normalisation, limits.
        stream: The generator of rounds.
        rounds: The most rounds that are run; None for all.
        model: The model.
        each_epoch: What is measured after every epoch.
    """

    scenario: str
    arm: Arm
    seed: int
    varied: Mapping[str, Any]
    data: Component
    data_settings: DataSettings
    stream: Component
    rounds: int | None
    model: Component
    each_epoch: tuple[str, ...]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that decides the cell's numbers, as plain values."""
        return {
            **self._first_phase_settings,
            "rounds": self.rounds,
            "label": self.arm.label,
            "start": self.arm.start.record(),
        }

    @cached_property
    def _first_phase_settings(self) -> dict[str, Any]:
        return {
            "data": {**dump(self.data_settings), **self.data.record()},
            "stream": self.stream.record(),
            "model": self.model.record(),
            "training": dump(self.arm.training),
            "parts": [part.record() for part in self.arm.parts],
            "each_epoch": list(self.each_epoch),
            "seed": self.seed,
        }

    @cached_property
    def digest(self) -> str:
        """Different whenever anything that decides the cell's numbers is."""
        return _digest(self.settings)

    @cached_property
    def id(self) -> str:
        """The cell's folder: the digest, made readable."""
        words = [self.arm.label, *(f"{k.rpartition('.')[2]}={v}" for k, v in self.varied.items() if v is not None)]
        readable = re.sub(r"[^A-Za-z0-9=._-]+", "_", "-".join(words))[:80]
        return f"{readable}-seed{self.seed}-{self.digest}"

    @cached_property
    def first_phase_id(self) -> str:
        """The folder of the first phase that all cells share whose settings differ only in how rounds start."""
        return f"seed{self.seed}-{_digest(self._first_phase_settings)}"


def _digest(settings: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=5).hexdigest()


def plan(raw: Mapping[str, Any], where: str) -> tuple[Scenario, list[Cell]]:
    """Checks a scenario with all its axes, and lists its cells: seed by seed, so that early results are paired.

    Args:
        raw: The file's mapping.
        where: What to name in errors.

    Returns:
        The scenario with the first value of each axis, and all cells.

    Raises:
        WarmstartError: Something is wrong with the scenario or with a value of an axis.
    """
    axes = _axes(raw, where)
    combinations = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    scenarios = [_combined(raw, combination, where) for combination in combinations]
    cells: dict[str, Cell] = {}
    for seed in scenarios[0].header.seeds:
        for combination, scenario in zip(combinations, scenarios, strict=True):
            for arm in scenario.arms:
                cell = Cell(
                    scenario.header.name, arm, seed, _varied(raw, combination, arm.label), scenario.data,
                    scenario.data_settings, scenario.stream, scenario.rounds, scenario.model,
                    scenario.header.measure.each_epoch,
                )  # fmt: skip
                same = cells.setdefault(cell.digest, cell)
                for name, value in cell.varied.items():  # along another arm's axis it is the same cell, without a value
                    if value != same.varied[name]:
                        both = f"{shown(same.varied[name])} and {shown(value)}"
                        raise problem(where, f"vary: {name}", f"{both} come to the same for strategy '{arm.label}'")
    return scenarios[0], list(cells.values())


def column(raw: Mapping[str, Any], key: str) -> str:
    """The table's column for a varied key: `strategies.LABEL.lambda` is `lambda`, any other key is itself.

    >>> column({"strategies": {"shrink_perturb": {}}}, "strategies.shrink_perturb.lambda")
    'lambda'
    """
    steps = split_key(raw, key)
    return ".".join(steps[2:]) if steps[0] == "strategies" else key


def _varied(raw: Mapping[str, Any], combination: Mapping[str, Any], label: str) -> dict[str, Any]:
    """An arm's values in the columns of the axes; None where an axis is another arm's."""
    varied = dict.fromkeys(column(raw, key) for key in combination)
    for key, value in combination.items():
        if split_key(raw, key)[:2] == ["strategies", label] or not key.startswith("strategies."):
            varied[column(raw, key)] = str(value) if isinstance(value, (list, dict)) else value
    return varied


def _axes(raw: Mapping[str, Any], where: str) -> dict[str, list[Any]]:
    vary = {} if raw.get("vary") is None else plain(raw["vary"])
    if not isinstance(vary, dict):
        raise problem(where, "vary", f"found {shown(vary)} (allowed: a mapping of dotted keys to lists of values)")
    strategies = raw.get("strategies")
    labels = list(strategies) if isinstance(strategies, Mapping) else []
    for key, values in vary.items():
        place, steps = f"vary.{key}", split_key(raw, key)
        if len(steps) < (3 if steps[0] == "strategies" else 2):
            raise problem(where, place, "expected the dotted key of a setting, such as training.optimizer.lr")
        if steps[0] == "strategies" and steps[1] not in labels:
            raise problem(where, place, unknown("strategy", steps[1], labels))
        if column(raw, key) in TAKEN:
            raise problem(where, place, f"the tables have a column `{column(raw, key)}`; give the option another name")
        if not isinstance(values, list) or not values:
            raise problem(where, place, f"found {shown(values)} (allowed: a list of one or more values)")
        if None in values:
            raise problem(where, place, "null cannot be a value of an axis; write what it stands for")
        if any(value in values[:index] for index, value in enumerate(values)):
            raise problem(where, place, f"{values} has a value twice; each must be given once")
    return vary


def _combined(raw: Mapping[str, Any], combination: Mapping[str, Any], where: str) -> Scenario:
    """The scenario with one value of each axis."""
    combined = {key: plain(value) for key, value in raw.items() if key != "vary"}
    for key, value in combination.items():
        try:
            set_path(combined, key, plain(value))
        except ValueError as error:
            raise problem(where, f"vary.{key}", str(error)) from None
    try:
        return parse(combined, where)
    except WarmstartError:
        parse({**raw, "vary": None}, where)  # what is wrong without the axes is said without them
        note = ", ".join(f"{key}: {shown(value)}" for key, value in combination.items())
        parse(combined, f"{where} (vary {note})")
        raise


def import_own(cells: Iterable[Cell], where: str) -> None:
    """Imports what the cells name as `module:attribute`, so that a name that is wrong fails before anything starts.

    Raises:
        WarmstartError: One cannot be imported, or does not take its options.
    """
    for cell in cells:
        named = ((DATASETS, cell.data), (STREAMS, cell.stream), (MODELS, cell.model), (STRATEGIES, cell.arm.start))
        for registry, component in named:
            if component.is_own:
                check_own(component, registry, where)


def record(raw: Mapping[str, Any], scenario: Scenario) -> dict[str, Any]:
    """The resolved scenario, every default spelt out, as plain values: what scenario.yaml of a run holds.

    It is a scenario file itself: running it again means the same cells. Defaults that hang on a name that is varied
    are not spelt out.

    Args:
        raw: The scenario as it was given to `plan`.
        scenario: What `plan` gave for it.
    """
    header = dump(scenario.header)
    vary = plain(raw.get("vary")) or {}

    def section(key: str, named: Component, settings: Mapping[str, Any]) -> dict[str, Any]:
        if f"{key}.name" not in vary:
            return {"name": named.name, **settings, **named.options}
        written = plain(raw[key]) if isinstance(raw.get(key), Mapping) else {}
        return {"name": named.name, **{name: value for name, value in settings.items() if value is not None}, **written}

    return {
        **{key: header[key] for key in ("name", "title", "rows")},
        "data": section("data", scenario.data, dump(scenario.data_settings)),
        "scenario": section("scenario", scenario.stream, {"rounds": scenario.rounds}),
        "model": section("model", scenario.model, {}),
        "training": dump(scenario.training),
        "strategies": {arm.label: _arm_record(arm, raw["strategies"][arm.label], vary) for arm in scenario.arms},
        "seeds": header["seeds"],
        **({"vary": vary} if vary else {}),
        "measure": header["measure"],
        "metric": scenario.metric,
    }


def _arm_record(arm: Arm, raw: Any, vary: Mapping[str, Any]) -> dict[str, Any]:
    written = plain(raw) if isinstance(raw, Mapping) else {}
    if f"strategies.{arm.label}.start" in vary:
        return written
    # Its own training settings stay as they were written: what they leave open, an axis may still decide.
    return {
        "start": arm.start.name,
        **arm.start.options,
        **{part.name: dict(part.options) for part in arm.parts},
        **({"training": written["training"]} if written.get("training") else {}),
    }
