"""Each page of the dashboard says what the records say, whatever stands in them."""

import json
import re
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from attnlab.analysis.compare import comparison
from attnlab.analysis.run_list import list_runs
from attnlab.analysis.select import select_undamaged
from attnlab.cli import main
from attnlab.dashboard.app import build_app
from attnlab.dashboard.guard import TOKEN_HEADER, Access
from attnlab.dashboard.run_store import RunStore
from attnlab.run_record import row_preview
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.record import Record, find_runs
from tests.fabricated import result
from tests.pictured import demo, pictured

PORT = 8750
HOSTILE = "</script><img src=x onerror=\"document.title='hacked'\">‮\x1b[31m&amp;"


@pytest.fixture
def runs_dir(tmp_path):
    return demo(tmp_path / "runs", seeds=3)


class Browser:
    """A client of a dashboard over a directory of runs."""

    def __init__(self, runs_dir):
        self.access = Access.on_loopback(PORT)
        self.store = RunStore([], runs_dir)
        app = build_app(self.store, self.access)
        self.client = TestClient(app, base_url=f"http://127.0.0.1:{PORT}", follow_redirects=False)

    def text(self, address, status=200):
        answer = self.client.get(address)
        assert answer.status_code == status, answer.text
        return answer.text

    def json(self, address):
        return json.loads(self.text(address))

    def change(self, **change):
        headers = {TOKEN_HEADER: self.access.token}
        return self.client.post("/annotate", json=change, headers=headers)


@pytest.fixture
def browser(runs_dir):
    return Browser(runs_dir)


def rows_of(page):
    """The names of the runs that the table of a page has, in its order."""
    return re.findall(r'<input type="checkbox" name="run" value="([^"]*)"', page)


def test_the_page_of_runs_has_every_run_and_their_states(browser, runs_dir):
    page = browser.text("/")
    assert sorted(rows_of(page)) == sorted(record.name for record in find_runs(runs_dir))
    assert "15 runs: 15 finished" in page


@pytest.mark.parametrize(("sort", "reverse"), [("value", False), ("-value", True)])
def test_runs_are_sorted_by_a_column(browser, runs_dir, sort, reverse):
    runs = list_runs(find_runs(runs_dir))
    value_by_name = {run.name: run.metrics["test/accuracy"] for run in runs}
    names = rows_of(browser.text(f"/?sort={sort}"))
    values = [value_by_name[name] for name in names]
    assert values == sorted(values, reverse=reverse)


def test_conditions_select_as_those_of_the_commands(browser):
    assert len(rows_of(browser.text("/?where=variant%3Dmoe"))) == 3
    page = browser.text("/?where=varaint%3Dmoe")
    assert rows_of(page) == []
    assert "did you mean variant" in page


def test_a_wrong_key_of_the_grid_is_answered_above_the_table(browser):
    page = browser.text("/?rows=varaint")
    assert "did you mean variant?" in page
    assert len(rows_of(page)) == 15


def test_the_grid_has_the_mean_of_each_cell(browser, runs_dir):
    grid = browser.text("/?rows=variant&columns=num_layers")
    cells = re.findall(r'<td class="[^"]*" data-of="[12]">\s*([\d.]+|<span>no run</span>)', grid)
    runs = list_runs(find_runs(runs_dir))
    means = []
    for variant in dict.fromkeys(run.config["variant"] for run in runs):
        for num_layers in (1, 2):
            values = [
                run.metrics["test/accuracy"]
                for run in runs
                if (run.config["variant"], run.config["num_layers"]) == (variant, num_layers)
            ]
            mean = sum(values) / len(values) if values else None
            means.append("<span>no run</span>" if mean is None else f"{mean:.4g}")
    assert cells == means


def test_the_numbers_of_a_comparison_are_those_of_the_command(browser, runs_dir):
    report = comparison(select_undamaged([], runs_dir))
    assert browser.json("/api/compare") == json.loads(json.dumps(report.to_json()))
    page = browser.text("/compare")
    for summary in report.summaries:
        for group in summary.groups:
            for seed in group.seeds:
                assert f">{seed}</a>" in page
    assert "/compare/figure.pdf?figure=0.0" in page


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("metric=test/acuracy", "test/accuracy"),
        ("baseline=nobody", "nobody"),
        ("x=miles", "miles"),
        ("cost=miles", "miles"),
        ("curve=miles/loss", "miles"),
        ("smooth=4", "an odd number"),
        ("smooth=0", "an odd number"),
        ("factor=miles", "miles"),
        ("by=varaint", "variant"),
        ("where=seed%3D99", "seed=99"),
    ],
)
def test_a_comparison_that_cannot_be_made_says_why(browser, query, message):
    page = browser.text(f"/compare?{query}")
    notice = re.search(r"data-notice>([^<]*)<", page)
    assert notice is not None
    assert message in notice[1]


