"""Hints suggest the intended name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstart_sim.errors import DataError, RunError, WarmstartError, nearest, unknown

NAMES = ["random_init", "warm_start", "shrink_perturb", "resnet18", "cifar10", "sgd"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("warm_strat", "warm_start"),
        ("warmstart", "warm_start"),
        ("Warm-Start", "warm_start"),
        ("warm start", "warm_start"),
        ("SGD", "sgd"),
        ("ResNet-18", "resnet18"),
        ("CIFAR-10", "cifar10"),
        ("shrink_and_perturb", "shrink_perturb"),
    ],
)
def test_a_typo_finds_the_name(written, meant):
    assert nearest(written, NAMES) == f"; did you mean '{meant}'?"


@pytest.mark.parametrize("written", ["", "zebra", 5, None, ["warm_start"]])
def test_without_a_close_name_there_is_no_hint(written):
    assert nearest(written, ["random_init", "sgd"]) == ""


@given(st.sampled_from(NAMES), st.integers(0, 20), st.characters(codec="ascii", categories=["Ll"]))
def test_one_extra_letter_finds_the_name_or_one_equally_close(name, place, letter):
    written = name[:place] + letter + name[place:]
    assert "did you mean" in nearest(written, NAMES)


def test_an_unknown_name_is_listed_with_all_there_are():
    assert unknown("model", "mpl", ["mlp", "cnn"]) == "unknown model 'mpl'; did you mean 'mlp'? (there are: mlp, cnn)"
    assert unknown("model", "mpl", iter(["mlp", "cnn"])) == unknown("model", "mpl", ["mlp", "cnn"])


def test_exit_codes_tell_mistakes_data_and_failures_apart():
    assert (WarmstartError.exit_code, DataError.exit_code, RunError.exit_code) == (2, 3, 1)
    assert issubclass(DataError, WarmstartError)
    assert issubclass(RunError, WarmstartError)
