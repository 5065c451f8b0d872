"""The numbers that four papers state, one CSV file a paper, and the list of their tables and figures.

`PAPER.csv` has a row for each number; its columns are the attributes of `PublishedNumber`. A condition is written as
`key=value; key=value`, where a key is a column of a run's tables or the dotted key of a setting.
"""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

PAPERS = {
    "ash_adams": "Ash & Adams (2020), On Warm-Starting Neural Network Training",
    "kireev": "Kireev et al. (2021), reproduction report on On Warm-Starting Neural Network Training",
    "zaidi": "Zaidi et al. (2022), When Does Re-initialization Work?",
    "alabdulmohsin": "Alabdulmohsin et al. (2021), The Impact of Reinitialization on Generalization in CNNs",
}


@dataclass(frozen=True)
class PaperRow:
    """A table, a figure or another item of a paper.

    Attributes:
        name: Such as A-T1: the paper, then table (T), figure (F), algorithm (A) or proposition (P), and its number.
        paper: The paper's key in `PAPERS`.
        kind: table, figure, algorithm, proposition or analysis.
        title: What it shows.
    """

    name: str
    paper: str
    kind: str
    title: str


@dataclass(frozen=True)
class PublishedNumber:
    """A number as a paper states it.

    Attributes:
        row: The item of the paper, such as A-T1.
        condition: What it was measured for, by column or dotted key.
        metric: A column of rounds.csv, or a plain name.
        value: The number in `unit`; NaN where the paper leaves a cell blank.
        spread: Its spread in `unit`; NaN if none is stated.
        spread_kind: What the spread is: std, sem, ci95, unknown, or empty if none is stated.
        seeds: The number of runs, or None if the paper does not say.
        unit: percent, minutes and so on.
        where: Where it stands in the text.
        note: What is ambiguous about it; empty if nothing is.
    """

    row: str
    condition: dict[str, str]
    metric: str
    value: float
    spread: float
    spread_kind: str
    seeds: int | None
    unit: str
    where: str
    note: str


@functools.cache
def paper_rows() -> dict[str, PaperRow]:
    """Every table and figure of the papers by name, in the order of the papers."""
    return {each["row"]: PaperRow(each["row"], each["paper"], each["kind"], each["title"]) for each in _read("rows")}


@functools.cache
def published_numbers(row: str) -> tuple[PublishedNumber, ...]:
    """The numbers that the text states for a table or figure; none if it shows only a picture."""
    return tuple(_parsed(each) for each in _read(paper_rows()[row].paper) if each["row"] == row)


def _parsed(each: dict[str, str]) -> PublishedNumber:
    return PublishedNumber(
        row=each["row"],
        condition=_condition(each["condition"]),
        metric=each["metric"],
        value=_number(each["value"]),
        spread=_number(each["spread"]),
        spread_kind=each["spread_kind"],
        seeds=int(each["seeds"]) if each["seeds"] else None,
        unit=each["unit"],
        where=each["where"],
        note=each["note"],
    )


def _read(name: str) -> Iterator[dict[str, str]]:
    text = files(__package__).joinpath(f"{name}.csv").read_text(encoding="utf-8")
    return csv.DictReader(text.splitlines())


def _condition(text: str) -> dict[str, str]:
    return {key.strip(): value.strip() for key, _, value in (each.partition("=") for each in text.split(";") if each)}


def _number(text: str) -> float:
    return float(text) if text else math.nan
