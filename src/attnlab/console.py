"""Tables, bars and styled lines in the terminal."""

from collections.abc import Iterable
from typing import Any

import rich.console
from rich.segment import Segment

from attnlab.printable import escape_controls


class Console(rich.console.Console):
    """Prints what it is given as it stands: no markup, no emoji, nothing that a terminal obeys."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render(self, *renderable: Any, **options: Any) -> Iterable[Segment]:
        """Yield the pieces of what is printed, each as `escape_controls` returns it."""
        for piece in super().render(*renderable, **options):
            yield piece if piece.control else piece._replace(text=escape_controls(piece.text))
