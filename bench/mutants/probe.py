"""Notes which test reaches a probe: a pytest plugin, and what the probes in src call.

It is copied into the measured tree's src, from where every process that imports the package can
import it, also one that a test starts or kills.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from functools import _lru_cache_wrapper
from pathlib import Path

import pytest

TEST = "MUTANTS_TEST"
"""The variable that tells processes started by a test which test that is."""
FOLDER = Path(__file__).parent

noted: set[tuple[str, str]] = set()


def hit(*names: str) -> None:
    """Note that the test that is running reaches these probes; no test has an empty name."""
    test = os.environ.get(TEST, "")
    for name in names:
        if (name, test) not in noted:
            noted.add((name, test))
            _note("hits", [name, test])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Say which test is running, its fixtures included, and note how long it takes."""
    _clear_caches()
    os.environ[TEST] = item.nodeid
    start = time.perf_counter()
    try:
        return (yield)
    finally:
        os.environ.pop(TEST, None)
        _note("seconds", [item.nodeid, round(time.perf_counter() - start, 3)])


def _clear_caches() -> None:
    """Let every test compute what an earlier one has left in a cache, so that it reaches it."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "attnlab":
            for value in list(vars(module).values()):
                if isinstance(value, _lru_cache_wrapper):
                    value.cache_clear()


def _note(kind: str, values: list[str | float]) -> None:
    """Append a line in one write, for other processes append, too."""
    with (FOLDER / f"{kind}.jsonl").open("ab", buffering=0) as file:
        file.write((json.dumps(values) + "\n").encode())
