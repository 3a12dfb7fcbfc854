"""Nothing that a terminal obeys reaches it, whatever a name or a text holds."""

import io
import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from attnlab.console import Console
from attnlab.printable import OBEYED as OBEYED_BY_ANY
from attnlab.printable import one_line, printable, say
from tests.depth import examples

OBEYED = "\x1b[31m\x07\x08\r\x00\x7f\x9b\x85\u202e\u2066\u200f\u2028\ud800"
"""Escape, bell, backspace, return, null, delete, C1, turned writing, a line, half a character."""


@examples(100)
@given(st.text())
def test_what_is_printable_obeys_nothing_and_loses_nothing_else(text):
    shown = printable(text)
    assert not OBEYED_BY_ANY.search(shown)
    assert not {unicodedata.category(character) for character in shown} & {"Cs", "Zl", "Zp"}
    assert all(character in "\t\n" or ord(character) >= 32 for character in shown)
    assert not any(0x7F <= ord(character) < 0xA0 for character in shown)
    assert printable(shown) == shown
    harmless = "".join(c for c in text if printable(c) == c)
    assert printable(harmless) == harmless


def test_what_is_obeyed_is_written_out():
    assert printable("a\x1b[2Jb\tc\nd") == "a\\x1b[2Jb\tc\nd"
    assert one_line("a\nb\tc\x9b") == "a\\nb\\tc\\x9b"
    assert all(printable(character) != character for character in OBEYED if not character.isascii())


def test_text_without_such_characters_stays():
    for text in ("", "müde \u4e2d\u6587 \U0001f600", "e\u0301", "\u05d0\u05d1"):
        assert printable(text) == text


def test_say_and_the_console_print_it_so():
    said = io.StringIO()
    say(OBEYED, file=said, end="")
    assert said.getvalue() == printable(OBEYED)
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
