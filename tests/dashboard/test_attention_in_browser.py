"""The page of a run's attention in a browser: what is drawn is what was recorded."""

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnlab.run_record import write
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.head_scores import measure_row
from attnlab.run_record.layers import FILE, Layers
from attnlab.run_record.pattern_table import ERROR, Pattern, PatternWeights, load_patterns
from attnlab.run_record.record import Record
from tests.dashboard.serving import served
from tests.fabricated import result
from tests.pictured import STEPS, TWINS, attention, pictured

pytestmark = pytest.mark.browser
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run")


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs_dir = tmp_path_factory.mktemp("attention") / "runs"
    pictured(runs_dir, "multihead", 2, 0)
    pictured(runs_dir, "multihead", 2, 1)
    hostile = ["</text><b>", "\u202eit", "&lt;", '"', "", "it"]
    pictured(runs_dir, "multihead", 1, 2, sentences={"<i>probe": hostile}, steps=(0, 5))
    measured_run(runs_dir / "measured-s3-")
    return runs_dir


def measured_run(path: Path) -> None:
    """Write a run of two layers whose heads were measured at step 5."""
    attempt = Attempt.claim(path, result().identity)
    layers = [attention(index, 3) for index in (0, 1)]
    write.create_file(attempt.path / FILE, json.dumps(Layers(layers).to_json()).encode())
    weights = PatternWeights(np.full((3, 4, 4), 0.25, np.float32))
    for step in (0, 5):
        for layer in layers:
            row = Pattern(step, "probe", layer, list("abcd"), range(4), 3, weights)
            attempt.append("patterns", [row.to_row()])
    for layer, entropies in zip(layers, ([1.0, 0.5, 2.0], [1.5, 0.25, np.nan]), strict=True):
        attempt.append("heads", [measure_row(5, layer, "entropy", entropies)])
    attempt.finish(result())


@pytest.fixture(scope="module")
def address(runs_dir: Path) -> Iterator[str]:
    with served(runs_dir) as place:
        yield place


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    with playwright.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def show(chromium: Any, address: str, runs_dir: Path) -> Iterator[Any]:
    """Open the page of a run; at the end, nothing was complained of, and nobody else asked."""
    context = chromium.new_context(viewport={"width": 1400, "height": 1000})
    complaints, foreign = [], []

    def opened(seed: int = 0, query: str = "") -> Any:
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda r: foreign.append(r.url) if not r.url.startswith((address, "data:")) else None,
        )
        page.goto(f"{address}/attention?run={path_of(runs_dir, seed).name}{query}")
        settle(page)
        return page

    yield opened
    context.close()
    assert complaints == []
    assert [url for url in foreign if not url.startswith("blob:")] == []


def path_of(runs_dir: Path, seed: int) -> Path:
    (path,) = runs_dir.glob(f"*-s{seed}-*")
    return path


def settle(page: Any) -> None:
    page.wait_for_selector("html[data-ready]", state="attached")
    # The address follows when the slider rests.
    page.wait_for_timeout(400)


def drawn(page: Any, picture: int = 0) -> list[float]:
    """The opacities of a picture's lines, from the first token to the last; 0 for no line."""
    return page.evaluate(
        """(picture) => [...document.querySelectorAll(`[data-picture="${picture}"] line`)].map(
            (line) => line.getAttribute("visibility") === "hidden" ? 0
              : Number(line.getAttribute("stroke-opacity")))""",
        picture,
    )


def row(run: Path, step: int, head: str, query: int, probe: str = "tired") -> np.ndarray:
    layer, number = int(head[1]), int(head[3])
    return load_patterns(Record(run), step, probe)[layer].weights[number, query]


def same(lines: list[float], expected: np.ndarray) -> bool:
    return np.allclose(lines, np.abs(expected), atol=ERROR)


def head_button(page: Any, name: str) -> Any:
    return page.locator("[data-grid] button", has_text=name)


