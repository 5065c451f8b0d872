"""Analyses of a run's folder: their tables, their place in a scenario, and what they say when something is missing."""

import shutil

import pandas as pd
import pytest

from tests.analyses.conftest import SCENARIO
from warmstart_sim import api
from warmstart_sim.errors import RunError, WarmstartError
from warmstart_sim.execution.launch import RunOptions, run_scenario


def executed(folder, **changes):
    return run_scenario({**SCENARIO, **changes}, "scenario", RunOptions(folder, "cpu", workers=1, quiet=True))


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def test_its_table_is_returned_and_stands_in_the_folder(copied):
    table = api.analyze(copied, "accuracy_against_lambda", {"lambdas": [0.5, 1], "statistics": ["kept"]}, device="cpu")
    assert list(table) == [
        "strategy", "seed", "weights_times", "statistics", "validation_accuracy", "test_accuracy"
    ]  # fmt: skip
    pd.testing.assert_frame_equal(pd.read_csv(copied / "accuracy_against_lambda.csv"), table)


def test_a_scenario_makes_the_same_table_when_its_cells_are_done(copied):
    options = {"lambdas": [0.5, 1], "statistics": ["kept"]}
    outcome = executed(copied, analyze=["correlation_with_start", {"accuracy_against_lambda": options}])
    outcome.raise_failures()
    for name, given in (("correlation_with_start", {}), ("accuracy_against_lambda", options)):
        before = (copied / f"{name}.csv").read_text()
        api.analyze(copied, name, given, device="cpu")
        assert (copied / f"{name}.csv").read_text() == before


def test_an_analysis_that_fails_leaves_the_tables_and_ends_the_command_in_its_reason(copied):
    outcome = executed(copied, analyze=["gap_against", "correlation_with_start"])
    assert (copied / "correlation_with_start.csv").exists()
    with pytest.raises(RunError, match=r"^analyze: gap_against needs a varied key, and this run varies none$"):
        outcome.raise_failures()


def test_without_stored_weights_it_says_how_to_keep_them(copied):
    shutil.rmtree(copied / "first_phases")
    with pytest.raises(WarmstartError, match=r"first_phases.* lacks weights that can be read; a run keeps"):
        api.analyze(copied, "correlation_with_start", device="cpu")
    shutil.rmtree(copied / "cells")
    with pytest.raises(WarmstartError, match=r"^accuracy_against_lambda needs weights, and .* has none: a run keeps"):
        api.analyze(copied, "accuracy_against_lambda", device="cpu")


def test_of_several_rounds_only_random_init_has_a_start_that_can_be_made_again(tmp_path):
    stream = {"name": "online", "chunk_size": 40}
    executed(tmp_path / "run", stream=stream, strategies={"random_init": {}}, analyze=["correlation_with_start"])
    assert len(pd.read_csv(tmp_path / "run" / "correlation_with_start.csv")) == 1
    outcome = executed(tmp_path / "other", stream=stream, analyze=["correlation_with_start"])
    with pytest.raises(RunError, match=r"the weights that round \d started from were not kept, .*distance_from_start"):
        outcome.raise_failures()


@pytest.mark.parametrize(
    ("analysis", "options", "message"),
    [
        ("gap_agains", {}, r"^unknown analysis 'gap_agains'; did you mean 'gap_against'\?"),
        ("gap_against", {"axs": 1}, r"analyze\[0\]\.gap_against\.axs: unknown key; did you mean 'axis'\?"),
        ("tests.analyses.test_analyze:rounds", {}, r"a run already has a table rounds\.csv; rename the function"),
    ],
)
def test_names_and_options_are_checked(finished, analysis, options, message):
    with pytest.raises(WarmstartError, match=message):
        api.analyze(finished, analysis, options, device="cpu")


def rounds(run):
    return []


def count(run, *, base=0):
    """How many cells are complete."""
    yield {"cells": base + len(list(run.cells()))}


def test_ones_own_analysis_is_a_function(copied):
    table = api.analyze(copied, "tests.analyses.test_analyze:count", {"base": 10}, device="cpu")
    assert table.to_dict("records") == [{"cells": 13}]
    assert (copied / "count.csv").read_text() == "cells\n13\n"


def broken(run):
    raise ZeroDivisionError("no cells")


def test_ones_own_analysis_is_checked_before_training_and_its_errors_end_in_one_line(finished, tmp_path):
    with pytest.raises(WarmstartError, match=r"analysis 'tests\.analyses\.test_analyze:nothing': .* no attribute"):
        executed(tmp_path / "run", analyze=["tests.analyses.test_analyze:nothing"])
    assert not (tmp_path / "run").exists()
    with pytest.raises(WarmstartError, match=r"^analysis 'tests\..*:broken': ZeroDivisionError: no cells$"):
        api.analyze(finished, "tests.analyses.test_analyze:broken", device="cpu")


def test_fresh_removes_the_tables_of_analyses(copied):
    (copied / "gap_against.csv").write_text("of another run")
    run_scenario(SCENARIO, "scenario", RunOptions(copied, "cpu", workers=1, quiet=True, fresh=True))
    assert not (copied / "gap_against.csv").exists()
