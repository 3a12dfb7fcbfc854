"""Calls that are refused, each in the words of its key."""

from collections.abc import Callable, Mapping

import pytest

from tests.prose import refuses


def refused_calls(
    key: str,
    calls: Mapping[str, Callable[[], object]],
    *hidden: object,
    kind: type[BaseException] = ValueError,
) -> None:
    """Assert that each call raises an error of this class; `{}` in the key is the call's name."""
    offenders = []
    for name, call in calls.items():
        try:
            with refuses(kind, key.format(name), *hidden):
                call()
        except (AssertionError, pytest.fail.Exception) as error:
            offenders.append(f"{name}: {error}")
    assert offenders == []
