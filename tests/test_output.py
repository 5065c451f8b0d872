"""Output never ends a command: a terminal that speaks ASCII, a closed pipe, a closed descriptor, a full disk."""

import contextlib
import io
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import TextIO

import pytest
import yaml

from warmstart_sim import cli
from warmstart_sim.execution.launch import RunOptions, run_scenario

ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
COMMAND = f"{sys.executable} -c 'from warmstart_sim.cli import main; main()'"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A scenario file `scenario.yaml` with Greek letters, and its finished run in `done`; its report has no figures."""
    folder = tmp_path_factory.mktemp("output")
    scenario = {
        "name": "tiny", "title": "λ and σ: 2 × 3 – tried", "data": {"name": "digits"},
        "stream": {"name": "online", "chunk_size": 50, "rounds": 2},
        "training": {"until": {"epochs": 1}}, "model": {"name": "mlp", "widths": [4]},
        "strategies": {"random_init": {}, "shrink_perturb": {}},
        "vary": {"strategies.shrink_perturb.lambda": [0, 1]}, "seeds": [0, 1], "standard_figures": False,
    }  # fmt: skip
    (folder / "scenario.yaml").write_text(yaml.safe_dump(scenario, allow_unicode=True), "utf-8")
    run_scenario(scenario, "tiny", RunOptions(out=folder / "done", quiet=True, device="cpu", workers=1))
    return folder


def shell(folder: Path, line: str) -> tuple[int, bytes, bytes]:
    """The exit code and what a shell's command line printed, on a terminal that speaks ASCII."""
    ended = subprocess.run(["bash", "-c", line], cwd=folder, env=os.environ | ASCII, capture_output=True, check=False)
    return ended.returncode, ended.stdout, ended.stderr


POOL = pytest.mark.xdist_group("pool")  # one fork server for all
COMMANDS = [
    "list", "schema", "--help", "status done", "report done", "check scenario.yaml", "check scenario.yaml --resolved"
]  # fmt: skip
RUN = "run scenario.yaml --device cpu --workers 1 --out again"
GRID = "grid scenario.yaml --lambda 0,1 --device cpu --workers 2"


# Two commands in processes of their own; the others, which print by the same streams, in this process.


@pytest.mark.slow
def test_a_run_with_figures_gives_an_ascii_terminal_ascii(folder):
    code, out, err = shell(folder, f"{COMMAND} {RUN} --set standard_figures=true")
    assert (code, b"Traceback" in err) == (0, False), err.decode()
    assert out.isascii()
    assert err.isascii()
    assert b"lambda" in out
    assert list((folder / "again" / "figures").iterdir())


@pytest.mark.parametrize(
    ("arguments", "into"),
    [
        pytest.param("status done", "2>&1 | true", id="closed pipe"),
        pytest.param("status done", ">&- 2>&-", id="closed descriptors"),
        pytest.param("report done", ">&- 2>&-", id="closed descriptors, and files are written"),
        pytest.param("status done", ">/dev/full 2>&1", id="full disk"),
    ],
)
def test_output_that_goes_nowhere_is_no_reason_to_fail(folder, arguments, into):
    assert shell(folder, f"{COMMAND} {arguments} {into}; exit ${{PIPESTATUS[0]}}") == (0, b"", b"")


def closed_pipe() -> TextIO:
    reading, writing = os.pipe()
    os.close(reading)
    return open(writing, "w", encoding="ascii")


def full_disk() -> TextIO:
    return open("/dev/full", "w", encoding="ascii")


def exit_code(folder: Path, arguments: str, stream: TextIO | None, monkeypatch: pytest.MonkeyPatch) -> object:
    """Of a command in this process, whose output goes into a stream, or whose descriptors are closed."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["warmstart-sim", *arguments.split()])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream), pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code or 0


RUNS = [f"{RUN} --fresh", f"{GRID} --fresh"]


@POOL
@pytest.mark.parametrize(
    ("arguments", "stream"),
    [
        *itertools.product(COMMANDS, [closed_pipe, full_disk, contextlib.nullcontext]),
        *itertools.product(RUNS, [closed_pipe]),
    ],
)
def test_every_command_goes_on_when_its_output_goes_nowhere(folder, arguments, stream, monkeypatch, quick_workers):
    with stream() as output:
        assert exit_code(folder, arguments, output, monkeypatch) == 0
    if arguments in RUNS:
        assert (folder / ("again" if arguments.startswith("run") else "runs/tiny-grid") / "report.html").exists()


@POOL
@pytest.mark.parametrize("arguments", [*COMMANDS, f"{GRID} --fresh"])
def test_an_ascii_terminal_gets_ascii(folder, arguments, monkeypatch, quick_workers):
    printed = io.BytesIO()
    stream = io.TextIOWrapper(printed, encoding="ascii")
    assert exit_code(folder, arguments, stream, monkeypatch) == 0
    stream.flush()
    assert printed.getvalue()
    assert b"Traceback" not in printed.getvalue()
    if arguments.startswith(("report", "grid")):  # its signs have names
        assert b"+/-" in printed.getvalue()
        assert b"lambda" in printed.getvalue()
        assert b"?" not in printed.getvalue()
