"""The program as its users meet it: words, exit codes, and nothing half-written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from attnlab.cli import COMMANDS, main
from attnlab.runs.attempt import Attempt
from attnlab.runs.record import Record, find_runs
from tests.choices import causal_variants, choices

TINY = ["debug=tiny", "dataset.num_train=200", "model.d_model=16", "trainer.threads=1"]
QUICK = [*TINY, "trainer.max_steps=2", "trainer.val_check_interval=2"]


def train(runs_dir: Path, *words: str) -> int:
    return main(["train", *QUICK, f"runs_dir={runs_dir}", *words])


def test_a_run_ends_with_its_metrics_and_its_directory(tmp_path, capsys):
    assert train(tmp_path) == 0
    *_, validation, test, last = capsys.readouterr().out.strip().splitlines()
    assert validation.startswith("validation")
    assert test.startswith("test")
    record = Record(Path(last))
    result = record.result
    assert result is not None
    assert result["steps"] == 2
    assert result["network_depth"] == 4
    assert result["tokens"] == result["budget_tokens"] == 2 * 64 * 20
    assert record.identity == result["identity"]
    assert train(tmp_path) == 0
    assert "skipped: finished before" in capsys.readouterr().out


def test_the_record_says_when_the_code_has_changed_since(tmp_path, capsys):
    assert train(tmp_path) == 0
    (record,) = find_runs(tmp_path)
    path = record.path / "run.json"
    whole = json.loads(path.read_text())
    whole["code"]["attnlab.ffn.mlp.MLP"] = "0" * 64
    path.unlink()
    path.write_text(json.dumps(whole))
    capsys.readouterr()
    assert train(tmp_path) == 0
    assert "the code of attnlab.ffn.mlp.MLP has changed" in capsys.readouterr().out


@pytest.mark.parametrize("variant", causal_variants())
@pytest.mark.parametrize("dataset", ["mqar", pytest.param("pydocs", marks=pytest.mark.slow)])
def test_every_variant_trains_on_every_kind_of_data(tmp_path, variant, dataset):
    small = [] if dataset == "pydocs" else ["dataset.num_train=200"]
    words = ["debug=tiny", "trainer.max_steps=2", "model.d_model=16", "trainer.threads=1", *small]
    short = ["dataset.length=16"] if dataset == "pydocs" else []
    where = [f"variant={variant}", f"dataset={dataset}", f"runs_dir={tmp_path}"]
    assert main(["train", *words, *short, *where]) == 0


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
@pytest.mark.parametrize("variant", ["moe", "lstm"])
def test_other_precisions_train(tmp_path, variant, precision):
    assert train(tmp_path, f"variant={variant}", f"trainer.precision={precision}") == 0


def test_the_causal_arm_trains(tmp_path):
    assert train(tmp_path, "objective.causal=true") == 0


def test_a_sweep_does_every_cell_and_the_same_command_only_what_is_missing(tmp_path, capsys):
    words = ["-m", "variant=vanilla,lstm", "seed=0,1"]
    assert train(tmp_path, *words) == 0
    shown = capsys.readouterr().out
    assert "[4/4]" in shown
    assert "4 runs: 4 finished" in shown
    assert train(tmp_path, *words, "depth=base") == 0
    assert "4 runs: 4 skipped" in capsys.readouterr().out
    assert train(tmp_path, "-m", "variant=vanilla,lstm", "seed=0,1,2") == 0
    assert "6 runs: 4 skipped, 2 finished" in capsys.readouterr().out


def test_a_failed_cell_is_recorded_and_the_others_go_on(tmp_path, capsys):
    words = ["-m", "optimizer.lr=1e30,1e-3", "optimizer.gradient_clip=null", "seed=0,1"]
    hot = ["schedule=constant", "trainer.max_steps=6"]
    assert train(tmp_path, *words, *hot) == 1
    shown = capsys.readouterr().out
    assert "4 runs: 2 failed, 2 finished" in shown
    assert "Diverged: the patterns after step 1 are no numbers" in shown
    assert sorted(record.state for record in find_runs(tmp_path)) == [
        "failed", "failed", "finished", "finished"
    ]  # fmt: skip
    assert train(tmp_path, *words, *hot) == 1
    assert "2 refused, 2 skipped" in capsys.readouterr().out


def test_a_sweep_is_checked_cell_by_cell_before_it_starts(tmp_path, capsys):
    assert (
        train(tmp_path / "runs", "-m", "model.mixer.num_heads=2,3", "variant=multihead,lstm") == 2
    )
    said = capsys.readouterr().err
    assert "num_heads=3" in said
    assert "in 1 of 4 runs" in said
    assert "model has no `mixer` here (variant=lstm)" in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.num_haeds=3"], "did you mean `num_layers`"),
        (["variant=multihed"], "did you mean `multihead`"),
        (["model.num_layers=two"], "expected int, got 'two'"),
        (["model.mixer.num_heads=5"], "num_heads=5"),
        (["--config-dir", "nowhere"], "is not a directory"),
        (["batch_size=500"], "batch_size=500 exceeds the 200 training examples"),
    ],
)
def test_a_wrong_request_exits_2_says_why_and_writes_nothing(tmp_path, capsys, words, said):
    assert train(tmp_path / "runs", *words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_place_that_cannot_hold_runs_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert train(tmp_path / "file" / "runs") == 2
    assert "is a file, not a directory" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_damaged_record_stops_the_run_and_is_left_as_it_is(tmp_path, capsys):
    assert train(tmp_path) == 0
    (record,) = find_runs(tmp_path)
    for content, said in (("{", "is damaged"), ('{"schema": 9}', "newer attnlab")):
        (record.path / "run.json").unlink()
        (record.path / "run.json").write_text(content)
        assert train(tmp_path) == 2
        assert said in capsys.readouterr().err
        assert (record.path / "run.json").read_text() == content


def test_a_directory_of_another_run_is_not_touched(tmp_path, capsys):
    assert train(tmp_path) == 0
    (record,) = find_runs(tmp_path)
    other = tmp_path / "other" / record.name
    Attempt.claim(other, {"seed": 1}).end("interrupted", {})
    assert train(tmp_path / "other") == 2
    assert "describes another run" in capsys.readouterr().err


def test_the_config_can_be_printed_and_nothing_is_trained(tmp_path, capsys):
    assert train(tmp_path / "runs", "--cfg") == 0
    assert "num_heads: 4" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_an_unknown_command_is_refused(capsys):
    assert main(["trian"]) == 2
    assert "there are train" in capsys.readouterr().err
    assert main([]) == 2
    assert main(["--version"]) == 0


def test_an_error_of_ours_is_said_to_be_ours(monkeypatch, capsys):
    import attnlab.commands.list as command

    monkeypatch.setattr(command, "_choices", lambda _: 1 / 0)
    assert main(["list"]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        main(["list", "--traceback"])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert COMMANDS[command].split()[0] in capsys.readouterr().out


def test_list_gives_name_summary_and_knobs(capsys):
    assert main(["list", "model/mixer", "--format", "json"]) == 0
    found = {choice["name"]: choice for choice in json.loads(capsys.readouterr().out)}
    assert set(found) == set(choices("model/mixer"))
    knobs = {"num_heads": 4, "dropout": 0.0, "bias": True, "query_key_norm": False}
    assert found["multihead"]["knobs"] == knobs
    assert "Vaswani" in found["multihead"]["summary"]


@pytest.mark.parametrize("group", ["variant", "dataset", "depth", "model/ffn", "trainer", "debug"])
def test_every_choice_has_a_summary_or_knobs(group, capsys):
    assert main(["list", group, "--format", "json"]) == 0
    for choice in json.loads(capsys.readouterr().out):
        assert choice["summary"] or choice["knobs"], choice["name"]


def test_list_without_a_group_names_all_groups_and_a_wrong_one_is_refused(capsys):
    assert main(["list"]) == 0
    assert "model/mixer" in capsys.readouterr().out
    assert main(["list", "varaint"]) == 2
    assert "did you mean variant" in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_error():
    command = f"{sys.executable} -m attnlab.cli list | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_sweep_can_train_several_runs_at_once(tmp_path, capfd):
    done = train(tmp_path, "-m", "-j", "2", "seed=0,1,2")
    assert done == 0
    assert "3 runs: 3 finished" in capfd.readouterr().out
    assert train(tmp_path, "-m", "seed=0,1,2") == 0
    assert "3 runs: 3 skipped" in capfd.readouterr().out


def test_several_jobs_need_a_sweep(tmp_path, capsys):
    assert train(tmp_path / "runs", "-j", "2") == 2
    assert "it needs -m" in capsys.readouterr().err
