"""What travels between a driver and its workers: pickled cells and tasks, and files of a run's folder."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

from warmstart_sim.results.files import write_bytes
from warmstart_sim.results.store import RunFolder
from warmstart_sim.sweep.tasks import Task
from warmstart_sim.types import Dataset

Files = dict[str, bytes]  # by their paths below the run's folder
LAST = "result.json"  # written last: where it exists, the cell is complete


def read_files(run: RunFolder, task: Task) -> Files:
    """What a run's folder holds of a task: its own folder, and its TensorBoard logs."""
    folder = task.folder(run).path
    return {
        str(path.relative_to(run.path)): path.read_bytes()
        for top in (folder, run.path / "tensorboard" / folder.name)
        for path in top.rglob("*")
        if path.is_file() and not path.name.endswith(".part")
    }


def write_files(run: RunFolder, files: Files) -> None:
    """Puts them into another run's folder, results last; a complete cell keeps neither checkpoint nor error."""
    for path, content in sorted(files.items(), key=lambda item: item[0].endswith(LAST)):
        write_bytes(run.path / path, content)
    for path in files:
        if path.endswith(f"/{LAST}"):
            for name in ("checkpoint.pt", "error.json"):
                (run.path / path).with_name(name).unlink(missing_ok=True)


def packed(value: Any, keep: Callable[[Dataset], str]) -> bytes:
    """Pickles cells or tasks, a user's functions in them by value; data sets are left out.

    Args:
        value: What to pickle.
        keep: Puts a data set where workers can get it, and names it.
    """
    from ray import cloudpickle

    content = io.BytesIO()
    pickler: Any = cloudpickle.CloudPickler(content)  # type: ignore[no-untyped-call]
    pickler.persistent_id = lambda each: keep(each) if isinstance(each, Dataset) else None
    pickler.dump(value)
    return content.getvalue()


def unpacked(parcel: bytes, find: Callable[[str], Any]) -> Any:
    """What `packed` was given.

    Args:
        parcel: What it made.
        find: Gives the data set of a name.
    """
    unpickler: Any = pickle.Unpickler(io.BytesIO(parcel))
    unpickler.persistent_load = find
    return unpickler.load()
