"""A scenario multiplied out: every arm x seed x combination of varied values is one cell."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from warmstart_sim.config.scenario import Arm, Component, DataSettings, Scenario, dump, parse
from warmstart_sim.config.source import set_path
from warmstart_sim.errors import WarmstartError


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
            "data": {**self.data.record(), **dump(self.data_settings)},
            "stream": self.stream.record(),
            "model": self.model.record(),
            "training": dump(self.arm.training),
            "parts": [part.record() for part in self.arm.parts],
            "each_epoch": list(self.each_epoch),
            "seed": self.seed,
        }

    @cached_property
    def id(self) -> str:
        """The cell's folder: readable, and different whenever anything that decides its numbers is."""
        words = [self.arm.label, *(f"{k.rpartition('.')[2]}={v}" for k, v in self.varied.items() if v is not None)]
        readable = re.sub(r"[^A-Za-z0-9=._-]+", "_", "-".join(words))[:80]
        return f"{readable}-seed{self.seed}-{_digest(self.settings)}"

    @cached_property
    def first_phase_id(self) -> str:
        """The folder of the first phase that all cells share whose settings differ only in how rounds start."""
        return f"seed{self.seed}-{_digest(self._first_phase_settings)}"


def _digest(settings: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=5).hexdigest()


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
    raw = dict(raw)
    axes = _axes(raw.pop("vary", None) or {}, raw, where)
    # An axis below strategies.LABEL is that arm's alone: other arms are not repeated along it.
    scenarios = []
    for values in itertools.product(*axes.values()):
        combined = copy.deepcopy(raw)
        for key, value in zip(axes, values, strict=True):
            set_path(combined, key, value)
        note = ", ".join(f"{key}={value}" for key, value in zip(axes, values, strict=True))
        scenarios.append((values, parse(combined, f"{where} ({note})" if note else where)))

    cells: dict[str, Cell] = {}
    for seed in scenarios[0][1].header.seeds:
        for values, scenario in scenarios:
            for arm in scenario.arms:
                varied = {
                    column(key): value if _applies(key, arm.label) else None
                    for key, value in zip(axes, values, strict=True)
                }
                cell = Cell(
                    scenario.header.name, arm, seed, varied, scenario.data, scenario.data_settings, scenario.stream,
                    scenario.rounds, scenario.model, scenario.header.measure.each_epoch,
                )  # fmt: skip
                cells.setdefault(cell.id, cell)
    return scenarios[0][1], list(cells.values())


def column(key: str) -> str:
    """The table's column for a varied key: `strategies.LABEL.lambda` is `lambda`, any other key is itself."""
    return key.split(".", 2)[2] if key.startswith("strategies.") and key.count(".") >= 2 else key


def _applies(key: str, label: str) -> bool:
    return not key.startswith("strategies.") or key.split(".")[1] == label


def _axes(vary: Any, raw: Mapping[str, Any], where: str) -> dict[str, list[Any]]:
    if not isinstance(vary, Mapping):
        raise WarmstartError(f"{where}: vary: expected a mapping of keys to lists of values, found {vary!r}")
    for key, values in vary.items():
        if not isinstance(values, list) or not values:
            raise WarmstartError(f"{where}: vary.{key}: expected a list of at least one value, found {values!r}")
        if len({json.dumps(value, sort_keys=True) for value in values}) < len(values):
            raise WarmstartError(f"{where}: vary.{key}: {values} names a value twice")
        if key in ("seeds", "name", "strategies") or "." not in str(key):
            raise WarmstartError(
                f"{where}: vary.{key}: expected a dotted key of a setting, such as training.optimizer.lr"
            )
        if key.startswith("strategies.") and key.split(".")[1] not in (raw.get("strategies") or {}):
            raise WarmstartError(f"{where}: vary.{key}: there is no strategy '{key.split('.')[1]}' in this scenario")
    return dict(vary)


def record(raw: Mapping[str, Any], scenario: Scenario) -> dict[str, Any]:
    """The resolved scenario, every default spelt out, as plain values: what scenario.yaml of a run holds.

    It is a scenario file itself: running it again means the same cells.
    """
    base = dump(scenario.training)
    strategies = {}
    for arm in scenario.arms:
        own = {key: value for key, value in dump(arm.training).items() if value != base[key]}
        strategies[arm.label] = {
            "start": arm.start.name,
            **arm.start.options,
            **{part.name: dict(part.options) for part in arm.parts},
            **({"training": own} if own else {}),
        }
    header = dump(scenario.header)
    return {
        **{key: header[key] for key in ("name", "title", "rows")},
        "data": {**scenario.data.record(), **dump(scenario.data_settings)},
        "scenario": {**scenario.stream.record(), **({"rounds": scenario.rounds} if scenario.rounds else {})},
        "model": scenario.model.record(),
        "training": base,
        "strategies": strategies,
        "seeds": header["seeds"],
        **({"vary": dict(raw["vary"])} if raw.get("vary") else {}),
        "measure": header["measure"],
        "metric": scenario.metric,
    }
