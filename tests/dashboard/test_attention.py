"""The page of a run's attention answers with what was recorded, and measures in another process."""

import base64
import json
import sys
import time
from pathlib import Path
from threading import Timer

import numpy as np
import pytest
import torch
from starlette.applications import Starlette
from starlette.testclient import TestClient

from attnlab.analysis.recorded_patterns import RecordedPatterns, shrink
from attnlab.cli import main
from attnlab.dashboard.attention import AttentionAnswers
from attnlab.dashboard.context import Context
from attnlab.dashboard.guard import TOKEN_HEADER, Access, Guard
from attnlab.dashboard.measurement import Measurement, texts_of
from attnlab.dashboard.run_store import RunStore
from attnlab.dashboard.worker import CommandError, Worker
from attnlab.errors import RequestError
from attnlab.interp.circuits import rollout
from attnlab.layers import Axes, MixingLayer
from attnlab.run_record import write
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.head_scores import measure_row
from attnlab.run_record.layers import FILE, Layers
from attnlab.run_record.pattern_table import Pattern, PatternWeights, load_patterns
from attnlab.run_record.record import Record
from tests.fabricated import result
from tests.pictured import STEPS, TWINS, attention, pictured

PORT = 8750
OWN = f"http://127.0.0.1:{PORT}"
HOSTILE = ["</script><b>", "\x1b[31m", "\u202eit", "=1+1", '"', "", "&amp;", "\n"]


class Browser:
    """Asks the pages of some runs, with the token where something is measured."""

    def __init__(self, runs_dir: Path, worker: Worker | None = None) -> None:
        self.access = Access.on_loopback(PORT)
        context = Context(RunStore([], runs_dir), self.access)
        routes = AttentionAnswers(context, worker).routes
        self.client = TestClient(Guard(Starlette(routes=routes), self.access), base_url=OWN)

    def get(self, path, **query):
        return self.client.get(path, params=query)

    def codes(self, **query) -> np.ndarray:
        answer = self.get("/api/pattern", **query).json()
        codes = np.frombuffer(base64.b64decode(answer["codes"]), np.uint8)
        return codes.reshape(len(answer["heads"]), answer["queries"], answer["keys"])

    def post(self, *, token=None, **body):
        headers = {TOKEN_HEADER: self.access.token if token is None else token}
        return self.client.post("/measure", content=json.dumps(body), headers=headers)

    def measured(self, **body):
        """Measure something, and return what the page is told at the end."""
        response = self.post(**body)
        assert response.status_code == 200, response.text
        job = response.json()
        for _ in range(600):
            if job["state"] != "running":
                return job
            time.sleep(0.02)
            job = self.get("/api/measurement", job=job["job"]).json()
        raise AssertionError("it goes on measuring")


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory):
    runs_dir = tmp_path_factory.mktemp("attention") / "runs"
    for seed in range(2):
        path = pictured(runs_dir, "multihead", 2, seed)
        (path / "attempts/1/checkpoints").mkdir()
        (path / "attempts/1/checkpoints/step-000000500.ckpt").write_bytes(b"weights")
    pictured(runs_dir, "lstm", 2, 0)
    return runs_dir


@pytest.fixture(scope="module")
def run(runs_dir):
    return min(path for path in runs_dir.iterdir() if "multihead" in path.name)


@pytest.fixture
def browser(runs_dir):
    return Browser(runs_dir)


def test_the_weights_are_those_of_the_record_at_every_step_layer_and_head(browser, run):
    for step in STEPS:
        patterns = {p.source: p for p in load_patterns(Record(run), step, "wide")}
        for layer in (0, 1):
            expected = patterns[f"blocks.{layer}.mixer.attend.pattern"].codes
            place = {"run": run.name, "probe": "wide", "step": step, "layer": layer}
            assert (browser.codes(**place) == expected).all()
            for head in range(4):
                assert (browser.codes(**place, head=head)[0] == expected[head]).all()
        answer = {"run": run.name, "probe": "wide", "step": step, "layer": "answer"}
        assert (browser.codes(**answer) == patterns["influence"].codes).all()


