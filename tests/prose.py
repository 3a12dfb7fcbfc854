"""What attnlab says to people, held word by word in one place: tests/prose.yaml.

A test names the exception's class and the key of what is said; the words stand in the file alone.
Where they change on purpose, ``make golden`` writes them anew; the difference is read in review.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import yaml

from attnlab.errors import ConfigError

FILE = Path(__file__).with_name("prose.yaml")
WRITING = bool(os.environ.get("ATTNLAB_WRITE_PROSE"))


def says(key: str, text: object, *hidden: object) -> None:
    """Assert that a text is the one of a key; `hidden` are paths and names that vary."""
    actual = _plain(str(text), hidden)
    if WRITING:
        _write(key, actual)
        return
    expected = _prose().get(key)
    assert actual == expected, (
        f"{key} in tests/prose.yaml is {expected!r}; where the new words are meant, "
        "run `make golden` and read the difference"
    )


@contextmanager
def refuses(
    kind: type[BaseException], key: str, *hidden: object
) -> Iterator[pytest.ExceptionInfo[BaseException]]:
    """Assert that the block raises an error of this class that says the text of a key."""
    with pytest.raises(kind) as raised:
        yield raised
    says(key, raised.value, *hidden)


def keys_at_fault(error: ConfigError) -> list[str]:
    """Return the config keys (or overrides) that a refusal names, in its order."""
    return [fault.partition(": ")[0] for fault in error.faults]


def _plain(text: str, hidden: tuple[object, ...]) -> str:
    """Replace what differs from test to test and from machine to machine."""
    for place, value in enumerate(sorted(map(str, hidden), key=len, reverse=True)):
        text = text.replace(value, f"<{place}>")
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return text.strip()


def _prose() -> dict[str, str]:
    return _prose_at(FILE.stat().st_mtime_ns)


@cache
def _prose_at(_changed: int) -> dict[str, str]:
    return yaml.safe_load(FILE.read_text()) or {}


def _write(key: str, text: str) -> None:
    """Set one key; processes that write at the same time wait for each other."""
    with FILE.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        prose = yaml.safe_load(FILE.read_text()) or {}
        if prose.get(key) != text:
            new = FILE.with_suffix(".new")
            new.write_text(yaml.safe_dump({**prose, key: text}, allow_unicode=True, width=10**6))
            new.replace(FILE)
