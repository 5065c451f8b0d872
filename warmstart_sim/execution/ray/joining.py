"""Starting Ray on this machine or joining a cluster, looking at its machines, and leaving it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from warmstart_sim.errors import RunError, WarmstartError
from warmstart_sim.execution.ray import reasons
from warmstart_sim.execution.ray.cluster import Cluster
from warmstart_sim.execution.ray.user_modules import own_modules
from warmstart_sim.execution.ray.wanted import HERE, RayOptions, import_ray
from warmstart_sim.execution.ray.worker import kind_of_machine
from warmstart_sim.scenario import Cell

KIND_SECONDS = 120.0  # how long machines have to say what they are
KNOCK_SECONDS = 10.0


@contextlib.contextmanager
def connected(wanted: RayOptions, cells: Sequence[Cell]) -> Iterator[Cluster]:
    """Starts Ray on this machine, or joins a cluster, and leaves it at the end.

    Args:
        wanted: What was asked for.
        cells: Those that will run; the user's own modules that they name are sent along to a cluster.

    Raises:
        WarmstartError: The cluster cannot be joined, or has no such device.
    """
    wanted.check()
    ray = import_ray()
    ours = not ray.is_initialized()
    try:
        if ours:
            _begin(ray, wanted, cells)
        cluster = _looked_at(ray, wanted)
        try:
            yield cluster
        finally:
            _dismiss(ray, cluster)
    finally:
        if ours:
            ray.shutdown()


def _begin(ray: Any, wanted: RayOptions, cells: Sequence[Cell]) -> None:
    """Starts Ray here, or joins a cluster; Ray's own handler of SIGTERM, which ends a process at once, is not kept."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if main else None
    try:
        if wanted.address == HERE:
            cores = max(wanted.workers or 0, len(os.sched_getaffinity(0)))
            ray.init(HERE, include_dashboard=False, num_cpus=cores, **quiet)
        else:
            check_reachable(wanted.address)
            modules = own_modules(cells)
            environment = {"py_modules": [str(path) for path in modules]} if modules else None
            _join(ray, wanted.address, runtime_env=environment, **quiet)
    except Exception as error:
        what = "Ray cannot be started here" if wanted.address == HERE else f"cannot join {wanted.address}"
        raise RunError(f"--ray: {what} ({reasons.why(error)})") from None
    finally:
        if main:
            signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _join(ray: Any, address: str, **options: Any) -> None:
    """Joins a cluster; once more if Ray's client server, which forks beside threads of gRPC, has not started."""
    try:
        ray.init(address, **options)
    except ConnectionAbortedError:
        ray.init(address, **options)


def check_reachable(address: str) -> None:
    """Makes sure that somebody listens at an address: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()


def _looked_at(ray: Any, wanted: RayOptions) -> Cluster:
    resources = ray.cluster_resources()
    gpus, cpus = resources.get("GPU", 0), int(resources.get("CPU", 0))
    if wanted.device == "cuda" and not gpus:
        raise WarmstartError("--device cuda: the Ray cluster has no GPU; use --device cpu")
    cuda = wanted.device == "cuda" or (wanted.device == "auto" and gpus and wanted.gpus_per_worker != 0)
    device = "cuda:0" if cuda else "cpu"
    each = wanted.gpus_each(device)
    fitting = min(cpus, int(gpus / each + 1e-9)) if each else cpus
    return Cluster(wanted, device, wanted.workers or max(1, fitting), _kinds(ray, device))


def _kinds(ray: Any, device: str) -> tuple[str, ...]:
    """What kinds of machines there are, from a look at each; one that does not answer is of a kind of its own."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    needed = "GPU" if device != "cpu" else "CPU"
    gpu = 0.01 if device != "cpu" else 0  # without any, a task does not see the GPU that it is asked about
    looks = {}
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get(needed):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            look = ray.remote(kind_of_machine).options(
                scheduling_strategy=there, max_retries=0, num_cpus=0, num_gpus=gpu
            )
            looks[look.remote(device)] = node["NodeID"]
    answered, silent = ray.wait(list(looks), num_returns=len(looks), timeout=KIND_SECONDS) if looks else ([], [])
    kinds = {f"unknown ({looks[each]})" for each in silent}
    for each in answered:
        try:
            kinds.add(ray.get(each))
        except ray.exceptions.RayTaskError as error:
            raise reasons.cause(error) from None
        except ray.exceptions.RayError:
            kinds.add(f"unknown ({looks[each]})")
    return tuple(sorted(kinds))


def _dismiss(ray: Any, cluster: Cluster) -> None:
    """Ends all workers, and removes what they and we have put aside."""
    if cluster.probe is not None:
        cluster.probe.unlink(missing_ok=True)
    with contextlib.suppress(Exception):  # those that are not shared have files of their own
        keep = [worker for worker in cluster.workers if worker.sight and not worker.sight.shared]
        ray.get([worker.actor.close.remote() for worker in keep], timeout=5)
    for worker in cluster.workers:
        with contextlib.suppress(Exception):
            ray.kill(worker.actor)
