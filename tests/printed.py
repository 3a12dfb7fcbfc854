"""What a command prints, apart from its numbers: those are held to what was measured."""

import re

NUMBER = re.compile(r"[-+]?(?<![A-Za-z])(\d+\.?\d*|\.\d+)(e[-+]?\d+)?")


def without_numbers(text: str) -> str:
    """Replace each number by #, and each space, however wide, by one."""
    return " ".join(NUMBER.sub("#", text).split())
