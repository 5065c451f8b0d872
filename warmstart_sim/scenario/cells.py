"""Expands a scenario into cells: one for each arm, seed and combination of varied values."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from warmstart_sim.errors import WarmstartError
from warmstart_sim.registry import DATASETS, MODELS, PROBES, STRATEGIES, STREAMS
from warmstart_sim.results.store import drop_none
from warmstart_sim.scenario.axes import Axis, axes_of, settings_on
from warmstart_sim.scenario.component import Component, check_user_component, model_to_dict, objects_to_names
from warmstart_sim.scenario.messages import scenario_error
from warmstart_sim.scenario.parsing import Arm, Scenario, parse
from warmstart_sim.scenario.pretraining import Pretraining
from warmstart_sim.scenario.rehearsal import reduced
from warmstart_sim.scenario.sections import DataSettings, Measure, MeasuredProbe
from warmstart_sim.scenario.yaml_files import quoted, set_path, to_plain_values

FIRST_PHASE = "first phase"


@dataclass(frozen=True)
class Target:
    """The data set that is trained on after a first phase. It sets the model's input shape.

    Attributes:
        data: The data set.
        adapt: How the first phase's images are brought to the size of the target's.
        normalize: The target's normalisation if the first phase uses the same statistics, else None.
    """

    data: Component
    adapt: Literal["resize", "pad"] | None
    normalize: Literal["train", "cifar10", "imagenet", "half", "none"] | None

    def to_dict(self) -> dict[str, Any] | None:
        """The settings that change the first phase's numbers; None if it neither adapts nor shares statistics."""
        if self.adapt is None and self.normalize is None:
            return None
        return {"data": self.data.to_dict(), "adapt": self.adapt, "normalize": self.normalize}


@dataclass(frozen=True)
class Cell:
    """One training history: an arm, a seed and one combination of varied values.

    Attributes:
        scenario: The scenario's name.
        arm: The arm: start strategy, parts and training settings.
        seed: The seed.
        varied: The cell's value in each varied column of the tables; None for axes of other arms.
        data: The data set.
        data_settings: Validation fraction, normalisation, limits.
        stream: The stream, which generates the rounds.
        rounds: Maximum number of rounds; None for all.
        model: The model.
        measure: The probes.
        pretraining: The pretraining before the first round; None for most streams.
        target: For a first phase on another data set, the data set that is trained on after it.
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
    measure: Measure
    pretraining: Pretraining | None = None
    target: Target | None = None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All settings that decide the cell's numbers, as plain values."""
        settings = {
            "data": {**model_to_dict(self.data_settings), **self.data.to_dict()},
            "stream": self.stream.to_dict(),
            "model": self.model.to_dict(),
            "training": model_to_dict(self.arm.training),
            "parts": [part.to_dict() for part in self.arm.parts],
            "each_epoch": [_probe_settings(each) for each in self.measure.each_epoch],
            "seed": self.seed,
            "rounds": self.rounds,
            "label": self.arm.label,
            "start": self.arm.start.to_dict(),
        }
        if self.measure.each_round:
            settings["each_round"] = [_probe_settings(each) for each in self.measure.each_round]
        extra = {"pretraining": self.pretraining, "target": self.target}
        return settings | {name: written for name, each in extra.items() if each and (written := each.to_dict())}

    @cached_property
    def step_kind(self) -> str:
        """A digest of the settings that decide how long a training step takes, such as inputs, model and batch size."""
        training = self.arm.training
        keys = {"batch_size", "bucketing", "precision", "threads"}
        settings = {
            "data": self.data.to_dict(),
            "target": self.target and self.target.to_dict(),
            "model": self.model.to_dict(),
            "training": {key: value for key, value in model_to_dict(training).items() if key in keys},
            "optimizer": training.optimizer.name,
            "parts": [part.to_dict() for part in self.arm.parts],
        }
        return _digest(settings)

    @cached_property
    def first_phase(self) -> Cell | None:
        """The cell whose final weights this cell starts from; None for most streams. Cells with equal ones share it.

        For a `split` stream it is the first round, which does not depend on the start strategy of later rounds. For a
        `pretrain` stream it is one round on the source, without the arm's parts and training settings.
        """
        start = Component("random_init")
        if self.shares_first_round:
            arm = replace(self.arm, label=FIRST_PHASE, start=start)
            return replace(self, arm=arm, varied={}, rounds=1)
        source = self.pretraining and self.pretraining.source
        if not source:
            return None
        normalize = None if source.own_normalization else self.data_settings.normalize
        return replace(
            self,
            arm=Arm(FIRST_PHASE, start, (), source.training),
            varied={},
            data=source.data,
            data_settings=source.settings,
            stream=Component("pretrain", {"fraction": source.fraction, "order": "random"}),
            rounds=1,
            pretraining=None,
            target=Target(self.data, source.adapt, normalize),
        )

    @property
    def shares_first_round(self) -> bool:
        """Whether the first phase is this cell's own first round."""
        prepares = STRATEGIES.has_trait(self.arm.start.name, "prepares_first_round")
        shared = STREAMS.has_trait(self.stream.name, "shared_first_round")
        return shared and not prepares and self.arm.label != FIRST_PHASE

    @cached_property
    def digest(self) -> str:
        """A digest of all settings that decide the cell's numbers."""
        return _digest(self.settings)

    @cached_property
    def id(self) -> str:
        """The name of the cell's folder: arm, varied values, seed and digest."""
        words = [self.arm.label, *(f"{k.rpartition('.')[2]}={v}" for k, v in self.varied.items() if v is not None)]
        readable = re.sub(r"[^A-Za-z0-9=._-]+", "_", "-".join(words))[:80]
        return f"{readable}-seed{self.seed}-{self.digest}"


