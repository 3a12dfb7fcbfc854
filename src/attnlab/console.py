"""Tables, bars and styled lines in the terminal."""

from collections.abc import Iterable
from typing import Any

import rich.console
from rich.segment import Segment

from attnlab.printable import break_lines, escape_controls


class Console(rich.console.Console):
    """Prints what it is given as it stands: no markup, no emoji, nothing that a terminal obeys."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print tables and texts; a text is broken at its words, never inside of one."""
        if objects and all(isinstance(item, str) for item in objects) and not self.soft_wrap:
            text = escape_controls(options.pop("sep", " ").join(objects))
            objects = (break_lines(text, self.width),)
            options["soft_wrap"] = True
        super().print(*objects, **options)

    def render(self, *renderable: Any, **options: Any) -> Iterable[Segment]:
        """Yield the pieces of what is printed, each as `escape_controls` returns it."""
        for piece in super().render(*renderable, **options):
            yield piece if piece.control else piece._replace(text=escape_controls(piece.text))
