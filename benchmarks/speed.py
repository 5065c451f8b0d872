"""How fast warmstart-sim trains: one Markdown document, mostly of ratios, measured in one run.

    python benchmarks/speed.py                          all of it; on a CPU tens of minutes
    python benchmarks/speed.py --minutes 6              what fits into that, and what was left out is said
    python benchmarks/speed.py --device cuda --out speed.md
    python benchmarks/speed.py --only cells --models mlp,small_cnn --neighbour

Sections: `cells`, one cell against other training loops (loops.py); `limits`, what bounds a step (limits.py); `many`, R
cells at once, and on a CPU one on each core (many.py). How long a whole job takes, jobs.py says.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import math
import multiprocessing
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import limits
import loops
import many
import torch
from document import Budget, Document, Section

from warmstart_sim.experiment.cell_trainer import set_up_torch
from warmstart_sim.results.environment import environment
from warmstart_sim.training.settings import Training

SECTIONS = ("cells", "limits", "many")


def main() -> None:
    arguments = parsed()
    device = torch.device(arguments.device)
    set_up_torch(device, Training())
    ends = time.perf_counter() + 60 * arguments.minutes

    document = Document(arguments.out)
    describe(document, arguments.device, arguments.neighbour)
    with neighbour(arguments.neighbour):
        sections = list(chosen(arguments, device))
        budget = Budget(ends - time.perf_counter(), sum(len(section.pieces) for section in sections))
        for section in sections:
            document.add(section, budget)
    sys.exit(1 if document.failures else 0)


def chosen(arguments: argparse.Namespace, device: torch.device) -> Iterator[Section]:
    if "cells" in arguments.only:
        yield loops.section(
            arguments.models, device,
            repeats=arguments.repeats, steps=arguments.steps, with_compiled=arguments.compile,
        )  # fmt: skip
    if "limits" in arguments.only:
        yield limits.section(arguments.models, device)
    if "many" in arguments.only:
        yield from many.sections(arguments.models, device, arguments.most, min(arguments.repeats, many.CORE_TURNS))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", type=_names(SECTIONS), default=SECTIONS, help=f"of {','.join(SECTIONS)}")
    parser.add_argument("--models", type=_names(loops.MODELS), default=tuple(loops.MODELS))
    parser.add_argument("--repeats", type=int, default=7, help="most turns that the loops take")
    parser.add_argument("--steps", type=int, help="batches of an epoch, instead of each model's own number")
    parser.add_argument("--most", type=int, default=32, help="the largest number of cells at once")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which nothing new is begun")
    parser.add_argument("--compile", action="store_true", help="torch.compile's step too (CUDA; minutes of compiling)")
    parser.add_argument("--neighbour", action="store_true", help="keep another process busy on one core")
    parser.add_argument("--out", type=Path, help="write the document to this file as well")
    return parser.parse_args()


def _names(known: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    def names(text: str) -> tuple[str, ...]:
        chosen = tuple(text.split(","))
        if unknown := set(chosen) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose from {', '.join(known)}")
        return chosen

    return names


def describe(document: Document, device: str, busy: bool) -> None:
    """Where, with what and how it is measured."""
    where = environment(device, 1, rehearsal=False)
    document.write("# How fast warmstart-sim trains\n")
    document.write(
        f"{where['device_name']}, {where['cores']} cores, torch {where['torch']}, commit {where['commit']}, "
        f"{datetime.date.today()}{'; another process keeps one core busy' if busy else ''}.\n"
    )
    document.write(f"`{shlex.join(['python', 'benchmarks/speed.py', *sys.argv[1:]])}`")


@contextlib.contextmanager
def neighbour(wanted: bool) -> Iterator[None]:
    """A process that keeps one core busy."""
    process = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True) if wanted else None
    if process:
        process.start()
    try:
        yield
    finally:
        if process:
            process.kill()


def _spin() -> None:
    while True:
        pass


if __name__ == "__main__":
    main()
