"""A heat map is as dark as its weights, in a terminal and on paper, and fits where it stands."""

import io
import json
import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.cells import cell_len

from attnlab.figures import base, heatmap, terminal_heatmap
from tests.depth import examples
from tests.prose import refuses, says

WEIGHTS = np.array([[1.0, 0.0, 0.0], [0.3, 0.7, 0.0]])
ONE = heatmap.Map("head 0", ["x", "y"], ["a", "b", "c"], WEIGHTS, at=1)


def cells(text: str) -> list[str]:
    """List the colours of the cells of an SVG, in the order of queries and keys."""
    found = re.findall(r'<path [^>]*d="([^"]*)"[^>]*fill="(rgb[^"]*)"', text)
    found = found or [("", c) for c in re.findall(r'fill="(rgb\([^"]*\))"', text)]
    return [colour for _, colour in found]


def test_a_cell_is_darker_where_the_weight_is_larger():
    weights = np.linspace(0, 1, 8)[None]
    one = heatmap.Map("", ["q"], list("abcdefgh"), weights)
    drawn = base.render_svg(heatmap.draw_heat_map(one, "t", ["said"], ("query", "key")))
    light = [sum(map(int, re.findall(r"\d+", colour))) for colour in cells(drawn)[:8]]
    assert len(light) == 8
    assert light == sorted(set(light), reverse=True)


def test_colours_are_on_one_scale_from_0_to_1_whatever_the_weights():
    spec = heatmap.draw_heat_map(ONE, "t", ["said"], ("query", "key")).to_dict()
    text = json.dumps(spec)
    assert '"domain": [0, 1]' in text
    faint = heatmap.Map("", ["x", "y"], ["a", "b", "c"], WEIGHTS / 10)
    drawn = base.render_svg(heatmap.draw_heat_map(faint, "t", ["said"], ("query", "key")))
    assert (
        cells(drawn)[0]
        != cells(base.render_svg(heatmap.draw_heat_map(ONE, "t", [""], ("q", "k"))))[0]
    )


def test_a_rectangular_map_names_both_axes_and_text_stays_text():
    drawn = heatmap.draw_heat_map(ONE, "run, step 1", ["Answer: 'a' 0.9."], ("query: x", "key: y"))
    text = base.render_svg(drawn)
    for said in ("run, step 1", "query: x", "key: y", "a", "b", "c", "x", "y", "weight", ".70"):
        assert re.search(rf"<text[^>]*>{re.escape(said)}</text>", text), said
    assert "Answer: 'a' 0.9." in text.replace("&#39;", "'")
    assert base.render_pdf(drawn).startswith(b"%PDF")
    assert base.render_png(drawn, pixels_per_unit=1).startswith(b"\x89PNG")


def test_a_png_keeps_the_colours_of_cells_that_are_rare():
    weights = np.linspace(0, 0.2, 24 * 24).reshape(24, 24)
    weights[np.arange(8), np.arange(8)] = np.linspace(0.3, 1, 8)
    tokens = ["x"] * 24
    drawn = heatmap.draw_heat_map(heatmap.Map("", tokens, tokens, weights), "t", ["c"], ("q", "k"))
    whole = io.BytesIO()
    drawn.properties(background="white").save(whole, format="png", scale_factor=1)
    with (
        Image.open(whole) as exact,
        Image.open(io.BytesIO(base.render_png(drawn, pixels_per_unit=1))) as small,
    ):
        pixels = [np.asarray(image.convert("RGB"), dtype=int) for image in (exact, small)]
    assert np.abs(pixels[0] - pixels[1]).max() <= 3
    # More colours than a palette has; one by frequency is up to 47 off here.
    assert len(np.unique(pixels[0].reshape(-1, 3), axis=0)) > 256


def test_a_title_stands_on_its_map_whatever_the_axis_is_called():
    one, places = heatmap.Map("head 0", ["x"], list("abcd"), np.full((1, 4), 0.25)), set()
    for of in ("q", "query: the answer so far"):
        text = base.render_svg(heatmap.draw_small_multiples([[one]], "t", ["c"], [(of, "key")]))
        places |= set(re.findall(r'translate\(([^)]*)\)"[^>]*>head 0</text>', text))
    (place,) = places
    assert -10 < float(place.split(",")[1]) < 0


def test_a_query_of_a_long_text_is_named_in_bold():
    tokens, at = ["x"] * 70, 41
    one = heatmap.Map("", tokens, tokens, np.eye(70), at)
    drawn = base.render_svg(heatmap.draw_small_multiples([[one]], "t", ["c"], [("q", "k")]))
    assert re.findall(r"<text[^>]*font-weight=\"bold\"[^>]*>(\d+)</text>", drawn) == ["41"]
    assert ">42</text>" in drawn
    assert drawn.count(">28</text>") == 2