def test_a_walk_through_the_page_is_kept_by_its_address(show, runs_dir):
    run = path_of(runs_dir, 0)
    page = show()
    at = TWINS["tired"].index("it")
    assert page.locator("[data-step]").text_content() == str(STEPS[-1])
    head_button(page, "L0H3").click()
    settle(page)
    assert same(drawn(page), row(run, STEPS[-1], "L0H3", at))
    for place, step in enumerate(STEPS):
        page.locator("#step").fill(str(place))
        settle(page)
        assert page.locator("[data-step]").text_content() == str(step)
        assert same(drawn(page), row(run, step, "L0H3", at))
    page.locator("[data-query='2']").hover()
    assert same(drawn(page), row(run, STEPS[-1], "L0H3", 2))
    page.locator("[data-query='4']").click()
    page.locator("[data-query='2']").hover()
    assert same(drawn(page), row(run, STEPS[-1], "L0H3", 4))
    page.locator("#step").fill("3")
    settle(page)
    query = page.url.partition("?")[2].split("&")
    assert {"step=10", "layer=0", "head=3", "query=4"} <= {*query}
    page.reload()
    settle(page)
    assert same(drawn(page), row(run, 10, "L0H3", 4))
    assert head_button(page, "L0H3").get_attribute("aria-pressed") == "true"
    assert page.locator("[data-unlock]").is_visible()


def test_the_keyboard_moves_tokens_and_steps(show, runs_dir):
    run = path_of(runs_dir, 0)
    page = show(query="&layer=1&head=0&step=100")
    picture = page.locator("[data-picture]")
    picture.focus()
    for key, query in (("ArrowDown", 9), ("Home", 0), ("ArrowUp", 0), ("End", 12)):
        page.keyboard.press(key)
        assert same(drawn(page), row(run, 100, "L1H0", query))
    page.keyboard.press("[")
    settle(page)
    assert page.locator("[data-step]").text_content() == "30"
    page.keyboard.press("PageDown")
    page.keyboard.press("]")
    settle(page)
    assert page.locator("[data-step]").text_content() == "300"
    weights = row(run, 300, "L1H0", 12)
    most = int(np.argmax(weights))
    said = page.locator("[data-said]").text_content()
    assert f"step 300: L1H0, .: {TWINS['tired'][most]} {weights[most]:.2f}" in said
    label = page.locator("[data-picture] svg").get_attribute("aria-label")
    assert f"{TWINS['tired'][most]} {weights[most]:.2f}" in label
    page.keyboard.press("Space")
    page.wait_for_timeout(1200)
    assert page.locator("[data-step]").text_content() == "500"
    assert page.locator("[data-play]").get_attribute("aria-label") == "play the steps"


@pytest.mark.parametrize("against", ["run", "step", "head"])
def test_a_and_b_and_their_difference(show, runs_dir, against):
    run, other = path_of(runs_dir, 0), path_of(runs_dir, 1)
    named = {"run": other.name, "step": "30", "head": "L0H2"}[against]
    page = show(query=f"&layer=1&head=1&step=100&query=8&against={against}&other={named}")
    a = row(run, 100, "L1H1", 8)
    b = {
        "run": row(other, 100, "L1H1", 8),
        "step": row(run, 30, "L1H1", 8),
        "head": row(run, 100, "L0H2", 8),
    }[against]
    assert same(drawn(page, 0), a)
    assert same(drawn(page, 1), b)
    assert np.allclose(drawn(page, 2), np.abs(a - b), atol=2 * ERROR)
    colours = page.evaluate(
        """[...document.querySelectorAll('[data-picture="2"] line')].map(
            (line) => line.getAttribute("stroke"))"""
    )
    is_clear = np.abs(a - b) > 3 * ERROR
    assert {colours[key] for key in np.flatnonzero(is_clear & (a > b))} == {"#0072b2"}
    assert {colours[key] for key in np.flatnonzero(is_clear & (a < b))} == {"#b34700"}


def test_what_stands_beside_is_chosen_in_the_form_and_keeps_the_head(show):
    page = show(query="&layer=0&head=2&step=30")
    page.locator("#against").select_option("head")
    settle(page)
    assert page.locator("[data-picture]").count() == 3
    page.locator("#other").select_option("L1H3")
    settle(page)
    assert "B: L1H3" in page.locator(".panel-title").nth(1).text_content()
    page.locator("#against").select_option("step")
    settle(page)
    assert page.locator("[data-picture]").count() == 3
    assert {"layer=0", "head=2", "step=30"} <= {*page.url.partition("?")[2].split("&")}
    page.locator("#probe").select_option("wide")
    settle(page)
    assert "probe “wide”" in page.locator("[data-caption]").text_content()


