"""The figure of heads over steps draws the numbers that it is given."""

import numpy as np
import pytest

from attnlab.figures.base import render_svg
from attnlab.figures.head_curves import draw_head_curves
from tests.prose import refuses, says

STEPS = np.array([0, 10, 20])
VALUES = np.array([[0.1, 0.2], [0.3, np.nan], [0.7, 0.9]])
LAYERS = {
    "low": {"sink": (STEPS, VALUES), "distance": (STEPS, 10 * VALUES)},
    "high": {"sink": (STEPS, VALUES / 2)},
}


def test_a_panel_has_a_line_for_each_head_and_leaves_out_what_was_not_measured():
    spec = draw_head_curves(LAYERS, ["sink", "distance"], "run", {"sink": 0.5}).to_dict()
    drawn = spec["datasets"]
    sinks, distances = (row["hconcat"] for row in spec["vconcat"])
    assert [panel["title"]["text"] for panel in sinks] == ["low", "high"]
    rule, line, _ = sinks[0]["layer"]
    assert drawn[rule["data"]["name"]] == [{"value": 0.5}]
    assert drawn[line["data"]["name"]] == [
        {"step": step, "head": str(head), "value": VALUES[at, head]}
        for at, step in enumerate(STEPS)
        for head in (0, 1)
        if np.isfinite(VALUES[at, head])
    ]
    # A threshold is of its measure alone, and a layer without the measure has an empty place.
    assert [len(panel["layer"]) for panel in distances] == [2, 2]
    assert [len(drawn[panel["data"]["name"]]) for panel in distances] == [5, 0]


def test_shares_have_the_axis_from_0_to_1_and_all_layers_of_a_measure_the_same():
    spec = draw_head_curves(LAYERS, ["sink", "distance"], "run").to_dict()
    domains = [
        [panel["layer"][0]["encoding"]["y"]["scale"]["domain"] for panel in row["hconcat"]]
        for row in spec["vconcat"]
    ]
    assert domains[0] == [[0, 1], [0, 1]]
    assert domains[1] == 2 * [[0, pytest.approx(9.36)]]


def test_heads_beyond_the_colours_differ_in_their_dashes():
    values = np.random.default_rng(0).random((3, 10))
    spec = draw_head_curves({"one": {"sink": (STEPS, values)}}, ["sink"], "run").to_dict()
    encoding = spec["vconcat"][0]["hconcat"][0]["layer"][0]["encoding"]
    looks = zip(
        encoding["color"]["scale"]["range"],
        map(str, encoding["strokeDash"]["scale"]["range"]),
        strict=True,
    )
    assert len(set(looks)) == 10


def test_dotted_lines_are_explained_where_there_are_any():
    subtitles = [
        draw_head_curves(LAYERS, [measure], "run", {"sink": 0.5}).to_dict()["title"]["subtitle"]
        for measure in ("sink", "distance")
    ]
    says("figures.heads.dotted", subtitles[0])
    assert subtitles[1] == ""


def test_it_is_drawn_without_a_browser_and_refuses_an_unknown_measure():
    text = render_svg(draw_head_curves(LAYERS, ["sink"], "a run, step 20"))
    assert ">a run, step 20<" in text
    assert ">low<" in text
    with refuses(ValueError, "figures.heads.measure"):
        draw_head_curves(LAYERS, ["none"], "run")
