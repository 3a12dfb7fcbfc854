"""attnlab in Python answers what the commands answer, on the records of 0.1."""

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import attnlab
from attnlab.analysis.run_list import RunList
from attnlab.api import Run
from attnlab.cli import main
from attnlab.errors import RequestError
from attnlab.run_record.record import Record
from tests.fabricated import result, write
from tests.prose import refuses, says
from tests.refused_calls import refused_calls
from tests.unchecked import unchecked_types

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
    row = frame[frame["run"] == RUN].iloc[0]
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
        ("model.mixer=hybrid", 1),
        ("variant=lstm,moe", 2),
        ("variant!=lstm,moe", 15),
        ("num_layers=1,2.0", 17),
        ("seed=0,1 variant=multihead", None),
        ("state!=finished", 2),
        ("state=killed", 0),
        ("variant!=transformer", 17),
        ("optimizer.lr<1e-9", 0),
        ("parameters<1450 dataset=pronoun", None),
        ("seed>7", 2),
    ],
)
def test_conditions_are_about_config_and_results(where, count):
    runs = attnlab.runs(RUNS).where(where)
    if count is None:
        assert runs
        for run in runs:
            assert "seed" in where or (run.result and run.result.parameters < 1450)
            assert "parameters" in where or run.config["seed"] in (0, 1)
    else:
        assert len(runs) == count


def test_wrong_conditions_are_refused():
    conditions = {
        "key": "varian=moe",
        "form": "variant",
        "quote": "variant='moe",
        "value": "model.mixer=Multihed",
        "one_of_several": "variant=moe,vanila",
        "word_for_number": "num_layers=two",
        "order_of_text": "variant<3",
        "order_by_text": "num_layers>=two",
        "many_values": "run=zzz",
    }
    runs = attnlab.runs(RUNS)
    calls = {name: partial(runs.where, where) for name, where in conditions.items()}
    refused_calls("api.where.{}", calls)
    assert len(runs[:0].where("variant=vanila num_layers>=2")) == 0


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


def test_a_frame_and_its_curves_can_be_joined():
    runs = attnlab.runs(RUNS, where="dataset=pronoun")
    frame, curves = runs.frame(), runs.curves("loss")
    common = [name for name in curves.columns if name in frame.columns]
    assert {"run", "seed", "variant", "num_layers"} <= {*common}
    for name in common:
        assert curves[name].dtype == frame[name].dtype
    joined = curves.merge(frame, on=common)
    assert len(joined) == len(curves)
    # Two runs are unfinished and have no result, yet what is counted stays a whole number.
    assert runs.table()["parameters"].null_count == 2
    assert {str(frame[name].dtype) for name in ("seed", "num_layers", "parameters")} == {"Int64"}


def test_runs_and_comparisons_have_short_texts():
    runs = attnlab.runs(RUNS)
    with_metrics = attnlab.runs(RUNS, where="variant=vanilla")
    says("api.text.run", repr(with_metrics[0]))
    says("api.text.runs", repr(runs))
    says("api.text.no_runs", repr(runs[:0]))
    says("api.text.comparison", repr(attnlab.compare(runs, allow=["data", "budget"])))
    many = RunList([replace(runs[0], record=Record(RUNS / f"run-{n}")) for n in range(50)])
    assert len(repr(many).splitlines()) <= 20


def test_the_frame_of_a_comparison_has_a_row_for_each_group_and_metric():
    comparison = attnlab.compare(attnlab.runs(RUNS), allow=["data", "budget"])
    rows = comparison.frame().to_dict("records")
    for panel in comparison.panels:
        for group in panel.groups:
            for metric in group.metrics:
                (row,) = (
                    row
                    for row in rows
                    if (row["dataset"], row["group"], row["metric"])
                    == (panel.dataset, group.label, metric)
                )
                interval = group.over_seeds(metric)
                assert (row["n"], row["mean"]) == (interval.n, interval.mean)
    assert len(rows) == sum(len(g.metrics) for panel in comparison.panels for g in panel.groups)


def test_a_listed_run_can_be_loaded():
    (run,) = attnlab.runs(RUNS / RUN)
    assert isinstance(loaded := attnlab.load(run), Run)
    assert loaded.record.path == run.path


def test_a_damaged_run_is_listed_with_its_fault(tmp_path):
    write(tmp_path, "sound", result())
    (write(tmp_path, "torn", result()) / "run.json").write_text("{")
    sound, torn = attnlab.runs(tmp_path)
    assert (sound.state, torn.state) == ("finished", "damaged")
    assert "run.json is damaged" in (torn.fault or "")
    assert attnlab.runs(tmp_path).frame()["state"].tolist() == ["finished", "damaged"]


def test_python_and_commands_compare_alike(capsys):
    runs = attnlab.runs(RUNS, where="variant=vanilla")
    names = [run.name for run in runs]
    content = printed(capsys, "compare", *names)
    assert attnlab.compare(runs).to_json() == content