def charts_of(page):
    """The specifications of the charts that a page draws."""
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    return [chart for section in data["sections"] for chart in section["charts"]]


@pytest.mark.parametrize("most_rows", [4, 512], ids=["thinned", "whole"])
def test_a_smoothed_curve_is_that_of_the_command(
    browser, runs_dir, tmp_path, monkeypatch, most_rows
):
    monkeypatch.setattr(row_preview, "MOST_ROWS", most_rows)
    output = tmp_path / "curves.html"
    words = ["--metric", "validation/loss", "--smooth", "3", "--log-y", "--x", "tokens"]
    assert main(["curves", "--runs-dir", str(runs_dir), *words, "-o", str(output)]) == 0
    (by_command,) = charts_of(output.read_text("utf-8"))
    page = browser.text("/compare?curve=validation/loss&smooth=3&log_y=1&x=tokens")
    (on_page,) = [c for c in charts_of(page) if c["title"]["text"] == "validation loss"]
    assert on_page == by_command
    caption = " ".join(on_page["title"]["subtitle"])
    assert "running mean of 3 points" in caption
    assert "logarithmic: y" in caption
    assert ("the running mean is over steps 1 in 4" in caption) == (most_rows == 4)


def test_axes_of_a_run_are_those_of_its_address(browser, runs_dir):
    name = next(record.name for record in find_runs(runs_dir))
    page = browser.text(f"/run?run={name}&log=1&log_y=1")
    assert "logarithmic: x and y" in page
    assert re.search(r'name="log_y" id="run-log-y" value="1" checked', page)
    # What the other form asks for keeps the axes.
    assert page.count('<input type="hidden" name="log" value="1">') == 1
    assert "logarithmic" not in browser.text(f"/run?run={name}")


def test_a_chart_is_sent_as_pdf(browser):
    answer = browser.client.get("/compare/figure.pdf?figure=0.0")
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.content.startswith(b"%PDF")
    assert "load the page again" in browser.text("/compare/figure.pdf?figure=0.99", 422)
    assert "expected SECTION.CHART" in browser.text("/compare/figure.pdf?figure=x", 422)


def test_the_page_of_a_run_has_its_metrics_its_command_and_what_differs(browser, runs_dir):
    first, second = [record.name for record in find_runs(runs_dir)][:2]
    page = browser.text(f"/run?run={first}&other={second}")
    assert first in page
    assert "test/accuracy" in page
    assert re.search(r'<th scope="row" class="config">seed</th>', page)
    assert "there is no run" in browser.text("/run?run=nobody", 422)
    assert "there is no run" in browser.text(f"/run?run={first}&other=nobody")


def test_rows_after_a_step_are_those_that_a_run_wrote_since(browser, runs_dir):
    name = next(record.name for record in find_runs(runs_dir))
    after = quote(json.dumps({"validation": 400}))
    rows = browser.json(f"/api/rows?run={name}&after={after}")["validation"]
    recorded = Record(runs_dir / name).rows("validation").to_pydict()
    assert rows == {column: values[-2:] for column, values in recorded.items()}
    assert rows["step"] == [450, 500]
    assert "as JSON" in browser.text(f"/api/rows?run={name}&after=1x", 422)


def test_a_change_is_written_as_the_commands_write_it_and_seen_by_open_pages(browser, runs_dir):
    name = rows_of(browser.text("/"))[0]
    version = browser.json("/api/live")["version"]
    assert browser.change(kind="tag", text="good", runs=[name]).status_code == 204
    assert browser.change(kind="note", text=HOSTILE, runs=[name]).status_code == 204
    annotations = Record(runs_dir / name).annotations
    assert annotations.tags == ("good",)
    assert browser.json("/api/live")["version"] != version
    assert len(rows_of(browser.text("/?where=tag%3Dgood"))) == 1
    assert browser.change(kind="archive", text="", runs=[name]).status_code == 204
    assert name not in rows_of(browser.text("/"))
    assert name in rows_of(browser.text("/?archived=1"))


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"kind": "delete", "text": "", "runs": ["x"]}, 400),
        ({"kind": "tag", "text": "a", "runs": "x"}, 400),
        ({"kind": "tag", "text": "a"}, 400),
        ({"kind": "tag", "text": "a", "runs": []}, 422),
        ({"kind": "tag", "text": "a", "runs": ["nobody"]}, 422),
        ({"kind": "tag", "text": "two words", "runs": ["FIRST"]}, 422),
    ],
)
def test_a_wrong_change_writes_nothing(browser, runs_dir, change, status):
    first = find_runs(runs_dir)[0].name
    change = {**change, "runs": [first] if change.get("runs") == ["FIRST"] else change.get("runs")}
    answer = browser.change(**change)
    assert answer.status_code == status
    assert answer.text.strip()
    assert not any(run.annotations.tags for run in list_runs(find_runs(runs_dir)))


