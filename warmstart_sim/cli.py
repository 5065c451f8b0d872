"""The command line. Thin: it reads arguments, calls the API, prints. Commands import what they need when they run."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from typer import Argument, Option

from warmstart_sim import __version__
from warmstart_sim.errors import RunError, WarmstartError
from warmstart_sim.execution.options import DataRoot, RunOptions, takes_run_options
from warmstart_sim.output import count_of, safe_output
from warmstart_sim.preemption import Preempted

if TYPE_CHECKING:
    from rich.console import Console

    from warmstart_sim.execution.launch import RunOutcome

# Newer versions of typer bundle click, older ones import it; both give access to its errors through this class.
UsageError: Any = typer.BadParameter.__base__
MAX_FAILURES_SHOWN = 20
INTERRUPTED = 130  # the exit code that shells report for a command ended by Ctrl-C
RAY_ADDRESS = re.compile(r"auto|local|ray://\S+|[^\s:]+:\d+|\[[0-9a-fA-F:]+\]:\d+")


def parse_labels(text: str) -> list[str]:
    """The value of `--strategies`."""
    return [label.strip() for label in text.split(",") if label.strip()]


def parse_seeds(text: str) -> list[int]:
    """The value of `--seeds`.

    Raises:
        WarmstartError: Something in it is no whole number.
    """
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise WarmstartError(f"--seeds '{text}': expected whole numbers with commas, such as 0,1,2") from None


def parse_tracker(text: str) -> str:
    """The value of `--track`.

    Raises:
        WarmstartError: There is no such tracker, or it is not installed.
    """
    from warmstart_sim.results.tracking import check_tracker

    check_tracker(text)
    return text


Scenario = Annotated[str, Argument(help="A scenario file, or the name of a bundled one such as digits_online.")]
RunDir = Annotated[Path, Argument(help="A run's folder, finished or not.")]
Set = Annotated[
    list[str] | None,
    Option("--set", metavar="KEY=VALUE", help="Change a setting: training.optimizer.lr=0.01; repeatable."),
]
Strategies = Annotated[Any, Option(parser=parse_labels, metavar="A,B", help="Run these strategies only.")]
Seeds = Annotated[Any, Option(parser=parse_seeds, metavar="0,1,2", help="Run these seeds instead of the scenario's.")]
Rehearse = Annotated[
    bool, Option("--rehearse", help="Run a reduced copy on stand-in data: about a minute, offline, end to end.")
]
Track = Annotated[
    Any,
    Option(
        parser=parse_tracker,
        metavar="TRACKER",
        help="Also send the run to wandb, mlflow or tensorboard: each arm is a run there.",
    ),
]
# Every command declares it for `--help`; `main` reads it.
Traceback = Annotated[bool, Option("--traceback", help="Show where an error comes from.")]

app = typer.Typer(
    help="Data keep arriving; how should the next training run start? From scratch, from the last weights, or from the "
    "last weights shrunk and perturbed (lambda, sigma)? Simulates it, and shows accuracy beside training time.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context, version: Annotated[bool, Option("--version", help="Show the version and exit.")] = False
) -> None:
    """Prints the version or the help when no command is given."""
    if context.invoked_subcommand is None:
        print(f"warmstart-sim {__version__}" if version else context.get_help())


@app.command()
@takes_run_options(for_typer=True)
def run(
    scenario: Scenario,
    set_: Set = None,
    strategies: Strategies = None,
    seeds: Seeds = None,
    rehearse: Rehearse = False,
    track: Track = None,
    traceback: Traceback = False,
    **options: Any,
) -> None:
    """Run a scenario, or resume it; write tables, figures, report.

    Runs every strategy with every seed. To resume an interrupted run, give the same command again.
    """
    from warmstart_sim.execution.launch import run_scenario
    from warmstart_sim.scenario.overrides import prepare_scenario

    raw, where = prepare_scenario(scenario, set=set_ or (), strategies=strategies, seeds=seeds, rehearse=rehearse)
    _report_outcome(run_scenario(raw, where, RunOptions(**options)), track)


@app.command()
@takes_run_options(for_typer=True)
def grid(
    scenario: Scenario,
    lam: Annotated[
        str | None,
        Option("--lambda", metavar="VALUES", help="Values of lambda: 0:1:0.2 (START:STOP:STEP, with STOP) or 0,0.5,1."),
    ] = None,
    sigma: Annotated[
        str | None, Option("--sigma", metavar="VALUES", help="Values of sigma, such as 0,1e-4,1e-2,1.")
    ] = None,
    vary: Annotated[
        list[str] | None,
        Option("--vary", metavar="KEY=V1,V2", help="One more axis: training.optimizer.lr=0.01,0.001; repeatable."),
    ] = None,
    set_: Set = None,
    strategies: Strategies = None,
    seeds: Seeds = None,
    rehearse: Rehearse = False,
    track: Track = None,
    traceback: Traceback = False,
    **options: Any,
) -> None:
    """Run shrink-perturb at every lambda and sigma, beside random init.

    Its other strategies are left out unless --strategies names them. Everything else is as in `run`; the default folder
    is runs/NAME-grid.
    """
    from warmstart_sim.execution.launch import run_scenario
    from warmstart_sim.scenario.grid import assignments, prepare_grid

    raw, where = prepare_grid(
        scenario, lam=lam, sigma=sigma, vary=assignments(vary or ()), set=set_ or (), strategies=strategies,
        seeds=seeds, rehearse=rehearse,
    )  # fmt: skip
    _report_outcome(run_scenario(raw, where, RunOptions(**options)), track)


@app.command()
def report(
    run_dir: RunDir,
    margin: Annotated[
        float, typer.Option(metavar="POINTS", min=0, help="The loss of accuracy that does not matter, in points.")
    ] = 1.0,
    bands: Annotated[
        Literal["ci", "std"],
        Option(help="Around means: 95% confidence intervals, or standard deviations as in Ash & Adams."),
    ] = "ci",
    track: Track = None,
    traceback: Traceback = False,
) -> None:
    """Write a run's tables, figures and report.html again."""
    from warmstart_sim.execution import launch

    launch.collect(run_dir)
    _report(run_dir, track, margin / 100, bands)


