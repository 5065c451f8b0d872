"""Says in which settings a run differs from another, or from the file that has a paper's own settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from warmstart_sim.scenario.planning import plan
from warmstart_sim.scenario.resolved import resolved_scenario
from warmstart_sim.scenario.yaml_files import bundled_scenarios, load

# What does not change a number.
ABOUT = ("name", "title", "reproduces", "claims", "figures", "standard_figures", "analyze", "measure", "metric")
ALL_WITHOUT = ("train_samples", "test_samples", "rounds")  # without a number these are all
MOST_VALUES = 8  # of a list, in a line


def changes_from_paper(scenario: Mapping[str, Any]) -> list[str]:
    """The settings of a run that differ from those of the bundled file that reproduces the same rows.

    Args:
        scenario: The resolved scenario of the run.

    Returns:
        A line each, such as "data.train_samples: 10000 instead of all"; nothing if no bundled file reproduces its rows.
    """
    rows = set(scenario.get("reproduces") or ())
    files = [raw for raw in map(load, bundled_scenarios() if rows else ()) if rows & set(raw.get("reproduces") or ())]
    if not files:
        return []
    raw = max(files, key=lambda each: (each["name"] == scenario.get("name"), len(rows & set(each["reproduces"]))))
    return changes(resolved_scenario(raw, plan(raw, raw["name"])[0]), scenario)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The settings in which one resolved scenario differs from another; only of the arms that both have.

    >>> changes({"data": {"name": "cifar10"}, "seeds": [0, 1]}, {"data": {"name": "mnist"}, "seeds": [0]})
    ['data.name: mnist instead of cifar10', 'seeds: 0 instead of 0, 1']
    """
    old, new = _settings(before), _settings(after)
    arms = set(before.get("strategies", ())) & set(after.get("strategies", ()))
    bundled = _bundled(before) | _bundled(after)
    lines = []
    for key in {**old, **new}:
        if any(key == each or key.startswith(f"{each}.") for each in bundled):
            continue  # a label of a bundle stands for it
        if key.startswith("strategies.") and not any(key.startswith(f"strategies.{arm}.") for arm in arms):
            continue
        if (was := old.get(key)) != (now := new.get(key)):
            lines.append(f"{key}: {_words(key, now)} instead of {_words(key, was)}")
    return lines


def _settings(scenario: Mapping[str, Any]) -> dict[str, Any]:
    """All settings by dotted key; of an axis the list of its values, of a bundle that of its labels."""
    flat = _flat({key: value for key, value in scenario.items() if key not in (*ABOUT, "vary")})
    for key, values in (scenario.get("vary") or {}).items():
        flat[key] = list(values)
    return flat


def _bundled(scenario: Mapping[str, Any]) -> set[str]:
    """The keys that bundles set."""
    axes = (scenario.get("vary") or {}).values()
    labels = [settings for values in axes if isinstance(values, Mapping) for settings in values.values()]
    return {key for settings in labels if isinstance(settings, Mapping) for key in settings}


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{name}.")
        elif value is not None:
            flat[name] = list(value) if isinstance(value, (list, tuple)) else value
    return flat


def _words(key: str, value: Any) -> str:
    if value is None:
        return "all" if key.rpartition(".")[2] in ALL_WITHOUT else "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) if len(value) <= MOST_VALUES else f"{len(value)} values"
    return str(value)
