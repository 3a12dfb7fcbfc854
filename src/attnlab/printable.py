"""What may reach a terminal: text, and nothing that a terminal obeys.

Names and texts of a record may be somebody else's. A control character in them could move the
cursor, rewrite what stands there or hide what follows.
"""

import re
from typing import Any

CONTROL = "\x00-\x08\x0b-\x1f\x7f-\x9f"
"""All but tab and line feed."""
DIRECTION = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
"""What turns the direction of writing, so that a line reads other than it is."""
OBEYED = re.compile(f"[{CONTROL}{DIRECTION}\u2028\u2029\ud800-\udfff]")
"""What `printable` writes out: that, the ends of lines that no terminal breaks, half characters."""


def printable(text: str) -> str:
    r"""Return a text with what a terminal would obey written out, as in ``\x1b``."""
    return OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    r"""Return a text on one line, with line feeds and tabs written out too, as ``\n``."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def say(text: object = "", **options: Any) -> None:
    """Print a text as `printable` returns it; `options` are those of `print`."""
    print(printable(str(text)), **options)