@app.command()
def compare(
    run_dir: RunDir,
    to: Annotated[
        Path | None, Option("--to", metavar="RUN_DIR", help="Compare with this run instead of with the papers.")
    ] = None,
    margin: Annotated[
        float, Option(metavar="POINTS", min=0, help="Intervals wider than this to either side do not show agreement.")
    ] = 2.0,
    traceback: Traceback = False,
) -> None:
    """Show a run beside the numbers of papers, or beside another run.

    A number agrees if the 95% interval of the difference, which counts both spreads, holds zero and is no wider than
    the margin. Writes comparison.csv into the run's folder. The scenario's `reproduces` says which numbers.
    """
    from warmstart_sim import report as reports
    from warmstart_sim.execution import launch
    from warmstart_sim.published.compare import check_reproduces
    from warmstart_sim.report import beside_papers, terminal
    from warmstart_sim.results.agreement import check_comparable
    from warmstart_sim.results.compare_runs import compare_runs
    from warmstart_sim.results.tables import load
    from warmstart_sim.scenario.changes import changes

    launch.collect(run_dir)
    stored = load(run_dir)
    check_comparable(stored)
    if to is None:
        found, claims = reports.write_comparison(run_dir, stored, margin)
        differ = stored.environment.get("changes_from_paper") or []
        if not claims:
            check_reproduces(stored)
    else:
        other = load(to)
        found, claims = compare_runs(stored, other, margin), []
        differ = changes(other.scenario, stored.scenario)
    tables = [beside_papers.claims_table(claims)]
    if found is not None:
        tables.append(beside_papers.comparison_table(found, "published" if to is None else str(to)))
    console = _console()
    for table in tables:
        if table.rows:
            console.print(terminal.text_table(table))
    counts = "" if found is None else beside_papers.describe_comparison(found)
    console.print("\n".join(filter(None, [counts, beside_papers.describe_changes(differ)])), highlight=False)


