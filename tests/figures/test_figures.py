"""Figures draw the numbers that they are given, and nothing else."""

import re

import numpy as np
import pytest

from attnlab.dataset.pronoun import MEANT, OTHER
from attnlab.figures import attention_panels, base, curves

TOKENS = ["the", "animal", "was", "too", "tired", "."]
WEIGHTS = np.array([0.02, 0.6, 0.1, 0.2, 0.08, 0.0])
VIEW = attention_panels.View("tired", TOKENS, 2, WEIGHTS, {1: MEANT, 4: OTHER})


def test_a_line_is_as_opaque_as_its_weight_and_starts_at_the_query():
    text = base.svg(attention_panels.panel(VIEW))
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
    picture = attention_panels.arm_rows(arms)
    spec = picture.to_dict()
    assert [len(pair["hconcat"]) for pair in spec["concat"]] == [2, 1]
    assert [pair["title"]["text"] for pair in spec["concat"]] == ["one", "<two>"]
    text = base.svg(picture)
    assert text.count(">accuracy .99</text>") == 2
    assert text.count("<line ") == 3 * len(TOKENS)
    assert MEANT in text
    assert base.png(picture, scale=1).startswith(b"\x89PNG")


def test_what_cannot_be_seen_is_shown_and_what_is_long_is_cut():
    view = attention_panels.View("", ["\n", " ", "", "x" * 40], 0, np.full(4, 0.25))
    assert [row["token"] for row in attention_panels.records(view)] == [
        "↵",
        "␣",
        "∅",
        "x" * 13 + "…",
    ]


def test_no_variant_has_the_colour_of_a_role_or_of_another():
    shown = base.colours([f"variant {n}" for n in range(8)])
    assert len({*shown.values(), *base.ROLES}) == 10
    assert base.colours(["a", "b", "a"]) == {"a": base.VARIANTS[0], "b": base.VARIANTS[1]}


def test_a_curve_has_every_point_and_its_interval_unsmoothed():
    random = np.random.default_rng(0)
    points = [
        curves.CurvePoint(
            f"{name},{depth}", name, depth, 3, step, float(m), float(m) - 0.1, float(m) + 1
        )
        for name in ("moe", "lstm")
        for depth in ("1 layer", "2 layers")
        for step, m in enumerate(random.uniform(size=5))
    ]
    spec = curves.curves(points, "validation loss").to_dict()
    (data,) = [layer["data"] for layer in spec["layer"] if "data" in layer] or [spec["data"]]
    for row, point in zip(data["values"], points, strict=True):
        assert (row["arm"], row["step"], row["n"]) == (point.arm, point.step, 3)
        assert [row[k] for k in ("mean", "low", "high")] == pytest.approx(
            [point.mean, point.low, point.high], rel=1e-5
        )
    assert "n = 3" in spec["title"]["subtitle"]
    assert not any("transform" in layer for layer in spec["layer"])
    colour = spec["layer"][1]["encoding"]["color"]["scale"]
    assert colour["range"] == list(base.VARIANTS[:2])
    dashes = spec["layer"][1]["encoding"]["strokeDash"]["scale"]
    assert dashes["domain"] == ["1 layer", "2 layers"]
