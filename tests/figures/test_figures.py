"""Figures draw the numbers that they are given, and nothing else."""

import re
from typing import Any

import numpy as np
import pytest

from attnlab.dataset.pronoun import MEANT, OTHER
from attnlab.figures import attention_panels, base, curves
from attnlab.figures.run_curves import draw_run_curve
from tests.drawn import rows_by_layer

TOKENS = ["the", "animal", "was", "too", "tired", "."]
WEIGHTS = np.array([0.02, 0.6, 0.1, 0.2, 0.08, 0.0])
VIEW = attention_panels.View("tired", TOKENS, 2, WEIGHTS, {1: MEANT, 4: OTHER})


def test_a_line_is_as_opaque_as_its_weight_and_starts_at_the_query():
    text = base.render_svg(attention_panels.draw_panel(VIEW))
    lines = re.findall(r"<line [^>]*>", text)
    opacities = [float(re.search(r'stroke-opacity="([^"]*)"', line)[1]) for line in lines]  # pyright: ignore[reportOptionalSubscript]
    assert opacities == pytest.approx(WEIGHTS)
    starts = {re.search(r"translate\([^,]*,([^)]*)\)", line)[1] for line in lines}  # pyright: ignore[reportOptionalSubscript]
    assert len(starts) == 1
    assert text.count("<text") == 2 * len(TOKENS) + 4 + 1
    assert ">.60<" in text
    assert "http" not in text.replace("http://www.w3.org", "")


def test_every_arm_has_a_panel_for_each_sentence_and_its_numbers():
    views = {"one": [VIEW, VIEW], "<two>": [VIEW]}
    arms = [
        attention_panels.ArmViews(name, ["accuracy .99"], of_arm) for name, of_arm in views.items()
    ]
    picture = attention_panels.draw_arm_rows(arms)
    spec = picture.to_dict()
    assert [len(pair["hconcat"]) for pair in spec["concat"]] == [2, 1]
    assert [pair["title"]["text"] for pair in spec["concat"]] == ["one", "<two>"]
    text = base.render_svg(picture)
    assert text.count(">accuracy .99</text>") == 2
    assert text.count("<line ") == 3 * len(TOKENS)
    assert MEANT in text
    assert base.render_png(picture, pixels_per_unit=1).startswith(b"\x89PNG")


def test_what_cannot_be_seen_is_shown_and_what_is_long_is_cut():
    view = attention_panels.View("", ["\n", " ", "", "x" * 40], 0, np.full(4, 0.25))
    assert [row["token"] for row in attention_panels.token_rows(view)] == [
        "↵",
        "␣",
        "∅",
        "x" * 13 + "…",
    ]


def test_no_variant_has_the_colour_of_a_role_or_of_another():
    shown = base.colour_by_variant([f"variant {n}" for n in range(8)])
    assert len({*shown.values(), *base.ROLES}) == 10
    assert base.colour_by_variant(["a", "b", "a"]) == {"a": base.VARIANTS[0], "b": base.VARIANTS[1]}


def arm(title: str, colour: str | None, n: int = 3, dash: int = 0) -> curves.ArmCurve:
    random = np.random.default_rng(len(title))
    means = random.uniform(0.2, 0.8, size=5).tolist()
    bounds = [(None, None) if n < 3 else (m - 0.1, m + 0.1) for m in means]
    points = [
        curves.CurvePoint(step, n, mean, *bound)
        for step, (mean, bound) in enumerate(zip(means, bounds, strict=True))
    ]
    seeds = [[(step, mean + 0.01) for step, mean in enumerate(means)] for _ in range(n)]
    return curves.ArmCurve(title, colour, points, dash, seeds, range(n))


def layers(chart: Any) -> list[tuple[str, list[dict[str, Any]]]]:
    """Give the mark and the rows of each layer, in the order in which they are drawn."""
    spec = chart.to_dict()
    marks = [layer["mark"]["type"] for layer in spec["layer"]]
    return list(zip(marks, rows_by_layer(spec), strict=True))


