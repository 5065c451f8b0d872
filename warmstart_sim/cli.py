"""The command line. Thin: it reads arguments, calls the API, prints. Torch is imported by the commands that need it."""

from __future__ import annotations

import os
import re
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from typer import Argument, Option

from warmstart_sim import __version__
from warmstart_sim.errors import RunError, WarmstartError
from warmstart_sim.preemption import Preempted

if TYPE_CHECKING:
    from warmstart_sim import api

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

Scenario = Annotated[str, Argument(help="A scenario file, or the name of a bundled one such as digits_online.")]
RunDir = Annotated[Path, Argument(help="A run's folder, finished or not.")]
DataName = Annotated[str, Argument(help="A data set of `warmstart-sim list`, or your own as module:function.")]

Set = Annotated[
    list[str] | None,
    Option("--set", metavar="KEY=VALUE", help="Change a setting: training.optimizer.lr=0.01; repeatable."),
]
Lambda = Annotated[
    str | None,
    Option("--lambda", metavar="VALUES", help="Values of lambda: 0:1:0.2 (START:STOP:STEP, with STOP) or 0,0.5,1."),
]
Sigma = Annotated[str | None, Option("--sigma", metavar="VALUES", help="Values of sigma, such as 0,1e-4,1e-2,1.")]
Vary = Annotated[
    list[str] | None,
    Option("--vary", metavar="KEY=V1,V2", help="One more axis: training.optimizer.lr=0.01,0.001; repeatable."),
]
DataSet = Annotated[
    list[str] | None,
    Option("--set", metavar="KEY=VALUE", help="Set one of its options, such as path=mine.npz; repeatable."),
]
Strategies = Annotated[str | None, Option(metavar="A,B", help="Run these strategies only.")]
Seeds = Annotated[str | None, Option(metavar="0,1,2", help="Run these seeds instead of the scenario's.")]
Rehearse = Annotated[
    bool, Option("--rehearse", help="A reduced copy, end to end in about a minute, offline, on stand-in data.")
]
DataRoot = Annotated[
    Path | None,
    Option(metavar="DIR", show_default="$WARMSTART_SIM_DATA, else your cache folder", help="Where data sets lie."),
]
Out = Annotated[
    Path | None,
    Option(metavar="DIR", show_default="runs/NAME", help="The run's folder; an interrupted run goes on there."),
]
Device = Annotated[str, Option(metavar="NAME", help="auto (CUDA where there is one), cpu, cuda or cuda:N.")]
Workers = Annotated[
    int | None,
    Option(min=1, metavar="N", show_default="all cores; 1 on a GPU", help="How many processes run cells."),
]
Slots = Annotated[
    str | None,
    Option(
        metavar="N|auto", show_default="auto on a GPU, else 1", help="How many cells each process trains at a time."
    ),
]
HowBatched = Annotated[
    Literal["auto", "stacked", "streams", "apart"],
    Option(help="How: as one stacked model, in a GPU's streams, one step after another; auto measures."),
]
HowTrained = Annotated[
    Literal["native", "avalanche"],
    Option(help="Whose training loop: our own, or Avalanche's with our plugins (starts and stop rules only)."),
]
Ray = Annotated[
    str | None,
    Option(
        "--ray",
        metavar="[ADDRESS]",
        help="Run the cells on Ray: on this machine, or on the cluster at ADDRESS (auto, HOST:PORT, ray://HOST:PORT).",
    ),
]
GpusPerWorker = Annotated[
    float | None,
    Option(metavar="SHARE", show_default="1 if there are GPUs", help="On Ray: of one GPU, such as 0.25; 0 for none."),
]
RayStorage = Annotated[
    Literal["auto", "shared", "returned"],
    Option(help="On Ray: workers write into DIR, which all machines share, or return results; auto looks for DIR."),
]
Retries = Annotated[
    int, Option(min=0, metavar="N", help="How often a cell is tried again whose worker was killed or lost.")
]
Fresh = Annotated[bool, Option("--fresh", help="Delete what the run's folder holds, and begin again.")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="Show no progress.")]
TensorBoard = Annotated[bool, Option("--tensorboard", help="Write TensorBoard logs to DIR/tensorboard.")]
Deterministic = Annotated[bool, Option("--deterministic", help="On CUDA: the same bits every time, more slowly.")]
# Every command takes it, for `--help`; `main` acts on it.
Traceback = Annotated[bool, Option("--traceback", help="Show where an error comes from.")]
Version = Annotated[bool, Option("--version", help="Show the version and exit.")]


@app.callback(invoke_without_command=True)
def root(context: typer.Context, version: Version = False) -> None:
    """What happens without a command."""
    if context.invoked_subcommand is None:
        print(f"warmstart-sim {__version__}" if version else context.get_help())


