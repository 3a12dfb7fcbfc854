"""Find a token of a text by its name or its position."""

from collections.abc import Sequence


def token_position(word: str | int, tokens: Sequence[str]) -> int | None:
    """Return the position of a token's last occurrence, or `word` itself where it is a position.

    A text of digits is a position only where no token has that name. None for a token or a position
    that the text does not have.
    """
    if isinstance(word, str) and word in tokens:
        return len(tokens) - 1 - list(tokens)[::-1].index(word)
    if isinstance(word, str) and not word.isdecimal():
        return None
    return int(word) if 0 <= int(word) < len(tokens) else None
