"""Downloads a data set completely or not at all, without output unless stderr is a terminal, and with a timeout."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from warmstart_sim.errors import DataError

TIMEOUT_SECONDS = 15  # of silence from the server


def download(name: str, root: Path, wanted: Sequence[str], fetch: Callable[[Path], object], missing: str) -> None:
    """Downloads into a temporary folder in `root`, then moves each file, so that a partial download is never used.

    Args:
        name: The data set's name, for errors.
        root: The folder of the data sets.
        wanted: The files or folders that `fetch` creates, relative to its folder; they get the same path in `root`.
        fetch: Downloads into the given folder.
        missing: What was not found in `root`, for errors.

    Raises:
        DataError: The download failed. Nothing is left behind.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as folder:
            with _quiet_unless_on_terminal(), _socket_timeout(TIMEOUT_SECONDS):
                fetch(Path(folder))
            for each in wanted:
                (root / each).parent.mkdir(parents=True, exist_ok=True)
                move(Path(folder) / each, root / each)
    except Exception as error:  # torchvision passes on whatever sockets, archives and pickles raise
        raise DataError(
            f"{name}: {missing} not found in {root}, and the download failed ({' '.join(str(error).split())}); run "
            f"`warmstart-sim data {name}` on a machine with network, point --data-root or WARMSTART_SIM_DATA to a "
            "folder that has it, or try the scenario with --rehearse"
        ) from error


def move(source: Path, target: Path) -> None:
    """Moves a file or folder atomically; keeps a target folder that another process has created in the meantime."""
    try:
        os.replace(source, target)
    except OSError:
        if not (source.is_dir() and target.is_dir()):
            raise


@contextlib.contextmanager
def _quiet_unless_on_terminal() -> Iterator[None]:
    """Silences torchvision's messages and progress bar unless stderr is a terminal."""
    if sys.stderr.isatty():
        yield
        return
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Sets the timeout of sockets opened inside the block, because torchvision sets none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