def _probe_settings(measured: MeasuredProbe) -> str | dict[str, Any]:
    options = {**measured.probe.options, **({"every": measured.every} if measured.every > 1 else {})}
    return {measured.probe.name: options} if options else measured.probe.name


def _digest(settings: Mapping[str, Any]) -> str:
    return hashlib.blake2b(
        json.dumps(drop_none(settings), sort_keys=True, default=str).encode(), digest_size=5
    ).hexdigest()


def plan(raw: Mapping[str, Any], where: str) -> tuple[Scenario, list[Cell]]:
    """Validates a scenario with all its axes and lists its cells, seed by seed, so that early results are paired.

    Args:
        raw: Content of the scenario file.
        where: Name of the scenario in error messages.

    Returns:
        The scenario with the first value of each axis, and all cells, which are reduced if it is a rehearsal.

    Raises:
        WarmstartError: The scenario or a value of an axis is invalid.
    """
    axes = axes_of(raw, where)
    combinations = list(itertools.product(*(axis.values for axis in axes)))
    scenarios = [_scenario_at(raw, axes, combination, where) for combination in combinations]
    cells: dict[str, Cell] = {}
    for seed in scenarios[0].header.seeds:
        for combination, scenario in zip(combinations, scenarios, strict=True):
            for arm in scenario.arms:
                cell = Cell(
                    scenario.header.name, arm, seed, _varied_values(axes, combination, arm.label), scenario.data,
                    scenario.data_settings, scenario.stream, scenario.rounds, scenario.model,
                    scenario.measure, scenario.pretraining,
                )  # fmt: skip
                same = cells.setdefault(cell.digest, cell)
                for name, value in cell.varied.items():  # other arms' axes repeat a cell, with None
                    if value != same.varied[name]:
                        both = f"{quoted(same.varied[name])} and {quoted(value)}"
                        raise scenario_error(
                            where, f"vary: {name}", f"{both} come to the same for strategy '{arm.label}'"
                        )
    planned = list(cells.values())
    return _with_common_metric(scenarios), reduced(planned) if scenarios[0].header.rehearsal else planned


def first_phases(cells: Iterable[Cell]) -> list[Cell]:
    """The first phases of the cells, without duplicates."""
    return list({phase.id: phase for cell in cells if (phase := cell.first_phase)}.values())


def _with_common_metric(scenarios: Sequence[Scenario]) -> Scenario:
    """The first scenario; its metric is the test accuracy if the scenarios' metrics differ."""
    first = scenarios[0]
    if all(each.metric == first.metric for each in scenarios):
        return first
    return replace(first, header=first.header.model_copy(update={"metric": "test_accuracy"}))


def _varied_values(axes: Sequence[Axis], combination: Sequence[Any], label: str) -> dict[str, Any]:
    """The value of each axis for one arm, by column; None for axes of other arms."""
    varied = dict.fromkeys(axis.column for axis in axes)
    for axis, value in zip(axes, combination, strict=True):
        if axis.arm in (None, label):
            varied[axis.column] = str(value) if isinstance(value, (list, dict)) else value
    return varied


