"""A figure as a page of its own needs nothing else, and no text in it is taken for markup."""

import json
import re

import numpy as np

from attnlab.figures.base import render_png, render_svg
from attnlab.figures.embedding_plane import draw_plane
from attnlab.figures.figure_page import figure_page

TOKENS = ["</script><b>", "<!--", "&amp;", "plain"]
FIGURE = draw_plane(TOKENS, np.random.default_rng(0).normal(size=(4, 2)), [0.5, 0.5], "run")


def test_a_page_holds_its_figure_and_no_token_ends_a_script():
    text = figure_page(FIGURE, "run")
    assert text.count("</script>") == 3
    assert "<!--" not in text
    specification = re.search(r'id="specification">(.*)</script>', text)
    assert specification is not None
    assert json.loads(specification[1]) == json.loads(json.dumps(FIGURE.to_dict()))
    assert not re.search(r'(src|href)="http', text)


def test_a_title_with_markup_is_text():
    text = figure_page(FIGURE, "</title><script>alert(1)</script>")
    assert "alert(1)</script>" not in text
    assert "<title>&lt;/title&gt;" in text


def test_the_figure_is_a_picture_as_well():
    assert "plain" in render_svg(FIGURE)
    assert render_png(FIGURE, pixels_per_unit=1).startswith(b"\x89PNG")
