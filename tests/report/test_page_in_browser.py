"""The page in a browser: what is drawn is what was recorded, and nobody else is asked."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnlab.cli import main
from attnlab.figures.embedding_plane import draw_animated_plane
from attnlab.figures.figure_page import figure_page
from attnlab.run_record.pattern_table import ERROR, load_patterns
from attnlab.run_record.record import Record
from tests.pictured import STEPS, TWINS, pictured, sweep

pytestmark = pytest.mark.browser
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
HOSTILE = "</script><img src=x onerror=\"document.title='hacked'\">&amp;'é"
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    with playwright.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def show(chromium: Any) -> Iterator[Open]:
    """Open a page; at the end, it must have asked for nothing and complained of nothing."""
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    asked, complaints, own = [], [], []

    def opened(path: Path) -> Any:
        own.append(path.as_uri())
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(own[-1])
        page.wait_for_selector("html[data-ready]", state="attached")
        return page

    yield opened
    context.close()
    assert asked == own
    assert complaints == []


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformer with two seeds, and an LSTM."""
    runs_dir = tmp_path_factory.mktemp("report") / "runs"
    pictured(runs_dir, "multihead", 2, 0, started="2026-11-23T00:00:01Z")
    pictured(runs_dir, "multihead", 2, 1, started="2026-11-23T00:00:02Z")
    pictured(runs_dir, "lstm", 2, 0, started="2026-11-23T00:00:03Z")
    assert main(["report", "--runs-dir", str(runs_dir), "-o", str(runs_dir / "r.html")]) == 0
    return runs_dir


def settled(page: Any) -> None:
    page.wait_for_function("!document.querySelector('[aria-busy=true]')")


def drawn(page: Any, card: int, history: int) -> list[float]:
    """The opacities of a picture's lines, from the first token to the last."""
    settled(page)
    return page.evaluate(
        """([card, history]) => [...document.querySelectorAll(
            `[data-card="${card}"] [data-history="${history}"] .mark-rule line`
        )].map((line) => Number(line.getAttribute("stroke-opacity")))""",
        [card, history],
    )


def weights(run: Path, step: int, probe: str, head: int) -> np.ndarray:
    """What was recorded of a head, counted over all layers; the influence comes last."""
    patterns = load_patterns(Record(run), step, probe)
    rows = [
        pattern.weights[number, list(pattern.query_at).index(pattern.answer_position)]
        for pattern in patterns
        for number in range(len(pattern.weights))
    ]
    return rows[head]


def named(runs: Path, arm: str, seed: int = 0) -> Path:
    return next(runs.glob(f"*{arm}-*s{seed}-*"))


def test_the_lines_have_the_recorded_weights_at_every_step_and_head(runs, show):
    page = show(runs / "r.html")
    run = named(runs, "multihead-2x64")
    assert page.locator("[data-card='0'] [data-choose=head] option").count() == 9
    for place, step in enumerate(STEPS):
        page.locator("input[type=range]").fill(str(place))
        assert page.locator("[data-step]").text_content() == str(step)
        for head in range(9) if step == STEPS[-1] else (0, 5, 8):
            page.locator("[data-card='0'] [data-choose=head]").select_option(str(head))
            for history, probe in enumerate(TWINS):
                expected = weights(run, step, probe, head)
                assert drawn(page, 0, history) == pytest.approx(expected, abs=ERROR)
        for history, probe in enumerate(TWINS):
            expected = weights(named(runs, "lstm"), step, probe, 0)
            assert drawn(page, 1, history) == pytest.approx(expected, abs=ERROR)


def test_another_seed_brings_its_own_weights_and_its_own_head(runs, show):
    page = show(runs / "r.html")
    run = named(runs, "multihead-2x64", seed=1)
    seed = page.locator("[data-card='0'] [data-choose=seed]")
    (option,) = [text for text in seed.locator("option").all_text_contents() if "seed 1" in text]
    seed.select_option(label=option.strip())
    result = Record(run).result
    assert result is not None
    chosen = result.findings["pronoun"].heads["it"].head
    head = 4 * chosen.layer + chosen.head
    assert page.locator("[data-card='0'] [data-choose=head]").input_value() == str(head)
    expected = weights(run, STEPS[-1], "tired", head)
    assert drawn(page, 0, 0) == pytest.approx(expected, abs=ERROR)
    assert page.locator("[data-card='1'] [data-choose=seed]").count() == 0


def test_a_click_and_the_arrow_keys_choose_the_token_that_asks(runs, show):
    page = show(runs / "r.html")
    patterns = load_patterns(Record(named(runs, "multihead-2x64")), STEPS[-1], "wide")
    layer, head = divmod(int(page.locator("[data-card='0'] [data-choose=head]").input_value()), 4)
    picture = page.locator("[data-card='0'] [data-history='1']")

    def is_asked_from(query: int) -> None:
        expected = patterns[layer].weights[head, query]
        assert drawn(page, 0, 1) == pytest.approx(expected, abs=ERROR)
        assert picture.get_attribute("aria-valuenow") == str(query + 1)
        assert picture.get_attribute("aria-valuetext").startswith(TWINS["wide"][query] + ": ")

    is_asked_from(8)
    # The reach of a token is drawn over its word and takes the click.
    picture.locator(".reach_marks path").nth(1).click()
    is_asked_from(1)
    picture.focus()
    for key, query in (("ArrowDown", 2), ("Home", 0), ("ArrowUp", 0), ("End", 12), ("ArrowUp", 11)):
        page.keyboard.press(key)
        is_asked_from(query)
    # The influence answers one question only.
    page.locator("[data-card='0'] [data-choose=head]").select_option("8")
    settled(page)
    assert picture.get_attribute("aria-valuenow") == "9"


