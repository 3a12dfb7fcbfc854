"""Runs without a result: dashed beside their arm, in no number, and named with the reason."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from attnlab.analysis.compare import comparison
from attnlab.analysis.select import select_undamaged
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.index_file import DIRECTORY
from attnlab.run_record.row_preview import FILE
from tests.dashboard.recorded import ask
from tests.drawn import rows_by_layer
from tests.fabricated import failed, result
from tests.pictured import demo

KIND = {"dataset._target_": "attnlab.dataset.pronoun.Pronoun"}


def begin(runs_dir: Path, name: str, seed: int = 7, steps: int = 3, **knobs: Any) -> Attempt:
    """Begin a run of the arm of two layers of `multihead`, which has validated `steps` times."""
    content = result("multihead", 2, seed, dataset="pronoun", knobs={**KIND, **knobs})
    attempt = Attempt.claim(runs_dir / name, content.identity)
    for step in range(50, 50 * steps + 1, 50):
        attempt.append("validation", [{"step": step, "loss": 1.5, "accuracy": 0.4}])
    return attempt


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    return demo(tmp_path / "runs", seeds=3)


OTHER_RATE: dict[str, Any] = {"optimizer.lr": 0.5}
"""What makes a run one of an arm of its own."""


def charts_of(page: str) -> list[dict[str, Any]]:
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    return [chart for section in data["sections"] for chart in section["charts"]]


def loss_chart(page: str) -> dict[str, Any]:
    (chart,) = [c for c in charts_of(page) if c["title"]["text"] == "validation loss"]
    return chart


def dashed(page: str) -> dict[str, dict[str, Any]]:
    """The arm, the state and the x of each run whose curve of the validation loss is dashed."""
    runs: dict[str, dict[str, Any]] = {}
    chart = loss_chart(page)
    for layer, rows in zip(chart["layer"], rows_by_layer(chart), strict=True):
        for row in rows if layer["mark"].get("strokeDash") == [4, 3] else ():
            run = runs.setdefault(row["run"], {"arm": row["of"], "state": row["state"], "x": []})
            run["x"].append(row["x"])
    return runs


def test_they_are_drawn_and_named_and_in_no_number(runs_dir):
    before = json.loads(ask(runs_dir).get("/api/compare").text)
    begin(runs_dir, "growing")
    begin(runs_dir, "broken", seed=8, steps=1).end(failed(message="a very bad <loss>"))
    begin(runs_dir, "other", seed=7, **OTHER_RATE)
    (runs_dir / "empty").mkdir()
    (runs_dir / "empty" / "config.yaml").write_text("x: [")
    client = ask(runs_dir)
    page = client.get("/compare").text
    drawn = dashed(page)
    assert drawn == {
        "growing": {"arm": "multihead, 2 layers", "state": "running", "x": [50, 100, 150]},
        "broken": {"arm": "multihead, 2 layers", "state": "failed", "x": [50]},
        "other": {
            "arm": "an arm without a finished run",
            "state": "running",
            "x": [50, 100, 150],
        },
    }
    caption = " ".join(loss_chart(page)["title"]["subtitle"])
    assert "dashed: single runs that are in no mean" in caption
    assert "1 failed (✚)" in caption
    assert "2 still training (○)" in caption
    assert "Tables and tests are of 15 finished runs. 4 more are not in them" in page
    for name in ("growing", "broken", "other", "empty"):
        assert f'<a href="/run?run={name}">{name}</a>' in page
    assert "a very bad &lt;loss&gt;" in page
    now = json.loads(client.get("/api/compare").text)
    assert now["panels"] == before["panels"]
    assert now == json.loads(json.dumps(comparison(select_undamaged([], runs_dir)).to_json()))


def test_they_are_left_out_of_the_charts_on_request_but_named(runs_dir):
    begin(runs_dir, "growing")
    page = ask(runs_dir).get("/compare?unfinished=hidden").text
    assert dashed(page) == {}
    assert "dashed" not in " ".join(loss_chart(page)["title"]["subtitle"])
    assert '<a href="/run?run=growing">growing</a>' in page
    assert "expected one of hidden" in ask(runs_dir).get("/compare?unfinished=x").text


def test_tokens_of_an_arm_that_no_finished_run_has_are_not_known(runs_dir):
    begin(runs_dir, "growing")
    begin(runs_dir, "other", **OTHER_RATE)
    drawn = dashed(ask(runs_dir).get("/compare?x=tokens").text)
    assert [*drawn] == ["growing"]
    assert drawn["growing"]["x"][0] == pytest.approx(50 * 640_000 / 500)


def test_a_page_that_is_asked_again_has_what_a_run_wrote_since(runs_dir):
    attempt = begin(runs_dir, "growing")
    client = ask(runs_dir)
    assert dashed(client.get("/compare").text)["growing"]["x"][-1] == 150
    attempt.append("validation", [{"step": 200, "loss": 1.2, "accuracy": 0.5}])
    assert dashed(client.get("/compare").text)["growing"]["x"][-1] == 200
    index = runs_dir / DIRECTORY / FILE
    assert "growing" not in index.read_text()
    attempt.end(failed())
    assert dashed(client.get("/compare").text)["growing"]["state"] == "failed"
    assert '"growing"' in index.read_text()


def test_a_failed_run_that_goes_on_is_seen(runs_dir):
    attempt = begin(runs_dir, "growing")
    attempt.end(failed())
    client = ask(runs_dir)
    assert dashed(client.get("/compare").text)["growing"]["state"] == "failed"
    begin(runs_dir, "growing", steps=5)
    # What every open page asks, without a look at all runs.
    assert "growing" in client.get("/api/live").json()["progress"]
    drawn = dashed(client.get("/compare").text)["growing"]
    assert drawn == {
        "arm": "multihead, 2 layers",
        "state": "running",
        "x": [50, 100, 150, 200, 250],
    }


def test_without_a_finished_run_the_page_names_those_that_train(tmp_path):
    begin(tmp_path / "runs", "growing")
    page = ask(tmp_path / "runs").get("/compare").text
    assert "no run is finished" in re.search(r"data-notice>([^<]*)<", page)[1]  # pyright: ignore
    assert '<a href="/run?run=growing">growing</a>' in page
