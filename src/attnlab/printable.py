"""What may reach a terminal: text, and nothing that a terminal obeys.

Names and texts of a record may be somebody else's. A control character in them could move the
cursor, rewrite what stands there or hide what follows.
"""

import errno
import io
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from shutil import get_terminal_size
from typing import Any

CONTROL = "\x00-\x08\x0b-\x1f\x7f-\x9f"
"""All but tab and line feed."""
DIRECTION = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
"""What turns the direction of writing, so that a line reads other than it is."""
OBEYED = re.compile(f"[{CONTROL}{DIRECTION}\u2028\u2029\ud800-\udfff]")
"""What `escape_controls` writes out: that, line ends that no terminal breaks, half characters."""


def escape_controls(text: str) -> str:
    r"""Return a text with what a terminal would obey written out, as in ``\x1b``."""
    return OBEYED.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    r"""Return a text on one line, with line feeds and tabs written out too, as ``\n``."""
    return escape_controls(text).replace("\n", "\\n").replace("\t", "\\t")


def break_lines(text: str, width: int) -> str:
    """Return a text whose lines are at most `width` characters wide, broken at spaces.

    A word that is wider by itself, such as `a=1,b=2`, is broken after commas, and stays whole where
    it has none, so that a path or a key can be copied. What continues an indented line is indented
    by two more spaces.
    """
    return "\n".join(_break_line(line, width) for line in text.split("\n"))


def _break_line(line: str, width: int) -> str:
    """Return a line as it is where it fits, else broken."""
    if text_width(line) <= width:
        return line
    indent = re.match(" *", line)[0]  # pyright: ignore[reportOptionalSubscript]
    indent += "  " if indent else ""
    broken_lines, current = [], ""
    for word in re.findall(r"\s*\S+", line):
        is_too_wide = text_width(word.strip()) + len(indent) > width
        # Not after a comma at its end, where the next word begins anyway.
        for piece in re.split(r"(?<=,)(?=.)", word) if is_too_wide else [word]:
            if current.strip() and text_width(current) + text_width(piece) > width:
                broken_lines.append(current)
                current = indent + piece.lstrip()
            else:
                current += piece
    return "\n".join([*broken_lines, current])


def indent_after_name(name: str, text: str, name_width: int, width: int | None = None) -> str:
    """Return a name and a text beside it, whose lines all begin in the same column.

    The lines are at most `width` characters wide; None is the width of the terminal.
    """
    width = get_terminal_size().columns if width is None else width
    indent = " " * (name_width + 1)
    broken_text = break_lines(text, max(1, width - len(indent)))
    return f"{name:<{name_width}} " + broken_text.replace("\n", f"\n{indent}")


def text_width(text: str) -> int:
    """Return the number of columns that a text takes in a terminal."""
    if text.isascii():
        return len(text)
    widths = (2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
    return sum(widths) - sum(unicodedata.combining(c) > 0 for c in text)


def say_message(text: object) -> None:
    """Print a message on standard error, broken at words where a terminal shows it.

    In a file or a pipe its lines stay whole, unless the environment states COLUMNS.
    """
    message, is_terminal = escape_controls(str(text)), sys.stderr.isatty()
    # Without COLUMNS it is the width of standard output, which may be a terminal on its own.
    width = get_terminal_size((80 if is_terminal else 0, 24)).columns
    if width and (is_terminal or not sys.stdout.isatty()):
        message = break_lines(message, width)
    say(message, file=sys.stderr)


def say(text: object = "", **options: Any) -> None:
    """Print a text as `escape_controls` returns it; `options` are those of `print`."""
    print(escape_controls(str(text)), **options)


@contextmanager
def tolerate_closed_output() -> Iterator[list[OSError]]:
    r"""Let standard output and error be written whether or not somebody still reads them.

    A pager that was left, a `head` that has seen enough or a closed terminal ends nothing. What
    the encoding of the output lacks is written as ``\u2026``. Yields the failures of another
    kind, such as a full disk below a redirected output, of which the caller should tell.
    """
    failures: list[OSError] = []
    outer_streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_ClosableStream(stream, failures) for stream in outer_streams)  # pyright: ignore
    try:
        yield failures
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = outer_streams


def is_output_open() -> bool:
    """Return whether standard output can still be written, for whoever does nothing else."""
    return getattr(sys.stdout, "is_output_open", True)


class _ClosableStream:
    """A stream that goes on where the one beneath it cannot be written any more."""

    def __init__(self, stream: Any, failures: list[OSError]) -> None:
        # Where the output was closed from the start, Python has no stream at all.
        self._stream = io.StringIO() if stream is None else stream
        self._failures, self.is_output_open = failures, True
        with suppress(AttributeError, ValueError):
            self._stream.reconfigure(errors="backslashreplace")  # pyright: ignore

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Write nowhere from here on, and keep the error where it is no closed output."""
        self.is_output_open = False
        # EIO is what a terminal that is gone says.
        if error.errno not in (errno.EPIPE, errno.EIO):
            self._failures.append(error)
        # What is still buffered goes nowhere, or Python would complain of it at its exit.
        with suppress(OSError, ValueError):
            null_device = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null_device, self._stream.fileno())
            os.close(null_device)
