"""The helper that makes one test of a law over many cases."""

import pytest

from tests.model.law import law


def test_a_law_lists_every_case_that_breaks_it():
    @law((1, 2), lambda: (True, False))
    def even(number: int, flag: bool) -> None:
        assert number % 2 == 0 or flag, "odd"

    with pytest.raises(AssertionError) as raised:
        even()
    (offender,) = str(raised.value).splitlines()[:1]
    assert offender.startswith("1, False (line 11): AssertionError: odd")


def test_a_law_over_nothing_is_broken():
    with pytest.raises(AssertionError):
        law([])(lambda case: None)()
