"""Signals while cells run: what they ask for, and what is put back afterwards."""

from __future__ import annotations

import contextlib
import signal

import pytest

from warmstart_sim import preemption


def test_an_interrupt_that_somebody_swallows_is_raised_again_at_the_next_border():
    with preemption.heeded():
        with contextlib.suppress(KeyboardInterrupt):  # as an import may
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            preemption.requested()
    assert not preemption.requested()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_that_nobody_swallows_is_raised_at_once():
    with pytest.raises(KeyboardInterrupt), preemption.heeded():
        signal.raise_signal(signal.SIGINT)
    assert not preemption.requested()


def test_sigterm_is_a_request_and_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with preemption.heeded():
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
        with preemption.heeded():
            assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, before)
