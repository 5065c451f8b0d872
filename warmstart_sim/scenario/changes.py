"""Says in which settings a run differs from another, or from the file that has a paper's own settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from warmstart_sim.scenario.planning import plan
from warmstart_sim.scenario.resolved import resolved_scenario
from warmstart_sim.scenario.yaml_files import bundled_scenarios, load

# What does not change a number.
ABOUT = ("name", "title", "reproduces", "claims", "figures", "standard_figures", "analyze", "measure", "metric")
MOST_VALUES = 8  # of a list, in a line


def changes_from_paper(scenario: Mapping[str, Any]) -> list[str]:
    """The settings of a run that differ from those of the bundled file that reproduces the same rows.

    Args:
        scenario: The resolved scenario of the run.

    Returns:
        A line each, such as "data.train_samples: 10000 instead of all"; nothing if no bundled file reproduces its rows.
    """
    rows = set(scenario.get("reproduces") or ())
    for name in bundled_scenarios() if rows else ():
        raw = load(name)
        if rows & set(raw.get("reproduces") or ()):
            return changes(resolved_scenario(raw, plan(raw, name)[0]), scenario)
    return []


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The settings in which one resolved scenario differs from another; only of the arms that both have.

    >>> changes({"data": {"name": "cifar10"}, "seeds": [0, 1]}, {"data": {"name": "mnist"}, "seeds": [0]})
    ['data.name: mnist instead of cifar10', 'seeds: 0 instead of 0, 1']
    """
    old, new = (_flat({key: value for key, value in each.items() if key not in ABOUT}) for each in (before, after))
    arms = set(before.get("strategies", ())) & set(after.get("strategies", ()))
    varied = {key for key in (*old, *new) if f"vary.{key}" in old or f"vary.{key}" in new}
    lines = []
    for key in {**old, **new}:
        if key in varied:
            continue
        if key.startswith("strategies.") and not any(key.startswith(f"strategies.{arm}.") for arm in arms):
            continue
        if (was := old.get(key)) != (now := new.get(key)):
            lines.append(f"{key}: {_words(now)} instead of {_words(was)}")
    return lines


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping) and above != "vary.":
            flat |= _flat(value, f"{name}.")
        elif value is not None:
            flat[name] = list(value) if isinstance(value, (Mapping, list, tuple)) else value
    return flat


def _words(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) if len(value) <= MOST_VALUES else f"{len(value)} values"
    return str(value)
