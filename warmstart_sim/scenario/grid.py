"""A scenario as a grid: shrink-perturb at every lambda and sigma, and any other settings, beside random init."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from warmstart_sim.errors import WarmstartError
from warmstart_sim.scenario.overrides import apply_overrides, choose_strategies
from warmstart_sim.scenario.planning import plan
from warmstart_sim.scenario.rehearsal import rehearsal
from warmstart_sim.scenario.yaml_files import mapping_or_empty, parse_yaml, quoted

REFERENCE, VARIED = "random_init", "shrink_perturb"
MOST_VALUES = 10_000  # of one axis; more are a typing error
RANGE = re.compile(r"[^:,\[\]{}'\"]+:[^:,\[\]{}'\"]+:[^:,\[\]{}'\"]+")
SPELLING = "expected START:STOP:STEP or values with commas, such as 0:1:0.2 or 0,1e-4,0.1"


def prepare_grid(
    scenario: str | Path | Mapping[str, Any],
    *,
    lam: str | Iterable[float] | None = None,
    sigma: str | Iterable[float] | None = None,
    vary: Mapping[str, Iterable[Any]] | None = None,
    strategies: Mapping[str, Any] | Sequence[Any] | None = None,
    rehearse: bool = False,
    **changes: Any,
) -> tuple[dict[str, Any], str]:
    """A scenario as a grid, and its name in errors. See `warmstart_sim.grid`.

    Args:
        scenario: A file, the name of a bundled scenario, or a mapping.
        lam: Values of lambda, or text that `numbers` reads.
        sigma: Values of sigma, or text that `numbers` reads.
        vary: Dotted keys of other settings, and their values.
        strategies: What runs beside random init and shrink-perturb, or which of several shrink-perturb arms is varied.
        rehearse: Whether to reduce the grid to a rehearsal.
        changes: Other changes, as in `apply_overrides`.

    Raises:
        WarmstartError: A change names something that does not exist, or there is nothing to vary.
    """
    axes = {"lambda": _values(lam, "--lambda"), "sigma": _values(sigma, "--sigma")}
    own = {key: _listed(values, f"--vary {key}") for key, values in (vary or {}).items()}
    if not own and not any(axes.values()):
        raise WarmstartError("a grid needs at least one of --lambda, --sigma and --vary, such as --lambda 0:1:0.2")
    raw, where = apply_overrides(scenario, **changes)
    named = {} if strategies is None else choose_strategies(raw, strategies)["strategies"]
    arms, varied = _arms(raw, named)
    raw = choose_strategies(raw, arms)
    asked = {f"strategies.{varied}.{option}": values for option, values in axes.items() if values}
    if twice := asked.keys() & own.keys():
        key = min(twice)
        raise WarmstartError(f"--vary {key}: is varied by --{key.rpartition('.')[2]} as well; give one of them")
    kept = {
        key: values for key, values in mapping_or_empty(raw.get("vary")).items() if key not in asked and key not in own
    }
    name = {"name": f"{raw['name']}-grid"} if "name" in raw else {}
    raw = {**raw, **name, "vary": {**asked, **own, **kept}}
    try:
        plan(raw, where)  # an error is reported for the file itself, not for its rehearsal
    except WarmstartError as error:
        options = [f"--{key.rpartition('.')[2]}" for key in asked if f"vary {key}: " in str(error)]
        raise type(error)(": ".join([*options, str(error)])) from error
    return (rehearsal(raw) if rehearse else raw), where


def numbers(text: str, option: str) -> list[float]:
    """The numbers that an option's text means: a list with commas, or START:STOP:STEP, which includes STOP.

    Steps are decimal, so that no rounding shows: 0.6 and not 0.6000000000000001.

    Args:
        text: Such as "0:1:0.2" or "0,1e-4,1".
        option: What to name in errors.

    Raises:
        WarmstartError: It is neither, no step ends at STOP, or a value is there twice.

    >>> numbers("0:1:0.2", "--lambda"), numbers("0,1e-4,1", "--sigma")
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.0, 0.0001, 1.0])
    """
    words = [word.strip() for word in text.split(":" if ":" in text else ",")]
    try:
        given = [Decimal(word) for word in words]
    except InvalidOperation:
        raise WarmstartError(f"{option} '{text}': {SPELLING}") from None
    if not all(number.is_finite() for number in given) or (":" in text and len(given) != 3):
        raise WarmstartError(f"{option} '{text}': {SPELLING}")
    found = [float(number) for number in (_steps(given, text, option) if ":" in text else given)]
    _each_once(found, option)
    return found


def _steps(ends: Sequence[Decimal], text: str, option: str) -> list[Decimal]:
    start, stop, step = ends
    if step == 0 or (stop - start) / step < 0:
        raise WarmstartError(f"{option} '{text}': steps of {step} from {start} never come to {stop}")
    count, rest = divmod(stop - start, step)
    if count >= MOST_VALUES:
        raise WarmstartError(f"{option} '{text}': means more than {MOST_VALUES:,} values")
    if rest:
        last = start + count * step
        raise WarmstartError(f"{option} '{text}': steps of {step} from {start} pass over {stop}, the last is {last}")
    return [start + index * step for index in range(int(count) + 1)]


def assignments(texts: Iterable[str]) -> dict[str, list[Any]]:
    """The axes that `--vary KEY=V1,V2` asks for; the values are YAML, or a range of numbers as `numbers` reads it.

    Raises:
        WarmstartError: A text without "=" or without values, or a key that is there twice.

    >>> assignments(["training.optimizer.lr=0.01,1e-3", "data.name=cifar10,svhn"])
    {'training.optimizer.lr': [0.01, 0.001], 'data.name': ['cifar10', 'svhn']}
    """
    found: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, values = (part.strip() for part in text.partition("="))
        option = f"--vary {text}"
        if not (equals and key and values):
            raise WarmstartError(f"{option}: expected KEY=V1,V2, such as training.optimizer.lr=0.01,0.001")
        if key in found:
            raise WarmstartError(f"{option}: {key} is given twice; give all its values at once")
        if RANGE.fullmatch(values):
            found[key] = numbers(values, f"--vary {key}")
            continue
        try:
            found[key] = _listed(parse_yaml(f"[{values}]"), f"--vary {key}")
        except ValueError as error:
            raise WarmstartError(f"{option}: {error}") from None
    return found


def _values(given: str | Iterable[float] | None, option: str) -> list[float] | None:
    if given is None:
        return None
    if isinstance(given, str):
        return numbers(given, option)
    found = _listed(given, option)
    try:
        return [float(value) for value in found]  # 1 and 1.0 name the same cell
    except (TypeError, ValueError):
        raise WarmstartError(f"{option}: found {quoted(found)} (allowed: numbers)") from None


def _listed(values: Iterable[Any], option: str) -> list[Any]:
    """Values from Python or YAML as a list, each once."""
    if isinstance(values, (str, Mapping)) or not isinstance(values, Iterable):
        raise WarmstartError(f"{option}: found {quoted(values)} (allowed: one or more values)")
    found = list(values)
    if not found:
        raise WarmstartError(f"{option}: there is no value (allowed: one or more)")
    _each_once(found, option)
    return found


def _each_once(values: Sequence[Any], option: str) -> None:
    twice = [value for index, value in enumerate(values) if value in values[:index]]
    if twice:
        raise WarmstartError(f"{option}: {quoted(twice[0])} is there twice; each value must be given once")


def _arms(raw: Mapping[str, Any], named: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The grid's arms, random init first, and the label of the one that is varied.

    That is, among arms that start from shrink-perturb: one that was named, else the one with the strategy's own name,
    else the first.
    """
    in_file = mapping_or_empty(raw.get("strategies"))
    random = [label for label, arm in {**in_file, **named}.items() if _start(label, arm) == REFERENCE]
    plainest = min(random, key=lambda label: len(mapping_or_empty(in_file.get(label))), default=REFERENCE)
    shrinking = [label for label, arm in named.items() if _start(label, arm) == VARIED]
    shrinking = shrinking or [label for label, arm in in_file.items() if _start(label, arm) == VARIED]
    varied = VARIED if VARIED in shrinking or not shrinking else shrinking[0]
    every = {**in_file, **named}
    chosen = dict.fromkeys([plainest, *named, varied])
    return {label: every.get(label) for label in chosen}, varied


def _start(label: str, arm: Any) -> Any:
    """The strategy that an arm starts from; None for functions and objects from Python, which have no options here."""
    if arm is None or isinstance(arm, Mapping):
        return mapping_or_empty(arm).get("start", label)
    return arm if isinstance(arm, str) else None