def test_a_curve_has_every_point_its_interval_and_every_seed_unsmoothed():
    arms = [arm("moe, 1 layer", base.VARIANTS[0]), arm("moe, 2 layers", base.VARIANTS[0], dash=1)]
    chart = curves.draw_curves(arms, "validation loss", ["n = 3"])
    (_, seeds), (band, bands), (line, rows), _ = layers(chart)
    assert (band, line, rows, len(seeds)) == ("area", "line", bands, 2 * 3 * 5)
    points = [(a.title, point) for a in arms for point in a.points]
    for row, (title, point) in zip(rows, points, strict=True):
        assert (row["arm"], row["x"], row["n"]) == (title, point.x, 3)
        assert [row[k] for k in ("mean", "low", "high")] == pytest.approx(point[2:], rel=1e-5)
    spec = chart.to_dict()
    assert spec["title"]["subtitle"][0] == "n = 3"
    # No transform but the choice of rows: nothing is smoothed in the browser.
    transforms = [key for layer in spec["layer"] for t in layer.get("transform", []) for key in t]
    assert set(transforms) == {"filter"}
    encoding = spec["layer"][2]["encoding"]
    assert encoding["color"]["scale"]["range"] == [base.VARIANTS[0]] * 2
    assert encoding["strokeDash"]["scale"]["range"] == list(base.DASHES[:2])
    assert encoding["color"]["legend"]["labelLimit"] == 0


def test_of_two_seeds_no_band_is_drawn_and_of_many_arms_none_either():
    assert "area" not in dict(layers(curves.draw_curves([arm("few", "#000", n=2)], "")))
    many = [arm(f"arm {n}", colour) for n, colour in enumerate(base.HIGHLIGHTS)]
    assert "area" not in dict(layers(curves.draw_curves(many, "")))
    # On a page, the band of a chosen arm is there to be shown.
    on_page = curves.draw_curves(many, "", legend=False).to_dict()
    (band,) = (layer for layer in on_page["layer"] if layer["mark"]["type"] == "area")
    assert band["encoding"]["opacity"]["value"] == 0


def test_arms_without_a_colour_are_grey_behind_the_others_and_not_in_the_legend():
    chart = curves.draw_curves([arm("grey", None), arm("blue", "#0072B2")], "")
    (_, behind), *_ = layers(chart)
    assert {row["arm"] for row in behind} == {"grey"}
    colours = chart.to_dict()["layer"][-1]["encoding"]["color"]["scale"]
    assert colours == {"domain": ["blue"], "range": ["#0072B2"]}
    assert base.render_svg(chart).count(base.REST) > 0


@pytest.mark.parametrize("x", [None, curves.XAxis("tokens", log=True)], ids=["linear", "log"])
def test_first_and_last_dots_are_whole_inside_the_frame_and_labels_stand_at_their_ticks(x):
    points = [curves.CurvePoint(step, 3, 0.1 * step) for step in (1, 2, 4, 8)]
    chart = curves.draw_curves(
        [curves.ArmCurve("one", "#000", points)], "", x=x, y=curves.YAxis("loss")
    )
    svg = base.render_svg(chart)
    width = float(re.search(r'class="background"[^>]*d="M0,0h(\d+)v240', svg)[1])  # pyright: ignore[reportOptionalSubscript]
    (marks,) = re.findall(r'<g class="mark-symbol role-mark[^>]*>.*?</g>', svg)
    dots = [float(place) for place in re.findall(r"translate\(([\d.]+),", marks)]
    radius = float(re.search(r'd="M([\d.]+),', marks)[1])  # pyright: ignore[reportOptionalSubscript]
    assert len(dots) == 4
    assert all(radius <= place <= width - radius for place in dots)
    assert "clip-path" not in marks
    labels = re.findall(r'text-anchor="middle" transform="translate\(([\d.]+),14\)', svg)
    assert [float(label) for label in labels] == pytest.approx(dots, abs=0.6)
    assert ">loss</text>" in svg


