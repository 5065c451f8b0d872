"""The axes in `vary`: settings with several values, varied one at a time, or several together, in a bundle or drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from warmstart_sim.errors import unknown
from warmstart_sim.results.columns import RESERVED_COLUMNS, column_of
from warmstart_sim.scenario.messages import RENAMED, scenario_error, validated
from warmstart_sim.scenario.sections import Draws
from warmstart_sim.scenario.yaml_files import mapping_or_empty, quoted, split_key, to_plain_values
from warmstart_sim.seeding import numpy_generator

SECTIONS = ("data", "stream", "model", "training")  # a bundle may set them as a whole
ALLOWED = "a list of values, or a mapping of labels to settings"
DRAWS = {"draws", "from"}  # keys of `Draws`, which cannot be labels of a bundle


@dataclass(frozen=True)
class Axis:
    """One axis: `training.optimizer.lr: [0.1, 0.01]`, or a bundle, `pair: {A to B: {data.name: b, ...}, ...}`.

    Attributes:
        key: The key in `vary`: the dotted key of a setting, or the name of a bundle.
        column: The column of the tables that holds its values.
        values: The values; for a bundle, its labels.
        arm: The only arm that the axis applies to, or None for all.
        bundled: The settings of each label of a bundle; empty for a plain axis.
    """

    key: str
    column: str
    values: tuple[Any, ...]
    arm: str | None
    bundled: Mapping[str, Mapping[str, Any]]

    def settings(self, value: Any) -> Mapping[str, Any]:
        """The settings for one value: dotted keys and what they are set to."""
        return self.bundled[value] if self.bundled else {self.key: value}

    @property
    def keys(self) -> list[str]:
        """The dotted keys of the settings that it varies; all labels of a bundle set the same ones."""
        return list(self.settings(self.values[0]))

    @property
    def written(self) -> list[Any] | dict[str, Any]:
        """The value of its key in `vary`; combinations that were drawn are written as a bundle."""
        return {label: dict(settings) for label, settings in self.bundled.items()} or list(self.values)


def axes_of(raw: Mapping[str, Any], where: str) -> list[Axis]:
    """Parses and validates `vary`.

    Args:
        raw: Content of the scenario file.
        where: Name of the scenario in error messages.

    Raises:
        WarmstartError: An axis is invalid.
    """
    vary = {} if raw.get("vary") is None else to_plain_values(raw["vary"])
    if not isinstance(vary, dict):
        raise scenario_error(
            where, "vary", f"found {quoted(vary)} (allowed: a mapping of dotted keys to lists of values)"
        )
    axes = [_axis(raw, key, values, where) for key, values in vary.items()]
    seen: dict[str, str] = {}
    for axis in axes:
        column_name = column_of(axis.column)
        # Arms may share a column for options of one name; other keys may not.
        others = [other for other in axes if other is not axis and column_of(other.column) == column_name]
        clash = any(other.column != axis.column or axis.bundled for other in others)
        if column_name in RESERVED_COLUMNS or clash:
            whose = "an option has the" if axis.bundled else f"`{others[0].key}` has the" if clash else ""
            whose = "the tables have a" if column_name in RESERVED_COLUMNS else whose
            what = "the bundle" if axis.bundled else "the option"
            raise scenario_error(where, f"vary.{axis.key}", f"{whose} column `{column_name}`; give {what} another name")
        for key in axis.keys:
            if key in seen:
                raise scenario_error(where, f"vary.{axis.key}", f"`{key}` is varied by `{seen[key]}` as well")
            seen[key] = axis.key
    return axes


def _axis(raw: Mapping[str, Any], key: str, values: Any, where: str) -> Axis:
    if not isinstance(values, dict):
        return _plain_axis(raw, key, values, where)
    return _bundle(raw, key, _drawn(raw, key, values, where) if DRAWS & values.keys() else values, where)


def _plain_axis(raw: Mapping[str, Any], key: str, values: Any, where: str) -> Axis:
    place = f"vary.{key}"
    steps = _steps(raw, key, place, where)
    if not isinstance(values, list) or not values:
        raise scenario_error(where, place, f"found {quoted(values)} (allowed: a list of one or more values)")
    _check_values(values, place, where)
    return Axis(key, column(raw, key), tuple(values), steps[1] if steps[0] == "strategies" else None, {})


def _bundle(raw: Mapping[str, Any], key: str, labels: Mapping[str, Any], where: str) -> Axis:
    place = f"vary.{key}"
    if "." in key or not key:
        raise scenario_error(
            where, place, "found a mapping; a setting takes a list of values, a bundle a name without dots"
        )
    if not labels:
        raise scenario_error(where, place, f"there is nothing in it (allowed: {ALLOWED})")
    for label, settings in labels.items():
        if not label:
            raise scenario_error(where, place, "a label cannot be empty")
        if not isinstance(settings, dict) or not settings:
            found = "there is nothing in it" if settings == {} else f"found {quoted(settings)}"
            raise scenario_error(where, f"{place}.{label}", f"{found} (allowed: a mapping of dotted keys to values)")
        for setting in settings:
            _check_bundled(raw, setting, f"{place}.{label}.{setting}", where)
    first, *others = labels
    for label in others:  # otherwise a stored scenario would lack a value for some cells
        if lacking := labels[first].keys() ^ labels[label].keys():
            raise scenario_error(
                where, place, f"'{first}' and '{label}' do not both set {min(lacking)}; all labels set the same keys"
            )
    arms = {_arm_of(raw, setting) for setting in labels[first]}
    if len(arms) > 1:
        text = "sets options of one strategy beside other settings; a bundle holds for all or for one"
        raise scenario_error(where, place, text)
    return Axis(key, key, tuple(labels), arms.pop(), labels)


def _arm_of(raw: Mapping[str, Any], setting: str) -> str | None:
    """The label of the strategy whose option a key in a bundle sets, or None for other settings."""
    steps = [setting] if setting in SECTIONS else split_key(raw, setting)
    return steps[1] if steps[0] == "strategies" else None


def _drawn(raw: Mapping[str, Any], key: str, values: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """The bundle of combinations that `values`, which are those of `Draws`, ask for; its labels are numbers from 1.

    A combination that was drawn before is drawn again. More draws add combinations, and leave the others as they are.
    """
    place = f"vary.{key}"
    draws = validated(Draws, values, where, place)
    choices: dict[str, list[Any]] = values["from"]
    for setting, each in choices.items():
        _check_bundled(raw, setting, f"{place}.from.{setting}", where)
        _check_values(each, f"{place}.from.{setting}", where)
    if draws.draws > (most := math.prod(map(len, choices.values()))):
        raise scenario_error(where, f"{place}.draws", f"found {draws.draws}, but `from` has only {most} combinations")
    generator = numpy_generator(draws.seed, "vary")
    drawn: list[dict[str, Any]] = []
    while len(drawn) < draws.draws:
        combination = {setting: each[generator.integers(len(each))] for setting, each in choices.items()}
        if combination not in drawn:
            drawn.append(combination)
    return {str(number): combination for number, combination in enumerate(drawn, start=1)}


def _check_values(values: Sequence[Any], place: str, where: str) -> None:
    if None in values:
        raise scenario_error(where, place, "null cannot be a value of an axis; write what it stands for")
    if any(value in values[:index] for index, value in enumerate(values)):
        raise scenario_error(where, place, f"{values} has a value twice; each must be given once")


def _check_bundled(raw: Mapping[str, Any], setting: str, place: str, where: str) -> None:
    """Checks the key of a setting in a bundle."""
    if setting not in SECTIONS:
        _steps(raw, setting, place, where)


def _steps(raw: Mapping[str, Any], key: str, place: str, where: str) -> list[str]:
    """Splits the dotted key of a setting, which must lie in an existing section or strategy."""
    steps = split_key(raw, key)
    if steps[0] in RENAMED:
        raise scenario_error(where, place, f"`{steps[0]}` is called `{RENAMED[steps[0]]}` now")
    if len(steps) < (3 if steps[0] == "strategies" else 2) or steps[0] == "vary":
        raise scenario_error(where, place, "expected the dotted key of a setting, such as training.optimizer.lr")
    labels = list(mapping_or_empty(raw.get("strategies")))
    if steps[0] == "strategies" and steps[1] not in labels:
        raise scenario_error(where, place, unknown("strategy", steps[1], labels))
    return steps


def column(raw: Mapping[str, Any], key: str) -> str:
    """The table's column for a varied key: `lambda` for `strategies.LABEL.lambda`, else the key itself.

    >>> column({"strategies": {"shrink_perturb": {}}}, "strategies.shrink_perturb.lambda")
    'lambda'
    """
    steps = split_key(raw, key)
    return ".".join(steps[2:]) if steps[0] == "strategies" else key
