"""The examples in the docstrings hold."""

from __future__ import annotations

import doctest

import pytest

from warmstart_sim.report import layout, style, wording


@pytest.mark.parametrize("module", [wording, style, layout])
def test_examples(module):
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize("number", [wording.percent, wording.points, wording.duration, wording.ratio, wording.p_value])
def test_nothing_is_written_as_a_dash(number):
    assert number(float("nan")) == "–"
