"""Stopping on SIGTERM, which cluster schedulers send before they kill: running epochs end and are checkpointed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

EXIT_CODE = 128 + signal.SIGTERM  # what shells report for a command that SIGTERM ended

_stop_requested = threading.Event()  # signals belong to the whole process, and so do these
_interrupted = threading.Event()
_uninterrupted_depth = 0  # how many `uninterrupted` blocks the main thread is in


class Preempted(SystemExit):
    """The run has stopped on request, and all running cells are checkpointed. Uncaught, the exit code is 143."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)


def request() -> None:
    """Asks the training in this process to stop after the running epochs."""
    _stop_requested.set()


def requested() -> bool:
    """Whether the training in this process was asked to stop.

    Raises:
        KeyboardInterrupt: There was an interrupt, and other code swallowed it.
    """
    if _interrupted.is_set():
        raise KeyboardInterrupt
    return _stop_requested.is_set()


def stop_if_requested() -> None:
    """Stops the training if it was asked to; called when everything that a later run needs is stored.

    Raises:
        Preempted: The training was asked to stop.
    """
    if requested():
        raise Preempted


@contextlib.contextmanager
def sigterm_requests_stop() -> Iterator[None]:
    """Makes SIGTERM a request to stop. Repeated SIGTERMs have no further effect.

    An interrupt (Ctrl-C) raises KeyboardInterrupt as usual. If other code swallows it, such as an import or a callback
    of the garbage collector, it is raised again after the epoch.

    Only the main thread can handle signals; in any other, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        _interrupted.set()
        if not _uninterrupted_depth:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, lambda *_: request())
    # Workers ignore it, and programs may have their own handler.
    own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if own:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
        if own:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _stop_requested.clear()
        _interrupted.clear()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Delays an interrupt to the end of the block, for other people's code that must not stop half-way.

    A queue that is interrupted between storing an item and counting it, for example, never becomes empty again.

    Raises:
        KeyboardInterrupt: At the end, if there was an interrupt.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    global _uninterrupted_depth
    _uninterrupted_depth += 1
    try:
        yield
    finally:
        _uninterrupted_depth -= 1
    if not _uninterrupted_depth and _interrupted.is_set():
        raise KeyboardInterrupt


@contextlib.contextmanager
def stops_after(seconds: float) -> Iterator[None]:
    """Asks the training in the block to stop after so many seconds; it raises `Preempted` when it has."""
    timer = threading.Timer(max(0.0, seconds), request)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        _stop_requested.clear()
