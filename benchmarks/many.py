"""Compares many cells at once with one cell: R cells in one process, and on a CPU one cell per core.

    python benchmarks/many.py [--device cuda] [--models mlp,resnet18_w16] [--most 8]

The cells are equal, and only as large as their steps require: steps are timed, not whole cells.
"""

from __future__ import annotations

import argparse
import functools
import gc
import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from document import Budget, Document, Row, Section
from limits import traffic
from loops import BATCH, MODELS
from rates import device_rates

from warmstart_sim.acceleration.device_cache import DeviceCache
from warmstart_sim.execution.throughput import COUNTS, MODES, Rate, rates
from warmstart_sim.experiment.cell_trainer import CellTrainer, set_up_torch
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.results.environment import usable_cores
from warmstart_sim.scenario import Cell, plan
from warmstart_sim.scenario.splits import load_dataset
from warmstart_sim.training.loop import RoundTraining
from warmstart_sim.training.settings import Training

CHUNK = 4 * BATCH  # training samples of a cell
DIGITS = {"name": "digits"}
IMAGES = {"name": "synthetic", "like": "cifar10", "train_samples": CHUNK, "test_samples": 10}
CASES = {
    "logistic_regression, 1x8x8": (DIGITS, "logistic_regression"),
    "mlp, 1x8x8": (DIGITS, "mlp"),
    "small_cnn, 1x8x8": (DIGITS, "small_cnn"),
    "mlp, 3x32x32": (IMAGES, "mlp"),
    "small_cnn, 3x32x32": (IMAGES, "small_cnn"),
    "resnet18_w16, 3x32x32": (IMAGES, "resnet18_w16"),
}
CORE_TURNS, CORE_SECONDS = 3, 2.0


def cases(models: Sequence[str]) -> list[str]:
    return [case for case, (_, model) in CASES.items() if model in models]


def cell_of(case: str) -> Cell:
    data, model = CASES[case]
    scenario = {
        "name": "benchmark",
        "data": data,
        "stream": {"name": "online", "chunk_size": CHUNK, "rounds": 1},
        "model": {"name": MODELS[model].name, **MODELS[model].options},
        "training": {"batch_size": BATCH, "until": {"epochs": 10**9}},
        "strategies": {"random_init": {}},
        "seeds": [0],
    }
    return plan(scenario, "benchmarks/many.py")[1][0]


def settings_on(device: str) -> ExecutionSettings:
    return ExecutionSettings(Path(), device)


def sections(models: Sequence[str], device: torch.device, most: int, turns: int = CORE_TURNS) -> list[Section]:
    """R cells at once in one process, and on a CPU one cell per core, measured in `turns` turns."""
    cores = [cores_section(models, turns)] if device.type == "cpu" else []
    return [slots_section(models, device, most), *cores]


def slots_section(models: Sequence[str], device: torch.device, most: int) -> Section:
    counts = [count for count in COUNTS if count <= most]
    memory = (
        "the peak device memory that PyTorch allocated"
        if device.type == "cuda"
        else "the memory by which a new process grows (for its first cell including the libraries)"
    )
    note = (
        f"Steps per second of R cells together, divided by those of one cell alone, measured right before (batch "
        f"{BATCH}); after the comma, {memory}. The last column is the best memory traffic as a share of a copy's "
        "bandwidth: the bytes that a step's operators read and write, times steps per second. A dash means not enough "
        "time or memory."
    )
    head = [
        "model", "way", "one cell, steps/s", "its memory", *(f"R = {count}" for count in counts), "memory traffic, best"
    ]  # fmt: skip

    def piece(case: str, way: str) -> Callable[[Budget], Iterator[Row]]:
        return lambda budget: rows(case, way, device, counts, budget)

    ways = MODES[device.type]
    pieces = {f"{case} ({way})": piece(case, way) for case in cases(models) for way in ways}
    return Section("Many cells at once", note, head, pieces)


def rows(case: str, way: str, device: torch.device, counts: Sequence[int], budget: Budget) -> Iterator[Row]:
    moved = bytes_of_step(case, device)
    one, *more = (measure(case, way, device, count, budget) for count in (1, *counts))
    assert one is not None
    best = max([one.steps_per_second, *(each.steps_per_second for each in more if each)])
    share = best * moved / device_rates(device).bytes
    yield [
        case, way, f"{one.steps_per_second:,.0f}", _megabytes(one.memory),
        *(f"{each.ratio:.2f}, {_megabytes(each.memory)}" if each else "-" for each in more), f"{share:.0%}",
    ]  # fmt: skip


@dataclass(frozen=True)
class ParallelRate:
    """The rate of R cells that train together.

    Attributes:
        ratio: Their steps per second, divided by those of one cell.
        memory: The bytes that they use; None if unknown.
    """

    steps_per_second: float
    ratio: float
    memory: int | None


def measure(case: str, way: str, device: torch.device, count: int, budget: Budget) -> ParallelRate | None:
    """Measures `count` cells; None if the time is used up, or if they do not fit or cannot run side by side."""
    if count > 1 and budget.over:
        return None
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(device)
        found = one_and_many(case, way, str(device), count)
        memory = free - torch.cuda.mem_get_info(device)[0]
    else:  # a process may keep freed memory and reuse it, so each count is measured in a new process
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found, memory = pool.submit(_with_memory, case, way, str(device), count).result()
    if len(found) < min(count, 2):
        return None
    return ParallelRate(found[-1].steps_per_second, found[-1].steps_per_second / found[0].steps_per_second, memory)


