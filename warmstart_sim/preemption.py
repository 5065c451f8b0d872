"""A polite stop: on SIGTERM, which schedulers send before they kill, epochs under way end and are checkpointed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

EXIT_CODE = 128 + signal.SIGTERM  # what shells report for a command that SIGTERM ended

_asked = threading.Event()  # signals belong to a process as a whole, and so do these
_interrupted = threading.Event()
_inside: list[None] = []  # as many as there are `uninterrupted` around the main thread


class Preempted(SystemExit):
    """The run was asked to stop, and has: what was under way is checkpointed. A program that lets it pass exits 143."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)


def request() -> None:
    """Asks the training in this process to stop at the next borders of epochs."""
    _asked.set()


def requested() -> bool:
    """Whether the training in this process is to stop.

    Raises:
        KeyboardInterrupt: It was interrupted, and somebody swallowed that.
    """
    if _interrupted.is_set():
        raise KeyboardInterrupt
    return _asked.is_set()


def stop_if_requested() -> None:
    """Called where everything is stored that a later run needs.

    Raises:
        Preempted: The training is to stop.
    """
    if requested():
        raise Preempted


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """While inside, SIGTERM is a request to stop; one that comes twice means no more than one that comes once.

    An interrupt (Ctrl-C) raises KeyboardInterrupt as ever. Where code of others swallows that, such as an import or a
    garbage collector's callback, the next border of an epoch raises it again.

    Only a program's main thread can take signals: in any other nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        _interrupted.set()
        if not _inside:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, lambda *_: request())
    own = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # workers ignore it, and programs have others
    if own:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
        if own:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _asked.clear()
        _interrupted.clear()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """While inside, an interrupt that `heeded` takes waits: for code of others that it would leave half-way.

    A queue, for one, that is interrupted between an item and its count is never empty again.

    Raises:
        KeyboardInterrupt: At the end, if there was one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _inside.append(None)
    try:
        yield
    finally:
        _inside.pop()
    if not _inside and _interrupted.is_set():
        raise KeyboardInterrupt
