"""The executor on Ray: workers are actors on this machine or on those of a cluster; the numbers are the same.

Ray is an optional extra, and imported only once it is asked for. Whatever dies, the run's folder says what is complete:
a worker's tasks are handed out again, and a driver that is started again goes on with what is left.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import secrets
import signal
import site
import socket
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from warmstart_sim import preemption
from warmstart_sim.config import Cell
from warmstart_sim.errors import RunError, WarmstartError
from warmstart_sim.results.store import RunFolder
from warmstart_sim.sweep.execute import LOOK_SECONDS, Ledger, Watcher, hand_out
from warmstart_sim.sweep.ray_worker import (
    Files,
    Message,
    RayWorker,
    Setup,
    Sight,
    Storage,
    kind_of_machine,
    packed,
    read_files,
    versions,
    write_files,
)
from warmstart_sim.sweep.tasks import Queue, Task
from warmstart_sim.types import Dataset

if TYPE_CHECKING:
    from warmstart_sim.experiment import Batching, Place

HERE = "local"  # the address that means: start Ray on this machine
HEAR_SECONDS = 20.0  # a worker that has nothing to say answers after this long
KIND_SECONDS = 120.0  # how long machines have to say what they are
PATIENCE_SECONDS = 30.0  # without any worker, a user is told after this long what is waited for
KNOCK_SECONDS = 10.0
STILLBORN = 3  # workers that died before they were ready, with none alive: something is wrong with all of them


@dataclass(frozen=True)
class Wanted:
    """What was asked for.

    Attributes:
        address: Of a cluster, or "local" to start Ray on this machine.
        workers: How many; None for as many as there are CPUs, or as fit on the GPUs.
        device: "auto" (GPUs where there are any), "cpu" or "cuda".
        gpus_per_worker: Of one GPU; None for a whole one.
        storage: Whether workers write into the run's folder or return results; "auto" for what they find.
    """

    address: str = HERE
    workers: int | None = None
    device: str = "auto"
    gpus_per_worker: float | None = None
    storage: Storage = "auto"

    def check(self) -> None:
        """Makes sure that it can be had as far as this machine can tell.

        Raises:
            WarmstartError: It cannot, or Ray is not installed.
        """
        if self.device not in ("auto", "cpu", "cuda"):
            raise WarmstartError(
                f"--device {self.device}: with --ray, Ray hands out the GPUs; choose auto, cpu or cuda"
            )
        if self.gpus_per_worker is not None and not 0 <= self.gpus_per_worker <= 1:
            raise WarmstartError(
                f"--gpus-per-worker {self.gpus_per_worker:g}: a worker has a part of one GPU, such as 0.25, or 1, or "
                "(with 0) none"
            )
        if self.address == HERE and "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
            # What Ray listens on takes nobody's orders but ours; it reads these when it is imported.
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        _import_ray()


@dataclass
class Cluster:
    """A cluster that this process has joined.

    Attributes:
        device: What workers train on: "cpu" or "cuda:0" (each sees its own GPU only).
        size: The number of workers, if there are tasks for all.
        kinds: Of its machines, each once.
    """

    wanted: Wanted
    device: str
    size: int
    kinds: tuple[str, ...]
    objects: dict[str, Any] = field(default_factory=dict)
    workers: list[_Remote] = field(default_factory=list)
    probe: Path | None = None

    def about(self) -> dict[str, Any]:
        """For environment.json."""
        ray = _import_ray()
        return {"executor": f"ray {ray.__version__}", "device": self.device, "machines": list(self.kinds)}

    def arranged(
        self,
        place: Place,
        cells: Sequence[Cell],
        run: RunFolder,
        *,
        workers: int,
        slots: int | Literal["auto"],
        batching: Batching | Literal["auto"],
    ) -> Place:
        """The place with slots, batching, and what a step costs alone; measured on a worker, before there are others.

        Seconds are "shared" in any case: nobody can say what else a cluster does. They come with estimates of what
        they were alone only where all machines are of one kind; on several, a step has no one cost.

        Args:
            place: Where cells run.
            cells: Those that are left, first phases among them.
            run: The run's folder.
            workers: How many there will be.
            slots: Cells in each; "auto" measures.
            batching: How; "auto" takes the faster one.
        """
        if not cells:
            return replace(place, timing="shared")
        ray = _import_ray()
        worker = self.worker(run, place)
        some = list(cells) if slots != 1 else list({cell.step_kind: cell for cell in reversed(cells)}.values())
        parcel, objects = self.pack(some)
        try:
            found, record = ray.get(
                worker.actor.measure.remote(parcel, objects, place, run.speed(), max(2, workers), slots, batching)
            )
        except ray.exceptions.RayTaskError as error:
            raise _cause(error) from None
        except ray.exceptions.RayError as error:
            raise RunError(f"--ray: the worker that measured the speed was lost ({_why(error)})") from None
        run.save_speed(record)
        place = found
        return place if len(self.kinds) == 1 else replace(place, step_times={})

    def execute(
        self,
        cells: Sequence[Cell],
        run: RunFolder,
        place: Place,
        workers: int,
        watcher: Watcher,
        retries: int,
        digests: Mapping[str, str],
        say: Callable[[str], None],
    ) -> dict[str, str]:
        """Runs all cells that are not complete yet, as `execute.execute` does on this machine.

        Args:
            cells: In the order in which they should run.
            run: The run's folder, locked by the caller.
            place: Where and how cells run.
            workers: How many.
            watcher: Is told how it goes.
            retries: How often a cell is tried again whose worker or machine was lost.
            digests: Of the data sets, by their settings, for workers to compare with theirs.
            say: Tells a user something.

        Returns:
            The cells that failed, and why.

        Raises:
            WarmstartError: Something that no other cell would survive either.
            Preempted: The process got SIGTERM, and what was under way is checkpointed.
        """
        ledger = Ledger(Queue(cells, run), watcher, retries)
        _Crew(self, ledger, run, place, workers, digests, say).execute()
        return ledger.failures

    def worker(self, run: RunFolder, place: Place) -> _Remote:
        """Asks for one more worker; it is ready when it says so."""
        ray = _import_ray()
        if self.probe is None:
            self.probe = run.path / f".ray-{secrets.token_hex(8)}"
            self.probe.touch()
        setup = Setup(
            run.path.absolute(), self.probe.name, self.wanted.storage, place.data_root.absolute(), self.device,
            tuple(path or os.getcwd() for path in sys.path),
        )  # fmt: skip
        gpus = _gpus_each(self.wanted, self.device)
        kind = ray.remote(RayWorker).options(num_cpus=1, num_gpus=gpus, max_concurrency=4, max_restarts=0)
        actor = kind.remote(setup)
        self.workers.append(_Remote(self, actor, actor.hear.remote(HEAR_SECONDS), run))
        return self.workers[-1]

    def pack(self, value: Any) -> tuple[bytes, dict[str, Any]]:
        """Pickled cells or tasks, and references to the data sets in them, each stored in the cluster once."""
        used: dict[str, Any] = {}

        def keep(dataset: Dataset) -> str:
            key = f"data {id(dataset)}"
            if key not in self.objects:
                # The data set comes along, so that no other can have its address while the key is in use.
                self.objects[key] = (_import_ray().put(dataset), dataset)
            used[key] = self.objects[key][0]
            return key

        return packed(value, keep), used


@contextlib.contextmanager
def connected(wanted: Wanted, cells: Sequence[Cell]) -> Iterator[Cluster]:
    """Starts Ray on this machine, or joins a cluster, and leaves it at the end.

    Args:
        wanted: What was asked for.
        cells: Those that will run; the user's own modules that they name are sent along to a cluster.

    Raises:
        WarmstartError: The cluster cannot be joined, or has no such device.
    """
    wanted.check()
    ray = _import_ray()
    ours = not ray.is_initialized()
    try:
        if ours:
            _begin(ray, wanted, cells)
        cluster = _cluster(ray, wanted)
        try:
            yield cluster
        finally:
            _dismiss(ray, cluster)
    finally:
        if ours:
            ray.shutdown()


@dataclass
class _Remote:
    """An actor as the driver sees it.

    Attributes:
        heard: The reference to what it will say next.
        sight: What it said of its machine; None until it is ready.
    """

    cluster: Cluster
    actor: Any
    heard: Any
    run: RunFolder
    tasks: dict[str, Task] = field(default_factory=dict)
    sight: Sight | None = None

    def give(self, task: Task) -> None:
        """Sends a task; if its results come back through Ray, with what the run's folder holds for it."""
        parcel, objects = self.cluster.pack(task)
        files: list[Any] = []
        if self.sight is not None and not self.sight.shared:
            files.append(read_files(self.run, task))
            if phase := task.cell.first_phase:
                files.append(self._first_phase(Task(phase, first_phase=True)))
        self.actor.give.remote(parcel, objects, files)

    def _first_phase(self, phase: Task) -> Any:
        """A reference to the files of a first phase, stored in the cluster once."""
        key = f"phase {phase.id}"
        if key not in self.cluster.objects:
            files = read_files(self.run, phase)
            if not any(name.endswith("/result.json") for name in files):
                return files  # it is not complete: the cell will train it
            self.cluster.objects[key] = (_import_ray().put(files), None)
        return self.cluster.objects[key][0]


