"""A trained run is asked again: in Python, and by attend, evaluate and ablate."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import attnlab
from attnlab.cli import main
from attnlab.errors import ConfigError, RecordError, RecordWarning, RequestError
from attnlab.training import CHOICES
from tests import child
from tests.choices import marked
from tests.fabricated import as_first_recorded
from tests.prose import refuses, says
from tests.refusals import refusals

TEXT = "The animal didn't cross the street because it was too tired."
RUNS = ("pronoun-multihead", "pronoun-lstm")
PRONOUN = ("dataset=pronoun", "dataset.num_train=600", "trainer.max_steps=30", "model.num_layers=2")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Small runs: two on `pronoun`, and two on `mqar` that differ in their positions."""
    runs_dir = tmp_path_factory.mktemp("runs")
    assert child.train(runs_dir, *PRONOUN, "variant=multihead") == 0
    assert child.train(runs_dir, *PRONOUN, "variant=lstm") == 0
    for position in ("learned", "rope"):
        words = ("dataset=mqar", "dataset.length=32", f"model/position={position}")
        assert child.train(runs_dir / position, *words) == 0
    return runs_dir


def as_json(capsys, *words: str) -> dict:
    assert main([*words, "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_three_lines_give_the_patterns_of_a_text(runs):
    run = attnlab.load("pronoun-multihead", runs_dir=runs)
    with attnlab.record(run.model, "*.pattern") as patterns:
        logits = run(TEXT)
    assert [p.shape for p in patterns.values()] == [(1, 4, 13, 13)] * 2
    assert [layer.source for layer in run.model.attention_layers()] == list(patterns)
    assert list(run.record.layers.attention) == run.model.attention_layers()
    with attnlab.edit(run.model, "*.0.*.pattern", lambda name, value: value * 0):
        assert not torch.allclose(run(TEXT), logits)
    assert torch.equal(run(TEXT), logits)


@pytest.mark.parametrize("name", [*RUNS, "learned", "rope"])
def test_a_loaded_run_measures_what_the_run_did(runs, capsys, name):
    directory, prefix = (runs, name) if name.startswith("pronoun") else (runs / name, "mqar")
    result = attnlab.load(prefix, runs_dir=directory).record.result
    assert result is not None
    for split in ("test", "validation"):
        words = ("evaluate", prefix, "--runs-dir", str(directory), "--split", split)
        found = as_json(capsys, *words)
        assert (found["split"], found["examples"], found["step"]) == (split, 20, result.steps)
        for metric, value in found["metrics"].items():
            assert value == pytest.approx(result.metrics[f"{split}/{metric}"], abs=1e-6)


PRECISIONS = [p for p in CHOICES["precision"] if p != "32-true"]


@pytest.mark.parametrize("precision", [marked(p, ("bf16-mixed", "64-true")) for p in PRECISIONS])
def test_a_run_in_another_precision_is_loaded_in_it(tmp_path, precision):
    flags = ("dataset=mqar", "model/position=rope", f"trainer.precision={precision}")
    assert child.train(tmp_path, *flags, "trainer.matmul_precision=medium") == 0
    run = attnlab.load("mqar", runs_dir=tmp_path)
    assert run.record.result is not None
    for name, value in run.evaluate("test").items():
        assert value == pytest.approx(run.record.result.metrics[f"test/{name}"], rel=1e-5)


def test_a_record_from_before_a_knob_can_be_loaded(runs, tmp_path):
    old = attnlab.load("pronoun-multihead", runs_dir=runs)
    directory = tmp_path / old.record.name
    shutil.copytree(old.record.path, directory)
    identity = old.record.identity
    del identity["model"]["mixer"]["bias"], identity["callbacks"]["cadence"]["test_every"]
    (directory / "config.yaml").write_text(yaml.safe_dump(identity))
    as_first_recorded(directory)
    assert torch.equal(attnlab.load(directory)(TEXT), old(TEXT))


def test_the_answers_are_named_by_the_objective(offer, capsys):
    run = offer("dataset=pronoun", "objective=autoregressive", "evidence=none")
    found = as_json(capsys, "attend", "untrained", TEXT)
    best = int(run(TEXT).argmax())
    assert found["answer"][0]["output"] == run.dataset.tokens[best]


def test_a_page_of_attend_opens_at_the_query(runs, tmp_path, capsys):
    page = tmp_path / "page.html"
    words = ("attend", "pronoun-multihead", TEXT, "--runs-dir", str(runs), "-o", str(page))
    assert main([*words, "--query", "animal"]) == 0
    assert 'aria-valuenow="2"' in page.read_text()
    assert "animal at 1 -&gt; " in page.read_text()
    assert main([*words, "--format", "json"]) == 2


def test_evaluate_takes_other_data_and_says_so(runs, capsys):
    where = ("--runs-dir", str(runs / "rope"))
    found = as_json(capsys, "evaluate", "mqar", *where, "dataset.length=64", "dataset.num_test=30")
    assert found["overrides"] == ["dataset.length=64", "dataset.num_test=30"]
    assert found["examples"] == 30
    assert main(["evaluate", "mqar", *where, "dataset.seed=1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("dataset.seed=1" in line for line in lines) == 1


def test_evaluate_refuses_what_cannot_be(runs, capsys):
    overrides = {
        "positions": "dataset.length=64",
        "other_tokens": "dataset.vocab_size=512",
        "knob": "dataset.lenght=64",
        "optimizer": "optimizer.lr=1",
        "odd_length": "dataset.length=65",
        "two_values": "dataset.seed=1,2",
    }
    at = ["evaluate", "mqar", "--runs-dir", str(runs / "learned")]
    requests = {name: [*at, override] for name, override in overrides.items()}
    refusals(
        capsys,
        "trained.evaluate.{}",
        requests,
        attnlab.load("mqar", runs_dir=runs / "learned").record.name,
    )
    assert main([*at, "dataset.length=[1"]) == 2
    # What is wrong with the brackets is said by Hydra.
    says("trained.evaluate.no_value", capsys.readouterr().err.partition(" (")[0])


def test_attend_shows_the_row_of_the_query_and_the_answer_without_its_edges(runs, capsys):
    found = as_json(capsys, "attend", "pronoun-multihead", TEXT, "--runs-dir", str(runs))
    run = attnlab.load("pronoun-multihead", runs_dir=runs)
    seen, _ = run.capture(TEXT)
    assert found["tokens"][found["query"]] == "it"
    assert len(found["heads"]) == 8
    for one in found["heads"]:
        row = list(seen.patterns.values())[one["layer"]][one["head"], found["query"]]
        assert one["weights"] == pytest.approx(row.tolist())
    assert sum(found["influence"]) == pytest.approx(1, abs=1e-5)
    pattern = list(seen.patterns.values())[found["shown"]["layer"]]
    drawn = pattern[found["shown"]["head"], found["query"]]
    assert [one["key"] for one in found["cuts"]] == drawn.topk(3).indices.tolist()
    for one in found["cuts"]:

        def forbid(_name, scores, key=one["key"]):
            changed = scores.clone()
            changed[:, :, found["query"], key] = -torch.inf
            return changed

        with attnlab.edit(run.model, "*.scores", forbid):
            answers = run.answers(run(TEXT))
        assert [(a["output"], a["probability"]) for a in one["answer"]] == [
            (name, pytest.approx(p)) for name, p in answers
        ]


@pytest.mark.parametrize("name", RUNS)
def test_attend_fits_80_columns(runs, capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["attend", name, TEXT, "--runs-dir", str(runs)]) == 0
    lines = capsys.readouterr().out.splitlines()
    # A name that is longer stays whole, so that it can be copied.
    assert max(len(line) for line in lines if " " in line) <= 80
    (row,) = (line for line in lines if line.startswith(">it"))
    assert row.count(".") == (9 if name.endswith("head") else 1)


def test_attend_asks_about_another_token(runs, capsys):
    where = ("--runs-dir", str(runs))
    for query, at in (("street", 6), ("the", 5), ("0", 0)):
        found = as_json(capsys, "attend", "pronoun-m", TEXT, *where, "--query", query)
        assert found["query"] == at


def test_a_wrong_question_is_refused(runs, capsys):
    wrong = {
        "tokens": ["attend", "pronoun-m", "the walrus slept"],
        "token": ["attend", "pronoun-m", "the animal slept"],
        "no_it": ["attend", "pronoun-m", "the animal was tired"],
        "query": ["attend", "pronoun-m", TEXT, "--query", "cat"],
        "query_beyond_text": ["attend", "pronoun-m", TEXT, "--query", "13"],
        "two_runs": ["attend", "pronoun", TEXT],
        "config_dir": ["attend", "pronoun-m", TEXT, "--config-dir", "nowhere"],
        "no_heads": ["ablate", "pronoun-lstm"],
        "metric": ["ablate", "pronoun-m", "--metric", "acuracy"],
    }
    requests = {name: [*words, "--runs-dir", str(runs)] for name, words in wrong.items()}
    names = [attnlab.load(name, runs_dir=runs).record.name for name in RUNS]
    refusals(capsys, "trained.question.{}", requests, *names)


def test_ablate_measures_the_run_without_each_head(runs, capsys):
    found = as_json(capsys, "ablate", "pronoun-m", "--metric", "loss", "--runs-dir", str(runs))
    run = attnlab.load("pronoun-m", runs_dir=runs)
    assert found["intact"] == run.evaluate("validation")["loss"]
    rows = {(one["layer"], one["head"]): one["value"] for one in found["ablated"]}
    assert list(rows) == [(layer, head) for layer in (0, 1) for head in (0, 1, 2, 3, None)]
    for head, layer in ((1, 0), (3, 1)):

        def silence(name, pattern, head=head, layer=layer):
            if name.startswith(f"blocks.{layer}."):
                keep = torch.ones(4)
                keep[head] = 0
                return pattern * keep[:, None, None]
            return None

        with attnlab.edit(run.model, "*.pattern", silence):
            assert rows[layer, head] == pytest.approx(run.evaluate("validation")["loss"], abs=1e-6)


def test_a_run_without_a_checkpoint_cannot_be_loaded(runs, tmp_path):
    from attnlab.run_record.attempt import Attempt

    identity = attnlab.load("pronoun-m", runs_dir=runs).record.identity
    Attempt.claim(tmp_path / "empty", identity).close()
    with refuses(RequestError, "trained.no_checkpoint", tmp_path):
        attnlab.load("empty", runs_dir=tmp_path)


def flip(path: Path) -> None:
    """Turn one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_no_older_checkpoint_speaks_for_a_finished_run(runs, tmp_path, capsys):
    sound = attnlab.load("pronoun-multihead", runs_dir=runs)
    directory = Path(shutil.copytree(sound.record.path, tmp_path / "run"))
    *_, older, newest = sorted(directory.glob("attempts/1/checkpoints/*.ckpt"))
    flip(newest)
    with refuses(RecordError, "trained.older_checkpoint", tmp_path):
        attnlab.load(directory)
    words = ["evaluate", "run", "--runs-dir", str(tmp_path)]
    assert main(words) == 2
    assert capsys.readouterr().out == ""
    # Of a run that goes on, the older one is used, and whoever asks it is told.
    (directory / "run.json").unlink()
    (directory / "attempts/1/run.json").unlink()
    with pytest.warns(RecordWarning, match=re.escape(str(newest))):
        assert attnlab.load(directory).step == int(older.stem.removeprefix("step-"))
    assert main(words) == 0
    assert f"warning: {newest}" in capsys.readouterr().err


def test_the_package_itself_imports_nothing_heavy():
    script = "import sys, attnlab; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
    with refuses(AttributeError, "trained.attribute"):
        _ = attnlab.lod


def test_a_run_whose_text_was_cleared_away_takes_it_from_its_file_once(tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("to be, or not to be: that is the question.\n" * 40)
    words = ("dataset=text", f"dataset.path={text}", "dataset.length=8", "model.d_model=16")
    steps = ("trainer.max_steps=2", "trainer.val_check_interval=2", "trainer.threads=1")
    assert main(["train", *words, *steps, "batch_size=8", f"runs_dir={tmp_path / 'runs'}"]) == 0
    monkeypatch.setenv("ATTNLAB_CACHE", str(tmp_path / "empty"))
    with refuses(ConfigError, "trained.text_cleared_away", tmp_path):
        attnlab.load("text", runs_dir=tmp_path / "runs")
    attnlab.load("text", runs_dir=tmp_path / "runs", overrides=[f"dataset.path={text}"])
    run = attnlab.load("text", runs_dir=tmp_path / "runs")
    assert "".join(run.generate("to be", 5))
