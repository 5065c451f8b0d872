"""Runs whose rounds come from several machines: said on the page and on the terminal, and not mixed in ratios."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from fake_runs import write_run

from warmstart_sim.report import html
from warmstart_sim.report.findings import describe_run
from warmstart_sim.results.tables import Run, load

CARDS = {"one": "card A", "two": "card B"}


def moved(folder: Path, devices: dict[str, str], column: str, value: object) -> Run:
    """A run whose rows with `column` == `value` come from host "two", the others from "one"."""
    write_run(folder, "online", seeds=4, timing=lambda cell: "isolated")
    rounds = pd.read_csv(folder / "rounds.csv")
    rounds["host"] = ["two" if each == value else "one" for each in rounds[column]]
    rounds["device_name"] = rounds["host"].map(devices)
    rounds.to_csv(folder / "rounds.csv", index=False)
    return load(folder)


def test_one_machine_is_not_mentioned(tmp_path: Path):
    run = moved(tmp_path, CARDS, "seed", 99)
    assert "machines" not in describe_run(run)[1]
    assert set(run.summary()["device_name"]) == {"card A"}


def test_a_run_on_two_machines_says_so_where_it_is_read(tmp_path: Path):
    run = moved(tmp_path, CARDS, "seed", 3)
    rounds = run.rounds["host"].value_counts()
    note = f"Mean seconds mix 2 machines (one: card A, {rounds['one']} rounds; two: card B, {rounds['two']} rounds)"
    assert note in describe_run(run)[1]  # the terminal prints this
    assert note in html.render_page(run, run.summary(), [], {})
    assert set(run.summary()["device_name"]) == {"mixed"}
    warm = run.summary().set_index("strategy").loc["warm_start"]
    assert (warm["pairs"], warm["timed_pairs"]) == (4, 4)  # both cells of a seed ran on one machine


@pytest.mark.parametrize(("devices", "timed"), [(CARDS, 0), (dict.fromkeys(CARDS, "card A"), 4)])
def test_cells_on_other_kinds_of_devices_have_no_ratio_of_seconds(tmp_path: Path, devices: dict[str, str], timed: int):
    run = moved(tmp_path, devices, "strategy", "warm_start")
    warm = run.summary().set_index("strategy").loc["warm_start"]
    assert (warm["pairs"], warm["timed_pairs"]) == (4, timed)
    assert pd.isna(warm["time_ratio"]) == (timed == 0)
    assert "Mean seconds mix 2 machines" in describe_run(run)[1]


def test_a_cell_that_moved_to_another_device_has_no_ratio_of_seconds(tmp_path: Path):
    run = moved(tmp_path, CARDS, "round", 1)
    assert set(run.summary()["device_name"]) == {"mixed"}
    assert run.summary()["time_ratio"].isna().all()