@dataclass
class _Crew:
    """The workers of a run, and what is heard from them."""

    cluster: Cluster
    ledger: Ledger
    run: RunFolder
    place: Place
    size: int
    digests: Mapping[str, str]
    say: Callable[[str], None]
    stillborn: int = 0
    ready_since: float = field(default_factory=time.monotonic)

    def execute(self) -> None:
        ray = _import_ray()
        while self._assign():
            self._listen(ray)
            if preemption.requested():
                self._stop(ray)

    @property
    def workers(self) -> list[_Remote]:
        return self.cluster.workers

    def _assign(self) -> bool:
        """Hands out tasks to the workers that are ready; whether there is anything to wait for."""
        queue = self.ledger.queue
        wanted = min(self.size, len(queue.ready) + sum(len(worker.tasks) for worker in self.workers))
        while len(self.workers) < wanted:
            self.cluster.worker(self.run, self.place)
        ready = [worker for worker in self.workers if worker.sight]
        hand_out(self.ledger, ready, self.place.slots)
        if not ready and time.monotonic() - self.ready_since > PATIENCE_SECONDS:
            self.say(f"waiting for a free place in the cluster: a worker takes {_needs(self.cluster)}")
            self.ready_since = float("inf")
        return bool(queue.ready) or any(worker.tasks for worker in self.workers)

    def _listen(self, ray: Any) -> None:
        """Hears whoever says something first, but does not wait for ever."""
        speakers = {worker.heard: worker for worker in self.workers}
        for reference in ray.wait(list(speakers), num_returns=1, timeout=LOOK_SECONDS)[0]:
            worker = speakers[reference]
            try:
                messages = ray.get(reference)
            except ray.exceptions.RayError as error:  # it died, or what it said was lost with its machine
                self._bury(ray, worker, _why(error))
                continue
            worker.heard = worker.actor.hear.remote(HEAR_SECONDS)
            self.workers.append(self.workers.pop(self.workers.index(worker)))  # the others are listened to first
            for message in messages:
                self._hear(ray, worker, message)

    def _hear(self, ray: Any, worker: _Remote, message: Message) -> None:
        kind, task_id, content = message
        if kind == "ready":
            self._welcome(worker, content)
        elif kind == "progress" and task_id in worker.tasks:
            self.ledger.progress(worker.tasks[task_id], content)
        elif kind == "ended" and task_id in worker.tasks:
            error, files = content
            self._store(files)
            self.ledger.ended(worker.tasks.pop(task_id), error)
        elif kind == "fatal":
            raise content
        elif kind == "broken":
            self._bury(ray, worker, content)
        elif kind == "stopped":
            self._store(content)
            worker.tasks.clear()

    def _welcome(self, worker: _Remote, sight: Sight) -> None:
        """A worker is ready: it begins, if it computes what this machine would."""
        here = versions()
        for name, version in sight.versions.items():
            if version != here[name]:
                raise WarmstartError(
                    f"--ray: {sight.host} has {name} {version}, this machine {here[name]}; install the same versions "
                    "everywhere, or numbers would depend on where a cell runs"
                )
        if self.cluster.wanted.storage == "shared" and not sight.shared:
            raise WarmstartError(
                f"--ray-storage shared: {sight.host} does not see {self.run.path.absolute()}, or may not write there; "
                "choose a folder that all machines share, or --ray-storage returned"
            )
        place = self.place if sight.kind in self.cluster.kinds else replace(self.place, step_times={})
        worker.sight = sight
        worker.actor.start.remote(place, self.digests)
        self.stillborn, self.ready_since = 0, float("inf")

    def _store(self, files: Files | None) -> None:
        try:
            write_files(self.run, files or {})
        except OSError as error:
            raise self.run.unusable(error) from error

    def _bury(self, ray: Any, worker: _Remote, why: str) -> None:
        """Lets a dead worker's tasks be done by others."""
        with contextlib.suppress(Exception):
            ray.kill(worker.actor)
        self.workers.remove(worker)
        lost, worker.tasks = worker.tasks, {}
        if preemption.requested():
            return
        if worker.sight is None:
            self.stillborn += 1
            if self.stillborn >= STILLBORN and not any(each.sight for each in self.workers):
                raise RunError(f"--ray: no worker can be started: {why}")
        for task in lost.values():
            host = worker.sight.host if worker.sight else "a machine"
            self.ledger.lost(task, f"its Ray worker on {host} died ({why})")

    def _stop(self, ray: Any) -> None:
        """Asks the workers to checkpoint what they do, and waits for that."""
        for worker in self.workers:
            worker.actor.stop.remote()
        while any(worker.tasks for worker in self.workers):
            self._listen(ray)
        raise preemption.Preempted


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