def test_small_multiples_have_every_layer_and_head():
    wide = heatmap.Map("layer 1, head 0", ["x"], ["a"] * 5, np.full((1, 5), 0.2))
    drawn = heatmap.draw_small_multiples([[ONE, ONE], [wide]], "t", ["c"], [("q", "k"), ("q", "k")])
    (panels, _) = drawn.to_dict()["vconcat"]
    assert [len(row["hconcat"]) for row in panels["vconcat"]] == [2, 1]
    assert base.render_svg(drawn).count(">head 0</text>") == 2
    with refuses(ValueError, "figures.heatmap.no_map"):
        heatmap.draw_small_multiples([], "t", [], [])


@given(st.lists(st.floats(0, 1), min_size=2))
def test_a_shade_and_a_colour_are_monotone_in_the_weight(weights):
    ordered = sorted(weights)
    levels = [
        terminal_heatmap.SHADES.index(terminal_heatmap.shade_character(weight))
        for weight in ordered
    ]
    light = [sum(terminal_heatmap.weight_colour(weight).triplet or ()) for weight in ordered]
    assert levels == sorted(levels)
    assert light == sorted(light, reverse=True)
    assert (terminal_heatmap.shade_character(0), terminal_heatmap.shade_character(1)) == (" ", "█")


TOKENS = st.text(st.characters(codec="utf-8"), max_size=20)


@examples(12)
@given(
    st.integers(16, 120),
    st.integers(1, 90),
    st.integers(1, 40),
    st.lists(TOKENS, min_size=1, max_size=4),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_no_width_is_exceeded_and_every_query_has_a_row(
    width, num_keys, num_queries, words, square, coloured, data
):
    num_queries = num_keys if square else num_queries
    keys = [words[at % len(words)] for at in range(num_keys)]
    queries = [words[at % len(words)] for at in range(num_queries)]
    weights = np.random.default_rng(0).dirichlet(np.ones(num_keys), num_queries)
    at = data.draw(st.integers(0, num_queries - 1))
    drawn = terminal_heatmap.draw_terminal_map(
        weights, queries, keys, at, width, square=square, coloured=coloured
    )
    rows = [line.plain for line in drawn.lines if re.match(r"[ >] *\d+ ", line.plain)]
    assert drawn.rows == range(num_queries)
    assert sum(line.startswith(">") for line in rows) == 1
    # What is named below a map is broken into lines by the console.
    picture = [line.plain for line in drawn.lines if not line.plain.startswith("keys: ")]
    assert max(map(cell_len, picture)) <= width
    assert len(picture) >= num_queries + 1
    assert bool(drawn.summary) == (" keys " in f" {drawn.summary}")


@given(st.integers(1, 500), st.integers(1, 500), st.data())
def test_a_window_holds_the_query_and_as_much_as_fits(size, most, data):
    at = data.draw(st.integers(0, size - 1))
    shown = terminal_heatmap.positions_around(size, at, most)
    assert len(shown) == min(size, most)
    assert at in shown
    assert 0 <= shown[0] <= shown[-1] < size


def test_what_is_left_out_is_said():
    weights = np.eye(100)
    tokens = [f"t{at}" for at in range(100)]
    drawn = terminal_heatmap.draw_terminal_map(weights, tokens, tokens, 60, 80, most_rows=10)
    assert len(drawn.lines) == 11
    says("figures.heatmap.left_out", drawn.summary)
    assert (
        terminal_heatmap.draw_terminal_map(weights[:5, :5], tokens[:5], tokens[:5], 2, 80).summary
        == ""
    )


def test_keys_around_the_largest_are_shown_where_those_around_the_query_leave_it_out():
    tokens = [f"t{at}" for at in range(100)]
    for largest in (3, 50):
        weights = np.zeros((100, 100))
        weights[60, largest] = 1
        drawn = terminal_heatmap.draw_terminal_map(weights, tokens, tokens, 60, 80)
        assert drawn.lines[61].plain.rstrip().endswith("██")
        says(f"figures.heatmap.around.{largest}", drawn.summary)


def test_a_cell_has_the_digits_of_its_weight_and_what_is_hidden_is_blank():
    lines = terminal_heatmap.draw_terminal_map(WEIGHTS[:, :2], ["x", "y"], ["x", "y"], 1, 80).lines
    assert [line.plain for line in lines] == [
        "        0    1",
        "      x    y",
        " 0 x  █1.0",
        ">1 y  ▒.30 ▓.70",
    ]
