"""Formats names and numbers for the report: λ and σ, per cent, points, durations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from warmstart_sim.results.tables import Run, bundles

TARGET_FRACTION = "target fraction"
NAMES = {"lambda": "λ", "sigma": "σ", "lr": "learning rate", "fraction": "first fraction", "like": "data like"}


@dataclass(frozen=True)
class Table:
    """A table of text; the columns from `numbers` on hold numbers and are aligned to the right."""

    head: list[str]
    rows: list[list[str]]
    numbers: int


def axis_name(key: str) -> str:
    """The name of a varied key in the report.

    >>> axis_name("training.later_rounds.optimizer.lr")
    'later learning rate'

    >>> [axis_name(key) for key in ("lambda", "data.name", "training.optimizer.lr", "stream.chunk_size")]
    ['λ', 'data', 'learning rate', 'chunk size']
    """
    last = key.removesuffix(".name").rpartition(".")[2]
    later = "later " if ".later_rounds." in key else ""
    return later + NAMES.get(last, readable(last))


def axis_names(run: Run) -> dict[str, str]:
    """The name of each varied key of a run; empty for a bundle, whose labels need none."""
    keys = {axis: run.axis_keys[axis][0] for axis in run.axes}
    names = {axis: "" if axis in bundles(run.scenario) else axis_name(key) for axis, key in keys.items()}
    if run.pretrained and "stream_fraction" in names:
        names["stream_fraction"] = TARGET_FRACTION
    return names


def key_name(run: Run, key: str) -> str:
    """The name of a varied key, or of another column; empty for those whose values say what they are."""
    return "" if key in ("strategy", "y") else axis_names(run).get(key, axis_name(key))


def column_name(run: Run, column: str) -> str:
    """The name of a column of numbers in the report; that of a varied key is the key's."""
    if column == "difference":
        return f"difference from {readable(run.reference)}"
    return axis_names(run).get(column) or readable(column)


def readable(name: str) -> str:
    """A name from a file as words: underscores become spaces.

    >>> readable("warm_start")
    'warm start'
    """
    return name.replace("_", " ").strip()


def capitalized(name: str) -> str:
    """The same words at the start of a sentence.

    >>> capitalized("warm_start")
    'Warm start'
    """
    words = readable(name)
    return words[:1].upper() + words[1:]


def format_value(number: object) -> str:
    """A varied value, as short as possible.

    >>> format_value(0.5), format_value(1.0), format_value(1e-5), format_value("cifar10")
    ('0.5', '1', '1e-5', 'cifar10')
    """
    if not isinstance(number, (int, float)) or isinstance(number, bool):
        return str(number)
    return f"{number:g}".replace("e-0", "e-")


def setting_label(row: Mapping[Any, Any], names: Mapping[str, str]) -> str:
    """The varied values of a row, without the empty ones; `names` is from `axis_names`.

    >>> setting_label({"pair": "A to B", "lambda": 0.6, "lr": float("nan")}, {"pair": "", "lambda": "λ", "lr": "rate"})
    'A to B, λ = 0.6'
    """
    return ", ".join(axis_values(name, [row[axis]]) for axis, name in names.items() if not is_empty(row[axis]))


def axis_values(name: str, values: Sequence[object], last: str = "and") -> str:
    """A varied key with one or several values; a bundle, which has no name, is given by its labels alone.

    >>> axis_values("λ", [0, 0.2, 1.0]), axis_values("", ["A to B", "C to D"], "or")
    ('λ = 0, 0.2 and 1', 'A to B or C to D')
    """
    words = join_words([format_value(each) for each in values], last)
    return f"{name} = {words}" if name else words


def join_words(words: Sequence[str], last: str = "and") -> str:
    """Words as a list in a sentence.

    >>> join_words(["a"]), join_words(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def arm_label(run: Run, arm: str) -> str:
    """An arm's name with its lambda and sigma, unless they are varied: "shrink perturb (λ = 0.6, σ = 0.1)"."""
    options, vary = run.scenario["strategies"].get(arm) or {}, run.scenario.get("vary") or {}
    fixed = {key: NAMES[key] for key in ("lambda", "sigma") if key in options and f"strategies.{arm}.{key}" not in vary}
    values = setting_label(options, fixed)
    return f"{readable(arm)} ({values})" if values else readable(arm)


