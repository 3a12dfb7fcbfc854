"""The one place for signals that ask a command to stop: Ctrl-C, SIGTERM, and SIGHUP.

`raise_on_stop_signals` stands around a command, in the process that was started and in its workers.
What must not be torn apart inside of it stands in `delay_interruption`, where a request is
remembered.
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


class _StopRequests:
    """How often somebody asked to stop, and how often that is only remembered."""

    is_listening = False
    num_pending = 0
    patience = 0
    last_time = float("-inf")
    """When the last one came (seconds of the monotonic clock)."""


SAME_REQUEST_SECONDS = 1.0
"""A request that comes so soon after another one is the same, sent twice: to a group of processes,
and by the parent in it."""


@contextmanager
def raise_on_stop_signals() -> Iterator[None]:
    """Raise Interrupted inside the block where a signal asks to stop, or has asked meanwhile.

    A signal that was ignored stays so, as `nohup` wants it. Outside of the main thread, which alone
    may listen to signals, this changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in STOPPING}
    outer_state = _StopRequests.is_listening, _StopRequests.patience
    try:
        _StopRequests.is_listening, _StopRequests.patience = True, 0
        listen_to_signals()
        _raise_if_due()
        yield
    finally:
        _StopRequests.is_listening, _StopRequests.patience = outer_state
        if not _StopRequests.is_listening:
            _StopRequests.num_pending, _StopRequests.last_time = 0, float("-inf")
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)


def listen_to_signals() -> None:
    """Listen to the signals again where a library has put handlers of its own."""
    if _StopRequests.is_listening and threading.current_thread() is threading.main_thread():
        for number in STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _count_request)


@contextmanager
def delay_interruption(num_requests: int = sys.maxsize) -> Iterator[None]:
    """Remember the first `num_requests` requests, and raise Interrupted for them after the block.

    A block that fails goes on with its own error; the request is then still to be heard.
    """
    outer_patience = _StopRequests.patience
    _StopRequests.patience = max(outer_patience, num_requests)
    try:
        yield
    except BaseException as error:
        _StopRequests.patience = outer_patience
        if isinstance(error, Interrupted):
            _StopRequests.num_pending = 0
        raise
    _StopRequests.patience = outer_patience
    _raise_if_due()


def stop_requested() -> bool:
    """Whether a request to stop is remembered."""
    return _StopRequests.num_pending > 0


def _count_request(number: int, frame: FrameType | None) -> None:
    """Count a request to stop, unless it is the same one again; raise Interrupted if it is due."""
    now = time.monotonic()
    is_new = now - _StopRequests.last_time >= SAME_REQUEST_SECONDS
    _StopRequests.last_time = now
    if is_new:
        _StopRequests.num_pending += 1
        _raise_if_due()


def _raise_if_due() -> None:
    if _StopRequests.num_pending > _StopRequests.patience:
        _StopRequests.num_pending = 0
        raise Interrupted
