"""Which token of a text is meant: by its name, or by its position."""

from collections.abc import Sequence


def token_position(word: str | int, tokens: Sequence[str]) -> int | None:
    """Return the position of a token (the last, if it stands there twice), or a position itself.

    A text of digits is a position only where no token has that name. None where neither is there.
    """
    if isinstance(word, str) and word in tokens:
        return len(tokens) - 1 - list(tokens)[::-1].index(word)
    if isinstance(word, str) and not word.isdecimal():
        return None
    return int(word) if 0 <= int(word) < len(tokens) else None
