"""Writes measurements to a Markdown document as they arrive, within a shared time budget."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

Row = Sequence[str]
Piece = Callable[["Budget"], Iterable[Row]]


@dataclass(frozen=True)
class Section:
    """One table.

    Attributes:
        note: What is measured, and how to read it.
        pieces: Functions that yield rows, by name. Each can be skipped or fail without affecting the others.
    """

    title: str
    note: str
    head: Row
    pieces: Mapping[str, Piece]


class Budget:
    """A time that pieces of work share evenly; unused time goes to the pieces that follow."""

    def __init__(self, seconds: float, pieces: int) -> None:
        self._end = time.perf_counter() + seconds
        self._pieces = pieces
        self._until = self._end

    def begin(self) -> bool:
        """Begins the next piece; returns whether there is time left for it."""
        now = time.perf_counter()
        self._until = now + (self._end - now) / max(self._pieces, 1)
        self._pieces -= 1
        return now < self._end

    @property
    def over(self) -> bool:
        """Whether the current piece has used up its share."""
        return time.perf_counter() >= self._until


@dataclass
class Document:
    """Prints each line, and appends it to the file `path` if there is one."""

    path: Path | None = None
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.path:
            self.path.write_text("")

    def write(self, line: str = "") -> None:
        print(line, flush=True)
        if self.path:
            with self.path.open("a") as file:
                file.write(line + "\n")

    def add(self, section: Section, budget: Budget) -> None:
        """Measures a section. If a piece fails, the error is reported and the other pieces go on."""
        self.write(f"\n## {section.title}\n\n{section.note}\n")
        for row in table(section.head, []):
            self.write(row)
        skipped, failed = [], []
        for name, piece in section.pieces.items():
            if not budget.begin():
                skipped.append(name)
                continue
            try:
                for row in piece(budget):
                    self.write(line(row))
            except Exception as error:
                failed.append(f"{name} ({type(error).__name__}: {str(error).strip().split(chr(10), 1)[0]})")
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        for what, names in (("Skipped, because the time was used up", skipped), ("Failed", failed)):
            if names:
                self.write(f"\n{what}: {', '.join(names)}.")
        self.failures += failed


def table(head: Row, rows: Iterable[Row]) -> Iterable[str]:
    """Yields the lines of a Markdown table."""
    yield line(head)
    yield line(["---"] * len(head))
    for row in rows:
        yield line(row)


def line(row: Row) -> str:
    return f"| {' | '.join(row)} |"
