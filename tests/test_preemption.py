"""Signals while cells run: what they ask for, and what is put back afterwards."""

from __future__ import annotations

import contextlib
import queue
import signal

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from warmstart_sim import preemption
from warmstart_sim.results.tensorboard import TensorBoardLog


@pytest.fixture(autouse=True)
def interruptible():
    """As in a terminal: a shell starts what runs in its background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_that_somebody_swallows_is_raised_again_at_the_next_border():
    with preemption.sigterm_requests_stop():
        with contextlib.suppress(KeyboardInterrupt):  # as an import may
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            preemption.requested()
    assert not preemption.requested()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_that_nobody_swallows_is_raised_at_once():
    with pytest.raises(KeyboardInterrupt), preemption.sigterm_requests_stop():
        signal.raise_signal(signal.SIGINT)
    assert not preemption.requested()


def test_an_interrupt_waits_for_what_must_not_be_left_half_way():
    done = []

    @preemption.uninterrupted()
    def work() -> None:
        with preemption.uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("inner")
        done.append("outer")

    with preemption.sigterm_requests_stop():
        with pytest.raises(KeyboardInterrupt):
            work()
        with pytest.raises(KeyboardInterrupt):  # and then not any more
            signal.raise_signal(signal.SIGINT)
    assert done == ["inner", "outer"]
    with preemption.sigterm_requests_stop(), preemption.uninterrupted():
        done.append("no interrupt")
    assert done[-1] == "no interrupt"


def test_a_log_that_is_interrupted_as_it_is_written_is_whole(tmp_path, monkeypatch):
    log = TensorBoardLog(tmp_path)
    row = {"test_accuracy": 0.5, "running_train_loss": 0.5}
    log.write(1, row, None)
    put = queue.Queue._put

    def interrupted(self, item):  # between an item and its count
        put(self, item)
        signal.raise_signal(signal.SIGINT)

    with preemption.sigterm_requests_stop():
        monkeypatch.setattr(queue.Queue, "_put", interrupted)
        with pytest.raises(KeyboardInterrupt):
            log.write(2, row, None)
        monkeypatch.setattr(queue.Queue, "_put", put)
        with pytest.raises(KeyboardInterrupt):  # it was not heeded yet
            log.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [each.step for each in events.Scalars("epoch/test_accuracy")] == [1, 2]


def test_sigterm_is_a_request_and_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with preemption.sigterm_requests_stop():
        signal.raise_signal(signal.SIGTERM)
        assert preemption.requested()
        with pytest.raises(preemption.Preempted):
            preemption.stop_if_requested()
    assert signal.getsignal(signal.SIGTERM) == before
    assert not preemption.requested()


def test_handlers_of_a_users_own_program_are_left_alone():
    def own(number, frame):
        raise AssertionError

    before = signal.signal(signal.SIGINT, own)
    try:
        with preemption.sigterm_requests_stop():
            assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, before)
