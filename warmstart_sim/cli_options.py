"""What the command line takes: arguments and options with their help, each defined once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from typer import Argument, Option

from warmstart_sim.errors import WarmstartError

if TYPE_CHECKING:
    from warmstart_sim.execution.launch import RunOptions

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


@dataclass(frozen=True)
class CommandLineOptions:
    """How a scenario is run: the options that every command has that runs one; `launch.Options` says what they mean."""

    out: Out = None
    device: Device = "auto"
    data_root: DataRoot = None
    workers: Workers = None
    slots: Slots = None
    batching: HowBatched = "auto"
    engine: HowTrained = "native"
    ray: Ray = None
    gpus_per_worker: GpusPerWorker = None
    ray_storage: RayStorage = "auto"
    retries: Retries = 2
    fresh: Fresh = False
    quiet: Quiet = False
    tensorboard: TensorBoard = False
    deterministic: Deterministic = False

    def read(self) -> RunOptions:
        """The same for `launch.execute`.

        Raises:
            WarmstartError: The number of slots is none.
        """
        from warmstart_sim.execution.launch import RunOptions

        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return RunOptions(**given | {"slots": _slots(self.slots)})


def with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Makes options of the fields of a command's parameter `how: CommandLineOptions`, for typer to see."""
    hints = get_type_hints(CommandLineOptions, include_extras=True)
    spread = [
        inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=hints[each.name])
        for each in fields(CommandLineOptions)
    ]
    parameters: list[inspect.Parameter] = []
    for each in inspect.signature(command, eval_str=True).parameters.values():
        parameters += spread if each.annotation is CommandLineOptions else [each]

    @functools.wraps(command)
    def spelt(**given: Any) -> None:
        how = CommandLineOptions(**{each.name: given.pop(each.name) for each in fields(CommandLineOptions)})
        command(**given, how=how)

    spelt.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    spelt.__annotations__ = {each.name: each.annotation for each in parameters}
    return spelt


def _slots(text: str | None) -> int | Literal["auto"] | None:
    if text is None:
        return None
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) == 0:
        raise WarmstartError(f"--slots {text}: expected auto, or how many cells, such as 8")
    return int(text)
