"""Keeps output from ending a command: characters that the terminal lacks are replaced, and a closed pipe is ignored."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

PLAIN = {
    "λ": "lambda", "σ": "sigma", "±": "+/-", "−": "-", "–": "-", "—": "-", "×": "x", "·": "-", "…": "...", "’": "'",
    "≤": "<=", "≥": ">=",
}  # fmt: skip


def _plain(error: UnicodeError) -> tuple[str, int]:
    """An error handler for `str.encode`: ASCII for the characters that we print, "?" for others."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(PLAIN.get(each, "?") for each in error.object[error.start : error.end]), error.end


codecs.register_error("warmstart_sim.plain", _plain)


class SafeStream:
    """A text stream whose writes never fail; once one does, for a closed pipe or a full disk, the rest is dropped."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        with contextlib.suppress(AttributeError):  # a stream that is no file, as in a notebook
            stream.reconfigure(errors="warmstart_sim.plain")

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":
            raise AttributeError(name)  # typer would write there, past this stream
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes text."""
        with self._dropped_if_it_fails():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes the stream."""
        with self._dropped_if_it_fails():
            self._stream.flush()

    @contextlib.contextmanager
    def _dropped_if_it_fails(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            with open(os.devnull, "w") as nowhere, contextlib.suppress(OSError):
                os.dup2(nowhere.fileno(), self._stream.fileno())  # what is left in the buffer goes there too


@contextlib.contextmanager
def safe_output() -> Iterator[None]:
    """Makes `sys.stdout` and `sys.stderr` safe while a command runs."""
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere:  # a stream is None if its descriptor is closed
        sys.stdout, sys.stderr = (SafeStream(stream or nowhere) for stream in before)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            sys.stdout, sys.stderr = before


def count_of(number: int, noun: str) -> str:
    """A number with its noun.

    >>> count_of(1, "strategy"), count_of(1200, "strategy")
    ('1 strategy', '1,200 strategies')
    """
    plural = noun.removesuffix("y") + "ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"
