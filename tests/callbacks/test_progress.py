"""The bar of a run shows names as they are."""

import io

from attnlab.callbacks.progress import ProgressBar
from attnlab.console import Console


def test_a_name_on_a_bar_is_text_whatever_it_holds():
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120)
    with ProgressBar(console, "[link=http://elsewhere]x[/nope]\x1b]0;mine\x07", 3) as bar:
        bar.receive_rows("train", [{"step": 1, "loss": 0.5}])
        bar.bar.refresh()
    assert "[link=http://elsewhere]x[/nope]" in shown.getvalue()
    assert "\x1b]" not in shown.getvalue()
