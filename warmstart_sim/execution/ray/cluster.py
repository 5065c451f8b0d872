"""A cluster as its driver sees it: what it is made of, its workers, and what is sent to them."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from warmstart_sim.errors import RunError
from warmstart_sim.execution.pickling import pickled
from warmstart_sim.execution.ray import reasons
from warmstart_sim.execution.ray.files import read_files
from warmstart_sim.execution.ray.wanted import RayOptions, import_ray
from warmstart_sim.execution.ray.worker import HEAR_SECONDS, RayWorker, Setup, WorkerInfo
from warmstart_sim.execution.tasks import Task
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario import Cell
from warmstart_sim.types import Dataset

if TYPE_CHECKING:
    from warmstart_sim.experiment.settings import Batching, ExecutionSettings


@dataclass
class Cluster:
    """A cluster that this process has joined.

    Attributes:
        device: What workers train on: "cpu" or "cuda:0" (each sees its own GPU only).
        size: The number of workers, if there are tasks for all.
        kinds: Of its machines, each once.
    """

    wanted: RayOptions
    device: str
    size: int
    kinds: tuple[str, ...]
    objects: dict[str, Any] = field(default_factory=dict)
    workers: list[Remote] = field(default_factory=list)
    probe: Path | None = None

    @property
    def needs(self) -> str:
        """What of a machine each worker takes."""
        gpus = self.wanted.gpus_each(self.device)
        return "1 CPU" + (f" and {gpus:g} of a GPU" if gpus else "")

    def about(self) -> dict[str, Any]:
        """For environment.json."""
        ray = import_ray()
        return {"executor": f"ray {ray.__version__}", "device": self.device, "machines": list(self.kinds)}

    def choose_parallelism(
        self,
        execution: ExecutionSettings,
        cells: Sequence[Cell],
        run: RunFolder,
        *,
        workers: int,
        slots: int | Literal["auto"],
        batching: Batching | Literal["auto"],
    ) -> ExecutionSettings:
        """The place with slots, batching, and what a step costs alone; measured on a worker, before there are others.

        Seconds are "shared" in any case: nobody can say what else a cluster does. They come with estimates of what
        they were alone only where all machines are of one kind; on several, a step has no one cost.

        Args:
            execution: Where cells run.
            cells: Those that are left, first phases among them.
            run: The run's folder.
            workers: How many there will be.
            slots: Cells in each; "auto" measures.
            batching: How; "auto" takes the faster one.
        """
        if not cells:
            return replace(execution, timing="shared")
        ray = import_ray()
        worker = self.worker(run, execution)
        some = list(cells) if slots != 1 else list({cell.step_kind: cell for cell in reversed(cells)}.values())
        parcel, objects = self.pack(some)
        try:
            found, record = ray.get(
                worker.actor.measure.remote(parcel, objects, execution, run.speed(), max(2, workers), slots, batching)
            )
        except ray.exceptions.RayTaskError as error:
            raise reasons.cause(error) from None
        except ray.exceptions.RayError as error:
            raise RunError(f"--ray: the worker that measured the speed was lost ({reasons.why(error)})") from None
        run.save_speed(record)
        execution = found
        return execution if len(self.kinds) == 1 else replace(execution, step_times={})

    def worker(self, run: RunFolder, execution: ExecutionSettings) -> Remote:
        """Asks for one more worker; it is ready when it says so."""
        ray = import_ray()
        if self.probe is None:
            self.probe = run.path / f".ray-{secrets.token_hex(8)}"
            self.probe.touch()
        setup = Setup(
            run.path.absolute(), self.probe.name, self.wanted.storage, execution.data_root.absolute(), self.device,
            tuple(path or os.getcwd() for path in sys.path),
        )  # fmt: skip
        gpus = self.wanted.gpus_each(self.device)
        kind = ray.remote(RayWorker).options(num_cpus=1, num_gpus=gpus, max_concurrency=4, max_restarts=0)
        actor = kind.remote(setup)
        self.workers.append(Remote(self, actor, actor.hear.remote(HEAR_SECONDS), run))
        return self.workers[-1]

    def pack(self, value: Any) -> tuple[bytes, dict[str, Any]]:
        """Cells or tasks with a user's functions by value, and references to their data sets, each stored once."""
        from ray import cloudpickle

        used: dict[str, Any] = {}

        def keep(dataset: Dataset) -> str:
            key = f"data {id(dataset)}"
            if key not in self.objects:
                # The data set comes along, so that no other can have its address while the key is in use.
                self.objects[key] = (import_ray().put(dataset), dataset)
            used[key] = self.objects[key][0]
            return key

        return pickled(value, keep, cloudpickle.CloudPickler), used


@dataclass
class Remote:
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
    sight: WorkerInfo | None = None

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
            self.cluster.objects[key] = (import_ray().put(files), None)
        return self.cluster.objects[key][0]
