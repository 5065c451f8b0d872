"""The command line. Thin: it reads arguments, calls the API, prints."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from warmstart_sim import __version__
from warmstart_sim.errors import WarmstartError

app = typer.Typer(
    help="Data keep arriving; how should the next training run start? From scratch, from the last weights, or from the "
    "last weights shrunk and perturbed (lambda, sigma)? Simulates the stream and measures accuracy beside training time.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Scenario = Annotated[str, typer.Argument(help="A scenario file, or the name of a bundled one such as digits_online.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a setting, such as training.optimizer.lr=0.01; repeatable."
    ),
]
Strategies = Annotated[str | None, typer.Option(metavar="A,B", help="Run these arms only.")]
Seeds = Annotated[str | None, typer.Option(metavar="0,1,2", help="Run these seeds instead of the scenario's.")]
Rehearse = Annotated[
    bool, typer.Option("--rehearse", help="A reduced copy, end to end in about a minute: stand-in data, offline.")
]
DataRoot = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where data sets lie. [default: $WARMSTART_SIM_DATA, else the user's cache]"),
]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show the traceback of an error.")]


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    """Options before a command."""
    if version:
        print(f"warmstart-sim {__version__}")
        raise typer.Exit


@app.command()
def run(
    scenario: Scenario,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The run's folder; an interrupted run goes on there. [default: runs/NAME]"),
    ] = None,
    set_: Set = None,
    strategies: Strategies = None,
    seeds: Seeds = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    data_root: DataRoot = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Cells that run side by side. [default: the cores on a CPU, 1 on a GPU]")
    ] = None,
    rehearse: Rehearse = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete what the folder holds, and begin again.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard logs to DIR/tensorboard.")
    ] = False,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="On CUDA: only kernels that give the same bits every time.")
    ] = False,
    traceback: Traceback = False,
) -> None:
    """Run every strategy and seed of a scenario, or go on with an interrupted run; write tables, figures, report.html."""
    from warmstart_sim import api

    raw, where = api.prepare(
        scenario, set=set_ or (), strategies=_words(strategies), seeds=_numbers(seeds), rehearse=rehearse
    )
    options = api.Options(out, device, data_root, workers, fresh, quiet, tensorboard, deterministic)
    outcome = api.execute(raw, where, options, rehearsal=rehearse)
    _report(outcome.folder)
    if outcome.failures:
        print(f"warmstart-sim: {api.failure_lines(outcome)}", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(help="A run's folder, finished or not.")], traceback: Traceback = False
) -> None:
    """Write a run's tables, figures and report.html again, from what is stored."""
    from warmstart_sim import api

    api.collect(run_dir)
    _report(run_dir)


@app.command(name="list")
def list_(traceback: Traceback = False) -> None:
    """List strategies, parts, data sets, models, scenario generators and bundled scenarios."""
    from rich.console import Console
    from rich.table import Table

    from warmstart_sim import registry
    from warmstart_sim.config.source import bundled_scenarios, headline

    groups = {
        "strategies": registry.STRATEGIES,
        "parts of an arm": registry.PARTS,
        "data sets": registry.DATASETS,
        "scenario generators": registry.STREAMS,
        "models": registry.MODELS,
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for title, group in groups.items():
        table.add_row(f"[bold]{title}")
        for name in group.names():
            table.add_row(f"  {name}", group.summary(name))
    table.add_row("[bold]scenario files")
    for name, path in bundled_scenarios().items():
        table.add_row(f"  {name}", headline(path))
    Console().print(table)


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
    """Validate a scenario, and say how many cells, rounds and (at most) steps it means."""
    from warmstart_sim import api

    raw, where = api.prepare(
        scenario, set=set_ or (), strategies=_words(strategies), seeds=_numbers(seeds), rehearse=rehearse
    )
    size = api.size(raw, where, data_root)
    print(
        f"{where}: valid; {size.cells} cells ({size.arms} arms, {size.seeds} seeds), {size.rounds:,} rounds, "
        f"at most {size.steps:,} steps"
    )


@app.command()
def data(
    name: Annotated[str, typer.Argument(help="A data set of `warmstart-sim list`.")],
    data_root: DataRoot = None,
    traceback: Traceback = False,
) -> None:
    """Fetch or verify a data set, and say where it lies."""
    from warmstart_sim import data as datasets
    from warmstart_sim.data.location import data_root as find_data_root

    folder = find_data_root(data_root)
    dataset = datasets.load(name, {}, folder, seed=0)
    shape = "x".join(map(str, dataset.input_shape))
    print(
        f"{name}: {len(dataset.train):,} training and {len(dataset.test):,} test samples of shape {shape} "
        f"({dataset.train.inputs.dtype}), {dataset.classes} classes; data folder {folder}"
    )


@app.command()
def schema(traceback: Traceback = False) -> None:
    """Print the JSON schema of a scenario file."""
    import json

    from warmstart_sim.config.schema import json_schema

    print(json.dumps(json_schema(), indent=2))


def main() -> None:
    """The entry point: a user's mistake ends in one line on stderr, not in a traceback."""
    try:
        app()
    except KeyboardInterrupt:
        print("warmstart-sim: interrupted; the same command goes on where it stopped", file=sys.stderr)
        sys.exit(130)
    except WarmstartError as error:
        if "--traceback" in sys.argv:
            traceback.print_exc()
        print(f"warmstart-sim: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _report(folder: Path) -> None:
    from rich.console import Console

    from warmstart_sim import report as reports
    from warmstart_sim.report.findings import sentence
    from warmstart_sim.report.terminal import terminal_table
    from warmstart_sim.results.tables import load

    path = reports.write(folder)
    stored = load(folder)
    console = Console()
    console.print(terminal_table(stored))
    console.print(sentence(stored), highlight=False)
    console.print(f"report: {path}", highlight=False, soft_wrap=True)


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise WarmstartError(f"--seeds {text}: expected whole numbers with commas, such as 0,1,2") from None