def one_and_many(case: str, way: Any, device: str, count: int) -> list[Rate]:
    """Measures one cell alone, then `count` cells together if possible."""
    found = rates(cell_of(case), settings_on(device), COUNTS[-1], (count,), way)
    return [next(found)] if count == 1 else list(found)


def _with_memory(case: str, way: str, device: str, count: int) -> tuple[list[Rate], int | None]:
    load_dataset(cell_of(case), Path())  # so that data and the libraries that read them are not counted
    before = _memory("VmRSS")
    found = one_and_many(case, way, device, count)
    peak = _memory("VmHWM")
    return found, None if before is None or peak is None else peak - before


def _memory(key: str) -> int | None:
    """Returns this process's memory in bytes, current (VmRSS) or peak (VmHWM); None if the system is not Linux."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    found = next(line for line in status.read_text().splitlines() if line.startswith(key))
    return 1024 * int(found.split()[1])


def _megabytes(count: int | None) -> str:
    return "?" if count is None else f"{count / 1e6:,.0f} MB"


def bytes_of_step(case: str, device: torch.device) -> int:
    trainer = CellTrainer(cell_of(case), settings_on(str(device)), DeviceCache(str(device), lambda device: None))
    trainer.begin(trainer.rounds[0], None)
    index = torch.arange(BATCH, device=device)
    trainer.stepper.train_mode()
    return traffic(lambda: trainer.stepper.step(index, None)).bytes


PRODUCT, COPY = "a matrix product", "a copy in memory"  # what the cores may share, beside the models
PRODUCT_SIDE, COPIED_BYTES = 1024, 2**27


def cores_section(models: Sequence[str], turns: int) -> Section:
    cores = usable_cores()
    note = (
        f"Samples/s of {cores} single-threaded processes, each training one cell, divided by those of one such process "
        "while the other cores are idle. Both take turns. The same for a large float32 matrix product (GFLOP/s), which "
        "needs the cores alone, and for a large copy (GB/s, read and written), which needs the memory they share."
    )
    head = ["model", "one process, samples/s", f"all {cores} / one", "turns"]

    def piece(case: str) -> Callable[[Budget], Iterator[Row]]:
        return lambda budget: core_rows(case, cores, turns, budget)

    return Section("All cores", note, head, {case: piece(case) for case in (*cases(models), PRODUCT, COPY)})


def core_rows(case: str, cores: int, turns: int, budget: Budget) -> Iterator[Row]:
    context = multiprocessing.get_context("spawn")
    pairs = []
    with ProcessPoolExecutor(cores, context, _get_ready, (case, context.Barrier(cores))) as pool:
        list(pool.map(_work_for, [0.0] * cores))
        for _ in range(turns):
            (alone,) = pool.map(_work_for, [CORE_SECONDS])
            pairs.append((alone, sum(pool.map(_work_for, [CORE_SECONDS] * cores))))
            if budget.over:
                break
    ratios = [together / alone for alone, together in pairs]
    yield [
        case, f"{statistics.median(alone for alone, _ in pairs):,.0f}",
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})", str(len(pairs)),
    ]  # fmt: skip


def _get_ready(case: str, barrier: Any) -> None:
    """Creates this process's work, and waits until all processes have created theirs."""
    global _work
    _work = _work_of(case)
    _work()
    barrier.wait()


_work: Callable[[], float]  # does some work, and returns how much: samples, 10^9 operations, 10^9 bytes


def _work_of(case: str) -> Callable[[], float]:
    torch.set_num_threads(1)
    if case == PRODUCT:
        return functools.partial(_multiply, *(torch.rand(PRODUCT_SIDE, PRODUCT_SIDE) for _ in range(3)))
    if case == COPY:
        return functools.partial(_copy, *(torch.ones(COPIED_BYTES // 4) for _ in range(2)))
    trainer = CellTrainer(cell_of(case), settings_on("cpu"))
    return functools.partial(_train_epoch, trainer.begin(trainer.rounds[0], None)[1])


def _multiply(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> float:
    torch.mm(left, right, out=out)
    return 2 * PRODUCT_SIDE**3 / 1e9


def _copy(source: torch.Tensor, target: torch.Tensor) -> float:
    target.copy_(source)
    return 2 * COPIED_BYTES / 1e9


def _train_epoch(training: RoundTraining) -> float:
    before = training.samples_seen
    training.run_epoch()
    return training.samples_seen - before


def _work_for(seconds: float) -> float:
    """Works for so long, at least once, and returns the amount of work per second."""
    started, done = time.perf_counter(), 0.0
    while True:
        done += _work()
        elapsed = time.perf_counter() - started
        if elapsed >= seconds:
            return done / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--most", type=int, default=COUNTS[-1], help="the largest R")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    set_up_torch(device, Training())
    document = Document()
    for each in sections(arguments.models.split(","), device, arguments.most):
        document.add(each, Budget(math.inf, len(each.pieces)))


if __name__ == "__main__":
    main()
