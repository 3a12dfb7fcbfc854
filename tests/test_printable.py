"""Nothing that a terminal obeys reaches it, whatever a name or a text holds."""

import errno
import io
import os
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from attnlab.console import Console
from attnlab.printable import OBEYED as OBEYED_BY_ANY
from attnlab.printable import escape_controls, one_line, say, tolerate_closed_output
from tests.depth import examples

OBEYED = "\x1b[31m\x07\x08\r\x00\x7f\x9b\x85\u202e\u2066\u200f\u2028\ud800"
"""Escape, bell, backspace, return, null, delete, C1, turned writing, a line, half a character."""


@examples(100)
@given(st.text())
def test_what_is_printable_obeys_nothing_and_loses_nothing_else(text):
    shown = escape_controls(text)
    assert not OBEYED_BY_ANY.search(shown)
    assert not {unicodedata.category(character) for character in shown} & {"Cs", "Zl", "Zp"}
    assert all(character in "\t\n" or ord(character) >= 32 for character in shown)
    assert not any(0x7F <= ord(character) < 0xA0 for character in shown)
    assert escape_controls(shown) == shown
    harmless = "".join(c for c in text if escape_controls(c) == c)
    assert escape_controls(harmless) == harmless


def test_what_is_obeyed_is_written_out():
    assert escape_controls("a\x1b[2Jb\tc\nd") == "a\\x1b[2Jb\tc\nd"
    assert one_line("a\nb\tc\x9b") == "a\\nb\\tc\\x9b"
    assert all(
        escape_controls(character) != character for character in OBEYED if not character.isascii()
    )


def test_text_without_such_characters_stays():
    for text in ("", "müde \u4e2d\u6587 \U0001f600", "e\u0301", "\u05d0\u05d1"):
        assert escape_controls(text) == text


def test_say_and_the_console_print_it_so():
    said = io.StringIO()
    say(OBEYED, file=said, end="")
    assert said.getvalue() == escape_controls(OBEYED)
    told = io.StringIO()
    console = Console(file=told, width=200, force_terminal=True, color_system="standard")
    table = Table(OBEYED)
    table.add_row(f"[red]{OBEYED}[/red]")
    console.print(table)
    console.print(OBEYED, style="bold")
    # The console's own sequences are there, and none of the text's.
    assert "\x1b[1m" in told.getvalue()
    assert "\x1b[31m" not in told.getvalue()
    assert not set(told.getvalue()) & set(OBEYED) - set("\x1b[31m\r")
    assert "[red]" in told.getvalue()


class Closed(io.StringIO):
    """What nobody reads any more: from the second write on, it fails."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.writes = number, 0

    def write(self, text: str) -> int:
        self.writes += 1
        if self.writes > 1:
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text)


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_reader_that_goes_away_stops_nobody(monkeypatch, number, name):
    closed = Closed(number)
    monkeypatch.setattr(sys, name, closed)
    with tolerate_closed_output() as failures:
        for _ in range(3):
            print("a", file=getattr(sys, name))
            say("b", file=getattr(sys, name))
            Console(stderr=name == "stderr").print("c")
    assert getattr(sys, name) is closed
    # A reader may leave; a full disk is told.
    assert bool(failures) == (number == errno.ENOSPC)


def test_an_output_that_was_closed_from_the_start_is_none(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with tolerate_closed_output():
        say("a")
        Console().print("b")
    assert sys.stdout is None


def test_what_an_encoding_lacks_is_written_out(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "latin-1"))
    with tolerate_closed_output():
        say("é → …")
    assert written.getvalue() == b"\xe9 \\u2192 \\u2026\n"
