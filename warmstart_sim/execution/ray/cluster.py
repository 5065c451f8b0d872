"""Starts Ray on this machine or joins a cluster, looks at its machines, and leaves it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from warmstart_sim.errors import RunError, WarmstartError
from warmstart_sim.execution.ray import reasons
from warmstart_sim.execution.ray.options import LOCAL, check_options, import_ray
from warmstart_sim.execution.ray.user_modules import own_modules
from warmstart_sim.execution.ray.worker import kind_of_machine, measure_parallelism
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario import Cell

if TYPE_CHECKING:
    from warmstart_sim.execution.autotune import Parallelism
    from warmstart_sim.execution.options import RunOptions
    from warmstart_sim.experiment.settings import ExecutionSettings

KIND_SECONDS = 120.0  # how long machines have to say what they are
CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process has joined.

    Attributes:
        options: The options of the run.
        device: What workers train on: "cpu" or "cuda:0" (each sees its own GPU only).
        size: The number of workers, if there are cells for all.
        kinds: The kinds of its machines.
    """

    options: RunOptions
    device: str
    size: int
    kinds: tuple[str, ...]

    @property
    def needs(self) -> str:
        """The resources of one worker, in words."""
        gpus = gpus_each(self.options, self.device)
        return "1 CPU" + (f" and {gpus:g} of a GPU" if gpus else "")

    def about(self) -> dict[str, Any]:
        """What environment.json says of the cluster."""
        return {"executor": f"ray {import_ray().__version__}", "device": self.device, "machines": list(self.kinds)}

    def remote(self, function: Any) -> Any:
        """Makes a function a Ray task that takes the resources of one worker.

        On GPUs Ray gives each task a process of its own: one that has used a GPU could not change to another.
        """
        gpus = gpus_each(self.options, self.device)
        return import_ray().remote(num_cpus=1, num_gpus=gpus, scheduling_strategy="SPREAD")(function)

    def choose_parallelism(
        self, execution: ExecutionSettings, cells: Sequence[Cell], run: RunFolder, wanted: Parallelism
    ) -> ExecutionSettings:
        """`autotune.choose_parallelism` on a worker, before any cell runs.

        Seconds are always "shared", because other programs may use the cluster. Rows have estimates of isolated seconds
        only if all machines are of one kind; otherwise a step has no single cost.
        """
        if not cells:
            return replace(execution, timing="shared")
        ray = import_ray()
        one_of_each = {cell.step_kind: cell for cell in reversed(cells)}.values()
        needed = list(cells) if wanted.slots != 1 else list(one_of_each)
        beside_others = replace(wanted, workers=max(2, wanted.workers))
        measure = self.remote(measure_parallelism).options(max_retries=0)
        task = measure.remote(driver_paths(), [ray.put(needed)], execution, run.speed(), beside_others)
        try:
            execution, record = ray.get(task)
        except ray.exceptions.RayTaskError as error:
            raise reasons.cause(error) from None
        except ray.exceptions.RayError as error:
            raise RunError(f"--ray: the worker that measured the speed was lost ({reasons.why(error)})") from None
        run.save_speed(record)
        return execution if len(self.kinds) == 1 else replace(execution, step_times={})


def driver_paths() -> tuple[str, ...]:
    """Where this process finds modules; workers look there last."""
    return tuple(path or os.getcwd() for path in sys.path)


@contextlib.contextmanager
def connected(options: RunOptions, cells: Sequence[Cell]) -> Iterator[Cluster]:
    """Starts Ray on this machine or joins a cluster, and leaves it at the end; keeps a connection that exists.

    Args:
        options: The options of the run.
        cells: The cells that will run; the user's own modules that they name are sent to the cluster.

    Raises:
        WarmstartError: The cluster cannot be joined, or has no such device.
    """
    check_options(options)
    ray = import_ray()
    ours = not ray.is_initialized()
    try:
        if ours:
            _start(ray, options, cells)
        yield _inspect(ray, options)
    finally:
        if ours:
            ray.shutdown()


def _start(ray: Any, options: RunOptions, cells: Sequence[Cell]) -> None:
    """Starts Ray here or joins a cluster, and removes Ray's SIGTERM handler, which would end the process at once."""
    address = options.ray or LOCAL
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if main else None
    try:
        if address == LOCAL:
            cores = max(options.workers or 0, len(os.sched_getaffinity(0)))
            ray.init(LOCAL, include_dashboard=False, num_cpus=cores, **quiet)
        else:
            check_reachable(address)
            modules = own_modules(cells)
            environment = {"py_modules": [str(path) for path in modules]} if modules else None
            _join(ray, address, runtime_env=environment, **quiet)
    except Exception as error:
        what = "Ray cannot be started here" if address == LOCAL else f"cannot join {address}"
        raise RunError(f"--ray: {what} ({reasons.why(error)})") from None
    finally:
        if main:
            signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _join(ray: Any, address: str, **options: Any) -> None:
    """Joins a cluster; tries twice, because Ray's client server forks beside gRPC threads and may fail to start."""
    try:
        ray.init(address, **options)
    except ConnectionAbortedError:
        ray.init(address, **options)


def check_reachable(address: str) -> None:
    """Checks that something listens at an address: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()


def gpus_each(options: RunOptions, device: str) -> float:
    """The share of a GPU that each worker takes when training on `device`."""
    return 0 if device == "cpu" else (options.gpus_per_worker or 1)


def _inspect(ray: Any, options: RunOptions) -> Cluster:
    """Chooses the device and the number of workers from the cluster's resources."""
    resources = ray.cluster_resources()
    gpus, cpus = resources.get("GPU", 0), int(resources.get("CPU", 0))
    if options.device == "cuda" and not gpus:
        raise WarmstartError("--device cuda: the Ray cluster has no GPU; use --device cpu")
    cuda = options.device == "cuda" or (options.device == "auto" and gpus and options.gpus_per_worker != 0)
    device = "cuda:0" if cuda else "cpu"
    each = gpus_each(options, device)
    fitting = min(cpus, int(gpus / each + 1e-9)) if each else cpus
    return Cluster(options, device, options.workers or max(1, fitting), _kinds(ray, device))


def _kinds(ray: Any, device: str) -> tuple[str, ...]:
    """Asks every machine for its kind; one that does not answer counts as a kind of its own."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    needed, gpu = ("CPU", 0) if device == "cpu" else ("GPU", 0.01)  # without a share of it, a task does not see the GPU
    answers = {}
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get(needed):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ask = ray.remote(kind_of_machine).options(
                scheduling_strategy=there, max_retries=0, num_cpus=0, num_gpus=gpu
            )
            answers[node["NodeID"]] = ask.remote(device)
    kinds = set()
    if answers:
        ray.wait(list(answers.values()), num_returns=len(answers), timeout=KIND_SECONDS)
    for node_id, answer in answers.items():
        try:
            kinds.add(ray.get(answer, timeout=0))
        except ray.exceptions.RayTaskError as error:
            raise reasons.cause(error) from None
        except ray.exceptions.RayError:  # also if it has not answered in time
            kinds.add(f"unknown ({node_id})")
    return tuple(sorted(kinds))