@app.command()
def papers(
    rows: Annotated[list[str] | None, Argument(help="Rows such as A-T1, or papers such as A; all by default.")] = None,
    runs: Annotated[
        list[Path] | None, Option("--runs", metavar="DIR", help="Where to look for runs; by default runs and results.")
    ] = None,
    cost: Annotated[bool, Option("--cost", help="Also count the most optimiser steps of each row.")] = False,
    traceback: Traceback = False,
) -> None:
    """List every table and figure of the four papers.

    Shows the command that reproduces each, how many numbers the paper states, and which runs there are: rehearsed, run,
    how many numbers agree and how many claims hold.
    """
    from warmstart_sim import papers

    for each in papers.reproductions(rows or (), runs or papers.RUN_FOLDERS):
        about = [
            "" if each.commands else "no scenario yet",
            count_of(each.numbers, "published number") if each.numbers else "",
            f"at most {count_of(each.steps, 'step')}" if cost and each.steps is not None else "",
            "rehearsed" if each.rehearsed else "",
        ]
        print(f"{each.row.name:<6} {each.row.title}")
        for line in filter(None, [*each.commands, "; ".join(filter(None, about))]):
            print(f"       {line}")
        for run in each.runs:
            if not run.rehearsal:
                changed = f"; {count_of(len(run.changes), 'setting')} changed" if run.changes else ""
                told = f"{run.folder}: {count_of(run.cells, 'cell')}, {run.hours:.2g} h{changed}. {run.agreement}"
                print(f"       {told.rstrip()}")


