"""Writes out a scenario with all its defaults, as a run's scenario.yaml and `check --resolved` have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from warmstart_sim.results.store import drop_none
from warmstart_sim.scenario.axes import settings_on
from warmstart_sim.scenario.component import Component, model_to_dict, objects_to_names
from warmstart_sim.scenario.parsing import Arm, Scenario
from warmstart_sim.scenario.yaml_files import to_plain_values


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
