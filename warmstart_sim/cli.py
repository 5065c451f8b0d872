"""The command line. Thin: it reads arguments, calls the API, prints. Torch is imported by the commands that need it."""

from __future__ import annotations

import os
import re
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import typer

from warmstart_sim import __version__
from warmstart_sim.cli_options import (
    CommandLineOptions,
    DataName,
    DataRoot,
    DataSet,
    Lambda,
    Rehearse,
    RunDir,
    Scenario,
    Seeds,
    Set,
    Sigma,
    Strategies,
    Traceback,
    Vary,
    Version,
    with_run_options,
)
from warmstart_sim.errors import RunError, WarmstartError
from warmstart_sim.preemption import Preempted

# Newer versions of typer hold a copy of click, older ones import it: its errors are reached by way of one of them.
UsageError: Any = typer.BadParameter.__base__
MOST_LISTED = 20  # of what failed
INTERRUPTED = 130  # what shells report for a command that Ctrl-C ended
ADDRESS = re.compile(r"auto|local|ray://\S+|[^\s:]+:\d+|\[[0-9a-fA-F:]+\]:\d+")  # of a Ray cluster

app = typer.Typer(
    help="Data keep arriving; how should the next training run start? From scratch, from the last weights, or from the "
    "last weights shrunk and perturbed (lambda, sigma)? Simulates it, and shows accuracy beside training time.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def root(context: typer.Context, version: Version = False) -> None:
    """What happens without a command."""
    if context.invoked_subcommand is None:
        print(f"warmstart-sim {__version__}" if version else context.get_help())


@app.command()
@with_run_options
def run(
    scenario: Scenario,
    set_: Set = None,
    strategies: Strategies = None,
    seeds: Seeds = None,
    rehearse: Rehearse = False,
    *,
    how: CommandLineOptions,
    traceback: Traceback = False,
) -> None:
    """Run a scenario, or go on with it; write tables, figures, report.

    Runs every strategy with every seed. A run that was interrupted goes on when the same command is given again.
    """
    raw, where = _prepared(scenario, set_, strategies, seeds, rehearse)
    _run_scenario(raw, where, how, rehearse)


@app.command()
@with_run_options
def grid(
    scenario: Scenario,
    lam: Lambda = None,
    sigma: Sigma = None,
    vary: Vary = None,
    set_: Set = None,
    strategies: Strategies = None,
    seeds: Seeds = None,
    rehearse: Rehearse = False,
    *,
    how: CommandLineOptions,
    traceback: Traceback = False,
) -> None:
    """Run shrink-perturb at every lambda and sigma, beside random init.

    Its other strategies are left out unless --strategies names them. Everything else is as in `run`; the default folder
    is runs/NAME-grid.
    """
    from warmstart_sim.scenario.grid import assignments, prepare

    raw, where = prepare(
        scenario, lam=lam, sigma=sigma, vary=assignments(vary or ()), set=set_ or (),
        strategies=_labels(strategies), seeds=_numbers(seeds), rehearse=rehearse,
    )  # fmt: skip
    _run_scenario(raw, where, how, rehearse)


@app.command()
def report(run_dir: RunDir, traceback: Traceback = False) -> None:
    """Write a run's tables, figures and report.html again."""
    from warmstart_sim.execution import launch

    launch.collect(run_dir)
    _report(run_dir)


@app.command()
def status(run_dir: RunDir, traceback: Traceback = False) -> None:
    """Show how far a run is: done, running, failed, remaining time."""
    from warmstart_sim import api
    from warmstart_sim.execution.progress import clock

    found = api.status(run_dir)
    waiting = found.cells - found.complete - len(found.failed) - len(found.running)
    counts = f"{found.complete} complete, {len(found.failed)} failed, {len(found.running)} running, {waiting} waiting"
    left = "" if found.remaining_seconds is None else f"; about {clock(found.remaining_seconds)} left"
    print(f"{run_dir}: {_count(found.cells, 'cell')}; {counts}{left}")
    if found.process:
        print(f"at work: {found.process}")
    elif found.complete < found.cells:
        at_checkpoint = f"; {found.interrupted} of them from a checkpoint" if found.interrupted else ""
        print(f"no process is at work; the same `run` command goes on with what is left{at_checkpoint}")
    for name, each in found.running.items():
        where = f"round {each['round']}/{each['rounds']}, epoch {each['epoch']}, {each['done']:.0%}" if each else "0%"
        print(f"  running  {name}: {where}")
    for name, reason in list(found.failed.items())[:MOST_LISTED]:
        print(f"  failed   {name}: {reason}")
    if len(found.failed) > MOST_LISTED:
        print(f"  ... and {len(found.failed) - MOST_LISTED} more failed")


@app.command()
def check(
    scenario: Scenario,
    set_: Set = None,
    strategies: Strategies = None,
    seeds: Seeds = None,
    rehearse: Rehearse = False,
    data_root: DataRoot = None,
    traceback: Traceback = False,
) -> None:
    """Validate a scenario, and say how much work it means.

    Says how many cells (a strategy with a seed and a value of each axis), rounds and, at most, steps there are.
    """
    from warmstart_sim import api

    raw, where = _prepared(scenario, set_, strategies, seeds, rehearse)
    size = api.size(raw, where, data_root)
    cells = f"{_count(size.cells, 'cell')} ({_count(size.arms, 'strategy')}, {_count(size.seeds, 'seed')})"
    phases = f", {_count(size.first_phases, 'first phase')}" if size.first_phases else ""
    print(f"{where}: valid; {cells}{phases}, {_count(size.rounds, 'round')}, at most {_count(size.steps, 'step')}")


@app.command(name="list")
def list_(traceback: Traceback = False) -> None:
    """List what there is to choose from, with a line each.

    Strategies, parts of a strategy, data sets, models, scenario generators, and the scenario files that come with
    warmstart-sim.
    """
    from warmstart_sim import registry
    from warmstart_sim.scenario.yaml_files import bundled_scenarios, headline

    registries = {
        "Strategies": registry.STRATEGIES,
        "Parts of a strategy": registry.PARTS,
        "Data sets": registry.DATASETS,
        "Models": registry.MODELS,
        "Streams": registry.STREAMS,
    }
    groups = {title: {name: each.summary(name) for name in each.names()} for title, each in registries.items()}
    groups["Scenario files"] = {name: headline(path) for name, path in bundled_scenarios().items()}
    width = max(len(name) for lines in groups.values() for name in lines)
    print("\n\n".join("\n".join([title, *_aligned(lines, width)]) for title, lines in groups.items()))


@app.command()
def data(
    name: DataName,
    set_: DataSet = None,
    data_root: DataRoot = None,
    traceback: Traceback = False,
) -> None:
    """Fetch or verify a data set, and say where it lies."""
    from warmstart_sim.datasets.paths import data_root as find_data_root
    from warmstart_sim.scenario.splits import load_by_name

    folder = find_data_root(data_root)
    dataset = load_by_name(name, set_ or (), folder)
    shape = "x".join(map(str, dataset.input_shape))
    words = f", {dataset.vocabulary_size:,} tokens" if dataset.vocabulary_size else ""
    print(
        f"{name}: {len(dataset.train):,} training and {len(dataset.test):,} test samples of shape {shape} "
        f"({dataset.train.inputs.dtype}), {dataset.classes} classes{words}; data folder {folder}"
    )
    for note in dataset.notes:
        print(f"note: {note}")


@app.command()
def schema(traceback: Traceback = False) -> None:
    """Print the JSON schema of a scenario file, for editors."""
    import json

    from warmstart_sim.scenario.json_schema import json_schema

    print(json.dumps(json_schema(), indent=2))


def main() -> None:
    """The entry point: a user's mistake ends in one line on stderr, not in a traceback."""
    try:
        sys.path.append(os.getcwd())  # where a user's own modules may lie; a script that pip made leaves it out
        code = app(with_ray_address(sys.argv[1:]), prog_name="warmstart-sim", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Preempted as stop:
        print(
            "warmstart-sim: stopped by SIGTERM at a checkpoint; give the same command again to go on", file=sys.stderr
        )
        code = stop.code
    except UsageError as error:
        command = error.ctx.command_path if error.ctx else "warmstart-sim"
        _fail(f"{error.format_message().rstrip('.')}; see `{command} --help`", error.exit_code)
    except WarmstartError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        _fail(f"{error.filename or 'files'}: cannot be read or written ({error.strerror or error})", RunError.exit_code)
    if code == INTERRUPTED:
        print("warmstart-sim: interrupted; give the same command again to go on", file=sys.stderr)
    sys.exit(code)


def with_ray_address(arguments: list[str]) -> list[str]:
    """Arguments in which `--ray` has a value, as it must for the parser: "local" where no address follows it.

    >>> with_ray_address(["run", "--ray", "digits_online"]), with_ray_address(["run", "--ray", "head:6379", "a.yaml"])
    (['run', '--ray=local', 'digits_online'], ['run', '--ray=head:6379', 'a.yaml'])
    """
    spelt: list[str] = []
    for each in arguments:
        if spelt and spelt[-1] == "--ray":
            follows = ADDRESS.fullmatch(each)
            spelt[-1] = f"--ray={each if follows else 'local'}"
            if follows:
                continue
        spelt.append(each)
    return ["--ray=local" if each == "--ray" else each for each in spelt]


def _fail(message: str, exit_code: int) -> NoReturn:
    if "--traceback" in sys.argv:
        traceback.print_exc()
    print(f"warmstart-sim: error: {message}", file=sys.stderr)
    sys.exit(exit_code)


def _prepared(
    scenario: str, set_: list[str] | None, strategies: str | None, seeds: str | None, rehearse: bool
) -> tuple[dict[str, Any], str]:
    """The scenario with the changes that the options ask for, and its name in errors."""
    from warmstart_sim.scenario.overrides import prepare

    return prepare(
        scenario, set=set_ or (), strategies=_labels(strategies), seeds=_numbers(seeds), rehearse=rehearse
    )  # fmt: skip


def _labels(strategies: str | None) -> list[str] | None:
    return None if strategies is None else [label.strip() for label in strategies.split(",") if label.strip()]


def _numbers(seeds: str | None) -> list[int] | None:
    try:
        return None if seeds is None else [int(word) for word in seeds.split(",")]
    except ValueError:
        raise WarmstartError(f"--seeds '{seeds}': expected whole numbers with commas, such as 0,1,2") from None


def _run_scenario(raw: dict[str, Any], where: str, how: CommandLineOptions, rehearse: bool) -> None:
    """Runs what is left of a prepared scenario, and shows what was found."""
    from warmstart_sim.execution import launch

    outcome = launch.run_scenario(raw, where, how.read(), rehearsal=rehearse)
    _report(outcome.folder)
    if outcome.failures:
        raise RunError(launch.failure_lines(outcome))


def _report(folder: Path) -> None:
    from rich.console import Console

    from warmstart_sim import report as reports
    from warmstart_sim.report.findings import describe_run
    from warmstart_sim.report.terminal import terminal_table
    from warmstart_sim.results.tables import load

    path = reports.write(folder)
    stored = load(folder)
    in_pipe = not sys.stdout.isatty()  # where rich would take 80 columns, and cut names
    console = Console(width=140 if in_pipe else None)
    console.print(terminal_table(stored))
    console.print(describe_run(stored), highlight=False, width=100 if in_pipe else None)
    console.print(f"report: {path}", highlight=False, soft_wrap=True)


def _aligned(lines: dict[str, str], width: int) -> list[str]:
    return [f"  {name:<{width}}  {text}".rstrip() for name, text in lines.items()]


def _count(number: int, noun: str) -> str:
    plural = noun.removesuffix("y") + "ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"