def test_small_pictures_have_the_largest_weight_of_each_block(browser, run):
    answer = browser.get("/api/heads-at", run=run.name, probe="tired", step=100).json()
    patterns = load_patterns(Record(run), 100, "tired")
    assert [layer["key"] for layer in answer["layers"]] == ["0", "1", "answer"]
    for layer, pattern in zip(answer["layers"], patterns, strict=True):
        assert base64.b64decode(layer["codes"]) == pattern.codes.tobytes()
    codes = np.random.default_rng(0).integers(0, 256, (2, 100, 130), np.uint8)
    small = shrink(codes, 48)
    assert small.shape == (2, 48, 48)
    assert (small.max(axis=(1, 2)) == codes.max(axis=(1, 2))).all()
    rows, columns = np.arange(49) * 100 // 48, np.arange(49) * 130 // 48
    block = codes[1, rows[7] : rows[8], columns[40] : columns[41]]
    assert small[1, 7, 40] == block.max()
    assert (shrink(codes, 200) == codes).all()


def test_a_rollout_is_that_of_the_recorded_weights(browser, run):
    place = {"run": run.name, "probe": "tired", "step": 300}
    patterns = [p for p in load_patterns(Record(run), 300, "tired") if p.attention]
    weights = [torch.from_numpy(np.array(pattern.weights[None])) for pattern in patterns]
    for layer, expected in enumerate(rollout(weights)[0]):
        codes = browser.codes(**place, layer=layer, weights="rollout")
        assert codes.shape[0] == 1
        assert (codes[0] / 255.0) ** 2 == pytest.approx(expected.numpy(), abs=0.004)


def test_a_rollout_that_the_record_cannot_give_is_refused_and_said_on_the_page(tmp_path):
    name = mixed_run(tmp_path).name
    browser = Browser(tmp_path)
    answer = browser.get("/api/pattern", run=name, layer="0", weights="rollout")
    assert answer.status_code == 422
    assert "needs every head up to layer 0" in answer.text
    assert "needs every head up to layer 0" in browser.get("/attention", run=name).text


def mixed_run(runs_dir, tokens=HOSTILE):
    """Write a run whose layer of attention recorded one head of two, beside one that mixes."""
    attempt = Attempt.claim(runs_dir / "mixed", result().identity)
    attending = attention(0, 2)
    mixing = MixingLayer(0, "blocks.1.mixer", "blocks.1.mixer.mixing", 1, Axes(), is_linear=True)
    stated = Layers([attending], [mixing])
    write.create_file(attempt.path / FILE, json.dumps(stated.to_json()).encode())
    size = len(tokens)
    weights = np.tril(np.ones((1, size, size), np.float32)) / np.arange(1, size + 1)[:, None]
    for layer, heads in ((attending, [1]), (mixing, None)):
        row = Pattern(0, tokens[0], layer, tokens, range(size), size - 1, PatternWeights(weights))
        attempt.append("patterns", [row.to_row() | ({"numbers": heads} if heads else {})])
    attempt.append("heads", [measure_row(0, attending, "entropy", [0.1, 0.9])])
    attempt.finish(result())
    return attempt.path.parents[1]


def test_measures_are_those_of_the_recorded_heads(tmp_path):
    answer = Browser(tmp_path).get("/api/heads-at", run=mixed_run(tmp_path).name).json()
    assert [layer["measures"] for layer in answer["layers"]] == [{"entropy": [0.9]}, {}]


def test_a_layer_that_does_not_attend_stands_on_the_same_axes_under_its_name(tmp_path):
    run = mixed_run(tmp_path)
    browser = Browser(tmp_path)
    data = page_data(browser.get("/attention", run=run.name).text)
    assert [(layer["key"], layer["name"], layer["heads"]) for layer in data["layers"]] == [
        ("0", "layer 0", [1]),
        ("m0", "mixing layer 0", [0]),
    ]
    assert [layer["axes"] for layer in data["layers"]] == [0, 0]
    assert "does not attend" in data["layers"][1]["cut"]
    codes = browser.codes(run=run.name, layer="m0")
    assert (codes == load_patterns(Record(run))[1].codes).all()


def page_data(text):
    return json.loads(text.split('id="data">')[1].split("</script>")[0])


def test_hostile_tokens_are_text_that_turns_nothing(tmp_path):
    run = mixed_run(tmp_path)
    text = Browser(tmp_path).get("/attention", run=run.name).text
    assert "<b>" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    shown = page_data(text)["axes"][0]["keys"]
    assert shown == ["</script><b>", "\\x1b[31m", "\\u202eit", "=1+1", '"', "∅", "&amp;", "↵"]