def test_the_matrix_has_the_colours_of_the_weights_and_a_click_holds_its_cell(show, runs_dir):
    run = path_of(runs_dir, 0)
    page = show(query="&layer=1&head=1&step=500&view=matrix")
    weights = load_patterns(Record(run), 500, "tired")[1].weights[1]
    reds = page.evaluate(
        """() => {
            const canvas = document.querySelector("[data-picture] canvas");
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            const at = (q, k) => 4 * (Math.floor((q + 0.5) * height / 13) * width
                + Math.floor((k + 0.5) * width / 13));
            const places = [...Array(13).keys()];
            return places.map((q) => places.map((k) => data[at(q, k)]));
        }"""
    )
    order = np.argsort(weights, axis=None)
    # On light paper, more weight is less red.
    assert (np.diff(np.array(reds).reshape(-1)[order]) <= 0).all()
    box = page.locator("[data-picture] canvas").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 5.5 / 13, box["y"] + box["height"] * 3.5 / 13)
    settle(page)
    assert {"query=3", "key=5"} <= {*page.url.partition("?")[2].split("&")}


def test_heads_are_sorted_by_a_measure(show, runs_dir):
    page = show(seed=3)
    assert page.locator("[data-grid] .layer-row").count() == 2
    for sort, expected in (
        ("-entropy", ["L0H2 2.0", "L1H0 1.5", "L0H0 1.0", "L0H1 .50", "L1H1 .25", "L1H2 \u2013"]),
        ("entropy", ["L1H1 .25", "L0H1 .50", "L0H0 1.0", "L1H0 1.5", "L0H2 2.0", "L1H2 \u2013"]),
    ):
        page.locator("#sort").select_option(index={"-entropy": 1, "entropy": 2}[sort])
        settle(page)
        assert page.locator("[data-grid] button").all_text_contents() == expected
        assert f"sort={sort}" in page.url
    page.locator("#step").fill("0")
    settle(page)
    assert "was not measured until step 0" in page.locator("[data-grid-note]").text_content()


def test_heads_are_walked_by_arrows(show):
    page = show()
    head_button(page, "L0H0").click()
    head_button(page, "L0H0").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == "L0H1"
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.textContent") == "L1H1"
    page.keyboard.press("Enter")
    settle(page)
    assert {"layer=1", "head=1"} <= {*page.url.partition("?")[2].split("&")}


def test_weights_that_are_not_recorded_are_named(show):
    page = show(query="&weights=value")
    assert "Not recorded" in page.locator("[data-weights-note]").text_content()
    assert page.locator("[data-picture]").count() == 0
    page.locator("#weights").select_option("rollout")
    settle(page)
    assert page.locator("[data-picture]").count() == 1
    assert "mean of heads" in page.locator("[data-title]").text_content()


def test_files_have_the_numbers_and_say_what_they_show(show, runs_dir, tmp_path):
    run = path_of(runs_dir, 0)
    page = show(query="&layer=1&head=2&step=300&against=step&other=0")
    paths = {}
    for kind in ("svg", "png", "csv"):
        with page.expect_download() as download:
            page.locator(f"[data-save={kind}]").click()
        paths[kind] = tmp_path / download.value.suggested_filename
        download.value.save_as(paths[kind])
    with paths["csv"].open() as file:
        rows = list(csv.DictReader(file))
    weights = [load_patterns(Record(run), step, "tired")[1].weights[2] for step in (300, 0)]
    assert len(rows) == 13 * 13
    for line in rows[:: 13 + 1]:
        at = int(line["query"]), int(line["key"])
        assert float(line["A: step 300"]) == pytest.approx(weights[0][at], abs=1e-5)
        difference = weights[0][at] - weights[1][at]
        assert float(line["A \u2212 B"]) == pytest.approx(difference, abs=1e-5)
    svg = re.sub("<.*?>", " ", paths["svg"].read_text()).replace("  ", " ")
    for text in (run.name, "after step 300", "layer 1, head 2 (L1H2)", "n = 1 run"):
        assert text in svg
    assert paths["png"].read_bytes().startswith(b"\x89PNG")


def test_hostile_tokens_are_drawn_as_text(show):
    page = show(seed=2)
    texts = page.locator("[data-picture] text").all_text_contents()
    assert {"</text><b>", "\\u202eit", "&lt;", '"', "∅"} <= {*texts}
    assert page.locator("[data-viewer] b, [data-viewer] i").count() == 0


@pytest.mark.parametrize("query", ["", "&view=matrix&against=step&other=0"])
def test_400_pixels_are_enough(show, query):
    page = show(query=query)
    page.set_viewport_size({"width": 400, "height": 900})
    settle(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
