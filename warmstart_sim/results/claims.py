"""Claims: sentences about a run, such as "warm_start below random_init in the last round", checked with statistics.

    CLAIM      = COMPARISON | CLOSENESS | GAP | TREND, then [PLACE], then [FILTER]
    COMPARISON = SIDE below|above SIDE
    CLOSENESS  = SIDE within NUMBER of SIDE              (in points for accuracies, else in the column's unit)
    GAP        = gap of ARM [to ARM] [in COLUMN] shrinks|grows as COLUMN grows
    TREND      = SIDE falls|rises as COLUMN grows
    SIDE       = [COLUMN of] ARM                         (the column: by default the run's metric)
    ARM        = LABEL, or LABEL (KEY=VALUE, ...)        (one setting of an arm with varied options)
    PLACE      = in the first|last round | in round N | over all rounds | in the first|last epoch
    FILTER     = where KEY = VALUE [and KEY = VALUE ...] (columns of the tables)

An accuracy is by default that of the last round; seconds, epochs, steps and FLOPs are by default summed over all
rounds. Epochs are those of the last round. The gap is the other arm (by default the run's reference) minus the arm.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from warmstart_sim.errors import WarmstartError, unknown
from warmstart_sim.results.columns import column_of

EXAMPLES = "'warm_start below random_init in the last round', 'gap of warm_start shrinks as stream.fraction grows'"
# What rises within a cell; any other column of a trend is an axis.
WITHIN_CELL = ("round", "train_samples", "epoch")
_ARM = r"(?:[^\s()]+(?:\s*\([^()]*\))?)"
_SIDE = rf"(?:[^\s()]+ of {_ARM}|{_ARM})"
_PATTERNS = {
    "comparison": rf"(?P<left>{_SIDE}) (?P<relation>below|above) (?P<right>{_SIDE})",
    "closeness": rf"(?P<left>{_SIDE}) (?P<relation>within) (?P<number>[\d.]+) of (?P<right>{_SIDE})",
    "gap": rf"gap of (?P<left>{_ARM})(?: to (?P<right>{_ARM}))?(?: in (?P<column>\S+))? "
    r"(?P<relation>shrinks|grows) as (?P<along>\S+) grows",
    "trend": rf"(?P<left>{_SIDE}) (?P<relation>falls|rises) as (?P<along>\S+) grows",
}
_PLACE = r"(?: (?P<place>in the (?:first|last) (?:round|epoch)|in round \d+|over all rounds))?"
_FILTER = r"(?: where (?P<filter>.+))?"
_GRAMMAR = {kind: re.compile(rf"{pattern}{_PLACE}{_FILTER}") for kind, pattern in _PATTERNS.items()}


@dataclass(frozen=True)
class Side:
    """A column of an arm, or of one setting of it.

    Attributes:
        arm: The arm's label.
        column: The column, or None for the run's metric.
        setting: Values of the arm's varied options, by column.
    """

    arm: str
    column: str | None = None
    setting: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """A parsed claim.

    Attributes:
        text: The sentence.
        relation: below, above, within, shrinks, grows, falls or rises.
        left: What the claim is about.
        right: What it is compared with; None in a trend, and in a gap to the run's reference.
        number: The tolerance of "within".
        along: The column that grows, in a gap or a trend.
        place: Where in the run; None for the default.
        where: Values that rows must have, by column.
    """

    text: str
    relation: str
    left: Side
    right: Side | None = None
    number: float = 0.0
    along: str | None = None
    place: str | None = None
    where: Mapping[str, str] = field(default_factory=dict)


def parse_claim(text: str) -> Claim:
    """Parses a claim.

    Raises:
        ValueError: It is not in the grammar.

    >>> parse_claim("train_seconds of warm_start below random_init").left
    Side(arm='warm_start', column='train_seconds', setting={})
    """
    words = " ".join(text.split())
    for kind in ("gap", "closeness", "comparison", "trend"):
        if found := _GRAMMAR[kind].fullmatch(words):
            parts = {key: value for key, value in found.groupdict().items() if value is not None}
            left = _side(parts["left"])
            if "column" in parts:
                left = Side(left.arm, parts["column"], left.setting)
            right = _side(parts["right"]) if "right" in parts else None
            if right is not None and right.column is None:  # "train_seconds of a below b"
                right = Side(right.arm, left.column, right.setting)
            return Claim(
                text, parts["relation"], left, right, float(parts.get("number", 0)),
                column_of(parts["along"]) if "along" in parts else None, parts.get("place"),
                _settings(parts["filter"], " and ") if "filter" in parts else {},
            )  # fmt: skip
    raise ValueError(f"'{text}' is no claim (such as {EXAMPLES})")


def _side(text: str) -> Side:
    column, _, arm = text.rpartition(" of ") if " of " in text.partition("(")[0] else ("", "", text)
    label, _, setting = arm.partition("(")
    return Side(label.strip(), column or None, _settings(setting.rstrip(") "), ",") if setting else {})


def _settings(text: str, separator: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(separator)]
    if not all(equals and key.strip() and value.strip() for key, equals, value in pairs):
        raise ValueError(f"'{text}': expected KEY = VALUE")
    return {column_of(key.strip()): value.strip() for key, _, value in pairs}


def check_names(claim: Claim, arms: Collection[str], columns: Collection[str], axes: Collection[str]) -> None:
    """Checks that arms, columns and varied values of a claim exist.

    Args:
        claim: The claim.
        arms: The labels of all arms.
        columns: The numeric columns that the tables will have, or patterns such as "weight_norm_*".
        axes: The columns of varied values.

    Raises:
        WarmstartError: A name does not exist; the message has the nearest one.
    """
    for side in filter(None, (claim.left, claim.right)):
        if side.arm not in arms:
            raise WarmstartError(f"'{claim.text}': {unknown('strategy', side.arm, arms)}")
        if side.column is not None and not any(fnmatchcase(side.column, each) for each in columns):
            raise WarmstartError(f"'{claim.text}': {unknown('column', side.column, columns)}")
    if claim.along is not None and claim.along not in (*axes, *WITHIN_CELL):
        raise WarmstartError(f"'{claim.text}': {unknown('varied value', claim.along, (*axes, *WITHIN_CELL))}")
    known = (*axes, "dataset", "round")
    for key in (*claim.where, *claim.left.setting, *(claim.right.setting if claim.right else ())):
        if key not in known:
            raise WarmstartError(f"'{claim.text}': {unknown('varied value', key, known)}")
