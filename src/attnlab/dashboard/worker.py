"""One process beside the server that loads a model and measures, as the user's own command would.

The server never imports a model. What a page asks to be measured is a command of `attnlab`, run in
a process of its own: one at a time, without input, for a limited time, and without a
`--config-dir`, so that it runs no code that a record names. Answers are kept while the server runs.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from threading import Lock, Thread
from typing import Any

from attnlab.errors import RequestError
from attnlab.printable import escape_controls

TIMEOUT = 180.0
"""Seconds after which a command is stopped."""
MOST_ANSWERS = 256
MOST_ERROR = 2000
"""The most characters of a failure that a page shows."""
COMMAND = (sys.executable, "-P", "-m", "attnlab")
"""`-P`: the directory in which the server was started is no place to import from."""

RunCommand = Callable[[Sequence[str]], dict[str, Any]]
"""Runs `attnlab` with some arguments, and returns the JSON that it prints."""


class CommandError(RequestError):
    """A command failed; the message is what it wrote."""


@dataclass
class Job:
    """What is measured, or was."""

    number: int
    title: str
    started: float = field(default_factory=time.monotonic)
    answer: Any = None
    error: str = ""
    is_done: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return its state as a page reads it."""
        state = "running" if not self.is_done else "failed" if self.error else "done"
        return {
            "job": self.number,
            "title": self.title,
            "state": state,
            "seconds": round(time.monotonic() - self.started, 1),
            "error": self.error,
            "answer": self.answer,
        }


class Worker:
    """Measures one thing at a time in a process of its own."""

    def __init__(self, command: Sequence[str] = COMMAND, *, timeout: float = TIMEOUT) -> None:
        self._command, self._timeout = tuple(command), timeout
        self._jobs: OrderedDict[Hashable, Job] = OrderedDict()
        self._numbers = count(1)
        self._running: Job | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = Lock()
        atexit.register(self.close)

    def start(self, key: Hashable, title: str, measure: Callable[[RunCommand], Any]) -> Job:
        """Return the job of a key: one that runs or was done, else a new one.

        A job that failed is tried again. Raises RequestError while another one runs.
        """
        with self._lock:
            job = self._jobs.get(key)
            if job is not None and not job.error:
                return job
            if self._running is not None:
                raise RequestError(
                    f"one thing is measured at a time, and now it is: {self._running.title}"
                )
            job = self._jobs[key] = self._running = Job(next(self._numbers), title)
            self._jobs.move_to_end(key)
            while len(self._jobs) > MOST_ANSWERS:
                self._jobs.popitem(last=False)
        Thread(target=self._work, args=(job, measure), daemon=True).start()
        return job

    def find(self, number: int) -> Job:
        """Return a job by its number. Raises RequestError for one that is not there any more."""
        with self._lock:
            for job in self._jobs.values():
                if job.number == number:
                    return job
        raise RequestError(f"measurement {number} is not there any more; ask for it again")

    def answer(self, key: Hashable) -> Any:
        """Return what was measured under a key; None before."""
        with self._lock:
            job = self._jobs.get(key)
        return None if job is None or not job.is_done or job.error else job.answer

    def close(self) -> None:
        """Stop the process that runs, if one does."""
        process = self._process
        if process is not None:
            _stop(process)

    def _work(self, job: Job, measure: Callable[[RunCommand], Any]) -> None:
        try:
            job.answer = measure(self._run)
        except RequestError as error:
            job.error = str(error)
        except Exception as error:
            # A thread that dies would leave the page waiting, and nothing could be measured again.
            job.error = f"{type(error).__name__}: {error}"
        with self._lock:
            job.is_done, self._running = True, None

    def _run(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Run a command of attnlab, and return its JSON. Raises CommandError where it fails."""
        process = subprocess.Popen(
            [*self._command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A group of its own, so that what it starts ends with it.
            start_new_session=True,
        )
        self._process = process
        try:
            output, errors = process.communicate(timeout=self._timeout)
        except subprocess.TimeoutExpired:
            _stop(process)
            process.communicate()
            raise CommandError(f"stopped: it took longer than {self._timeout:g} s") from None
        finally:
            self._process = None
        if process.returncode:
            text = escape_controls(errors.decode("utf-8", "replace").strip())[-MOST_ERROR:]
            raise CommandError(text or f"the command ended with exit code {process.returncode}")
        try:
            return json.loads(output)
        except ValueError as error:
            raise CommandError("the command printed no JSON") from error


def _stop(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