@app.command()
def run(
    scenario: Scenario,
    out: Out = None,
    set_: Set = None,
    strategies: Strategies = None,
    seeds: Seeds = None,
    device: Device = "auto",
    data_root: DataRoot = None,
    workers: Workers = None,
    slots: Slots = None,
    batching: HowBatched = "auto",
    engine: HowTrained = "native",
    ray: Ray = None,
    gpus_per_worker: GpusPerWorker = None,
    ray_storage: RayStorage = "auto",
    retries: Retries = 2,
    rehearse: Rehearse = False,
    fresh: Fresh = False,
    quiet: Quiet = False,
    tensorboard: TensorBoard = False,
    deterministic: Deterministic = False,
    traceback: Traceback = False,
) -> None:
    """Run a scenario, or go on with it; write tables, figures, report.

    Runs every strategy with every seed. A run that was interrupted goes on when the same command is given again.
    """
    from warmstart_sim import api

    raw, where = _prepared(scenario, set_, strategies, seeds, rehearse)
    options = api.Options(
        out, device, data_root, workers, fresh, quiet, tensorboard, deterministic, _slots(slots), batching, engine,
        ray, gpus_per_worker, ray_storage, retries,
    )  # fmt: skip
    _execute(raw, where, options, rehearse)


@app.command()
def grid(
    scenario: Scenario,
    lam: Lambda = None,
    sigma: Sigma = None,
    vary: Vary = None,
    out: Out = None,
    set_: Set = None,
    strategies: Strategies = None,
    seeds: Seeds = None,
    device: Device = "auto",
    data_root: DataRoot = None,
    workers: Workers = None,
    slots: Slots = None,
    batching: HowBatched = "auto",
    engine: HowTrained = "native",
    ray: Ray = None,
    gpus_per_worker: GpusPerWorker = None,
    ray_storage: RayStorage = "auto",
    retries: Retries = 2,
    rehearse: Rehearse = False,
    fresh: Fresh = False,
    quiet: Quiet = False,
    tensorboard: TensorBoard = False,
    deterministic: Deterministic = False,
    traceback: Traceback = False,
) -> None:
    """Run shrink-perturb at every lambda and sigma, beside random init.

    Its other strategies are left out unless --strategies names them. Everything else is as in `run`; the default folder
    is runs/NAME-grid.
    """
    from warmstart_sim import api
    from warmstart_sim.config.grid import assignments, prepare

    raw, where = prepare(
        scenario, lam=lam, sigma=sigma, vary=assignments(vary or ()), set=set_ or (),
        strategies=_labels(strategies), seeds=_numbers(seeds), rehearse=rehearse,
    )  # fmt: skip
    options = api.Options(
        out, device, data_root, workers, fresh, quiet, tensorboard, deterministic, _slots(slots), batching, engine,
        ray, gpus_per_worker, ray_storage, retries,
    )  # fmt: skip
    _execute(raw, where, options, rehearse)


@app.command()
def report(run_dir: RunDir, traceback: Traceback = False) -> None:
    """Write a run's tables, figures and report.html again."""
    from warmstart_sim import api

    api.collect(run_dir)
    _report(run_dir)


@app.command()
def status(run_dir: RunDir, traceback: Traceback = False) -> None:
    """Show how far a run is: done, running, failed, remaining time."""
    from warmstart_sim import api
    from warmstart_sim.sweep.watch import clock

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
        place = f"round {each['round']}/{each['rounds']}, epoch {each['epoch']}, " if "round" in each else ""
        print(f"  running  {name}: {place}{each['done']:.0%}")
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
    from warmstart_sim.config.source import bundled_scenarios, headline

    registries = {
        "Strategies": registry.STRATEGIES,
        "Parts of a strategy": registry.PARTS,
        "Data sets": registry.DATASETS,
        "Models": registry.MODELS,
        "Scenario generators": registry.STREAMS,
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
    from warmstart_sim.config.dealing import load_by_name
    from warmstart_sim.data.location import data_root as find_data_root

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

    from warmstart_sim.config.schema import json_schema

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
    from warmstart_sim.config.changes import prepare

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


def _execute(raw: dict[str, Any], where: str, options: api.Options, rehearse: bool) -> None:
    """Runs what is left of a prepared scenario, and shows what was found."""
    from warmstart_sim import api

    outcome = api.execute(raw, where, options, rehearsal=rehearse)
    _report(outcome.folder)
    if outcome.failures:
        raise RunError(api.failure_lines(outcome))


def _slots(text: str | None) -> int | Literal["auto"] | None:
    if text is None:
        return None
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) == 0:
        raise WarmstartError(f"--slots {text}: expected auto, or how many cells, such as 8")
    return int(text)


def _report(folder: Path) -> None:
    from rich.console import Console

    from warmstart_sim import report as reports
    from warmstart_sim.report.findings import sentence
    from warmstart_sim.report.terminal import terminal_table
    from warmstart_sim.results.tables import load

    path = reports.write(folder)
    stored = load(folder)
    in_pipe = not sys.stdout.isatty()  # where rich would take 80 columns, and cut names
    console = Console(width=140 if in_pipe else None)
    console.print(terminal_table(stored))
    console.print(sentence(stored), highlight=False, width=100 if in_pipe else None)
    console.print(f"report: {path}", highlight=False, soft_wrap=True)


def _aligned(lines: dict[str, str], width: int) -> list[str]:
    return [f"  {name:<{width}}  {text}".rstrip() for name, text in lines.items()]


def _count(number: int, noun: str) -> str:
    plural = noun.removesuffix("y") + "ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"
