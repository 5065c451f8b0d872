"""Fixtures that several test files use."""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Callable, Iterator
from multiprocessing.context import BaseContext
from pathlib import Path

import pytest
from hypothesis import settings

from tests.forked import ForkedProcess, command_line, start_forked

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("untimed", deadline=None)  # a test on a busy machine takes as long as it takes
settings.load_profile("untimed")

# What takes a process that trains several seconds to import.
IMPORTS = ["warmstart_sim.execution.launch", "warmstart_sim.execution.interleaved", "warmstart_sim.avalanche.engine"]


gc.disable()  # until the tests are collected: it would walk all modules again and again


def pytest_collection_finish() -> None:
    """Leaves modules and tests out of garbage collections, and makes these rarer: they took a tenth of the time."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


def pytest_unconfigure() -> None:
    """Lets what was left out be collected at the end of the process: some libraries report what is left as a leak."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _single_thread() -> None:
    """Torch's threads spin; with one, tests do not disturb each other, and numbers are those of a cell."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def no_figures(monkeypatch) -> None:
    """Leaves the figures out of reports: drawing them takes longer than a small run."""
    monkeypatch.setattr("warmstart_sim.report.figures.draw_figures", lambda run, published: [])


@pytest.fixture(scope="session")
def fork_server() -> BaseContext:
    """Starts processes at once: they are forked from one that has imported `IMPORTS`."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTS)
    return context


@pytest.fixture
def quick_workers(fork_server, monkeypatch) -> None:
    """Forks the worker processes of runs in this process, as `started` does those of commands; a user's are spawned."""
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: fork_server)


@pytest.fixture
def started(fork_server, tmp_path) -> Iterator[Callable[..., ForkedProcess]]:
    """Starts `warmstart-sim ARGUMENTS`; if it has not ended with its test, it is killed then."""
    processes: list[ForkedProcess] = []

    def start(*arguments: str) -> ForkedProcess:
        folder = tmp_path / f"process{len(processes)}"
        processes.append(start_forked(fork_server, folder, command_line, *arguments))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def real_data() -> Path:
    """The folder of the real data sets."""
    folder = os.environ.get("WARMSTART_SIM_DATA")
    if not folder:
        pytest.skip("needs real data sets: set WARMSTART_SIM_DATA to the folder that holds them")
    return Path(folder)


@pytest.fixture
def tiny_scenario() -> dict:
    """Three arms on noisy digits, three small rounds, a report without figures: a second for all of it."""
    return {
        "name": "tiny",
        "data": {"name": "noisy_digits", "normalize": "none", "train_samples": 150, "test_samples": 100},
        "stream": {"name": "online", "chunk_size": 50},
        "model": {"name": "small_cnn", "channels": [4, 8]},
        "training": {"batch_size": 32, "until": {"train_accuracy": 0.9, "max_epochs": 6}},
        "strategies": {"random_init": {}, "warm_start": {}, "shrink_perturb": {"lambda": 0.6, "sigma": 0.1}},
        "seeds": [0, 1],
        "standard_figures": False,
    }


@pytest.fixture
def own_parts_registered(monkeypatch) -> None:
    """Registers a user's own parts as `running_average` and `last_round_teaches` for the time of a test."""
    from tests.experiment import own_parts
    from warmstart_sim.registry import PARTS

    PARTS.names()  # loads the package
    for name, target in (
        ("running_average", own_parts.RunningAverage),
        ("last_round_teaches", own_parts.LastRoundTeaches),
    ):
        monkeypatch.setitem(PARTS._targets, name, target)
        monkeypatch.setitem(PARTS._traits, name, frozenset())
        monkeypatch.setitem(PARTS._details, name, {})
