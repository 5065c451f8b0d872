"""Downloads that are all or nothing, quiet unless somebody watches, and given up when a server falls silent."""

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

TIMEOUT_SECONDS = 15  # without an answer from a server, before a download is given up


def download(name: str, root: Path, wanted: Sequence[str], fetch: Callable[[Path], object], missing: str) -> None:
    """Fetches into a folder beside the set's place and moves each file in whole, so that no part passes for the set.

    Args:
        name: The data set's name, for errors.
        root: The folder of the data sets.
        wanted: What `fetch` makes, files or folders, relative to its folder; it is moved to the same place in `root`.
        fetch: Downloads into the folder that it is given.
        missing: What was looked for in `root`, for errors.

    Raises:
        DataError: It cannot be fetched; nothing stays behind.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as folder:
            with _quiet_unless_on_terminal(), _socket_timeout(TIMEOUT_SECONDS):
                fetch(Path(folder))
            for each in wanted:
                (root / each).parent.mkdir(parents=True, exist_ok=True)
                move(Path(folder) / each, root / each)
    except Exception as error:  # torchvision lets through whatever sockets, archives and pickles raise
        raise DataError(
            f"{name}: {missing} not found in {root}, and the download failed ({' '.join(str(error).split())}); run "
            f"`warmstart-sim data {name}` on a machine with network, point --data-root or WARMSTART_SIM_DATA to a "
            "folder that has it, or try the scenario with --rehearse"
        ) from error


def move(source: Path, place: Path) -> None:
    """Moves a file or folder to `place` at once; a folder that another process has put there meanwhile stays."""
    try:
        os.replace(source, place)
    except OSError:
        if not (source.is_dir() and place.is_dir()):
            raise


@contextlib.contextmanager
def _quiet_unless_on_terminal() -> Iterator[None]:
    """Torchvision prints, and draws a progress bar on stderr, which is of use to somebody who watches only."""
    if sys.stderr.isatty():
        yield
        return
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Sockets opened inside the block give up after `seconds` of silence; torchvision sets no limit itself."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