def test_the_step_can_be_chosen_with_the_keyboard(runs, show):
    page = show(runs / "r.html")
    page.locator("input[type=range]").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("[data-step]").text_content() == str(STEPS[-2])
    page.keyboard.press("Home")
    head = int(page.locator("[data-card='0'] [data-choose=head]").input_value())
    expected = weights(named(runs, "multihead-2x64"), 0, "tired", head)
    assert drawn(page, 0, 0) == pytest.approx(expected, abs=ERROR)
    said = page.locator("input[type=range]").get_attribute("aria-valuetext")
    assert said == "pictures after step 0"


def test_hostile_names_and_tokens_are_text(tmp_path, show):
    runs_dir = tmp_path / "runs"
    runs_dir.mkdir()
    sentence = ["the", HOSTILE[:12], "<!--", "it", "&lt;", '"', "ü", ""]
    path = pictured(runs_dir, HOSTILE, 2, 0, sentences={HOSTILE: sentence}, steps=(0, 5))
    path.rename(runs_dir / "x<img src=x>")
    assert main(["report", "--runs-dir", str(runs_dir), "-o", str(tmp_path / "r.html")]) == 0
    page = show(tmp_path / "r.html")
    assert page.title() == "attnlab: pronoun"
    assert page.locator("img").count() == 0
    assert page.locator("h4").text_content() == HOSTILE
    shown = page.locator("[data-history='0'] text").all_text_contents()
    assert {HOSTILE, HOSTILE[:12], "<!--", "&lt;", '"', "ü", "∅"} <= set(shown)


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_wider_than_the_window(width, runs, show):
    page = show(runs / "r.html")
    page.set_viewport_size({"width": width, "height": 900})
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".chart svg").count() == 2
    cut_texts = """[...document.querySelectorAll(".chart svg")].flatMap((svg) => {
        const end = svg.getBoundingClientRect().right + 1;
        return [...svg.querySelectorAll("text")].map((text) => [text.getBoundingClientRect(), text])
            .filter(([box]) => box.right > end).map(([, text]) => text.textContent);
    })"""
    assert page.evaluate(cut_texts) == []


def test_the_policy_stops_a_script_that_is_not_the_pages_own(runs, chromium, tmp_path):
    text = (runs / "r.html").read_text("utf-8")
    foreign = "<main><script>document.title = 'hacked'</script>"
    (tmp_path / "foreign.html").write_text(text.replace("<main>", foreign), "utf-8")
    page = chromium.new_page()
    page.goto((tmp_path / "foreign.html").as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    assert page.title() == "attnlab: pronoun"
    page.close()


@pytest.fixture(scope="module")
def many_arms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of 24 arms with two seeds each."""
    runs_dir = sweep(tmp_path_factory.mktemp("sweep") / "runs", steps=(500,))
    page = runs_dir.parent / "r.html"
    assert main(["report", "--runs-dir", str(runs_dir), "-o", str(page)]) == 0
    return page


def test_an_arm_that_is_chosen_comes_forward_in_legend_table_and_curves(many_arms, show):
    page = show(many_arms)
    buttons = page.locator(".arms button")
    assert buttons.count() == 24
    inked = "[...document.querySelectorAll('.chart path')].filter(p => %s).length"
    strong = inked % "p.getAttribute('stroke-width') === '2.5'"
    assert page.evaluate(strong) == 0
    buttons.last.click()
    page.wait_for_function(f"{strong} === 2")
    assert buttons.last.get_attribute("aria-pressed") == "true"
    assert page.locator("tr.chosen").count() == 1
    buttons.last.click()
    page.wait_for_function(f"{strong} === 0")


def test_cards_of_the_other_arms_are_drawn_when_they_are_unfolded(many_arms, show):
    page = show(many_arms)
    assert page.locator(".cards .picture svg").count() == 2 * 8
    page.locator("summary").click()
    page.wait_for_selector("details[data-ready]")
    assert page.locator(".cards .picture svg").count() == 2 * 24


def test_400_pixels_show_the_main_metric_of_every_arm(many_arms, show):
    page = show(many_arms)
    page.set_viewport_size({"width": 400, "height": 900})
    cells = page.locator("td[data-of=accuracy]")
    assert cells.count() == 24
    boxes = [cells.nth(n).bounding_box() for n in range(24)]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 400 for box in boxes)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_a_figure_as_a_page_is_drawn_under_its_policy_and_follows_its_slider(tmp_path, show):
    places = np.random.default_rng(0).normal(size=(3, 2, 2))
    figure = draw_animated_plane([HOSTILE, "two"], [0, 10, 500], places, [0.4, 0.25], HOSTILE)
    path = tmp_path / "figure.html"
    path.write_text(figure_page(figure, HOSTILE), "utf-8")
    page = show(path)
    assert page.title() == HOSTILE
    assert page.locator("#figure svg").text_content().count(HOSTILE) >= 1
    assert page.get_by_text("step 500", exact=True).count() == 1
    page.locator("input[type=range]").fill("1")
    page.get_by_text("step 10", exact=True).wait_for()