def test_a_name_with_half_a_character_is_answered(runs_dir, tmp_path, run):
    copy = tmp_path / "runs" / "x\udcff"
    copy.parent.mkdir()
    run.rename(copy)
    try:
        browser = Browser(copy.parent)
        name = browser.client.get("/attention").text
        assert "there is no run" in name
        assert RecordedPatterns(Record(copy)).probe_names == [*TWINS]
    finally:
        copy.rename(run)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"run": "nowhere"}, "there is no run 'nowhere'"),
        ({"run": "", "step": "0"}, "there is no run ''"),
        ({"step": "7"}, "step 7: patterns were recorded after 0, 1, 3, 10, 30, 100, 300, 500"),
        ({"step": "x"}, "step 'x': expected a number"),
        ({"step": "9" * 50}, "expected a number"),
        ({"layer": "5"}, "layer '5': of this probe were recorded 0, 1, answer"),
        ({"layer": "1", "head": "4"}, "head 4: of layer 1 were recorded 0, 1, 2, 3"),
        ({"layer": "1", "head": "-1"}, "head '-1': expected a number"),
        ({"probe": "nothing"}, "probe 'nothing': this run recorded 'tired', 'wide'"),
        ({"weights": "value"}, "Not recorded: the record has no norms of values"),
        ({"weights": "all"}, "weights 'all': expected one of raw, value, rollout"),
        ({"layer": "answer", "weights": "rollout"}, "rollout: not of influence"),
    ],
)
def test_what_there_is_not_is_refused_with_one_message(browser, run, query, message):
    answer = browser.get("/api/pattern", **({"run": run.name} | query))
    assert answer.status_code == 422
    assert message in answer.text
    assert answer.text.count("\n") == 1


def test_the_page_says_what_it_cannot_show_and_shows_the_rest(browser, run):
    answer = browser.get("/attention", run=run.name, step="7", probe="wide")
    assert answer.status_code == 422
    assert "step 7: patterns were recorded after 0, 1, 3" in answer.text
    assert page_data(answer.text)["probe"] == "wide"
    assert browser.get("/attention", run=run.name, step="10").status_code == 200


def test_another_run_is_compared_where_it_has_the_same_axes(browser, runs_dir, run):
    other = max(path.name for path in runs_dir.iterdir() if "multihead" in path.name)
    (lstm,) = (path.name for path in runs_dir.iterdir() if "lstm" in path.name)
    query = {"run": run.name, "against": "run"}
    data = page_data(browser.get("/attention", **query, other=other).text)
    assert data["other"] == {"run": other, "steps": [*STEPS]}
    assert {layer["other"] for layer in data["layers"]} == {""}
    data = page_data(browser.get("/attention", **query, other=lstm).text)
    faults = [layer["other"] for layer in data["layers"]]
    assert faults == ["the other run recorded no layer 0", "the other run recorded no layer 1", ""]
    answer = browser.get("/attention", **query, other="nowhere")
    assert answer.status_code == 422
    assert "there is no run" in answer.text


def test_the_evidence_of_the_record_stands_beside_its_head(browser, run):
    content = Record(run).result
    assert content is not None
    finding = content.findings["pronoun"]
    (head,) = finding.heads.values()
    data = page_data(browser.get("/attention", run=run.name).text)
    (text,) = data["named"][str(head.head)]
    assert text.startswith(f"{head.role}, with weight {head.weight:.3g}")


def test_a_run_without_patterns_has_a_page_that_says_so(tmp_path):
    pictured(tmp_path, "multihead", 1, steps=())
    (path,) = tmp_path.iterdir()
    answer = Browser(tmp_path).get("/attention", run=path.name)
    assert answer.status_code == 200
    assert "recorded no patterns" in answer.text
    assert Browser(tmp_path).get("/api/pattern", run=path.name).status_code == 422


def test_a_run_that_grows_is_read_again(tmp_path):
    attempt = Attempt.claim(tmp_path / "growing", result().identity)
    layer = attention(0, 1)
    write.create_file(attempt.path / FILE, json.dumps(Layers([layer]).to_json()).encode())
    browser = Browser(tmp_path)
    for step in (0, 10, 20):
        weights = PatternWeights(np.full((1, 3, 3), 1 / 3, np.float32))
        row = Pattern(step, "p", layer, ["a", "b", "c"], range(3), 2, weights)
        attempt.append("patterns", [row.to_row()])
        attempt.sync()
        assert browser.get("/api/recorded-steps", run="growing").json()[-1] == step


