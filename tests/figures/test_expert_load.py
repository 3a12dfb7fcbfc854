"""Figures of experts and of vectors over training draw the numbers that they are given."""

import re
from typing import Any

import numpy as np
import pytest

from attnlab.figures import embedding_plane, expert_load
from attnlab.figures.base import render_png, render_svg
from tests.prose import refuses, says

TOKENS, STEPS = ["one", "two", "</script>"], [0, 10, 500]
PLACES = np.random.default_rng(0).normal(size=(3, 3, 2))
COUNTS = np.array([[0, 0, 0], [3, 1, 0], [40, 0, 2], [1, 1, 1]])


def embedded(figure: Any) -> list[dict[str, Any]]:
    """Give the rows that most marks of a figure share."""
    spec = figure.to_dict()
    sources = [spec, *spec["layer"]]
    return next(source["data"] for source in sources if "data" in source)["values"]


def test_a_table_has_the_shares_of_the_most_frequent_tokens():
    figure = expert_load.draw_token_table(
        ["<pad>", "\n", "the", "</script>"], COUNTS, "run", count=2
    )
    data = embedded(figure)
    assert [row["token"] for row in data[::3]] == ["the", "↵"]
    assert [row["share"] for row in data] == pytest.approx([40 / 42, 0, 2 / 42, 0.75, 0.25, 0])
    text = render_svg(figure)
    assert re.findall(r">(\.\d\d|1\.00)<", text) == [".95", ".75", ".25"]
    assert ">42<" in text
    # A token that went nowhere has no row, however many are asked for.
    whole = render_svg(expert_load.draw_token_table(["<pad>", "\n", "the", "x"], COUNTS, "run"))
    assert "&lt;pad>" not in whole.replace("&gt;", ">")
    assert whole.index(">the<") < whole.index(">↵<") < whole.index(">x<")
    with refuses(ValueError, "figures.routing.no_token"):
        expert_load.draw_token_table(["a"], COUNTS[:1], "run")


def test_bars_of_all_layers_have_one_scale_and_an_idle_expert_is_named():
    together = np.array([[0.5, 0.25, 0], [0.25, 0.5, 0], [0, 0, 0]])
    layers = [
        expert_load.ExpertLoad("first", np.array([0.6, 0.4, 0]), together),
        expert_load.ExpertLoad("second", np.full(3, 1 / 3), together),
    ]
    figure = expert_load.draw_loads(layers)
    spec = figure.to_dict()
    assert [row["title"]["text"] for row in spec["vconcat"]] == ["first", "second"]
    for row in spec["vconcat"]:
        bars = row["hconcat"][0]["layer"][0]["encoding"]["x"]
        assert bars["scale"]["domain"] == [0, 0.6]
    text = render_svg(figure)
    assert text.count(">none<") == 1
    assert re.findall(r">(\.\d\d)<", text) == [".50", ".25", ".25", ".50"] * 2
    assert render_png(figure, pixels_per_unit=1).startswith(b"\x89PNG")
    with refuses(ValueError, "figures.routing.no_layers"):
        expert_load.draw_loads([])


def test_a_path_goes_through_every_place_of_its_token():
    figure = embedding_plane.draw_paths(TOKENS, STEPS, PLACES, [0.4, 0.25], "run")
    for row in embedded(figure):
        at, token = row["at"], TOKENS.index(row["token"])
        assert row["step"] == STEPS[at]
        assert [row["x"], row["y"]] == pytest.approx(PLACES[at, token], abs=1e-6)
        if at < 2:
            following = [row["next_x"], row["next_y"]]
            assert following == pytest.approx(PLACES[at + 1, token], abs=1e-6)
        else:
            assert "next_x" not in row
    text = render_svg(figure)
    assert text.count("<line ") >= 6
    assert sorted(set(re.findall(r"step (\d+)", text))) == ["0", "500"]
    (axis,) = re.findall(r">([^<>]*40%[^<>]*)<", text)
    says("figures.embeddings.axis", axis)
    assert [text.count(f">{name}<") for name in ("one", "two")] == [1, 1]
    alone = render_svg(embedding_plane.draw_paths(TOKENS, [3], PLACES[:1], [0.4, 0.25], "run"))
    assert ">one<" in alone
    with refuses(ValueError, "figures.embeddings.steps"):
        embedding_plane.draw_paths(TOKENS, STEPS[:2], PLACES, [0.4, 0.25], "run")


def test_a_film_has_a_slider_over_the_recorded_steps():
    figure = embedding_plane.draw_animated_plane(TOKENS, STEPS, PLACES, [0.4, 0.25], "run")
    spec = figure.to_dict()
    (at,) = spec["params"]
    assert at["bind"] == {"input": "range", "min": 0, "max": 2, "step": 1, "name": "recorded step "}
    assert at["value"] == 2
    # A name keeps its distance from the point that it goes with.
    for token in TOKENS:
        mine = [row for row in embedded(figure) if row["token"] == token]
        away = {round(row["name_x"] - row["x"], 4) for row in mine}
        assert [row["at"] for row in mine] == [0, 1, 2]
        assert len(away) == 1
    text = render_svg(figure)
    assert ">step 500<" in text
    assert ">step 10<" not in text
