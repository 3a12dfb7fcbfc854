"""attnlab in Python answers what the commands answer, on the records of 0.1."""

import json
import re
from pathlib import Path

import pytest

import attnlab
from attnlab.cli import main
from attnlab.errors import RequestError
from tests.fabricated import result, write
from tests.prose import refuses

RUNS = Path(__file__).parent / "records/runs"
PAGE = Path(__file__).parents[1] / "docs/python.md"
RUN = "pronoun-multihead-2x4-s0-d703dae27d"
SENTENCE = "The animal didn't cross the street because it was too tired."


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main([*words, "--runs-dir", str(RUNS), "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_list_has_every_run_with_its_state_and_metrics():
    runs = attnlab.runs(RUNS)
    frame = runs.frame()
    assert len(runs) == len(frame) == 17
    assert frame["state"].value_counts().to_dict() == {
        "finished": 15,
        "failed": 1,
        "interrupted": 1,
    }
    row = frame[frame["name"] == RUN].iloc[0]
    (run,) = attnlab.runs([RUN], runs_dir=RUNS)
    assert run.result is not None
    assert row["test/accuracy"] == run.result.metrics["test/accuracy"]
    assert runs.table().column_names == list(frame.columns)


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("variant=lstm", 1),
        ("variant=multihead num_layers>=2", 4),
        ("model.mixer=Hybrid", 1),
        ("state!=finished", 2),
        ("optimizer.lr<1e-9", 0),
        ("parameters<1450 dataset=pronoun", None),
        ("seed>7", 2),
    ],
)
def test_conditions_are_about_config_and_results(where, count):
    runs = attnlab.runs(RUNS).where(where)
    if count is None:
        assert runs
        assert all(run.result and run.result.parameters < 1450 for run in runs)
    else:
        assert len(runs) == count


def test_wrong_conditions_are_refused():
    for name, where in {"key": "varian=moe", "form": "variant", "quote": "variant='moe"}.items():
        with refuses(RequestError, f"api.where.{name}"):
            attnlab.runs(RUNS, where=where)


def test_curves_have_a_row_for_each_run_and_step():
    runs = attnlab.runs(RUNS, where="variant=multihead dataset=pronoun state=finished")
    frame = runs.curves("loss")
    for run in runs:
        rows = run.record.rows("validation")
        own = frame[frame["run"] == run.name]
        assert own["step"].tolist() == rows["step"].to_pylist()
        assert own["value"].tolist() == rows["loss"].to_pylist()
    with refuses(RequestError, "api.curves"):
        runs.curves("los")


def test_a_damaged_run_is_listed_with_its_fault(tmp_path):
    write(tmp_path, "sound", result())
    (write(tmp_path, "torn", result()) / "run.json").write_text("{")
    sound, torn = attnlab.runs(tmp_path)
    assert (sound.state, torn.state) == ("finished", "damaged")
    assert "run.json is damaged" in torn.fault
    assert attnlab.runs(tmp_path).frame()["state"].tolist() == ["finished", "damaged"]


def test_python_and_commands_compare_alike(capsys):
    runs = attnlab.runs(RUNS, where="variant=vanilla")
    names = [run.name for run in runs]
    content = printed(capsys, "compare", *names)
    assert attnlab.compare(runs).to_json() == content


def test_python_and_commands_say_the_same_of_heads_and_attention(capsys):
    run = attnlab.load(RUNS / RUN)
    assert run.heads().to_json() == printed(capsys, "heads", RUN)
    assert run.attention(SENTENCE).to_json() == printed(capsys, "attend", RUN, SENTENCE)


def test_no_finished_run_is_no_comparison():
    with refuses(RequestError, "api.none_finished"):
        attnlab.compare(attnlab.runs(RUNS, where="state!=finished"))


@pytest.mark.slow
def test_the_page_of_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)), names)
    assert len(names["runs"]) == 6
    assert names["group"].seeds == [0, 1, 2]
    with refuses(RequestError, "api.train"):
        attnlab.train("dataset=pronoun", "variant=vanila")