def is_empty(number: object) -> bool:
    """Whether a cell of a table is empty."""
    return number is None or (isinstance(number, float) and math.isnan(number))


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction in per cent.

    >>> percent(0.7283), percent(float("nan"))
    ('72.8 %', '–')
    """
    return "–" if is_empty(fraction) else f"{100 * fraction:.{digits}f} %"


def points(fraction: float, low: float = math.nan, high: float = math.nan) -> str:
    """A difference of accuracies in percentage points, with its interval if there is one.

    >>> points(-0.084, -0.092, -0.075), points(0.012), points(0.0004, -0.0002, 0.0010), points(-0.0, -0.01, 0.01)
    ('−8.4 [−9.2, −7.5]', '+1.2', '+0.04 [−0.02, +0.10]', '0.0 [−1.0, +1.0]')
    """
    numbers = [100 * number for number in (fraction, low, high) if not is_empty(number)]
    if is_empty(fraction):
        return "–"
    # Two digits where one digit would print a bound other than zero as zero.
    digits = 1 if all(abs(number) >= 0.1 or number == 0 for number in numbers) else 2
    first, *bounds = (signed(number, digits) for number in numbers)
    return f"{first} [{', '.join(bounds)}]" if bounds else first


def signed(number: float, digits: int) -> str:
    """A number with its sign; zero has none.

    >>> signed(1.25, 1), signed(-0.31, 1), signed(-0.04, 1)
    ('+1.2', '−0.3', '0.0')
    """
    text = f"{number:+.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def duration(seconds: float) -> str:
    """A time in seconds, minutes or hours, whichever reads best.

    >>> duration(12.34), duration(245), duration(3780), duration(0.0456)
    ('12.3 s', '4 min 05 s', '1 h 03 min', '0.046 s')
    """
    if is_empty(seconds):
        return "–"
    if seconds < 1:
        return f"{_two_digits(seconds)} s"
    if seconds < 119.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if seconds < 3600 else f"{minutes // 60} h {minutes % 60:02d} min"


def ratio(number: float, low: float = math.nan, high: float = math.nan) -> str:
    """A ratio of times, with its interval if there is one.

    >>> ratio(0.268, 0.241, 0.299), ratio(12.3)
    ('0.27 [0.24, 0.30]', '12')
    """
    if is_empty(number):
        return "–"
    first, *bounds = (_two_digits(each) for each in (number, low, high) if not is_empty(each))
    return f"{first} [{', '.join(bounds)}]" if bounds else first


def share(ratio: float) -> str:
    """A ratio in per cent for a sentence, without the sign.

    >>> share(0.268), share(0.0473), share(12.3)
    ('27', '4.7', '1,230')
    """
    return f"{100 * ratio:,.0f}" if ratio >= 0.1 else f"{100 * ratio:.2g}"


def _two_digits(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.2f}" if number >= 0.1 else f"{number:.2g}"


def p_value(p: float) -> str:
    """A p-value.

    >>> p_value(0.0000123), p_value(0.0416)
    ('< 0.001', '0.042')
    """
    return "–" if is_empty(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def margin_words(margin: float) -> str:
    """A margin of accuracy in points.

    >>> margin_words(0.01), margin_words(0.005)
    ('1 point', '0.5 points')
    """
    return f"{100 * margin:g} point{'' if margin == 0.01 else 's'}"


def share_of_cost(rows: Sequence[Mapping[str, Any]], whose: str) -> str:
    """The training that rows of a summary need relative to the reference, and which seconds say so.

    Where the only seconds are those measured beside other cells, the share of samples comes first, and where there are
    none it stands alone; empty if nothing is known.

    >>> row = {"time_ratio": 0.42, "samples_ratio": 0.51, "timing": "concurrent", "timed_pairs": 2}
    >>> share_of_cost([row], "random init's")
    "51 % of random init's training samples (42 % of its time, timed beside other cells)"
    >>> share_of_cost([{**row, "timing": "estimated"}], "random init's")
    "an estimated 42 % of random init's training time"
    """
    samples = _range_of_shares([row["samples_ratio"] for row in rows])
    of_samples = f"{samples} % of {whose} training samples" if samples else ""
    timed = [row for row in rows if not is_empty(row["time_ratio"])]
    kinds = {row["timing"] for row in timed}
    times = f"{_range_of_shares([row['time_ratio'] for row in timed])} %"
    if len(rows) == 1 and rows[0]["timed_pairs"] > 2 and not is_empty(rows[0]["time_ratio_low"]):
        times += f" ({share(rows[0]['time_ratio_low'])} to {share(rows[0]['time_ratio_high'])} %)"
    if not timed:
        return of_samples
    if "concurrent" in kinds and samples:
        return f"{of_samples} ({times} of its time, timed beside other cells)"
    text = f"{times} of {whose} training time"
    if "concurrent" in kinds:
        return f"{text} (timed beside other cells)"
    return f"{text} (timed alone)" if kinds == {"isolated"} else f"an estimated {text}"


def _range_of_shares(ratios: Sequence[float]) -> str:
    known = [ratio for ratio in ratios if not is_empty(ratio)]
    return " to ".join(dict.fromkeys(share(end(known)) for end in (min, max))) if known else ""


def survivors(row: Mapping[Any, Any], count: int) -> str:
    """How many seeds of a row of a summary `count` is, if some of them diverged or gave up; otherwise empty.

    >>> survivors({"seeds": 2, "diverged": 3, "gave_up": 0}, 2)
    'the 2 of 5 seeds that trained'
    """
    failed = row["gave_up"] + row["diverged"]
    return f"the {count} of {row['seeds'] + failed} seeds that trained" if failed else ""