@app.command()
@takes_run_options(for_typer=True, only=("device", "data_root", "workers", "fresh"))
def advise(
    data: Annotated[
        str,
        Argument(
            help="A folder of images or texts, a .csv file of texts, a .npz file, a data set's name, or m:function."
        ),
    ],
    model: Annotated[str, Option(metavar="MODEL", help="A model's name, or your own as module:function.")],
    minutes: Annotated[float, Option(metavar="N", help="The budget.")] = 30.0,
    margin: Annotated[
        float, Option(metavar="POINTS", help="The loss of accuracy that does not matter, in points.")
    ] = 1.0,
    rounds: Annotated[
        int | None, Option(metavar="N", show_default="what fits", help="In how many rounds the data arrive.")
    ] = None,
    chunk: Annotated[
        int | None,
        Option(min=1, metavar="N", show_default="what fits", help="How many samples arrive in each round."),
    ] = None,
    arrival: Annotated[
        str | None,
        Option(
            metavar="COLUMN|mtime|given",
            show_default="a random order",
            help="What orders the samples: a column, an array of the .npz file, the files' times, or the data set.",
        ),
    ] = None,
    training: Annotated[
        Path | None, Option(metavar="FILE", help="A YAML file with the sections `training` and `parts`.")
    ] = None,
    every: Annotated[
        str | None, Option(metavar="week", help="How often you train, to say what a year saves: day, week, 2 weeks.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        Option("--set", metavar="KEY=VALUE", help="One more setting: model.width=16, data.size=64; repeatable."),
    ] = None,
    seed: Annotated[int, Option(min=0, metavar="N", help="Seeds the random order of arrival.")] = 0,
    out: Annotated[
        Path | None, Option(metavar="DIR", show_default="runs/advise-DATA", help="The folder of all runs.")
    ] = None,
    traceback: Traceback = False,
    **options: Any,
) -> None:
    """Say how your next training run should start.

    Plays the past of your data: starts compete in early rounds, and the winner is checked against random init in later
    ones. Ctrl-C ends it with what is known so far; the same command goes on.
    """
    from warmstart_sim.advise import advisor

    outcome = advisor.advise(
        data, model, minutes=minutes, margin=margin, rounds=rounds, chunk=chunk, arrival=arrival, training=training,
        every=every, set=set_ or (), seed=seed, out=out,
        say=lambda line: print(f"warmstart-sim: {line}", file=sys.stderr), **options,
    )  # fmt: skip
    console = _console()
    text = "\n\n".join(filter(None, [" ".join(outcome.advice.sentences), outcome.savings, *outcome.advice.tried]))
    console.print(text, highlight=False, markup=False, width=None if sys.stdout.isatty() else 100)
    if outcome.code:
        print(f"\n{outcome.code}\nreport: {outcome.folder / 'report.html'}")
    if outcome.interrupted:
        raise KeyboardInterrupt


@app.command()
def analyze(
    run_dir: RunDir,
    analysis: Annotated[str, Argument(help="An analysis of `warmstart-sim list`, or your own as module:function.")],
    set_: Annotated[
        list[str] | None,
        Option("--set", metavar="KEY=VALUE", help="Set one of its options, such as axis=stream.fraction; repeatable."),
    ] = None,
    data_root: DataRoot = None,
    device: Annotated[str, Option(metavar="NAME", help="auto (CUDA if available), cpu, cuda or cuda:N.")] = "auto",
    traceback: Traceback = False,
) -> None:
    """Make one more table of a finished run.

    It is made from the run's tables or from the weights of its cells. Writes NAME.csv and the report again, and shows
    means over seeds. The scenario's key `analyze` does the same.
    """
    from warmstart_sim import api
    from warmstart_sim import report as reports
    from warmstart_sim.registry import ANALYSES
    from warmstart_sim.report.terminal import analysis_text
    from warmstart_sim.scenario.yaml_files import set_values

    table = api.analyze(run_dir, analysis, set_values({}, set_ or ()), data_root=data_root, device=device)
    path = reports.write(run_dir)
    console = _console()
    console.print(analysis_text(table, ANALYSES.details(analysis).get("columns", {})))
    console.print(f"report: {path}", highlight=False, soft_wrap=True)


@app.command()
def status(run_dir: RunDir, traceback: Traceback = False) -> None:
    """Show how far a run is: done, running, failed, remaining time."""
    from warmstart_sim import api
    from warmstart_sim.execution.progress import clock

    found = api.status(run_dir)
    waiting = found.cells - found.complete - len(found.failed) - len(found.running)
    counts = f"{found.complete} complete, {len(found.failed)} failed, {len(found.running)} running, {waiting} waiting"
    left = "" if found.remaining_seconds is None else f"; about {clock(found.remaining_seconds)} left"
    print(f"{run_dir}: {count_of(found.cells, 'cell')}; {counts}{left}")
    if found.process:
        print(f"running process: {found.process}")
    elif found.complete < found.cells:
        from_checkpoint = f", {found.interrupted} of them from a checkpoint" if found.interrupted else ""
        print(f"no running process; the same `run` command runs the other cells{from_checkpoint}")
    for name, each in found.running.items():
        where = f"round {each['round']}/{each['rounds']}, epoch {each['epoch']}, {each['done']:.0%}" if each else "0%"
        print(f"  running  {name}: {where}")
    for name, reason in list(found.failed.items())[:MAX_FAILURES_SHOWN]:
        print(f"  failed   {name}: {reason}")
    if len(found.failed) > MAX_FAILURES_SHOWN:
        print(f"  ... and {len(found.failed) - MAX_FAILURES_SHOWN} more failed")


@app.command()
def check(
    scenario: Scenario,
    set_: Set = None,
    strategies: Strategies = None,
    seeds: Seeds = None,
    rehearse: Rehearse = False,
    data_root: DataRoot = None,
    resolved: Annotated[
        bool, Option("--resolved", help="Print the scenario as YAML, with all defaults, instead of its size.")
    ] = False,
    traceback: Traceback = False,
) -> None:
    """Validate a scenario, and show its size.

    Shows the number of cells (a strategy with a seed and a value of each axis), rounds and, at most, steps.
    """
    from warmstart_sim.execution.size import scenario_size, size_lines
    from warmstart_sim.scenario.overrides import prepare_scenario

    raw, where = prepare_scenario(scenario, set=set_ or (), strategies=strategies, seeds=seeds, rehearse=rehearse)
    found = scenario_size(raw, where, data_root)
    if resolved:
        from warmstart_sim.results.files import to_yaml
        from warmstart_sim.scenario.planning import plan
        from warmstart_sim.scenario.resolved import resolved_scenario

        print(to_yaml(resolved_scenario(raw, plan(raw, where)[0])), end="")
        return
    for line in size_lines(found, where):
        print(line)


PARTS_CHANGE = ("inputs", "the loss", "weights", "hidden units", "training")  # in this order in `list`


@app.command(name="list")
def list_(traceback: Traceback = False) -> None:
    """List everything that a scenario can name, with a line each.

    Strategies, parts of a strategy, probes, analyses, data sets, models, streams, and the bundled scenario files.
    """
    from warmstart_sim import registry
    from warmstart_sim.scenario.yaml_files import bundled_scenarios, headline

    def summaries(each: registry.Registry[Any], names: Iterable[str]) -> dict[str, str]:
        return {name: each.summary(name) for name in names}

    groups = {"Strategies": summaries(registry.STRATEGIES, registry.STRATEGIES.names())}
    parts = {name: registry.PARTS.details(name).get("changes", "training") for name in registry.PARTS.names()}
    for changes in sorted(set(parts.values()), key=PARTS_CHANGE.index):
        names = [name for name, each in parts.items() if each == changes]
        groups[f"Parts of a strategy that change {changes}"] = summaries(registry.PARTS, names)
    others = {
        "Probes": registry.PROBES,
        "Analyses": registry.ANALYSES,
        "Data sets": registry.DATASETS,
        "Models": registry.MODELS,
        "Streams": registry.STREAMS,
        "Changes of a stream": registry.CHANGES,
    }
    groups |= {title: summaries(each, each.names()) for title, each in others.items()}
    groups["Scenario files"] = {name: headline(path) for name, path in bundled_scenarios().items()}
    width = max(len(name) for lines in groups.values() for name in lines)
    print("\n\n".join("\n".join([title, *_aligned(lines, width)]) for title, lines in groups.items()))


@app.command()
def data(
    name: Annotated[str, Argument(help="A data set of `warmstart-sim list`, or your own as module:function.")],
    set_: Annotated[
        list[str] | None,
        Option("--set", metavar="KEY=VALUE", help="Set one of its options, such as path=mine.npz; repeatable."),
    ] = None,
    data_root: DataRoot = None,
    traceback: Traceback = False,
) -> None:
    """Fetch or verify a data set, and show its folder."""
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


@safe_output()
def main() -> None:
    """The entry point: a user's mistake ends in one line on stderr, not in a traceback."""
    try:
        sys.path.append(os.getcwd())  # for a user's own modules; an installed script leaves it out
        code = app(with_ray_address(sys.argv[1:]), prog_name="warmstart-sim", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Preempted as stop:
        print(
            "warmstart-sim: stopped by SIGTERM at a checkpoint; give the same command again to resume", file=sys.stderr
        )
        code = stop.code
    except UsageError as error:
        command = error.ctx.command_path if error.ctx else "warmstart-sim"
        _fail(
            f"{error.format_message().rstrip('.').replace('Value error, ', '')}; see `{command} --help`",
            error.exit_code,
        )
    except WarmstartError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        _fail(f"{error.filename or 'files'}: cannot be read or written ({error.strerror or error})", RunError.exit_code)
    if code == INTERRUPTED:
        print("warmstart-sim: interrupted; give the same command again to resume", file=sys.stderr)
    sys.exit(code)


def with_ray_address(arguments: list[str]) -> list[str]:
    """Gives `--ray` the value that the parser needs: the address after it, or "local".

    >>> with_ray_address(["run", "--ray", "digits_online"]), with_ray_address(["run", "--ray", "head:6379", "a.yaml"])
    (['run', '--ray=local', 'digits_online'], ['run', '--ray=head:6379', 'a.yaml'])
    """
    completed: list[str] = []
    for argument in arguments:
        if completed and completed[-1] == "--ray" and RAY_ADDRESS.fullmatch(argument):
            completed[-1] = f"--ray={argument}"
        else:
            completed.append(argument)
    return ["--ray=local" if argument == "--ray" else argument for argument in completed]


def _fail(message: str, exit_code: int) -> NoReturn:
    if "--traceback" in sys.argv:
        traceback.print_exc()
    print(f"warmstart-sim: error: {message}", file=sys.stderr)
    sys.exit(exit_code)


def _report_outcome(outcome: RunOutcome, track: str | None) -> None:
    _report(outcome.folder, track)
    outcome.raise_failures()


def _report(folder: Path, track: str | None, margin: float = 0.01, bands: Literal["ci", "std"] = "ci") -> None:
    from warmstart_sim import report as reports
    from warmstart_sim.report.findings import describe_run
    from warmstart_sim.report.terminal import terminal_table
    from warmstart_sim.results.tables import load

    path = reports.write(folder, margin, bands)
    stored = load(folder)
    console = _console()
    console.print(terminal_table(stored))
    findings = "\n\n".join(filter(None, describe_run(stored, margin=margin)))
    console.print(findings, highlight=False, width=None if sys.stdout.isatty() else 100)
    console.print(f"report: {path}", highlight=False, soft_wrap=True)
    if track is not None:
        from warmstart_sim.results import tracking

        tracking.track(stored, track, path)


def _console() -> Console:
    """A console for tables; in a pipe rich would take 80 columns, and cut names."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 140)


def _aligned(lines: dict[str, str], width: int) -> list[str]:
    return [f"  {name:<{width}}  {text}".rstrip() for name, text in lines.items()]
