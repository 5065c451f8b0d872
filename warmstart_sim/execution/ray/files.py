"""The files of a run's folder that travel between a driver and its workers."""

from __future__ import annotations

from warmstart_sim.execution.tasks import Task
from warmstart_sim.results.files import write_bytes
from warmstart_sim.results.store import RunFolder

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
