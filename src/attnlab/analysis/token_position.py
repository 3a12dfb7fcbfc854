"""Find a token of a text by its name or its position."""

from collections.abc import Sequence


def token_position(token_or_position: str | int, tokens: Sequence[str]) -> int | None:
    """Return the position of a token's last occurrence, or a position itself.

    A text of digits is a position only where no token has that name. None for a token or a position
    that the text does not have.
    """
    if isinstance(token_or_position, str):
        if token_or_position in tokens:
            return len(tokens) - 1 - list(tokens)[::-1].index(token_or_position)
        if not token_or_position.isdecimal():
            return None
    position = int(token_or_position)
    return position if 0 <= position < len(tokens) else None
