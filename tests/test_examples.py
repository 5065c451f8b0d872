"""The scripts in examples/ run, reduced, and leave what they say."""

from __future__ import annotations

import importlib.util
import types
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def example(name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_own_strategy_prints_a_table_with_every_arm(tmp_path, capsys):
    example("own_strategy").main(seeds=[0], rounds=2, out=tmp_path / "run")
    printed = capsys.readouterr().out
    assert all(arm in printed for arm in ("random_init", "warm_start", "shrink_perturb", "renew_half"))
    assert (tmp_path / "run" / "report.html").exists()


def test_own_model_and_data_prints_a_table_and_goes_on_where_it_was(tmp_path, capsys):
    module = example("own_model_and_data")
    module.main(seeds=[0], rounds=2, runs=tmp_path)
    first = capsys.readouterr().out
    module.main(seeds=[0], rounds=2, runs=tmp_path)
    assert capsys.readouterr().out == first, "nothing was left to do, so not even a time is different"
    assert (tmp_path / "spirals" / "report.html").exists()


def test_every_example_is_tested_here():
    tested = Path(__file__).read_text(encoding="utf-8")
    assert [path.stem for path in EXAMPLES.glob("*.py") if f'example("{path.stem}")' not in tested] == []
