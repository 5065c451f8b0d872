"""Files of a run folder that travel between the driver and its workers."""

from __future__ import annotations

from warmstart_sim.execution.tasks import Task
from warmstart_sim.results.cell_folder import TEMPORARY
from warmstart_sim.results.files import write_bytes
from warmstart_sim.results.store import RunFolder

Files = dict[str, bytes]  # contents by path, relative to the run folder
LAST = "result.json"  # written last: where it exists, the cell is complete


def read_files(run: RunFolder, *tasks: Task) -> Files:
    """Reads the folders of tasks, and their TensorBoard logs."""
    folders = [task.folder(run).path for task in tasks]
    return {
        str(path.relative_to(run.path)): path.read_bytes()
        for folder in folders
        for top in (folder, run.path / "tensorboard" / folder.name)
        for path in top.rglob("*")
        if path.is_file() and not path.name.endswith(".part")
    }


def write_files(run: RunFolder, files: Files) -> None:
    """Writes files into a run folder, results last; removes the checkpoint and the error of a complete cell.

    Raises:
        RunError: The folder cannot be written, such as on a full disk.
    """
    try:
        for path, content in sorted(files.items(), key=lambda item: item[0].endswith(LAST)):
            write_bytes(run.path / path, content)
        for path in files:
            if path.endswith(f"/{LAST}"):
                for name in TEMPORARY:
                    (run.path / path).with_name(name).unlink(missing_ok=True)
    except OSError as error:
        raise run.unusable(error) from error