def test_a_change_that_is_too_long_is_refused(browser):
    answer = browser.change(kind="note", text="x" * 1_000_001, runs=["a"])
    assert answer.status_code == 413


def test_a_damaged_run_is_listed_with_its_fault_and_stops_no_page(browser, runs_dir):
    names = [record.name for record in find_runs(runs_dir)]
    (runs_dir / names[0] / "run.json").write_text("{")
    table = runs_dir / names[1] / "attempts" / "1" / "validation.arrow"
    table.write_bytes(table.read_bytes()[:-40] + b"x" * 40)
    (runs_dir / names[2] / "config.yaml").write_text("x: [")
    page = browser.text("/")
    assert set(rows_of(page)) == set(names)
    assert page.count("state-damaged") >= 1
    compared = browser.text("/compare")
    assert names[1] in compared
    for name in names[:3]:
        assert browser.client.get(f"/run?run={name}").status_code in (200, 422)


def test_hostile_texts_are_text(tmp_path):
    metrics = {"test/accuracy": 0.5, "test/loss": 0.5, f"test/{HOSTILE.split(chr(0x202E))[0]}": 1.0}
    runs_dir = tmp_path / "runs"
    knobs = {"optimizer.name": HOSTILE, "optimizer.long": "y" * 1_000_000}
    names = [
        pictured(runs_dir, "multihead", 1, seed, metrics=metrics, knobs=knobs).name
        for seed in range(3)
    ]
    browser = Browser(runs_dir)
    browser.change(kind="note", text=HOSTILE, runs=[names[0]])
    for address in ("/", "/?rows=seed", "/compare", f"/run?run={names[0]}&other={names[1]}"):
        page = browser.text(address)
        assert "<img" not in page
        assert "\x1b" not in page
        assert "‮" not in page
    for address in ("/api/runs", "/api/compare", f"/api/run?run={names[0]}", "/api/live"):
        assert "NaN" not in browser.text(address)


def test_a_link_that_leads_out_of_the_directory_is_not_followed(runs_dir, tmp_path):
    elsewhere = pictured(tmp_path / "elsewhere", "lstm", 1, 7)
    (runs_dir / "link").symlink_to(elsewhere)
    browser = Browser(runs_dir)
    assert len(rows_of(browser.text("/"))) == 15
    assert "there is no run" in browser.text("/run?run=link", 422)


@pytest.mark.parametrize("name", ["..%2fpage.py", "base.html", "nothing.js", "%2fetc%2fpasswd"])
def test_only_scripts_and_styles_of_the_pages_are_sent(browser, name):
    assert browser.client.get(f"/assets/{name}").status_code == 404


def test_a_run_that_is_added_is_on_the_page_that_is_asked_next(browser, runs_dir):
    before = browser.json("/api/live")["version"]
    added = pictured(runs_dir, "lstm", 1, 9)
    assert browser.json("/api/live")["version"] != before
    assert added.name in rows_of(browser.text("/"))


def test_a_run_that_trains_and_measures_no_numbers_is_shown(runs_dir):
    content = result("multihead", 1, 0, dataset="pronoun", knobs={"optimizer.lr": 0.5})
    attempt = Attempt.claim(runs_dir / "pronoun-growing", content.identity)
    values = [1.0, float("nan"), float("inf"), -float("inf")]
    attempt.append("train", [{"step": n, "loss": value} for n, value in enumerate(values)])
    browser = Browser(runs_dir)
    page = browser.text("/run?run=pronoun-growing")
    assert "running" in page
    assert not re.search(r"NaN|Infinity", page.partition('id="data">')[2].partition("<")[0])
    rows = browser.json("/api/rows?run=pronoun-growing")
    assert rows["train"]["loss"] == [1.0, None, None, None]
    assert "pronoun-growing" in browser.json("/api/live")["progress"]
    attempt.append("train", [{"step": 4, "loss": 0.5}])
    after = quote(json.dumps({"train": 3}))
    assert browser.json(f"/api/rows?run=pronoun-growing&after={after}")["train"]["loss"] == [0.5]
