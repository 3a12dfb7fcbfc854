"""Runs chosen tests of a tree, each time in a fork of one process that has imported torch.

A script of its own, started in the root of the tree, so that `tests` and `bench` are the tree's.
It reads requests as lines of JSON, {"tests", "seconds", "limit", "folder"}, and answers each with
{"end", "code", "failed", "last", "count"}: how the tests ended, pytest's exit code, the first test
that failed, the last that began, and how many began.
"""

import importlib
import json
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

PRELOADED = ("pytest", "torch", "pytorch_lightning", "hydra", "pyarrow", "scipy.stats", "altair")
"""What most tests import; nothing of the tree, whose files are about to change."""
PATIENCE = (30.0, 10.0)
"""A test hangs that takes these seconds, and so many times as long as it takes otherwise."""
COLLECTION = 300.0
"""Seconds that imports and collection may take, which do not count as the tests' own."""
MEMORY = 8 << 30
"""Bytes that a process of tests may hold."""


def main() -> None:
    """Answer requests until there are no more."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        # A script's own folder comes first in the path, where `python -m pytest` has the root.
        sys.path[0] = str(Path.cwd())
        for name in PRELOADED:
            with suppress(ImportError):
                importlib.import_module(name)
        _register_profile()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        for line in sys.stdin:
            request = json.loads(line)
            folder = Path(request["folder"])
            notes = folder / "notes"
            notes.write_text("")
            child = os.fork()
            if child == 0:
                _test(request["tests"], folder)
            try:
                end, code = _wait(child, request, notes)
            except BaseException:
                _kill(child, [])
                raise
            begun = [test for event, test in _read(notes) if event == "begin"]
            failed = [test for event, test in _read(notes) if event == "fail"]
            answer = {"end": end, "code": code, "count": len(begun)}
            answer |= {"failed": next(iter(failed), None), "last": next(reversed(begun), None)}
            print(json.dumps(answer), file=answers, flush=True)


def _register_profile() -> None:
    """Let hypothesis draw the same examples for every mutant, and not search for smaller ones."""
    with suppress(ImportError):
        from hypothesis import Phase, settings

        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutants", derandomize=True, database=None, phases=phases)


def _test(tests: list[str], folder: Path) -> None:
    """Run the tests in their order until one fails, and end this process."""
    code = 3
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number, target in enumerate((os.open(os.devnull, os.O_RDONLY), log, log)):
            os.dup2(target, number)
        import pytest

        options = ["-x", "-q", "--tb=short", "--hypothesis-profile=mutants", "-p", "no:randomly"]
        options += ["-p", "no:cacheprovider", "-p", "no:xdist", f"--basetemp={folder / 'tmp'}"]
        # Plugins are imported already, so that their own assertions are not explained.
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        files = dict.fromkeys(test.partition("::")[0] for test in tests)
        code = int(pytest.main([*options, *files], plugins=[Selection(tests, folder / "notes")]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Selection:
    """A pytest plugin that keeps the wanted tests, in the wanted order, and notes what happens."""

    def __init__(self, tests: list[str], notes: Path) -> None:
        self.ranks = {test: rank for rank, test in enumerate(tests)}
        self.notes = notes

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        wanted = [item for item in items if item.nodeid in self.ranks]
        items[:] = sorted(wanted, key=lambda item: self.ranks[item.nodeid])

    def pytest_collection_finish(self) -> None:
        """Make sure that it is the tree's package that is tested."""
        package = sys.modules.get("attnlab")
        if package is not None and not str(package.__file__).startswith(str(Path.cwd())):
            raise RuntimeError(f"{package.__file__} is tested, which is not in {Path.cwd()}")

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._note("fail", report.nodeid)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._note("begin", nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self._note("fail", report.nodeid)

    def _note(self, event: str, test: str) -> None:
        with self.notes.open("a") as file:
            file.write(json.dumps([event, test]) + "\n")


def _wait(child: int, request: dict[str, Any], notes: Path) -> tuple[str, int]:
    """Wait for the tests, and end them where they hang, take too much memory or too long."""
    import psutil

    process, start = psutil.Process(child), time.monotonic()
    first, since = None, start
    last: list[list[str]] = []
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            _kill(child, [])
            return "exit", os.waitstatus_to_exitcode(status)
        now = time.monotonic()
        if (begun := _read(notes)[-1:]) != last:
            last, since, first = begun, now, first or now
        usual = request["seconds"].get(begun[0][1], 0.0) if begun else 0.0
        end = None
        if begun and now - since > PATIENCE[0] + PATIENCE[1] * usual:
            end = "hang"
        elif process.memory_info().rss > MEMORY:
            end = "memory"
        elif now - (first or start) > (request["limit"] if begun else COLLECTION):
            end = "time" if begun else "hang"
        if end is not None:
            _kill(child, process.children(recursive=True))
            os.waitpid(child, 0)
            return end, -signal.SIGKILL
        time.sleep(0.1)


def _kill(child: int, others: list[Any]) -> None:
    """Kill a session of processes, and those that have sessions of their own."""
    for process in others:
        with suppress(Exception):
            process.kill()
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def _read(notes: Path) -> list[list[str]]:
    """Return what is noted so far, without a line that is being written."""
    return [json.loads(line) for line in notes.read_text().splitlines(True) if line[-1] == "\n"]


if __name__ == "__main__":
    main()
