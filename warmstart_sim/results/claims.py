"""Claims: sentences about a run, such as "warm_start below random_init in the last round", checked with statistics.

    CLAIM      = COMPARISON | CLOSENESS | GAP | TREND, then [PLACE], then [FILTER]
    COMPARISON = SIDE below|above SIDE
    CLOSENESS  = SIDE within NUMBER[ %] of SIDE          (in points for accuracies, else in the column's unit; or in %)
    GAP        = gap of ARM [to ARM] [in COLUMN] shrinks|grows as COLUMN grows
    TREND      = SIDE falls|rises as COLUMN grows
    SIDE       = [COLUMN of] ARM                         (the column: by default the run's metric)
    ARM        = LABEL, or LABEL (KEY=VALUE, ...)        (one setting of an arm with varied options)
    PLACE      = in the first|last round | in round N | over all rounds | in the first|last epoch |
                 in table NAME                              (of an analysis in `analyze`)
    FILTER     = where KEY = VALUE [and KEY = VALUE ...] (columns of the tables)

An accuracy is by default that of the last round; seconds, epochs, steps, samples and FLOPs are by default summed over
all rounds. Epochs are those of the last round. The gap is the other arm (by default the run's reference) minus the arm.
Shared first rounds count only where the claim names a round. Labels of arms must not have blanks or parentheses.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from warmstart_sim.errors import WarmstartError, unknown
from warmstart_sim.results.columns import column_of, plain

EXAMPLES = "'warm_start below random_init in the last round', 'gap of warm_start shrinks as stream.fraction grows'"
# What rises within a cell; any other column of a trend is an axis.
WITHIN_CELL = ("round", "train_samples", "epoch")
_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"
_ARM = r"(?:[^\s()]+(?:\s*\([^()]*\))?)"
_SIDE = rf"(?:[^\s()]+ of {_ARM}|{_ARM})"
_PATTERNS = {
    "comparison": rf"(?P<left>{_SIDE}) (?P<relation>below|above) (?P<right>{_SIDE})",
    "closeness": rf"(?P<left>{_SIDE}) (?P<relation>within) (?P<number>{_NUMBER})(?P<percent> %)? of (?P<right>{_SIDE})",
    "gap": rf"gap of (?P<left>{_ARM})(?: to (?P<right>{_ARM}))?(?: in (?P<column>\S+))? "
    r"(?P<relation>shrinks|grows) as (?P<along>\S+) grows",
    "trend": rf"(?P<left>{_SIDE}) (?P<relation>falls|rises) as (?P<along>\S+) grows",
}
_PLACE = r"(?: (?P<place>in the (?:first|last) (?:round|epoch)|in round \d+|over all rounds|in table \S+))?"
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
        percent: Whether it is in per cent, so that the two sides are compared by their ratio.
        along: The column that grows, in a gap or a trend.
        place: Where in the run; None for the default.
        where: Values that rows must have, by column.
    """

    text: str
    relation: str
    left: Side
    right: Side | None = None
    number: float = 0.0
    percent: bool = False
    along: str | None = None
    place: str | None = None
    where: Mapping[str, str] = field(default_factory=dict)

    @property
    def analysis(self) -> str | None:
        """The analysis whose table it is about; None for the run's own tables."""
        return self.place.removeprefix("in table ") if self.place and self.place.startswith("in table ") else None

    @property
    def by_epoch(self) -> bool:
        """Whether it is about epochs.csv, not about rounds.csv."""
        return self.along == "epoch" or "epoch" in (self.place or "")


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
            _check_place(parts.get("along"), parts.get("place"))
            return Claim(
                text, parts["relation"], left, right, float(parts.get("number", 0)), "percent" in parts,
                column_of(parts["along"]) if "along" in parts else None, parts.get("place"),
                _settings(parts["filter"], " and ") if "filter" in parts else {},
            )  # fmt: skip
    raise ValueError(f"'{text}' is no claim (such as {EXAMPLES})")


def _check_place(along: str | None, place: str | None) -> None:
    """Refuses a place inside what a trend runs over.

    Raises:
        ValueError: Such as "as round grows in the last round".
    """
    rounds = along in ("round", "train_samples") and place
    epochs = along == "epoch" and place and ("epoch" in place or place == "over all rounds")
    if rounds or epochs:
        raise ValueError(f"'as {along} grows' cannot be '{place}'; leave out one of them")


def _side(text: str) -> Side:
    column, _, arm = text.partition(" of ") if " of " in text.partition("(")[0] else ("", "", text)
    label, _, setting = arm.partition("(")
    return Side(label.strip(), column or None, _settings(setting.rstrip(") "), ",") if setting else {})


def _settings(text: str, separator: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(separator)]
    if not all(equals and key.strip() and value.strip() for key, equals, value in pairs):
        raise ValueError(f"'{text}': expected KEY = VALUE")
    return {column_of(key.strip()): value.strip() for key, _, value in pairs}


def check_names(
    claim: Claim,
    arms: Collection[str],
    columns: Collection[str] | None,
    axes: Mapping[str, Collection[str]],
    analyses: Collection[str] | None = None,
) -> None:
    """Checks that arms, columns and varied values of a claim exist.

    Args:
        claim: The claim.
        arms: The labels of all arms.
        columns: The numeric columns that the tables will have, or patterns such as "weight_norm_*"; None if unknown.
        axes: The varied values, in the form of `columns.plain`, by their column.
        analyses: The analyses that the run will make, whose columns only their tables show; None if unknown.

    Raises:
        WarmstartError: A name does not exist; the message has the nearest one.
    """

    def check(kind: str, name: str, known: Collection[str], patterns: bool = False) -> None:
        if not (any(fnmatchcase(name, each) for each in known) if patterns else name in known):
            raise WarmstartError(f"'{claim.text}': {unknown(kind, name, known)}")

    sides = [side for side in (claim.left, claim.right) if side is not None]
    for side in sides:
        check("strategy", side.arm, arms)
        if side.column is not None and columns is not None and claim.analysis is None:
            check("column", side.column, columns, patterns=True)
    if claim.analysis is not None:
        if analyses is not None:
            check("analysis", claim.analysis, analyses)
        return
    if claim.along is not None:
        check("varied value", claim.along, (*axes, *WITHIN_CELL))
    for key, value in itertools.chain(claim.where.items(), *(side.setting.items() for side in sides)):
        check("varied value", key, (*axes, "dataset", "round"))
        if key in axes:
            check(f"value of {key}", plain(value), axes[key])
