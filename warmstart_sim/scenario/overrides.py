"""Applies the changes of a command line, or of a call from Python, to a scenario."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from warmstart_sim.datasets.validation import with_numbered_labels
from warmstart_sim.errors import WarmstartError, unknown
from warmstart_sim.registry import STRATEGIES
from warmstart_sim.results.columns import column_of
from warmstart_sim.scenario.axes import axes_of, column
from warmstart_sim.scenario.named_results import with_claims_that_apply
from warmstart_sim.scenario.planning import plan
from warmstart_sim.scenario.rehearsal import rehearsal
from warmstart_sim.scenario.yaml_files import load, mapping_or_empty, set_values, split_key, with_base
from warmstart_sim.types import Dataset


def prepare_scenario(
    scenario: str | Path | Mapping[str, Any], *, rehearse: bool = False, **changes: Any
) -> tuple[dict[str, Any], str]:
    """A scenario with changes, as a rehearsal if asked for, and its name in errors. See `warmstart_sim.run`.

    Args:
        scenario: A file, the name of a bundled scenario, or a mapping.
        rehearse: Whether to reduce it to a rehearsal.
        changes: As in `apply_overrides`.

    Raises:
        WarmstartError: A change names something that does not exist, or would have no effect.
    """
    raw, where = apply_overrides(scenario, **changes)
    if rehearse:
        plan(raw, where)  # an error is reported for the file itself, not for its rehearsal
        raw = rehearsal(raw)
    return raw, where


def apply_overrides(
    scenario: str | Path | Mapping[str, Any],
    *,
    set: Iterable[str] = (),
    strategies: Mapping[str, Any] | Sequence[Any] | None = None,
    seeds: Iterable[int] | None = None,
    model: Any = None,
    data: Any = None,
) -> tuple[dict[str, Any], str]:
    """The raw scenario with all changes, and its name in errors.

    Args:
        scenario: A file, the name of a bundled scenario, or a mapping.
        set: Settings as "KEY=VALUE".
        strategies: The strategies to run; as in `choose_strategies`.
        seeds: The seeds to run.
        model: Replaces the model.
        data: Replaces the data set.

    Raises:
        WarmstartError: A change names something that does not exist, or would have no effect.
    """
    where = "scenario" if isinstance(scenario, Mapping) else str(scenario)
    raw = in_file = with_base(scenario, where) if isinstance(scenario, Mapping) else load(scenario)
    assignments = list(set)
    raw = set_values(raw, assignments)
    if seeds is not None:
        raw["seeds"] = list(seeds)
    if model is not None:
        raw["model"] = model
    if data is not None:
        raw["data"] = data
    raw = _with_own_data(raw)
    if strategies is not None:
        raw = choose_strategies(raw, strategies)
    asked_for = [key for key, value in (("model", model), ("data", data)) if value is not None]
    asked_for += [each.partition("=")[0].strip() for each in assignments]
    if asked_for:
        raw = _without_axes_on(asked_for, raw, where)
    return with_claims_that_apply(_without_lost_axes(in_file, raw), in_file, where), where


def _without_axes_on(keys: Sequence[str], raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`raw` without the axes that vary one of `keys`, because its new value replaces them.

    Raises:
        WarmstartError: An axis sets the whole section that a key leads into, so that the key would have no effect.
    """
    vary = dict(raw.get("vary") or {})
    for axis in axes_of(raw, where):
        for key in keys:
            if {key, f"{key}.name"} & set(axis.keys):
                vary.pop(axis.key, None)
            elif whole := [each for each in axis.keys if key.startswith(f"{each}.")]:
                raise WarmstartError(
                    f"{where}: {key}: would have no effect, because `vary.{axis.key}` sets all of `{whole[0]}`; "
                    f"change `vary.{axis.key}` instead"
                )
    return {**raw, "vary": vary}


def _without_lost_axes(before: Mapping[str, Any], raw: dict[str, Any]) -> dict[str, Any]:
    """`raw` without the figures over axes, and the keys of `select`, that were in `vary` before the changes only."""
    keys, left = (mapping_or_empty(each.get("vary")) for each in (before, raw))
    columns = {column_of(column(before, key)) for key in keys} - {column_of(column(raw, key)) for key in left}
    if isinstance(raw.get("figures"), list) and columns:
        kept = [
            each for each in raw["figures"] if not {column_of(column(before, key)) for key in _words(each)} & columns
        ]
        raw = {**raw, "figures": kept}
    if isinstance(select := raw.get("select"), Mapping) and isinstance(select.get("over"), list):
        over = [key for key in select["over"] if key in left or key not in keys]
        raw = {**raw, "select": {**select, "over": over} if over else None}
    return raw


def _words(value: Any) -> Iterator[str]:
    """The texts in the keys and values of a part of a scenario."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (Mapping, list)):
        for each in [*value, *(value.values() if isinstance(value, Mapping) else ())]:
            yield from _words(each)


def _with_own_data(value: Any, key: str = "") -> Any:
    """A scenario, or a value in it at `key`, in which every `Dataset` is replaced by a function that returns it."""
    if isinstance(value, Dataset):
        value = with_numbered_labels(value)
        own = _OwnData(value, value.digest())
        return own if key.rpartition(".")[2] == "name" else {"name": own}
    if isinstance(value, Mapping):
        return {name: _with_own_data(each, str(name)) for name, each in value.items()}
    return value


def choose_strategies(raw: Mapping[str, Any], strategies: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    """`raw` with these strategies instead of its own, and without the axes of strategies that are left out.

    Args:
        raw: The scenario.
        strategies: Labels and arms, or a list of names (the scenario's own arms first), functions and strategy objects.
    """
    before, vary = mapping_or_empty(raw.get("strategies")), raw.get("vary")
    chosen = _chosen(strategies, before)
    if isinstance(vary, Mapping):
        left_out = [["strategies", label] for label in before if label not in chosen]
        vary = {key: values for key, values in vary.items() if split_key(raw, key)[:2] not in left_out}
    return {**raw, "strategies": chosen, "vary": vary}


def _chosen(strategies: Mapping[str, Any] | Sequence[Any], in_file: Mapping[str, Any]) -> dict[str, Any]:
    """The labels and arms of a choice; see `choose_strategies`."""
    if isinstance(strategies, Mapping):
        return dict(strategies)
    chosen: dict[str, Any] = {}
    for each in strategies:
        if not isinstance(each, str):
            registered = (name for name in STRATEGIES.names() if type(each) is STRATEGIES.get(name))
            label = next(registered, getattr(each, "__name__", type(each).__name__))
        elif each not in in_file and each not in STRATEGIES.names():
            there_are = dict.fromkeys([*in_file, *STRATEGIES.names()])
            raise WarmstartError(f"--strategies: {unknown('strategy', each, there_are)}")
        else:
            label = each
        if label in chosen:
            raise WarmstartError(f"strategies: '{label}' is there twice; give a mapping with a label for each")
        chosen[label] = in_file.get(each) if isinstance(each, str) else each
    return chosen


@dataclass(frozen=True)
class _OwnData:
    """A function that returns a user's data set; the digest is part of its identity, so other data are other cells."""

    dataset: Dataset = field(repr=False)
    digest: str

    def __call__(self, root: Path, seed: int) -> Dataset:
        return self.dataset
