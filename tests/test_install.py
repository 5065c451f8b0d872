"""Scenario files are found by bare name from a wheel and from an editable install."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
ASK = "import warmstart_sim, json; from warmstart_sim.scenario.yaml_files import bundled_scenarios as b, find; " + (
    "print(json.dumps([warmstart_sim.__file__, str(find('digits_online')), sorted(b())]))"
)


def ask(folder: Path, python_path: Path | None) -> list:
    import json

    environment = {**os.environ, "PYTHONPATH": str(python_path)} if python_path else dict(os.environ)
    answer = subprocess.run([sys.executable, "-c", ASK], cwd=folder, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def in_checkout() -> list[str]:
    """The names of all scenario files, without the settings that some of them share."""
    folder = CHECKOUT / "scenarios"
    files = [path for path in folder.rglob("*.yaml") if not path.name.startswith("common")]
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in files)


@pytest.mark.slow
def test_a_wheel_carries_the_scenario_files(tmp_path):
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")],
        cwd=CHECKOUT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    installed, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    zipfile.ZipFile(wheel).extractall(installed)
    elsewhere.mkdir()
    package, scenario, names = ask(elsewhere, installed)
    assert Path(package).is_relative_to(installed)
    assert Path(scenario) == installed / "warmstart_sim" / "scenarios" / "digits_online.yaml"
    assert names == in_checkout()
    assert (installed / "warmstart_sim" / "report" / "template.html.j2").exists()
    assert (installed / "warmstart_sim" / "published" / "zaidi.csv").exists()
    assert (installed / "warmstart_sim" / "scenarios" / "ash_adams" / "common.yaml").exists()


def test_an_editable_install_reads_those_of_the_checkout(tmp_path):
    _, scenario, names = ask(tmp_path, CHECKOUT)
    assert Path(scenario) == CHECKOUT / "scenarios" / "digits_online.yaml"
    assert names == in_checkout()