def test_python_and_commands_say_the_same_of_heads_and_attention(capsys):
    run = attnlab.load(RUNS / RUN)
    assert run.heads().to_json() == printed(capsys, "heads", RUN)
    assert attnlab.heads(run).to_json() == printed(capsys, "heads", RUN)
    several = attnlab.runs(RUNS, where="dataset=mqar")
    measured = [run for run in several if run.record.rows("heads").num_rows]
    names = [run.name for run in measured]
    assert attnlab.heads(measured).to_json() == printed(capsys, "heads", *names)
    with refuses(RequestError, "api.no_heads"):
        attnlab.heads(several[:0])
    assert run.attention(SENTENCE).to_json() == printed(capsys, "attend", RUN, SENTENCE)


def test_a_place_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with refuses(RequestError, "api.no_place"):
        attnlab.runs("nowhere")


def test_a_comparison_takes_any_listed_runs(capsys):
    runs = attnlab.runs(RUNS, where="variant=vanilla")
    expected = attnlab.compare(runs).to_json()
    names = [run.name for run in runs]
    for same_runs in ([*runs], tuple(runs), iter(runs), runs[:], runs + runs, [*runs, *names[:1]]):
        paths = [RUNS / run if isinstance(run, str) else run for run in same_runs]
        assert attnlab.compare(paths).to_json() == expected
    assert attnlab.compare(RUNS / names[0]).to_json() == attnlab.compare(runs[:1]).to_json()
    by_variant = attnlab.compare(runs, by=["variant"], allow=["data", "mixed"])
    assert attnlab.compare(runs, by="variant", allow=("data", "mixed")) == by_variant
    assert printed(capsys, "compare", *names) == expected


def test_joined_lists_have_each_run_once():
    lists = [attnlab.runs(RUNS, where=f"variant={name}") for name in ("vanilla", "lstm")]
    joined = lists[0] + lists[1] + lists[0]
    assert [run.name for run in joined] == [run.name for runs in lists for run in runs]


def test_runs_are_named_in_python_as_in_commands(capsys, monkeypatch, tmp_path):
    def names(place, runs_dir=RUNS):
        return [run.name for run in attnlab.runs(place, runs_dir=runs_dir)]

    vanilla = sorted(path.name for path in RUNS.glob("*-vanilla-*"))
    assert names("*-vanilla-*") == names(RUNS / "*-vanilla-*", tmp_path) == vanilla
    assert names(vanilla[0][:-4]) == names(vanilla[0][-10:]) == vanilla[:1]
    assert names(attnlab.runs(RUNS)[:2]) == names(attnlab.runs(RUNS)[0].path.parent)[:2]
    assert names([]) == []
    (tmp_path / "empty").mkdir()
    assert names(tmp_path / "empty") == []
    # A directory is no run only because it has the name that a run begins with.
    monkeypatch.chdir(tmp_path)
    (tmp_path / vanilla[0][:-4]).mkdir()
    assert names(vanilla[0][:-4]) == vanilla[:1]
    for words in (["*-vanilla-*"], [str(RUNS)], [vanilla[0][:-4]]):
        command = printed(capsys, "compare", *words, "--allow", "data", "mixed")
        selected = attnlab.runs(words, runs_dir=RUNS)
        assert attnlab.compare(selected, allow=["data", "mixed"]).to_json() == command
    with refuses(RequestError, "api.no_match", RUNS):
        names("nothing-*")


def test_whatever_names_a_run_is_that_run():
    (listed,) = attnlab.runs([RUN], runs_dir=RUNS)
    loaded = attnlab.load(listed)
    recorded = attnlab.patterns(listed)
    for run in (RUN, RUNS / RUN, str(RUNS / RUN), listed.record, loaded):
        assert [p.source for p in attnlab.patterns(run, runs_dir=RUNS)] == [
            p.source for p in recorded
        ]
        assert [run.name for run in attnlab.runs(run, runs_dir=RUNS)] == [RUN]
        assert attnlab.load(run, runs_dir=RUNS).record.path == listed.path


def test_what_names_no_run_is_refused():
    calls = {
        "number": lambda: attnlab.load(3),  # pyright: ignore
        "none": lambda: attnlab.load(None),  # pyright: ignore
        "list": lambda: attnlab.patterns([RUN]),  # pyright: ignore
        "among_others": lambda: attnlab.runs([RUN, 3], runs_dir=RUNS),  # pyright: ignore
        "long": lambda: attnlab.load("x" * 300, runs_dir=RUNS),
        "unwritable": lambda: attnlab.runs("x\0y", runs_dir=RUNS),
        "train_list": lambda: attnlab.train(["variant=moe"]),  # pyright: ignore
        "train_number": lambda: attnlab.train("variant=moe", 3),  # pyright: ignore
        "allow": lambda: attnlab.compare(RUNS, allow="budgets"),
    }
    with unchecked_types():
        refused_calls("api.no_run.{}", calls, RUNS)


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
