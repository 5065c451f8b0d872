"""One published number, and the CSV file of a paper's numbers."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class PublishedNumber:
    """A number that a paper states. All fields are text; value and spread have the digits as printed.

    Attributes:
        row: The table or figure, such as A-T1.
        condition: Where in the table, as `key=value; key=value`.
        metric: A column of rounds.csv where there is one, else a plain name.
        value: Empty for a cell that the paper leaves blank.
        spread: Empty if there is none.
        spread_kind: std, sem, ci95 or unknown; empty without a spread.
        seeds: How many runs the number is a mean of; empty if the paper does not say.
        unit: percent, minutes and so on.
        where: Where it stands in the text.
        note: What is unusual or ambiguous about it.
    """

    row: str
    condition: str
    metric: str
    value: str
    spread: str = ""
    spread_kind: str = ""
    seeds: str = ""
    unit: str = "percent"
    where: str = ""
    note: str = ""


def value_and_spread(cell: str) -> tuple[str, str]:
    """The digits of a cell such as "56.2 (1.0)"; empty texts for what is not there."""
    match = re.fullmatch(r"\s*([\d.]*)\s*(?:\(([\d.]+)\))?\s*", cell)
    if match is None:
        raise ValueError(f"not a number with an optional spread: {cell!r}")
    return match[1], match[2] or ""


def stated(text: str, passages: Iterable[tuple[str, ...]]) -> Iterator[PublishedNumber]:
    """The numbers of sentences and captions.

    Args:
        text: The paper's text.
        passages: Each a piece of the text and its number's row, condition, metric, value, unit, where and note.
    """
    for passage, row, condition, metric, value, unit, where, note in passages:
        if passage not in text:
            raise ValueError(f"the text does not say: {passage}")
        yield PublishedNumber(row, condition, metric, value, unit=unit, where=where, note=note)


def print_csv(numbers_of: Callable[[str], Iterable[PublishedNumber]]) -> None:
    """Reads the paper's text, whose path is the command's argument, and prints its numbers as CSV."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(field.name for field in fields(PublishedNumber))
    writer.writerows(astuple(number) for number in numbers_of(Path(sys.argv[1]).read_text(encoding="utf-8")))
