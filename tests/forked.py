"""Commands in processes that are forked from one that has imported torch, so that they start at once."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any


@dataclass
class ForkedProcess:
    """A process with the part of `subprocess.Popen` that tests use.

    Attributes:
        process: The process.
        folder: Holds what it writes, in `stdout` and `stderr`.
    """

    process: BaseProcess
    folder: Path

    @property
    def returncode(self) -> int | None:
        """The exit code, once it has ended."""
        return self.process.exitcode

    def poll(self) -> int | None:
        """The exit code, once it has ended."""
        return self.process.exitcode

    def said(self) -> str:
        """What it has written to stderr."""
        return (self.folder / "stderr").read_text()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits for its end; returns what it wrote to stdout and to stderr."""
        self.process.join(timeout)
        assert self.returncode is not None, "waited in vain"
        return (self.folder / "stdout").read_text(), self.said()

    def send_signal(self, number: int) -> None:
        """Sends a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """Kills it."""
        self.process.kill()


def start_forked(context: BaseContext, folder: Path, function: Callable[..., None], *arguments: Any) -> ForkedProcess:
    """Calls a function in a new process, which writes to `folder`; its own worker processes are forked as well."""
    folder.mkdir()
    for name in ("stdout", "stderr"):
        (folder / name).touch()
    process = context.Process(target=_call, args=(folder, function, arguments))
    process.start()
    return ForkedProcess(process, folder)


def command_line(*arguments: str) -> None:
    """Runs `warmstart-sim ARGUMENTS`."""
    from warmstart_sim.cli import main

    sys.argv = ["warmstart-sim", *arguments]
    main()


def _call(folder: Path, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        with (folder / name).open("w") as file:
            os.dup2(file.fileno(), stream.fileno())
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if a run's worker pool started the server
    if "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")
        # Python would start another server here, though this process knows the address of the one it comes from.
        multiprocessing.forkserver._forkserver.ensure_running = lambda: None  # type: ignore[method-assign]
        multiprocessing.get_context = lambda method=None: context  # type: ignore[assignment]
    function(*arguments)
