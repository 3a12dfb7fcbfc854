"""A finished run is sent later, whole, and exactly once."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from attnlab.analysis.select import Selection, select_runs
from attnlab.cli import main
from attnlab.errors import RequestError
from attnlab.launch.logged_run import describe_recorded_run
from attnlab.launch.sync import SyncedRun, SyncReport, logger_for, sync_runs
from attnlab.logger import wandb
from attnlab.logger.csv import CSV
from attnlab.run_record import write
from attnlab.run_record.mirrors import MARK, ONLINE, read_mirrors
from attnlab.run_record.record import Record
from tests import child
from tests.callbacks.test_row_logger import axes, of_csv, of_record, of_wandb, pictures
from tests.logger.test_logger import alone, inspected
from tests.prose import refuses, says
from tests.refusals import UNBROKEN

RUNS = Path(__file__).parents[1] / "records/runs"
RUN = "pronoun-multihead-2x4-s0-d703dae27d"
RESUMED = "pronoun-multihead-1x4-s8-38a45d7b7a"


class Uploading(CSV):
    """Stands for a tool with projects, without its weight."""

    tool = "wandb"

    def __init__(self, project: str = "mine") -> None:
        self.project = project

    @property
    def destination(self) -> str:
        return self.project

    def end(self, status) -> None:
        super().end(status)
        if status == "finished":
            self._directory.rename(self._directory.with_name("wandb"))


@pytest.fixture
def runs_dir(tmp_path) -> Path:
    """A run of attnlab 0.1, to be changed."""
    shutil.copytree(RUNS / RUN, tmp_path / "runs" / RUN)
    return tmp_path / "runs"


def selected(runs_dir: Path) -> Selection:
    return select_runs([], runs_dir)


def sent(runs_dir: Path, logger=None, *arguments) -> SyncedRun:
    """Send the only run."""
    (synced_run,) = sync_runs(selected(runs_dir), logger or CSV(), *arguments)
    return synced_run


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_a_copy_holds_the_record_with_its_axes_config_and_costs(runs_dir):
    synced_run = sent(runs_dir)
    assert (synced_run.status, synced_run.reason) == ("sent", None)
    record = Record(runs_dir / RUN)
    assert Path(str(synced_run.place)) == record.path / "attempts/1/csv"
    assert of_csv(record.path / "attempts/1/csv/metrics.csv") == of_record(record)
    result = record.result
    assert result is not None
    assert result.git is not None
    stated = yaml.safe_load((record.path / "attempts/1/csv/summary.yaml").read_text())
    names = ["parameters", "active_parameters", "flops_per_token", "tokens", "seconds"]
    names += ["started", "data_hash"]
    # A model that cannot step keeps none.
    assert result.state_size is None
    assert stated == {
        **{name: getattr(result, name) for name in names},
        **{name: result.git[name] for name in ("commit", "dirty")},
        "tokens_per_second": result.tokens / result.seconds,
    }


def test_a_second_time_does_nothing(runs_dir):
    at = sent(runs_dir).at
    before = files(runs_dir)
    assert (sent(runs_dir).status, sent(runs_dir).at) == ("present", at)
    assert files(runs_dir) == before
    assert [entry["place"] for entry in read_mirrors(runs_dir / RUN)] == ["attempts/1/csv"]


def test_another_directory_gets_a_copy_of_its_own(runs_dir, tmp_path):
    sent(runs_dir)
    synced_run = sent(runs_dir, None, tmp_path / "out")
    assert synced_run.status == "sent"
    assert synced_run.place == str(tmp_path / "out" / f"{RUN}-1" / "csv")
    copies = [files(tmp_path / "out" / f"{RUN}-1/csv"), files(runs_dir / RUN / "attempts/1/csv")]
    marks = [json.loads(copy.pop(MARK)) for copy in copies]
    assert copies[0] == copies[1]
    assert marks == read_mirrors(runs_dir / RUN)[::-1]
    assert sent(runs_dir, None, tmp_path / "out").status == "present"


def test_files_that_were_deleted_are_written_again(runs_dir):
    sent(runs_dir)
    shutil.rmtree(runs_dir / RUN / "attempts/1/csv")
    assert sent(runs_dir).status == "sent"


def test_what_a_logger_wrote_while_the_run_trained_is_there(runs_dir):
    """Also that of a version that wrote no line of it."""
    directory = runs_dir / RUN / "attempts/1/csv"
    directory.mkdir()
    assert sent(runs_dir).status == "present"
    assert len(read_mirrors(runs_dir / RUN)) == 1
    assert list(directory.iterdir()) == []


def test_a_resumed_run_is_sent_from_its_first_step(tmp_path):
    shutil.copytree(RUNS / RESUMED, tmp_path / "runs" / RESUMED)
    record = Record(tmp_path / "runs" / RESUMED)
    assert record.result is not None
    origin = record.attempts[-1].claim["resumed_from"]
    assert origin is not None
    synced_run = sent(tmp_path / "runs")
    assert synced_run.status == "sent"
    copy = Path(str(synced_run.place))
    assert of_csv(copy / "metrics.csv") == of_record(record)
    summary = yaml.safe_load((copy / "summary.yaml").read_text())
    share = 1 - origin["step"] / record.result.steps
    rate = record.result.tokens * share / record.result.seconds
    assert summary["tokens_per_second"] == pytest.approx(rate)


def test_choices_of_records_that_state_none_are_named_by_their_classes():
    record = Record(RUNS / RUN)
    assert record.result is not None
    run = describe_recorded_run(record, record.result)
    assert run.choices == {
        "dataset": "pronoun",
        "variant": "multihead",
        "model": "transformer",
        "model/mixer": "multihead",
        "model/ffn": "mlp",
        "model/position": "learned",
        "objective": "classification",
        "optimizer": "adamw",
        "schedule": "cosine",
    }
    assert (run.run_id, run.sweep, run.is_live) == (f"{RUN}-1", None, False)


def killed_in(runs_dir: str, fault: str, hits: str) -> None:
    """Sync in a process that dies at a fault point, or in the method that a name names."""
    os.environ["ATTNLAB_FAULT"] = fault
    if hits:
        setattr(CSV, hits, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    sent(Path(runs_dir))


@pytest.mark.parametrize(
    ("fault", "hits", "status"),
    [
        ("", "log_summary", "sent"),
        ("birth.name:kill:1", "", "sent"),
        # The copy is complete, and only its line is missing.
        ("stream.write:kill:1", "", "present"),
    ],
)
def test_a_kill_leaves_one_whole_copy_after_the_next_time(runs_dir, fault, hits, status):
    process = child.PROCESSES.Process(target=killed_in, args=(str(runs_dir), fault, hits))
    process.start()
    process.join(120)
    assert process.exitcode == child.KILLED
    record = Record(runs_dir / RUN)
    assert read_mirrors(record.path) == []
    assert sent(runs_dir).status == status
    assert of_csv(record.path / "attempts/1/csv/metrics.csv") == of_record(record)
    assert len(read_mirrors(record.path)) == 1
    assert not list(runs_dir.rglob(".tmp-*"))


def test_a_copy_that_fails_leaves_nothing_and_the_others_go_on(runs_dir, tmp_path):
    name = "pronoun-vanilla-1x4-s0-022925603f"
    shutil.copytree(RUNS / name, runs_dir / name)
    damaged = runs_dir / RUN / "attempts/1/train.arrow"
    damaged.write_bytes(b"none")
    first, second = sync_runs(selected(runs_dir), CSV(), tmp_path / "out")
    assert (first.run, first.status, second.status) == (RUN, "failed", "sent")
    says("sync.damaged", first.reason, tmp_path)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{name}-1"]
    assert not SyncReport("csv", None, [first, second], []).ok


def test_two_processes_do_not_send_a_run_at_once(runs_dir):
    statuses: list[str] = []
    thread = threading.Thread(target=lambda: statuses.append(sent(runs_dir).status))
    with write.lock_directory(runs_dir / RUN):
        thread.start()
        thread.join(0.3)
        assert statuses == []
    thread.join(30)
    assert statuses == ["sent"]


def test_a_tool_that_uploads_gets_no_second_copy_of_what_was_deleted(runs_dir):
    assert sent(runs_dir, Uploading()).status == "sent"
    shutil.rmtree(runs_dir / RUN / "attempts/1/wandb")
    assert sent(runs_dir, Uploading()).status == "present"


def test_a_place_with_the_copy_of_another_project_is_refused(runs_dir, tmp_path):
    sent(runs_dir, Uploading())
    synced_run = sent(runs_dir, Uploading("theirs"))
    assert synced_run.status == "failed"
    says("sync.other_project", synced_run.reason, runs_dir)
    assert sent(runs_dir, Uploading("theirs"), tmp_path / "out").status == "sent"


def test_an_upload_happens_once_and_can_be_tried_again(runs_dir):
    uploaded: list[Path] = []

    def fail(place: Path) -> None:
        raise OSError("the network is down")

    synced_run = sent(runs_dir, Uploading(), None, fail)
    assert (synced_run.status, synced_run.reason) == ("failed", "OSError: the network is down")
    before = files(runs_dir / RUN / "attempts")
    assert sent(runs_dir, Uploading(), None, uploaded.append).status == "sent"
    assert sent(runs_dir, Uploading(), None, uploaded.append).status == "present"
    assert uploaded == [runs_dir / RUN / "attempts/1/wandb"]
    assert files(runs_dir / RUN / "attempts") == before
    shutil.rmtree(runs_dir / RUN / "attempts/1/wandb")
    assert sent(runs_dir, Uploading()).status == "present"
    assert [entry["place"] for entry in read_mirrors(runs_dir / RUN)] == [
        "attempts/1/wandb",
        ONLINE,
    ]


def test_wandbs_own_program_uploads(tmp_path, monkeypatch):
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess:
        calls.append(command[1:])
        return subprocess.CompletedProcess(command, len(calls) - 1, "", "Error: not there\n\n")

    monkeypatch.setattr(subprocess, "run", run)
    (tmp_path / "offline-run-1-a").mkdir()
    wandb.upload_runs(tmp_path, "me/mine")
    words = ["-m", "wandb", "sync", "--project", "mine", "--entity", "me"]
    assert calls == [[*words, str(tmp_path / "offline-run-1-a")]]
    with refuses(OSError, "sync.wandb_failed"):
        wandb.upload_runs(tmp_path, "mine")


def test_without_account_or_network_there_is_one_sentence_at_once(monkeypatch):
    import wandb as library

    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(library, "login", lambda **_: False)
    with refuses(RequestError, "sync.no_account"):
        wandb.require_server()

    def refuse(url: str, timeout: float) -> None:
        assert timeout <= 10
        raise urllib.error.URLError(ConnectionRefusedError(111, "Connection refused"))

    monkeypatch.setattr(library, "login", lambda **_: True)
    monkeypatch.setattr(wandb, "urlopen", refuse)
    url = library.setup(library.Settings(silent=True)).settings.base_url
    with refuses(RequestError, "sync.no_network", url):
        wandb.require_server()


@pytest.mark.parametrize("project", ["/mine", "me/", "a/b/c", ""])
def test_a_project_is_a_name_or_that_of_an_entity_and_it(project):
    logger = logger_for("wandb", "me/mine")
    assert logger.destination == "me/mine"
    assert logger_for("wandb").destination == "attnlab"
    with pytest.raises(RequestError, match="expected PROJECT or ENTITY/PROJECT"):
        logger_for("wandb", project)


def test_a_missing_package_and_a_wrong_tag_are_refused(monkeypatch):
    with refuses(RequestError, "sync.tag"):
        logger_for("wandb", tags=["a" * 65])
    monkeypatch.setattr("attnlab.logger.base.find_spec", lambda package: None)
    with refuses(RequestError, "sync.missing_package"):
        logger_for("tensorboard")


@pytest.fixture
def answer(monkeypatch, capsys, tmp_path) -> Callable[..., tuple[int, str, str]]:
    """Run the command, and give its exit code and what it prints."""
    monkeypatch.setenv("COLUMNS", UNBROKEN)
    monkeypatch.setenv("ATTNLAB_RUNS", str(tmp_path / "runs"))

    def run(*words: str) -> tuple[int, str, str]:
        try:
            code = main(["sync", *words])
        except SystemExit as ended:
            code = ended.code
        assert isinstance(code, int)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_the_command_names_what_it_sends_and_what_it_leaves_out(runs_dir, answer):
    for name in ("pronoun-multihead-1x4-s9-e5261f2b37", "pronoun-multihead-1x4-s7-0663838852"):
        shutil.copytree(RUNS / name, runs_dir / name)
    code, out, err = answer("--to", "csv")
    assert (code, err) == (0, "")
    says("sync.sent", out, runs_dir)
    code, out, _ = answer("--to", "csv", "--format", "json")
    assert code == 0
    report = json.loads(out)
    (run,) = report["runs"]
    assert (report["tool"], report["project"], run["status"]) == ("csv", None, "present")
    assert {left["state"] for left in report["left_out"]} == {"interrupted", "failed"}


def test_the_command_ends_with_1_where_a_run_failed(runs_dir, answer):
    (runs_dir / RUN / "attempts/1/train.arrow").write_bytes(b"none")
    code, out, _ = answer("--to", "csv", RUN)
    assert code == 1
    says("sync.failed", out, runs_dir)


def test_the_tool_must_be_named(answer):
    for words in ([], ["--to", "mlflow"]):
        code, out, err = answer(*words)
        assert (code, out) == (2, "")
        assert "--to" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("option_of_wandb", ["--to", "csv", "--project", "mine"]),
        ("no_run", ["nosuch", "--to", "csv"]),
        ("file_for_a_directory", ["--to", "csv", "--dir", str(RUNS / RUN / "run.json")]),
        ("project_of_three", ["--to", "wandb", "--project", "a/b/c"]),
    ],
)
def test_a_wrong_request_is_answered_and_writes_nothing(runs_dir, answer, name, words):
    before = files(runs_dir)
    code, out, err = answer(*words)
    assert (code, out) == (2, "")
    says(f"sync.refused.{name}", err, RUNS, runs_dir)
    assert files(runs_dir) == before


@pytest.mark.slow
def test_wandb_holds_the_record_of_a_run_that_is_sent_later(runs_dir, tmp_path):
    words = ["sync", "--to", "wandb", "--runs-dir", str(runs_dir), "--group", "mine"]
    command = [sys.executable, "-m", "attnlab.cli", *words]
    for text in ("1 sent", "1 already there"):
        done = subprocess.run(
            command, cwd=tmp_path, env=alone(tmp_path), capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert f"1 run: {text}" in done.stdout
    record = Record(runs_dir / RUN)
    assert record.result is not None
    # One run, one log: the second time wrote none.
    (file,) = runs_dir.rglob("*.wandb")
    assert file.parent.parent == record.path / "attempts/1/wandb"
    logged, shown, pages, artifact = of_wandb(file)
    assert logged == of_record(record) | axes(record.result, {*shown, *pages})
    assert shown.keys() == pictures(record).keys()
    assert artifact["name"] == f"{RUN}-patterns"
    records = inspected(file)
    run = next(entry["run"] for entry in records if entry["type"] == "run")
    assert (run["run_id"], run["run_group"], run["tags"]) == (
        *(f"{RUN}-1", "mine"),
        ["multihead", "pronoun"],
    )
    assert run["config"]["update"]["choices"]["model/mixer"] == "multihead"
    assert not [entry for entry in records if entry["type"] == "stats"]
