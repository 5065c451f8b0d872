"""The overhead of thousands of cells, in milliseconds per cell, with a model whose training costs almost nothing.

    python benchmarks/scale.py [--cells 100,1000,10000] [--workers 1] [--ray] [--out scale.md]

The scenario is a grid of lambda and sigma on eight points, with two rounds of one step each. `plan` lists the cells,
`run` trains and stores all of them, `resume` runs the same command again when nothing is left to do, `status` reads the
progress, and `report` writes tables, figures and page. The milliseconds per cell should not grow with the number of
cells. With `--ray` the cells run on Ray on this machine, including its start.
"""

from __future__ import annotations

import argparse
import datetime
import math
import resource
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from document import Budget, Document, Row, Section

from warmstart_sim import api, report
from warmstart_sim import scenario as scenarios
from warmstart_sim.execution.launch import run_scenario
from warmstart_sim.execution.options import RunOptions
from warmstart_sim.results.environment import environment
from warmstart_sim.scenario.overrides import prepare_scenario
from warmstart_sim.types import Dataset, Samples

HEAD = ("cells", "plan", "run", "resume", "status", "report", "folder, kB per cell", "page", "memory of this process")


def tiny_model(input_shape: tuple[int, ...], classes: int) -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(input_shape[0], classes))


def points() -> Dataset:
    rng = np.random.default_rng(0)
    train, test = (Samples(rng.normal(size=(n, 2)).astype(np.float32), np.arange(n) % 2) for n in (8, 4))
    return Dataset("points", train, test, 2)


def scenario(cells: int) -> tuple[dict[str, Any], str]:
    """A grid that is as square as possible, and random init."""
    side = math.isqrt(cells)
    lambdas, sigmas = np.linspace(0, 1, side), np.linspace(0, 1, cells // side)
    return prepare_scenario(
        {
            "name": "scale",
            "data": points(),
            "stream": {"name": "online", "chunk_size": 4},
            "model": tiny_model,
            "training": {"until": {"epochs": 1}},
            "strategies": {"random_init": {}, "shrink_perturb": {}},
            "vary": {
                "strategies.shrink_perturb.lambda": lambdas.tolist(),
                "strategies.shrink_perturb.sigma": sigmas.tolist(),
            },
            "seeds": [0],
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cells", type=lambda text: [int(each) for each in text.split(",")], default=[100, 1000, 10000]
    )
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--ray", action="store_true", help="run the cells on Ray, started here")
    parser.add_argument("--out", type=Path, help="also write the document to this file")
    arguments = parser.parse_args()
    ray = "local" if arguments.ray else None
    where = environment("cpu", workers=arguments.workers, rehearsal=False)
    document = Document(arguments.out)
    document.write("# Thousands of cells\n")
    document.write(
        f"{where['device_name']}, {where['cores']} cores, torch {where['torch']}, commit {where['commit']}, "
        f"{datetime.date.today()}, {arguments.workers} worker{'s' * (arguments.workers > 1)}"
        f"{' on Ray' * arguments.ray}.\n"
    )
    document.write(f"`{shlex.join(['python', 'benchmarks/scale.py', *sys.argv[1:]])}`")
    _run(100, arguments.workers, ray)  # imports and other one-time costs
    pieces = {str(count): lambda _, count=count: rows(count, arguments.workers, ray) for count in arguments.cells}
    note = "Milliseconds per cell without imports; two rounds of one step each."
    document.add(Section("Overhead per cell", note, HEAD, pieces), Budget(math.inf, len(pieces)))
    sys.exit(1 if document.failures else 0)


def rows(count: int, workers: int, ray: str | None) -> Iterator[Row]:
    cells, seconds, size, page = _run(count, workers, ray)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    yield (
        f"{cells:,}",
        *(f"{1e3 * each / cells:.2f}" for each in seconds),
        f"{size / cells / 1e3:.1f}",
        f"{page / 1e6:.2f} MB",
        f"{memory:,.0f} MB",
    )


def _run(count: int, workers: int, ray: str | None) -> tuple[int, list[float], int, int]:
    """Returns the number of cells, the seconds of each stage, and the bytes of the folder and of the page."""
    raw, where = scenario(count)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        options = RunOptions(out, "cpu", workers=workers, quiet=True, ray=ray)
        stages: list[Callable[[], Any]] = [
            lambda: scenarios.plan(raw, where),
            lambda: run_scenario(raw, where, options),
            lambda: run_scenario(raw, where, options),
            lambda: api.status(out),
            lambda: report.write(out),
        ]
        seconds = []
        for stage in stages:
            started = time.perf_counter()
            stage()
            seconds.append(time.perf_counter() - started)
        size = sum(path.stat().st_size for path in (out / "cells").rglob("*") if path.is_file())
        return len(scenarios.plan(raw, where)[1]), seconds, size, (out / "report.html").stat().st_size


if __name__ == "__main__":
    main()
