"""Starts Ray on this machine or joins a cluster, looks at its resources, and leaves it."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from warmstart_sim.errors import WarmstartError
from warmstart_sim.execution.ray import reasons
from warmstart_sim.execution.ray.user_modules import own_modules
from warmstart_sim.execution.ray.worker import measure_parallelism
from warmstart_sim.results.environment import usable_cores
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario import Cell

if TYPE_CHECKING:
    from warmstart_sim.execution.autotune import Parallelism
    from warmstart_sim.execution.options import RunOptions
    from warmstart_sim.experiment.settings import ExecutionSettings

LOCAL = "local"  # the value of `--ray` that starts Ray on this machine
CONNECT_SECONDS = 10.0


def check_options(options: RunOptions) -> None:
    """Checks the options as far as that is possible without the cluster.

    Raises:
        WarmstartError: An option is invalid, or Ray is not installed.
    """
    if options.device not in ("auto", "cpu", "cuda"):
        raise WarmstartError(f"--device {options.device}: with --ray, Ray hands out the GPUs; choose auto, cpu or cuda")
    if options.gpus_per_worker is not None and not 0 <= options.gpus_per_worker <= 1:
        raise WarmstartError(
            f"--gpus-per-worker {options.gpus_per_worker:g}: a worker has a part of one GPU, such as 0.25, or 1, or "
            "(with 0) none"
        )
    if options.ray == LOCAL and "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
        # Require a token: Ray's ports must reject other clients. Ray reads these variables when it is imported.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    import_ray()


def import_ray() -> Any:
    """Imports Ray, with its usage statistics off.

    Raises:
        WarmstartError: Ray is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray warns that it will stop hiding the GPUs from tasks that take none; this chooses what it will do.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise WarmstartError('--ray: Ray is not installed: pip install "warmstart-sim[ray]"') from None


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process has joined.

    Attributes:
        options: The options of the run.
        device: What workers train on: "cpu" or "cuda:0" (each sees its own GPU only).
        gpus: The share of a GPU that each worker takes.
        size: The number of workers, if there are cells for all.
    """

    options: RunOptions
    device: str
    gpus: float
    size: int

    def about(self) -> dict[str, Any]:
        """What environment.json says of the cluster."""
        return {"executor": f"ray {import_ray().__version__}", "device": self.device}

    def remote(self, function: Any) -> Any:
        """Makes a function a Ray task that takes the resources of one worker.

        On GPUs Ray gives each task a process of its own: one that has used a GPU could not change to another.
        """
        return import_ray().remote(num_cpus=1, num_gpus=self.gpus, scheduling_strategy="SPREAD")(function)

    def choose_parallelism(
        self, execution: ExecutionSettings, cells: Sequence[Cell], run: RunFolder, wanted: Parallelism
    ) -> ExecutionSettings:
        """`autotune.choose_parallelism` on a worker, before any cell runs.

        Seconds are always "concurrent", because other programs may use the cluster. Estimates of isolated seconds are
        those of the machine that measures here, wherever a cell runs.
        """
        ray = import_ray()
        beside_others = replace(wanted, workers=max(2, wanted.workers))
        task = self.remote(measure_parallelism).options(max_retries=0)
        try:
            execution, record = ray.get(task.remote(execution, list(cells), run.speed(), beside_others))
        except ray.exceptions.RayError as error:
            raise reasons.run_error(error, "the worker that measured the speed was lost") from None
        run.save_speed(record)
        return execution


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
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if modules := own_modules(cells):
        settings["runtime_env"] = {"py_modules": [str(path) for path in modules]}
    if address == LOCAL:
        cores = max(options.workers or 0, usable_cores())
        settings |= {"include_dashboard": False, "num_cpus": cores}
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if main else None
    try:
        check_reachable(address)
        _join(ray, address, **settings)
    except Exception as error:
        what = "Ray cannot be started here" if address == LOCAL else f"cannot join {address}"
        raise reasons.run_error(error, what) from None
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


def _inspect(ray: Any, options: RunOptions) -> Cluster:
    """Chooses the device and the number of workers from the cluster's resources."""
    resources = ray.cluster_resources()
    gpus, cpus = resources.get("GPU", 0), int(resources.get("CPU", 0))
    if options.device == "cuda" and not gpus:
        raise WarmstartError("--device cuda: the Ray cluster has no GPU; use --device cpu")
    if options.device == "cuda" or (options.device == "auto" and gpus and options.gpus_per_worker != 0):
        share = options.gpus_per_worker or 1
        return Cluster(options, "cuda:0", share, options.workers or max(1, min(cpus, int(gpus / share + 1e-9))))
    return Cluster(options, "cpu", 0, options.workers or max(1, cpus))