def _scenario_at(raw: Mapping[str, Any], axes: Sequence[Axis], combination: Sequence[Any], where: str) -> Scenario:
    """Parses the scenario with one value of each axis."""
    combined = {key: to_plain_values(value) for key, value in raw.items() if key != "vary"}
    settings = [
        (key, setting, axis.key)
        for axis, value in zip(axes, combination, strict=True)
        for key, setting in axis.settings(value).items()
    ]
    settings.sort(key=lambda each: each[0].count("."))  # a section before its keys
    for key, setting, axis_key in settings:
        try:
            set_path(combined, key, to_plain_values(setting))
        except ValueError as error:
            raise scenario_error(where, f"vary.{axis_key}", str(error)) from None
    try:
        return parse(combined, where)
    except WarmstartError:
        _check_without_axes(raw, axes, where)
        note = ", ".join(f"{axis.key}: {quoted(value)}" for axis, value in zip(axes, combination, strict=True))
        parse(combined, f"{where} (vary {note})")
        raise


def _check_without_axes(raw: Mapping[str, Any], axes: Sequence[Axis], where: str) -> None:
    """Raises the errors that do not come from an axis, if the scenario is complete without its axes."""
    if not any(axis.bundled for axis in axes):  # a bundle may set required keys
        parse({**raw, "vary": None}, where)


def import_user_modules(cells: Iterable[Cell], where: str) -> None:
    """Imports the user's objects that the cells name as `module:attribute`, so that errors come before training.

    Raises:
        WarmstartError: An object cannot be imported, or does not accept its options.
    """
    for cell in cells:
        source = cell.pretraining and cell.pretraining.source
        components = [(DATASETS, cell.data), (STREAMS, cell.stream), (MODELS, cell.model), (STRATEGIES, cell.arm.start)]
        components += [(PROBES, each.probe) for each in (*cell.measure.each_epoch, *cell.measure.each_round)]
        if source:
            components.append((DATASETS, source.data))
        for registry, component in components:
            if component.is_user_defined:
                check_user_component(component, registry, where)


def resolved_scenario(raw: Mapping[str, Any], scenario: Scenario) -> dict[str, Any]:
    """The scenario with every default written out, as plain values, as stored in a run's scenario.yaml.

    It is a valid scenario file and gives the same cells. Defaults that depend on a varied name are left out.

    Args:
        raw: The scenario that was passed to `plan`.
        scenario: The scenario that `plan` returned.
    """
    header = model_to_dict(scenario.header)
    vary = objects_to_names(to_plain_values(raw.get("vary")) or {})
    keys = settings_on(vary)

    def section(key: str, component: Component, settings: Mapping[str, Any]) -> dict[str, Any]:
        if not {key, f"{key}.name"} & set(keys):
            return {"name": component.name, **settings, **component.options}
        written = objects_to_names(to_plain_values(raw[key])) if isinstance(raw.get(key), Mapping) else {}
        return {"name": component.name, **drop_none(settings), **written}

    return {
        **{key: header[key] for key in ("name", "title", "reproduces")},
        **({"rehearsal": True} if header["rehearsal"] else {}),
        "data": section("data", scenario.data, model_to_dict(scenario.data_settings)),
        "stream": section("stream", scenario.stream, {"rounds": scenario.rounds})
        | _resolved_first_phase(raw, scenario),
        "model": section("model", scenario.model, {}),
        "training": model_to_dict(scenario.training),
        "strategies": {arm.label: _resolved_arm(arm, raw["strategies"][arm.label], vary) for arm in scenario.arms},
        "seeds": header["seeds"],
        **({"vary": vary} if vary else {}),
        "measure": header["measure"],
        "metric": scenario.metric,
    }


def _resolved_first_phase(raw: Mapping[str, Any], scenario: Scenario) -> dict[str, Any]:
    """The pretraining keys of `stream`. The source is kept as written, because its defaults depend on the target."""
    first = scenario.pretraining
    if first is None:
        return {}
    checkpoint = {"checkpoint": str(first.checkpoint)} if first.checkpoint else {}
    written = to_plain_values(raw["stream"]).get("source") if isinstance(raw.get("stream"), Mapping) else None
    return {"head": first.head, **checkpoint, **({"source": objects_to_names(written)} if written else {})}


def _resolved_arm(arm: Arm, raw: Any, vary: Mapping[str, Any]) -> dict[str, Any]:
    written = to_plain_values(raw) if isinstance(raw, Mapping) else {}
    if f"strategies.{arm.label}.start" in vary:
        return written
    # The arm's training settings are kept as written, because an axis may set the rest.
    return {
        "start": arm.start.name,
        **arm.start.options,
        **{part.name: dict(part.options) for part in arm.parts},
        **({"training": written["training"]} if written.get("training") else {}),
    }
