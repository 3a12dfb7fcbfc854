"""The pages of records in a browser: they draw, fit a narrow screen, and ask nobody else."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.dashboard.recorded import recorded
from tests.dashboard.serving import elsewhere, served

pytestmark = pytest.mark.browser
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PAGES = ("/heads", "/experts", "/embeddings", "/influence", "/claims")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    runs_dir = tmp_path_factory.mktemp("browser") / "runs"
    for variant in ("multihead", "moe", "lstm", "linear"):
        for seed in range(3):
            recorded(runs_dir, variant, seed)
    with served(runs_dir) as place:
        yield place


@pytest.fixture(params=[(1400, "light"), (400, "dark")], ids=["wide", "narrow"])
def page(request: Any, address: str) -> Iterator[Any]:
    """A page of a browser; at the end it must have asked no one else, and complained of nothing."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    width, scheme = request.param
    with playwright.sync_playwright() as run:
        browser = run.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, base_url=address
        )
        opened, complaints = context.new_page(), []
        opened.on("console", lambda message: complaints.append(message.text))
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on("request", lambda asked: complaints.extend(elsewhere(asked.url, address)))
        yield opened
        browser.close()
    assert complaints == []


def ready(page: Any) -> None:
    page.wait_for_selector("html[data-ready]", state="attached")


def test_all_pages_draw_their_charts_and_fit_the_screen(page):
    for path in PAGES:
        page.goto(path)
        ready(page)
        charts = page.locator("[data-chart]").count()
        assert page.locator("[data-chart] svg").count() == charts
        assert bool(charts) == (path != "/claims")
        width = page.viewport_size["width"]
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_choice_changes_the_address_and_the_address_restores_it(page):
    page.goto("/heads")
    ready(page)
    page.select_option("#choice-measure", "sink")
    page.wait_for_url("**measure=sink*")
    ready(page)
    page.wait_for_selector("svg text:has-text('weight of the first four tokens')")
    page.reload()
    ready(page)
    assert page.input_value("#choice-measure") == "sink"
    page.go_back()
    page.wait_for_selector("svg text:has-text('weight of the previous token')")
    assert page.input_value("#choice-measure") == "previous"


def test_the_slider_shows_another_step(page):
    page.goto("/embeddings")
    ready(page)
    page.locator("#choice-at").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_url("**at=1*")
    page.wait_for_selector("svg text:has-text('token vectors after step 10')")


def test_a_cell_leads_to_the_attention_of_its_head(page):
    page.route("**/attention?*", lambda route: route.fulfill(body="attention"))
    page.goto("/heads")
    ready(page)
    # The digits in a cell belong to it too.
    page.locator("[data-chart='0'] .mark-rect path").first.click(force=True)
    page.wait_for_url("**/attention?run=*&layer=0&head=0")
