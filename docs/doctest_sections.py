"""A griffe extension: examples in docstrings, which have no heading in the source, are shown as code on the site."""

from __future__ import annotations

import itertools
from typing import Any

import griffe


class DoctestSections(griffe.Extension):
    """Puts `Examples:` above the first `>>>` of each docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for everything that is shown."""
        if obj.docstring:
            obj.docstring.value = with_section(obj.docstring.value)


def with_section(docstring: str) -> str:
    r"""The docstring with its examples, which stand last, as a section in Google's style.

    >>> with_section("Adds.\n\n>>> 1 + 1\n2")
    'Adds.\n\nExamples:\n    >>> 1 + 1\n    2'
    """
    lines = docstring.splitlines()
    text = list(itertools.takewhile(lambda line: not line.startswith(">>>"), lines))
    examples = [f"    {line}" for line in lines[len(text) :]]
    return "\n".join([*text, "Examples:", *examples]) if examples else docstring
