"""Writes out a scenario with all its defaults, as a run's scenario.yaml and `check --resolved` have it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from warmstart_sim.registry import PARTS
from warmstart_sim.results.store import drop_none
from warmstart_sim.scenario.axes import axes_of
from warmstart_sim.scenario.component import Component, model_to_dict, objects_to_names
from warmstart_sim.scenario.parsing import Scenario
from warmstart_sim.scenario.section_checks import Arm
from warmstart_sim.scenario.yaml_files import mapping_or_empty, to_plain_values


def resolved_scenario(raw: Mapping[str, Any], scenario: Scenario) -> dict[str, Any]:
    """The scenario with every default written out, as plain values, as stored in a run's scenario.yaml.

    It is a valid scenario file and gives the same cells. Defaults that depend on a varied name are left out.

    Args:
        raw: The scenario that was passed to `plan`.
        scenario: The scenario that `plan` returned.
    """
    header = model_to_dict(scenario.header)
    axes = axes_of(raw, scenario.header.name)
    varied = {key for axis in axes for key in axis.keys}
    written = objects_to_names(to_plain_values(raw))

    def section(key: str, component: Component, settings: Mapping[str, Any]) -> dict[str, Any]:
        if not {key, f"{key}.name"} & varied:
            return {"name": component.name, **settings, **component.options}
        return {"name": component.name, **drop_none(settings), **mapping_or_empty(written.get(key))}

    started = drop_none({"first_phase_epochs": scenario.first_phase_epochs})
    stream = section("stream", scenario.stream, {"rounds": scenario.rounds, **started})
    if scenario.changes and "stream" not in varied:
        stream["changes"] = {change.name: dict(change.options) for change in scenario.changes}
    if first := scenario.pretraining:
        # The source is kept as written, because its defaults depend on the target.
        source = mapping_or_empty(written.get("stream")).get("source")
        checkpoint = first.checkpoint and str(first.checkpoint)
        stream |= {
            "head": first.head,
            **drop_none({"checkpoint": checkpoint, "weights": first.weights, "source": source}),
        }
    return {
        **{key: header[key] for key in ("name", "title", "reproduces")},
        **({"rehearsal": True} if header["rehearsal"] else {}),
        "data": section("data", scenario.data, model_to_dict(scenario.data_settings)),
        "stream": stream,
        "model": section("model", scenario.model, {}),
        "training": _resolved_training(scenario, mapping_or_empty(written.get("training")), varied),
        **({"parts": written["parts"]} if written.get("parts") else {}),
        "strategies": {
            arm.label: _resolved_arm(arm, written["strategies"][arm.label], varied) for arm in scenario.arms
        },
        "seeds": header["seeds"],
        **({"vary": {axis.key: objects_to_names(axis.written) for axis in axes}} if axes else {}),
        "measure": header["measure"],
        **({"analyze": objects_to_names(header["analyze"])} if header["analyze"] else {}),
        **({"select": header["select"]} if header["select"] else {}),
        **({"claims": header["claims"]} if header["claims"] else {}),
        **{key: written[key] for key in ("figures", "standard_figures") if written.get(key) is not None},
        "metric": scenario.metric,
    }


def _resolved_training(scenario: Scenario, written: Mapping[str, Any], varied: Collection[str]) -> dict[str, Any]:
    """The settings of the first round; those of later rounds as written, because an axis may set the rest.

    `until` is left out where it follows from a budget of stages that is varied.
    """
    first = model_to_dict(scenario.training.in_round(0))
    if {"stream.stages", "stream.epochs", "stream.steps"} & set(varied) and "until" not in written:
        del first["until"]
    return first | ({"later_rounds": written["later_rounds"]} if written.get("later_rounds") else {})


def _resolved_arm(arm: Arm, value: Any, varied: Collection[str]) -> Mapping[str, Any]:
    written = mapping_or_empty(value)
    options = {part.name: dict(part.options) for part in arm.parts}
    if f"strategies.{arm.label}.start" in varied:
        return written
    # The arm's training settings and model are kept as written, because an axis may set the rest.
    return {
        "start": arm.start.name,
        **arm.start.options,
        **drop_none({"stages": arm.stages}),
        **{name: options.get(name) for name in PARTS.names() if name in written},
        **({"model": written["model"]} if written.get("model") else {}),
        **({"training": written["training"]} if written.get("training") else {}),
    }
