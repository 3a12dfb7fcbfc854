"""Judges mutants: each is put into a copy of the tree, and the tests that reach it are run."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, NamedTuple

from bench.mutants.mutation import SOURCE, Mutant
from bench.mutants.reach import Reach, copied, environment_of

LIMIT = 120.0
"""Seconds that the tests of a mutant may take."""

Status = Literal["caught", "survived", "survived so far", "unreached"]
"""A mutant has survived so far where the time was up before all of its tests had run."""


class Verdict(NamedTuple):
    """What became of a mutant."""

    status: Status
    test: str | None
    """The test that caught it."""
    how: str
    """How that test ended: failed, hang, memory or crash; empty where none caught it."""
    tests_run: int
    tests_chosen: int


def judge(
    mutants: Sequence[Mutant],
    tree: Path,
    reach: Reach,
    jobs: int,
    tell: Callable[[Mutant, Verdict], None],
) -> None:
    """Judge mutants, several at a time, and tell each verdict once it is there."""
    with ExitStack() as stack:
        idle: SimpleQueue[Worker] = SimpleQueue()
        for _ in range(min(jobs, len(mutants))):
            idle.put(stack.enter_context(started(tree, reach)))

        def one(mutant: Mutant) -> None:
            worker = idle.get()
            try:
                tell(mutant, worker.judge(mutant))
            finally:
                idle.put(worker)

        with ThreadPoolExecutor(jobs) as pool:
            try:
                list(pool.map(one, mutants))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


@contextmanager
def started(tree: Path, reach: Reach) -> Iterator["Worker"]:
    """Start a process that runs tests in a copy of a tree."""
    with copied(tree) as copy:
        server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("server.py").resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=copy,
            env=environment_of(copy),
        )
        try:
            worker = Worker(copy, server, reach)
            worker.check()
            yield worker
        finally:
            server.terminate()
            server.communicate()


class Worker:
    """A copy of a tree, and a process that runs tests in it."""

    def __init__(self, copy: Path, server: subprocess.Popen[str], reach: Reach) -> None:
        self.copy, self.server, self.reach = copy, server, reach
        self.passing: dict[str, bool] = {}
        """Whether a test that has failed with a mutant passes without one."""

    def check(self) -> None:
        """Make sure that a test passes without a mutant."""
        quickest = min(self.reach.seconds, key=self.reach.seconds.__getitem__)
        if not _passed(self._run([quickest])):
            log = (self.copy.parent / "log").read_text()
            raise RuntimeError(f"{quickest} does not pass in a copy of the tree:\n{log}")

    def judge(self, mutant: Mutant) -> Verdict:
        """Run the tests that can notice a mutant, until one fails that passes without it.

        A test counts that fails again alone with the mutant and passes alone without it; any other
        is left out, and the rest is run.
        """
        chosen = tests = self.reach.tests(mutant)
        while tests:
            with self._holding(mutant):
                answer = self._run(tests)
            count = len(chosen) - len(tests) + answer["count"]
            if answer["end"] == "exit" and answer["code"] in (0, 5):
                return Verdict("survived", None, "", count, len(chosen))
            if answer["end"] == "time":
                return Verdict("survived so far", None, "", count, len(chosen))
            test, how = answer["failed"] or answer["last"], _how(answer)
            # Where no test has begun, the tests could not even be collected, or pytest not start.
            if test is None or "::" not in test or self._confirms(test, mutant):
                return Verdict("caught", test, how, count, len(chosen))
            tests = [other for other in tests if other != test]
        return Verdict("survived" if chosen else "unreached", None, "", len(chosen), len(chosen))

    def _confirms(self, test: str, mutant: Mutant) -> bool:
        if test not in self.passing:
            self.passing[test] = _passed(self._run([test]))
        if not self.passing[test]:
            return False
        with self._holding(mutant):
            return not _passed(self._run([test]))

    @contextmanager
    def _holding(self, mutant: Mutant) -> Iterator[None]:
        """Put a mutant into the copy, and take it out again."""
        path = self.copy / SOURCE / mutant.identity.file
        text = path.read_bytes()
        try:
            _write(path, mutant.apply(text))
            yield
        finally:
            _write(path, text)

    def _run(self, tests: Sequence[str]) -> dict[str, Any]:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        request = {
            "tests": tests,
            "seconds": {test: self.reach.seconds.get(test, 0.0) for test in tests},
            "limit": LIMIT,
            "folder": str(self.copy.parent),
        }
        print(json.dumps(request), file=self.server.stdin, flush=True)
        if not (answer := self.server.stdout.readline()):
            raise RuntimeError(f"the process of tests ended with {self.server.wait()}")
        return json.loads(answer)


def _write(path: Path, text: bytes) -> None:
    """Write a source file, and forget its compiled forms: a clock can be too coarse to tell."""
    path.write_bytes(text)
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


def _passed(answer: dict[str, Any]) -> bool:
    return answer["end"] == "exit" and answer["code"] == 0


def _how(answer: dict[str, Any]) -> str:
    if answer["end"] != "exit":
        return answer["end"]
    return "crash" if answer["code"] < 0 else "failed"