def fake_command(tmp_path, code):
    """Write a program that stands for attnlab."""
    path = tmp_path / "fake.py"
    path.write_text(f"import json, sys, time\n{code}")
    return [sys.executable, str(path)]


def edge(path, **changes):
    """Ask for the edge from "it" to "animal" to be cut."""
    place = {"kind": "edge", "run": path.name, "probe": "tired", "layer": "1", "head": 2}
    return place | {"query": 8, "key": 1} | changes


def test_nothing_is_measured_without_the_token(runs_dir, run, tmp_path):
    worker = Worker(fake_command(tmp_path, "open('ran', 'w')"))
    browser = Browser(runs_dir, worker)
    assert browser.post(token="wrong", **edge(run)).status_code == 401
    assert browser.client.get("/measure").status_code == 405
    with pytest.raises(RequestError, match="not there any more"):
        worker.find(1)


ANSWER = """
arguments = sys.argv[1:]
text = next(a for a in arguments if a.startswith("--text=")).removeprefix("--text=")
with open(__file__ + ".log", "a") as log:
    log.write(json.dumps([arguments, sys.stdin.read()]) + "\\n")
print(json.dumps({"tokens": text.split(), "query": 8, "key": 1, "step": 500, "heads": [1],
    "answers": [{"output": "animal", "before": 0.9, "after": 0.2}]}))
"""


def test_an_edge_is_cut_by_the_command_and_its_answer_kept(runs_dir, run, tmp_path):
    browser = Browser(runs_dir, Worker(fake_command(tmp_path, ANSWER)))
    job = browser.measured(**edge(run))
    assert job["answer"]["answers"] == [{"output": "animal", "before": 0.9, "after": 0.2}]
    assert browser.measured(**edge(run))["job"] == job["job"]
    (line,) = (tmp_path / "fake.py.log").read_text().splitlines()
    arguments, read = json.loads(line)
    assert read == ""
    text = " ".join(TWINS["tired"])
    options = ["--edge=8:1", f"--text={text}", "--heads=L1H2", "--format=json", "--", str(run)]
    assert arguments == ["ablate", *options]
    assert "--config-dir" not in line


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("sys.stderr.write('no such\\x1b word'); sys.exit(2)", "no such\\x1b word"),
        ("sys.exit(1)", "the command ended with exit code 1"),
        ("print('not json')", "the command printed no JSON"),
        ("print('{}')", "KeyError: 'tokens'"),
        (
            "print(json.dumps({'tokens': ['other']}))",
            "no text was found that has the tokens of this probe",
        ),
    ],
)
def test_a_failure_is_answered_as_text_and_something_else_can_follow(
    runs_dir, run, tmp_path, code, message
):
    browser = Browser(runs_dir, Worker(fake_command(tmp_path, code)))
    job = browser.measured(**edge(run))
    assert job["state"] == "failed"
    assert message in job["error"]
    assert browser.measured(**edge(run))["job"] != job["job"]


def test_a_command_that_takes_too_long_is_stopped_with_what_it_started(runs_dir, run, tmp_path):
    beat, child = tmp_path / "beat", tmp_path / "child.py"
    child.write_text(
        "import pathlib, time\n"
        f"while True:\n    pathlib.Path({str(beat)!r}).write_text(str(time.time()))\n"
        "    time.sleep(.02)"
    )
    code = f"import subprocess\nsubprocess.Popen([sys.executable, {str(child)!r}])\ntime.sleep(60)"
    browser = Browser(runs_dir, Worker(fake_command(tmp_path, code), timeout=1.5))
    began = time.monotonic()
    job = browser.measured(**edge(run))
    assert "it took longer than 1.5 s" in job["error"]
    assert time.monotonic() - began < 10
    last = beat.read_text()
    time.sleep(0.3)
    assert beat.read_text() == last


