"""The pages of runs, of a comparison and of a run in a browser, on a screen of any width."""

import csv
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from attnlab.run_record.attempt import Attempt
from attnlab.run_record.record import Record
from tests.dashboard.serving import elsewhere, served
from tests.fabricated import result
from tests.pictured import demo

pytestmark = pytest.mark.browser
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    return demo(tmp_path / "runs", seeds=3)


@pytest.fixture(params=[(1400, "light"), (400, "dark")], ids=["wide", "narrow"])
def page(request: Any, runs_dir: Path) -> Iterator[Any]:
    """A page of a browser; at the end it must have asked no one else, and complained of nothing."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    width, scheme = request.param
    with served(runs_dir) as address, playwright.sync_playwright() as run:
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
    # The browser reports each answer of an error; what it means is on the page.
    assert [complaint for complaint in complaints if "status of 422" not in complaint] == []


def ready(page: Any) -> None:
    page.wait_for_selector("html[data-ready]", state="attached")


def until(page: Any, condition: str) -> None:
    """Wait until a condition holds; the page's policy lets nothing wait inside of it."""
    for _ in range(100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    pytest.fail(f"never: {condition}")


def fits(page: Any) -> bool:
    return page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


def test_from_the_runs_to_a_comparison_to_a_run(page):
    page.goto("/")
    ready(page)
    assert fits(page)
    page.fill("#where", "variant=moe")
    page.press("#where", "Enter")
    page.wait_for_url("**where=variant*")
    until(page, "document.querySelectorAll('input[name=run]').length === 3")
    page.go_back()
    until(page, "document.querySelectorAll('input[name=run]').length === 15")
    page.click("text=compare these")
    page.wait_for_url("**/compare*")
    ready(page)
    assert fits(page)
    charts = page.locator("[data-chart]").count()
    assert charts >= 5
    assert page.locator("[data-chart] svg").count() == charts
    page.locator('td[data-of="run of seed"] a').first.click()
    page.wait_for_url("**/run?run=*")
    ready(page)
    assert fits(page)
    assert page.locator("[data-chart] svg").count() >= 2


def test_a_range_of_parallel_coordinates_chooses_arms_in_table_and_charts(page):
    page.goto("/compare")
    ready(page)
    axis = page.locator(".parallel .axis").last
    axis.focus()
    for _ in range(18):
        axis.press("ArrowUp")
    chosen = page.locator("tr.chosen").count()
    assert 0 < chosen < 5
    assert f"{chosen} of 5 arms" in page.locator(".scroll [role=status]").text_content()
    assert page.locator('.arms [aria-pressed="true"]').count() == chosen
    axis.press("Escape")
    assert page.locator("tr.chosen").count() == 0


def test_a_chart_is_saved_with_the_numbers_that_it_shows(page):
    page.goto("/compare?curve=validation/accuracy")
    ready(page)
    chart = page.locator("[data-chart]:has(svg[aria-label*='validation accuracy']), [data-chart]")
    for kind, begins in (("svg", b"<svg"), ("png", b"\x89PNG")):
        with page.expect_download() as saved:
            chart.nth(1).locator(f"[data-save={kind}]").click()
        assert Path(saved.value.path()).read_bytes().startswith(begins)
    with page.expect_download() as saved:
        chart.nth(1).locator("[data-save=csv]").click()
    rows = list(csv.DictReader(io.StringIO(Path(saved.value.path()).read_text())))
    assert {"arm", "x", "mean", "low", "high", "n"} <= rows[0].keys()
    assert len({row["arm"] for row in rows}) == 5


def test_a_tag_is_written_and_shown(page, runs_dir):
    page.goto("/")
    ready(page)
    page.locator("input[name=run]").first.check()
    name = page.locator("input[name=run]").first.get_attribute("value")
    page.fill("#annotation", "good")
    page.click("button[value=tag]")
    page.wait_for_selector(".tag:has-text('good')")
    assert Record(runs_dir / name).annotations.tags == ("good",)
    page.locator("input[name=run]").first.check()
    page.fill("#annotation", "two words")
    page.click("button[value=tag]")
    until(page, "document.querySelector('[data-notice]').textContent.includes('two')")


def test_rows_that_a_run_writes_come_to_the_open_page(page, runs_dir):
    content = result("multihead", 1, 0, dataset="pronoun", knobs={"optimizer.lr": 0.5})
    attempt = Attempt.claim(runs_dir / "growing", content.identity)
    attempt.append("train", [{"step": step, "loss": 1.0} for step in (0, 10)])
    attempt.beat(10)
    page.goto("/run?run=growing")
    ready(page)
    shown = "[...document.querySelectorAll('.mark-symbol path')].length"
    before = page.evaluate(shown)
    attempt.append("train", [{"step": step, "loss": 0.5} for step in (20, 30)])
    attempt.beat(30)
    until(page, f"{shown} > {before}")
    page.wait_for_selector("[data-progress]:has-text('step 30')")
