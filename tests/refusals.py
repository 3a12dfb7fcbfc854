"""Requests that a command refuses: exit code 2, nothing on standard output, the reason beside."""

from collections.abc import Mapping, Sequence

import pytest

from attnlab.cli import main
from tests.prose import says

UNBROKEN = "9999"
"""The columns of a terminal in which no line is broken."""


def refusals(
    capsys: pytest.CaptureFixture[str],
    key: str,
    requests: Mapping[str, Sequence[str]],
    *hidden: object,
) -> None:
    """Assert that every request is refused in its words; `{}` in the key is the request's name."""
    offenders = []
    for name, words in requests.items():
        with pytest.MonkeyPatch.context() as patch:
            # Where a message is broken depends on the length of the paths in it.
            patch.setenv("COLUMNS", UNBROKEN)
            code = main(list(words))
        printed = capsys.readouterr()
        if (code, printed.out) != (2, ""):
            offenders.append(f"{name}: exit code {code}, printed {printed.out!r}")
        try:
            says(key.format(name), printed.err, *hidden)
        except AssertionError as error:
            offenders.append(f"{name}: {error}")
    assert offenders == []


def refused(
    capsys: pytest.CaptureFixture[str], key: str, words: Sequence[str], *hidden: object
) -> None:
    """Assert that a request is refused in the words of a key."""
    refusals(capsys, key, {key: words}, *hidden)