def _import_ray() -> Any:
    """Ray, which is told before its import to send no usage statistics."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Without it Ray would hide the GPUs from workers on a CPU by an empty variable, and warn that this will change.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise WarmstartError('--ray: Ray is not installed: pip install "warmstart-sim[ray]"') from None


def _begin(ray: Any, wanted: Wanted, cells: Sequence[Cell]) -> None:
    """Starts Ray here, or joins a cluster; Ray's own handler of SIGTERM, which ends a process at once, is not kept."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if main else None
    try:
        if wanted.address == HERE:
            cores = max(wanted.workers or 0, len(os.sched_getaffinity(0)))
            ray.init(HERE, include_dashboard=False, num_cpus=cores, **quiet)
        else:
            _knock(wanted.address)
            modules = own_modules(cells)
            environment = {"py_modules": [str(path) for path in modules]} if modules else None
            ray.init(wanted.address, runtime_env=environment, **quiet)
    except Exception as error:
        what = "Ray cannot be started here" if wanted.address == HERE else f"cannot join {wanted.address}"
        raise RunError(f"--ray: {what} ({_why(error)})") from None
    finally:
        if main:
            signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _knock(address: str) -> None:
    """Makes sure that somebody listens at an address: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()


def _cluster(ray: Any, wanted: Wanted) -> Cluster:
    resources = ray.cluster_resources()
    gpus, cpus = resources.get("GPU", 0), int(resources.get("CPU", 0))
    if wanted.device == "cuda" and not gpus:
        raise WarmstartError("--device cuda: the Ray cluster has no GPU; use --device cpu")
    cuda = wanted.device == "cuda" or (wanted.device == "auto" and gpus and wanted.gpus_per_worker != 0)
    device = "cuda:0" if cuda else "cpu"
    each = _gpus_each(wanted, device)
    fitting = min(cpus, int(gpus / each + 1e-9)) if each else cpus
    return Cluster(wanted, device, wanted.workers or max(1, fitting), _kinds(ray, device))


def _gpus_each(wanted: Wanted, device: str) -> float:
    return 0 if device == "cpu" else (wanted.gpus_per_worker or 1)


def _needs(cluster: Cluster) -> str:
    gpus = _gpus_each(cluster.wanted, cluster.device)
    return "1 CPU" + (f" and {gpus:g} of a GPU" if gpus else "")


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
            raise _cause(error) from None
        except ray.exceptions.RayError:
            kinds.add(f"unknown ({looks[each]})")
    return tuple(sorted(kinds))


def own_modules(cells: Iterable[Cell]) -> list[Path]:
    """The user's own modules that cells need, and those that were imported from beside them: files and packages.

    What is installed, and what was typed into a script, is not among them: the first must be installed on every
    machine, the second travels with the cells.

    Args:
        cells: Whose own modules have been imported.
    """
    names: set[str] = set()
    for cell in cells:
        components = [cell.data, cell.stream, cell.model, cell.arm.start, *cell.arm.parts]
        if cell.pretraining and cell.pretraining.source:
            components.append(cell.pretraining.source.data)
        for each in components:
            if each.is_own:
                module = type(each.target).__module__ if each.target is not None else each.name
                names.add(getattr(each.target, "__module__", module).partition(":")[0].partition(".")[0])
    tops = {name: path for name in sys.modules if "." not in name and (path := _file(name))}
    folders = {tops[name].parent for name in names - {"__main__", "warmstart_sim"} if name in tops}
    return sorted(path for name, path in tops.items() if path.parent in folders and name != "__main__")


def _file(name: str) -> Path | None:
    """Where a module comes from, if it is a user's: its file, or its package's folder."""
    module = sys.modules[name]
    file = getattr(module, "__file__", None)
    if not file or not file.endswith(".py"):
        return None
    path = Path(file).resolve()
    installed = [sysconfig.get_path(each) for each in ("stdlib", "platstdlib", "purelib", "platlib")]
    installed += [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    if any(path.is_relative_to(Path(each).resolve()) for each in installed):
        return None
    return path.parent if path.name == "__init__.py" else path


def _cause(error: Any) -> Exception:
    """What a task raised, if it is of ours or means that we are not there, or what Ray says of it."""
    if isinstance(error.cause, WarmstartError):
        return error.cause
    if isinstance(error.cause, ImportError):
        return WarmstartError(f"--ray: a machine lacks what is installed here ({error.cause})")
    return RunError(f"--ray: {_why(error)}")


def _why(error: BaseException) -> str:
    """Ray's many lines in one."""
    text = " ".join(str(error).split())
    if "node" in text and ("node has died" in text or "node was terminated" in text or "NodeDied" in text):
        return "its machine was lost"
    if "unavailable" in text:
        return "it was killed or its machine was lost: it cannot be reached any more"
    for sign in ("OutOfMemory", "out of memory", "low on memory", "memory pressure"):
        if sign in text:
            return "Ray ended it because the machine ran out of memory"
    if "died unexpectedly" in text or "worker process has died" in text:
        return "it was killed or crashed; often that means out of memory"
    return f"{type(error).__name__}: {text}"[:300]
