"""What the pages of records have alike: what is hostile, damaged or missing is said in words."""

import html
import re
from pathlib import Path

import pytest

from attnlab.run_record.head_scores import TABLE as HEADS
from tests.dashboard.recorded import TOKENS, ask, recorded

PAGES = ("/heads", "/experts", "/embeddings", "/influence", "/claims")
OF_RUNS = PAGES[:-1]
MARKUP = "</script><img src=x onerror=alert(1)>'\"&\u202e"
LONG = "x" * 1_000_000


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs_dir = tmp_path_factory.mktemp("record") / "runs"
    for variant in ("multihead", "moe", "lstm", "linear"):
        for seed in range(3):
            recorded(runs_dir, variant, seed)
    return runs_dir


def notice(text: str) -> str:
    match = re.search(r"data-notice>(.*?)</p>", text, re.DOTALL)
    assert match
    return html.unescape(match[1])


@pytest.mark.parametrize("page", PAGES)
def test_each_page_shows_sections_and_is_reached_from_all_others(runs, page):
    answer = ask(runs).get(page)
    assert answer.status_code == 200
    assert notice(answer.text) == ""
    assert answer.text.count("<section") >= 2
    for other in PAGES:
        assert f'<a href="{other}"' in answer.text
    assert re.search(rf'href="{page}" aria-current="page"', answer.text)


@pytest.mark.parametrize("page", OF_RUNS)
@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("where=nothing%3D1", "nothing"),
        ("where=%3D%3D", "expected KEY=VALUE"),
        ("run=nobody", "nobody"),
    ],
)
def test_what_no_run_has_is_one_message_with_status_422(runs, page, query, word):
    answer = ask(runs).get(f"{page}?{query}")
    assert answer.status_code == 422
    assert word in notice(answer.text)
    assert "<section" not in answer.text


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("/heads?arm=nobody", "nobody"),
        ("/heads?measure=prevous", "previous"),
        ("/experts?shown=nobody", "nobody"),
        ("/embeddings?shown=nobody", "nobody"),
        ("/embeddings?at=99", "0 to 2"),
        ("/embeddings?at=-1", "0 to 2"),
        ("/embeddings?colour=pink", "kind or frequency"),
        ("/embeddings?token=nothing", "nothing"),
        ("/influence?step=7", "0, 10, 20"),
        ("/influence?step=1e9", "expected a number"),
        ("/influence?dataset=nothing", "mqar"),
        ("/claims?paper=nothing", "pronoun"),
        ("/claims?verdict=perhaps", "holds"),
    ],
)
def test_a_wrong_choice_is_told_with_what_may_be_chosen(runs, address, word):
    answer = ask(runs).get(address)
    assert answer.status_code == 422
    assert word in notice(answer.text)
    assert ask(runs).get(f"/api{address}").status_code == 422


@pytest.mark.parametrize("page", OF_RUNS)
def test_names_and_tokens_are_text(tmp_path, page):
    tokens = [*TOKENS, MARKUP, LONG, "\x00"]
    for seed in range(3):
        name = f"<img src=x onerror=alert(1)>\u202e{seed}"
        recorded(tmp_path, "moe", seed, name=name, tokens=tokens, role=MARKUP[:-1])
    answer = ask(tmp_path).get(page)
    assert answer.status_code == 200
    assert "<img" not in answer.text
    assert notice(answer.text) == ""
    shown = re.sub(r"<script.*?</script>|<select.*?</select>", "", answer.text, flags=re.DOTALL)
    assert LONG[:1000] not in shown


@pytest.mark.parametrize("page", OF_RUNS)
def test_numbers_that_are_none_leave_gaps(tmp_path, page):
    for seed, value in enumerate((float("nan"), float("inf"), 0.5)):
        recorded(tmp_path, "moe", seed, scores=[value, 0.25])
    answer = ask(tmp_path).get(page)
    assert answer.status_code == 200
    data = re.search(r'id="data">(.*?)</script>', answer.text, re.DOTALL)
    assert data
    assert not re.search(r"\b(NaN|Infinity)\b", data[1])


@pytest.mark.parametrize(
    ("page", "table"),
    [
        ("/heads", HEADS),
        ("/experts", "validation"),
        ("/embeddings", "vectors"),
        ("/influence", "patterns"),
    ],
)
def test_a_damaged_record_is_said_and_leaves_the_others(tmp_path, page, table):
    paths = [recorded(tmp_path, "moe", seed) for seed in range(3)]
    for path in paths[:1]:
        file = path / f"attempts/1/{table}.arrow"
        file.write_bytes(b"\x00" * 400)
    answer = ask(tmp_path).get(page)
    assert answer.status_code == 200
    assert re.search(rf"Left out: .*{table}.*{paths[0].name}", html.unescape(answer.text))
    assert paths[1].name in answer.text or "n = 2 seeds" in answer.text


@pytest.mark.parametrize(
    ("page", "variant", "words"),
    [
        ("/heads", "lstm", "has no attention heads"),
        ("/experts", "multihead", "attnlab train variant=moe"),
    ],
)
def test_an_empty_page_says_how_to_fill_it(tmp_path, page, variant, words):
    recorded(tmp_path, variant)
    answer = ask(tmp_path).get(page)
    assert words in notice(answer.text)


@pytest.mark.parametrize("page", OF_RUNS)
def test_a_store_without_runs_is_a_page_all_the_same(tmp_path, page):
    answer = ask(tmp_path).get(page)
    assert answer.status_code == 422
    assert notice(answer.text)


@pytest.mark.parametrize("page", OF_RUNS)
def test_charts_are_sent_as_pdf_and_reports_as_json(runs, page):
    browser = ask(runs)
    pdf = browser.get(f"{page}/figure.pdf?figure=0.0")
    assert pdf.content.startswith(b"%PDF")
    assert browser.get(f"{page}/figure.pdf?figure=99.0").status_code == 422
    assert browser.get(f"/api{page}").json()["schema"] >= 2


def test_every_caption_states_seeds_or_runs_and_the_interval(runs):
    for page in OF_RUNS:
        text = html.unescape(ask(runs).get(page).text)
        subtitles = re.findall(r'"subtitle": (\[.*?\])', text)
        assert subtitles
        for subtitle in subtitles:
            assert re.search(r"n = \d|one run", subtitle)
            assert "interval" in subtitle