def test_a_label_of_an_axis_has_the_prefix_of_its_own_value():
    points = [curves.CurvePoint(step, 3, 0.1) for step in range(100, 1501, 100)]
    svg = base.render_svg(curves.draw_curves([curves.ArmCurve("one", "#000", points)], ""))
    assert {">200<", ">1k<", ">1.4k<"} <= set(re.findall(r">[\dk.]+<", svg))


def test_a_caption_says_which_seeds_and_bands_are_cut_at_the_frame():
    points = [curves.CurvePoint(step, 3, 0.5 + 0.1 * step, 0.4, 0.9) for step in range(3)]
    seeds = [[(0, 0.5), (2, 0.7)], [(0, 0.1), (2, 0.7)], [(0, 0.6), (2, 0.95)], []]
    cut = curves.draw_curves(
        [curves.ArmCurve("a", "#000", points, seed_curves=seeds, seeds=range(len(seeds)))],
        "",
        ["n"],
    )
    assert cut.title.subtitle == [
        "n",
        "cut at the frame: 2 of 3 seeds, down to 0.1, up to 0.95; 1 of 1 band, down to 0.4, up to "
        "0.9",
    ]
    inside = [point._replace(low=None, high=None) for point in points]
    whole = curves.ArmCurve("a", "#000", inside, seed_curves=seeds[:1], seeds=[0])
    assert curves.draw_curves([whole], "", ["n"]).title.subtitle == ["n"]


def test_a_logarithmic_axis_begins_after_0():
    chart = curves.draw_curves([arm("one", "#000")], "", x=curves.XAxis("tokens", log=True))
    assert all(row["x"] > 0 for _, rows in layers(chart) for row in rows)


def test_a_logarithmic_axis_draws_what_is_above_0_and_says_what_is_not():
    points = [
        curves.CurvePoint(0, 3, -0.1, -0.2, 0.1),
        curves.CurvePoint(10, 3, 0.1, -0.1, 0.2),
        curves.CurvePoint(100, 3, 0.01, 0.001, 0.02),
    ]
    one = curves.ArmCurve("one", "#000", points, seed_curves=[[(0, -1.0), (10, 0.1)]], seeds=[0])
    chart = curves.draw_curves([one], "", ["n"], y=curves.YAxis("loss", log=True))
    assert chart.title.subtitle[:3] == [
        "n",
        "logarithmic: y",
        "not drawn, as y is not above 0: 1 of 3 points",
    ]
    assert "down to -0.1" in chart.title.subtitle[3]
    svg = base.render_svg(chart)
    assert "NaN" not in svg
    low, high = chart.to_dict()["layer"][0]["encoding"]["y"]["scale"]["domain"]
    assert 0 < low < 0.01 < 0.1 < high
    nothing = [point._replace(mean=-1.0) for point in points]
    flat = curves.draw_curves(
        [curves.ArmCurve("one", "#000", nothing)], "", y=curves.YAxis(log=True)
    )
    assert flat.title.subtitle[0] == "y is linear, as no value is above 0"


def test_the_curve_of_a_run_keeps_rows_that_come_later_off_a_logarithmic_axis():
    rows = {"train": [(0, 1.0), (10, -0.5), (20, 0.5)]}
    chart = draw_run_curve("loss", rows, "one run", log_x=True, log_y=True).to_dict()
    assert chart["title"]["subtitle"] == [
        "one run",
        "logarithmic: x and y",
        "not drawn, as not above 0: 2 of 3 points",
    ]
    for layer in chart["layer"]:
        assert [step["filter"] for step in layer["transform"]] == [
            "datum.step > 0",
            "datum.value > 0",
        ]
        assert layer["encoding"]["x"]["scale"]["type"] == "log"
    only_zero = draw_run_curve("loss", {"train": [(0, 0.0)]}, "", log_x=True, log_y=True)
    assert "logarithmic" not in str(only_zero.title.subtitle)
