"""A request to stop is heard at once, remembered where it must be, and never lost."""

# A request strikes in the middle of a block.
# ruff: noqa: PT012

import itertools
import os
import signal
import threading

import pytest

from attnlab import interruption
from attnlab.interruption import (
    STOPPING,
    Interrupted,
    delay_interruption,
    listen_to_signals,
    raise_on_stop_signals,
    stop_requested,
)


def ask(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """The handlers of before are there again after each test; requests are far from each other."""
    clock = itertools.count(0.0, 10.0)
    monkeypatch.setattr(interruption.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(interruption._StopRequests, "last_time", float("-inf"))
    before = {number: signal.getsignal(number) for number in STOPPING}
    yield
    assert {number: signal.getsignal(number) for number in STOPPING} == before
    assert not stop_requested()


@pytest.mark.parametrize("number", STOPPING)
def test_every_signal_that_asks_to_stop_is_the_same_request(number):
    with pytest.raises(Interrupted), raise_on_stop_signals():
        ask(number)


def test_what_is_patient_ends_before_it_stops():
    done = []
    with pytest.raises(Interrupted), raise_on_stop_signals():
        with delay_interruption():
            ask()
            ask()
            done.append(stop_requested())
        done.append("never")
    assert done == [True]


def test_a_limit_of_patience_is_one():
    with pytest.raises(Interrupted), raise_on_stop_signals(), delay_interruption(1):
        ask()
        assert stop_requested()
        ask()
        pytest.fail("the second request is no longer only remembered")


def test_what_is_stoppable_inside_of_what_is_patient_stops():
    """And a request from before its beginning stops it there."""
    with pytest.raises(Interrupted), raise_on_stop_signals(), delay_interruption():
        ask()
        with raise_on_stop_signals():
            pytest.fail("it was asked before")


def test_the_error_of_a_patient_block_goes_on_and_the_request_is_still_heard():
    done = []
    with pytest.raises(Interrupted), raise_on_stop_signals(), delay_interruption():
        with pytest.raises(KeyError), delay_interruption(1):
            ask()
            raise KeyError
        done.append(stop_requested())
        with raise_on_stop_signals():
            pytest.fail("it was asked before")
    assert done == [True]


def test_a_request_is_done_once_it_was_raised():
    with (
        pytest.raises(Interrupted),
        raise_on_stop_signals(),
        delay_interruption(),
        delay_interruption(1),
    ):
        ask()
        raise Interrupted(3)
    with raise_on_stop_signals():
        assert not stop_requested()


def test_a_request_that_comes_twice_at_once_is_one(monkeypatch):
    """As where a whole group of processes is told, and the parent in it tells its workers."""
    now = 100.0
    monkeypatch.setattr(interruption.time, "monotonic", lambda: now)
    with pytest.raises(Interrupted), raise_on_stop_signals(), delay_interruption(1):
        ask()
        now = 100.5
        ask()
        now = 102.0
        ask()
        pytest.fail("the third is a second one")


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with raise_on_stop_signals():
            ask(signal.SIGHUP)
            listen_to_signals()
            ask(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_library_that_put_its_own_handler_is_put_aside_again():
    with pytest.raises(Interrupted), raise_on_stop_signals():
        signal.signal(signal.SIGTERM, lambda *_: None)
        ask()
        listen_to_signals()
        ask()


def test_nobody_listens_outside_of_a_block_or_of_the_main_thread():
    before = signal.getsignal(signal.SIGTERM)
    listen_to_signals()
    assert signal.getsignal(signal.SIGTERM) is before
    handlers = []

    def apart() -> None:
        with raise_on_stop_signals(), delay_interruption():
            listen_to_signals()
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=apart)
    thread.start()
    thread.join()
    assert handlers == [before]
