"""The options of a run, declared once: the command line and the Python functions take them from `RunOptions`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

from typer import Option

from warmstart_sim.errors import WarmstartError

F = TypeVar("F", bound=Callable[..., Any])


def parse_slots(text: str) -> int | Literal["auto"]:
    """The value of `--slots`.

    Raises:
        WarmstartError: It is neither "auto" nor a positive number.
    """
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) == 0:
        raise WarmstartError(f"--slots {text}: expected auto, or how many cells, such as 8")
    return int(text)


Slots = Annotated[
    Any,  # int or "auto": typer knows no unions, even with a parser
    Option(
        parser=parse_slots,
        metavar="N|auto",
        show_default="auto on a GPU, else 1",
        help="How many cells each process trains at a time; auto measures.",
    ),
]
DataRoot = Annotated[
    Path | None,
    Option(metavar="DIR", show_default="$WARMSTART_SIM_DATA, else your cache folder", help="The folder of data sets."),
]


@dataclass(frozen=True)
class RunOptions:
    """How a scenario is run. The numbers depend on none of it but `deterministic` and, in their last bits, `batching`.

    Every field is an option of `warmstart-sim run` and `grid`, whose `--help` describes it, and a keyword argument of
    `warmstart_sim.run` and `grid`.
    """

    out: Annotated[
        Path | None,
        Option(metavar="DIR", show_default="runs/NAME", help="The run's folder; an interrupted run continues there."),
    ] = None
    device: Annotated[str, Option(metavar="NAME", help="auto (CUDA if available), cpu, cuda or cuda:N.")] = "auto"
    data_root: DataRoot = None
    workers: Annotated[
        int | None,
        Option(min=1, metavar="N", show_default="all cores; 1 on a GPU", help="How many processes run cells."),
    ] = None
    slots: Slots = None
    batching: Annotated[
        Literal["auto", "stacked", "streams", "separate"],
        Option(
            help="How cells in slots make their steps: as one stacked model, in CUDA streams, or in separate steps one "
            "after another; auto measures."
        ),
    ] = "auto"
    engine: Annotated[
        Literal["native", "avalanche"],
        Option(help="The training loop: ours, or Avalanche's with our plugins (starts, stop rules, loss terms only)."),
    ] = "native"
    ray: Annotated[
        str | None,
        Option(
            "--ray",
            metavar="[ADDRESS]",
            help="Run cells on Ray: on this machine, or on the cluster at ADDRESS (auto, HOST:PORT, ray://HOST:PORT).",
        ),
    ] = None
    gpus_per_worker: Annotated[
        float | None,
        Option(
            metavar="SHARE",
            show_default="1 if there are GPUs",
            help="With --ray: the share of a GPU for each worker, such as 0.25; 0 for none.",
        ),
    ] = None
    ray_storage: Annotated[
        Literal["auto", "shared", "returned"],
        Option(
            help="With --ray: workers write to DIR, which all machines share, or return results; auto checks for DIR."
        ),
    ] = "auto"
    retries: Annotated[
        int, Option(min=0, metavar="N", help="How often a cell is tried again after its worker died or was lost.")
    ] = 2
    fresh: Annotated[bool, Option("--fresh", help="Delete what the run's folder holds, and start again.")] = False
    quiet: Annotated[bool, Option("--quiet", "-q", help="Show no progress.")] = False
    tensorboard: Annotated[bool, Option("--tensorboard", help="Write TensorBoard logs to DIR/tensorboard.")] = False
    deterministic: Annotated[
        bool, Option("--deterministic", help="On CUDA: the same bits every time, more slowly.")
    ] = False

    def __post_init__(self) -> None:
        hints = get_type_hints(RunOptions)
        for name in ("batching", "engine", "ray_storage"):
            value, allowed = getattr(self, name), get_args(hints[name])
            if value not in allowed:
                option = f"--{name.replace('_', '-')}"
                raise WarmstartError(f"{option} {value}: expected one of {', '.join(allowed)}")


def takes_run_options(for_typer: bool, only: Collection[str] | None = None) -> Callable[[F], F]:
    """Declares a keyword parameter for each field of `RunOptions` on a function that takes them as `**options`.

    Args:
        for_typer: Whether the declaration has the command line's help texts.
        only: The names of these fields. Default all.
    """
    hints = get_type_hints(RunOptions, include_extras=for_typer)
    declared = [
        inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=hints[each.name])
        for each in fields(RunOptions)
        if only is None or each.name in only
    ]

    def declare(function: F) -> F:
        own = list(inspect.signature(function, eval_str=for_typer).parameters.values())[:-1]
        function.__signature__ = inspect.Signature([*own, *declared])  # type: ignore[attr-defined]
        function.__annotations__ = {each.name: each.annotation for each in (*own, *declared)}
        return function

    return declare
