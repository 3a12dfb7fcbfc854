"""The one place for signals that ask a command to stop: Ctrl-C, SIGTERM, and SIGHUP.

`stoppable` stands around a command, in the process that was started and in its workers. What must
not be torn apart inside of it stands in `patient`, where a request is remembered.
"""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""SIGHUP comes when a terminal closes."""


class Interrupted(BaseException):
    """Somebody asked the command to stop; a run's state up to `step` is saved, if it had begun."""

    def __init__(self, step: int | None = None) -> None:
        super().__init__("interrupted" if step is None else f"interrupted after step {step}")
        self.step = step


class _Requests:
    """How often somebody asked to stop, and how often that is only remembered."""

    listening = False
    heard = 0
    patience = 0
    last = float("-inf")
    """When the last one came."""


SAME_REQUEST_SECONDS = 1.0
"""A request that comes so soon after another one is the same, sent twice: to a group of processes,
and by the parent in it."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise Interrupted inside the block where a signal asks to stop, or has asked meanwhile.

    A signal that was ignored stays so, as `nohup` wants it. Outside of the main thread, which alone
    may listen to signals, this changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in STOPPING}
    before = _Requests.listening, _Requests.patience
    try:
        _Requests.listening, _Requests.patience = True, 0
        listen()
        _raise_if_due()
        yield
    finally:
        _Requests.listening, _Requests.patience = before
        if not _Requests.listening:
            _Requests.heard, _Requests.last = 0, float("-inf")
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)


def listen() -> None:
    """Listen to the signals again where a library has put handlers of its own."""
    if _Requests.listening and threading.current_thread() is threading.main_thread():
        for number in STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _hear)


@contextmanager
def patient(requests: int = sys.maxsize) -> Iterator[None]:
    """Remember the first `requests` requests, and raise Interrupted for them after the block.

    A block that fails goes on with its own error; the request is then still to be heard.
    """
    before, _Requests.patience = _Requests.patience, max(_Requests.patience, requests)
    try:
        yield
    except BaseException as error:
        _Requests.patience = before
        if isinstance(error, Interrupted):
            _Requests.heard = 0
        raise
    _Requests.patience = before
    _raise_if_due()


def stop_requested() -> bool:
    """Whether a request to stop is remembered."""
    return _Requests.heard > 0


def _hear(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    is_new, _Requests.last = now - _Requests.last >= SAME_REQUEST_SECONDS, now
    if is_new:
        _Requests.heard += 1
        _raise_if_due()


def _raise_if_due() -> None:
    if _Requests.heard > _Requests.patience:
        _Requests.heard = 0
        raise Interrupted