def test_one_thing_is_measured_at_a_time(runs_dir, run, tmp_path):
    worker = Worker(fake_command(tmp_path, "time.sleep(60)"))
    browser = Browser(runs_dir, worker)
    assert browser.post(**edge(run)).json()["state"] == "running"
    answer = browser.post(**edge(run, key=2))
    assert answer.status_code == 422
    assert "the edge 8 to 1 cut in L1H2" in answer.text
    worker.close()


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"kind": "weights"}, 400, "expected one of edge, head, values"),
        ({"query": -1}, 400, "expected one of"),
        ({"query": "8"}, 400, "expected one of"),
        ({"query": None}, 422, "expected positions below 13"),
        ({"key": 13}, 422, "expected positions below 13"),
        ({"head": 9}, 422, "head 9"),
        ({"kind": "head", "head": None}, 422, "expected the number of the head"),
        ({"layer": "answer"}, 422, "only attention within the text can be cut"),
        ({"run": "nowhere"}, 422, "there is no run"),
        ({"probe": "nothing"}, 422, "probe 'nothing'"),
    ],
)
def test_what_cannot_be_measured_is_refused(runs_dir, run, changes, status, message):
    answer = Browser(runs_dir, Worker(["false"])).post(**edge(run, **changes))
    assert answer.status_code == status
    assert message in answer.text


def test_a_run_without_a_checkpoint_here_is_not_measured(tmp_path):
    path = pictured(tmp_path, "multihead", 2, 0)
    answer = Browser(tmp_path, Worker(["false"])).post(**edge(path))
    assert answer.status_code == 422
    assert "checkpoint is not on this machine" in answer.text
    (path / "run.json").unlink()
    answer = Browser(tmp_path, Worker(["false"])).post(**edge(path))
    assert "It is not finished" in answer.text


def test_norms_of_values_are_shown_at_the_step_of_the_checkpoint(runs_dir, run, tmp_path):
    weights = np.random.default_rng(0).dirichlet(np.ones(13), (4, 13)).tolist()
    code = (
        f"maps = [{{'layer': n, 'weights': {weights}}} for n in (0, 1)]\n"
        "print(json.dumps({'tokens': sys.argv[-1].split(), 'step': 500, 'maps': maps}))"
    )
    browser = Browser(runs_dir, Worker(fake_command(tmp_path, code)))
    place = {"run": run.name, "probe": "tired", "layer": "1", "weights": "value"}
    assert browser.get("/api/pattern", **place).status_code == 422
    job = browser.measured(kind="values", run=run.name, probe="tired", layer="1")
    assert job["answer"] == {"step": 500}
    codes = browser.codes(**place, step=500, head=3)
    assert (codes[0] / 255.0) ** 2 == pytest.approx(np.array(weights[3]), abs=0.004)
    answer = browser.get("/api/pattern", **place, step=300)
    assert "of step 500" in answer.text
    data = page_data(browser.get("/attention", run=run.name, probe="tired").text)
    assert data["valuesAt"] == 500


def test_the_commands_take_what_the_page_asks_for(offer, capsys, tmp_path):
    run = offer("dataset=pronoun", "model/mixer=multihead")
    text = "the animal did not cross the street because it was too tired ."
    _, patterns = run.capture(text)
    attempt = Attempt.claim(tmp_path / "run", result().identity)
    stated = Layers(run.model.attention_layers())
    write.create_file(attempt.path / FILE, json.dumps(stated.to_json()).encode())
    attempt.append("patterns", [pattern.to_row() for pattern in patterns])
    attempt.finish(result())
    layer = RecordedPatterns(Record(tmp_path / "run")).probe(text).layer("1")

    def run_command(arguments):
        assert main([*arguments]) == 0
        return json.loads(capsys.readouterr().out)

    def measured(kind, head):
        asked = Measurement(kind, tmp_path / "run", layer, text, head, 8, 1)
        return asked.measure(run_command)

    cut = measured("edge", 2)
    assert cut["heads"] == 1
    assert all(0 <= answer["after"] <= 1 for answer in cut["answers"])
    assert measured("edge", None)["heads"] == sum(len(a.heads) for a in stated.attention)
    assert measured("head", 1)["before"] == pytest.approx(run.evaluate("validation")["accuracy"])
    values = measured("values", None)
    assert set(values["codes"]) == {"0", "1"}
    assert values["codes"]["0"].shape == patterns[0].codes.shape


def test_a_text_is_made_of_tokens_and_its_own_name_comes_first():
    assert texts_of("validation-0", ["the", "cat"]) == ["the cat", "thecat"]
    assert texts_of("validation-0", ["t", "h"]) == ["th", "t h"]
    assert texts_of("the cat, sat", ["the", "cat"])[0] == "the cat, sat"


def test_the_worker_stops_at_the_end_of_the_server(tmp_path):
    worker = Worker(fake_command(tmp_path, "time.sleep(60)"))
    Timer(0.5, worker.close).start()
    with pytest.raises(CommandError, match="exit code -9"):
        worker._run([])
