"""Output never ends a command: a terminal that speaks ASCII, a closed pipe, a closed descriptor, a full disk."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from warmstart_sim.execution.launch import RunOptions, run_scenario

ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
COMMAND = f"{sys.executable} -c 'from warmstart_sim.cli import main; main()'"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A scenario file `scenario.yaml` with Greek letters, and its finished run in `done`."""
    folder = tmp_path_factory.mktemp("output")
    scenario = {
        "name": "tiny", "title": "λ and σ: 2 × 3 – tried", "data": {"name": "digits"},
        "stream": {"name": "online", "chunk_size": 50, "rounds": 2},
        "training": {"until": {"epochs": 1}}, "model": {"name": "mlp", "widths": [4]},
        "strategies": {"random_init": {}, "shrink_perturb": {}},
        "vary": {"strategies.shrink_perturb.lambda": [0, 1]}, "seeds": [0, 1],
    }  # fmt: skip
    (folder / "scenario.yaml").write_text(yaml.safe_dump(scenario, allow_unicode=True), "utf-8")
    run_scenario(scenario, "tiny", RunOptions(out=folder / "done", quiet=True, device="cpu", workers=1))
    return folder


def shell(folder: Path, line: str) -> tuple[int, bytes, bytes]:
    """The exit code and what a shell's command line printed, on a terminal that speaks ASCII."""
    ended = subprocess.run(["bash", "-c", line], cwd=folder, env=os.environ | ASCII, capture_output=True, check=False)
    return ended.returncode, ended.stdout, ended.stderr


COMMANDS = [
    "list", "schema", "--help", "status done", "report done", "check scenario.yaml", "check scenario.yaml --resolved"
]  # fmt: skip
RUNS = [
    pytest.param("run scenario.yaml --device cpu --workers 1 --out again", marks=pytest.mark.slow),
    pytest.param("grid scenario.yaml --lambda 0,1 --device cpu --workers 2", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("arguments", [*COMMANDS, *RUNS])
def test_an_ascii_terminal_gets_ascii(folder, arguments):
    code, out, err = shell(folder, f"{COMMAND} {arguments}")
    assert (code, b"Traceback" in err) == (0, False), err.decode()
    assert out.isascii()
    assert err.isascii()
    assert out


@pytest.mark.parametrize("arguments", COMMANDS)
@pytest.mark.parametrize(
    "into", ["2>&1 | true", ">&- 2>&-", ">/dev/full 2>&1"], ids=["closed pipe", "closed descriptor", "full disk"]
)
def test_output_that_goes_nowhere_is_no_reason_to_fail(folder, arguments, into):
    assert shell(folder, f"{COMMAND} {arguments} {into}; exit ${{PIPESTATUS[0]}}") == (0, b"", b"")


@pytest.mark.parametrize("arguments", RUNS)
def test_a_run_in_a_closed_pipe_goes_on(folder, arguments):
    code, _, _ = shell(folder, f"{COMMAND} {arguments} --fresh 2>&1 | true; exit ${{PIPESTATUS[0]}}")
    assert code == 0
    made = folder / ("again" if arguments.startswith("run") else "runs/tiny-grid")
    assert (made / "report.html").exists()


def test_the_signs_of_a_report_have_names_in_ascii(folder):
    _, out, _ = shell(folder, f"{COMMAND} report done")
    assert b"+/-" in out
    assert b"lambda" in out
    assert b"?" not in out
