"""The mirrors hold what they were told, write nowhere else, and need nobody."""

import csv
import hashlib
import json
import os
import pty
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import numpy as np
import pytest
import yaml
from PIL import Image

from attnlab.errors import ConfigError
from attnlab.experiment import Experiment
from attnlab.figures.grid import draw_pattern_grid
from attnlab.logger.base import LoggedRun
from tests.choices import choices
from tests.prose import refuses

LOGGERS = "logger=[csv,tensorboard,wandb]"
ROWS = [
    *((step, {"train/loss": 1 / step, "train/grad_norm": 3.0}) for step in range(10, 101, 10)),
    (100, {"validation/loss": 0.1, "validation/accuracy": 1}),
    (110, {"train/loss": float("nan"), "train/grad_norm": float("inf")}),
]
PATTERN = np.tri(5, dtype=np.float32) / np.arange(1, 6, dtype=np.float32)[:, None]
PIXELS = draw_pattern_grid([np.stack([PATTERN, 1 - PATTERN])])
PAGE = "<!doctype html><html><head></head><p>query → key</p></html>"
PACKED = b"what an attempt wrote"

# A process of its own, as its home, its working directory and its terminal are looked at.
CHILD = """
import json, random, sys
from pathlib import Path
import numpy as np, torch
from attnlab.config import compose, search_path
from attnlab.logger.base import LoggedRun

def states():
    return str([random.getstate(), np.random.get_state()]), torch.get_rng_state().tolist()

def unwanted():
    raise SystemExit("made for nobody")

run, rows, pixels, page, packed = Path(sys.argv[1]), *map(json.loads, sys.argv[2:6])
pixels = np.array(pixels, dtype=np.uint8)
with search_path():
    config = compose(sys.argv[6:])
choices = {"variant": "multihead", "dataset": "parity", "model/mixer": "latent"}
before = states()
for attempt, status in ((1, "finished"), (2, "failed")):
    directory = run / "attempts" / str(attempt)
    directory.mkdir(parents=True)
    file = directory / "patterns.arrow"
    file.write_text(packed)
    loggers = config.build_parts("logger")
    for logger in loggers.values():
        logged = LoggedRun(run.name, attempt, config.values, choices, "mine", 10, 0.5)
        logger.start(directory, logged)
        for step, values in rows if attempt == 1 else []:
            logger.log_scalars(step, values)
            if "validation/loss" in values:
                logger.log_picture(step, "attention/pattern", pixels)
    if attempt == 1:
        try:
            loggers["wandb"].log_scalars(5, {"train/loss": 0.0})
        except AssertionError as error:
            assert "step 5" in str(error)
        else:
            raise SystemExit("wandb took a step of the past")
    for name, logger in loggers.items():
        if attempt == 1:
            wanted = name == "wandb"
            logger.log_page(rows[-1][0], "patterns/page", lambda: page if wanted else unwanted())
            logger.log_summary({"parameters": 3, "commit": "0abc", "dirty": False})
            logger.log_files(lambda: {file.name: file} if wanted else unwanted())
        logger.end(status)
assert states() == before, "a logger drew random numbers"
"""


class Mirrored(NamedTuple):
    run: Path
    cwd: Path
    home: Path
    printed: str

    def attempt(self, number: int) -> Path:
        return self.run / "attempts" / str(number)

    def records(self, number: int) -> list[dict[str, Any]]:
        """Read what wandb wrote with its own program."""
        (path,) = self.attempt(number).glob("wandb/offline-run-*/*.wandb")
        return inspected(path)


@cache
def inspected(path: Path) -> list[dict[str, Any]]:
    program = Path(sys.executable).with_name("wandb")
    lines = subprocess.check_output([program, "leet", "inspect", "--json", path], text=True)
    return [json.loads(line) for line in lines.splitlines()]


def alone(home: Path) -> dict[str, str]:
    """An environment without an account and without a network."""
    nowhere = {f"{kind}_proxy": "http://127.0.0.1:9" for kind in ("http", "https", "all")}
    environment = {name: value for name, value in os.environ.items() if "WANDB" not in name}
    upper = {name.upper(): value for name, value in nowhere.items()}
    return {**environment, **nowhere, **upper, "HOME": str(home), "TMPDIR": str(home)}


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> Mirrored:
    root = tmp_path_factory.mktemp("mirrored")
    run, cwd, home = root / "runs" / "name-0abc", root / "cwd", root / "home"
    cwd.mkdir()
    home.mkdir()
    sent = [ROWS, PIXELS.tolist(), PAGE, PACKED.decode()]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(run), *map(json.dumps, sent), LOGGERS],
        cwd=cwd,
        env=alone(home),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return Mirrored(run, cwd, home, done.stdout + done.stderr)


def told() -> dict[int, dict[str, str]]:
    """What was sent, by step, with the axes; as text, in which nan equals nan."""
    steps: dict[int, dict[str, str]] = {}
    for step, values in ROWS:
        # 10 tokens a step, half a FLOP of a forward pass a token, and three passes.
        named = {"tokens": 10 * step, "flops": 15 * step, **values}
        steps.setdefault(step, {}).update({n: str(float(v)) for n, v in named.items()})
    return steps


CHOICES = {"variant": "multihead", "dataset": "parity", "model/mixer": "latent"}
SUMMARY = {"parameters": 3, "commit": "0abc", "dirty": False}


def described(values: dict[str, Any]) -> dict[str, Any]:
    """The config as a logger gets it."""
    return {**values, "choices": CHOICES}


def decoded(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(png)).convert("L"))


def flat(config: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from flat(value, f"{above}{key}.")
        else:
            yield above + key, value if isinstance(value, (int, float, str)) else str(value)


def test_wandb_holds_all_scalars_at_their_steps(mirrored):
    history = {}
    for record in mirrored.records(1):
        if record["type"] == "history":
            item = record["history"]["item"]
            named = {
                n: v for n, v in item.items() if not n.startswith(("_", "attention", "pattern"))
            }
            history[item["_step"]] = {n: str(float(v)) for n, v in named.items()}
    assert history == told()


def test_wandb_offers_tokens_and_flops_as_axes(mirrored):
    metrics = [record["metric"] for record in mirrored.records(1) if record["type"] == "metric"]
    assert {m["name"] for m in metrics if m["options"]["defined"]} == {"tokens", "flops"}
    assert not [m for m in metrics if "step_metric" in m]


def test_wandb_can_group_filter_and_sort(mirrored):
    records = mirrored.records(1)
    run = next(record["run"] for record in records if record["type"] == "run")
    assert (run["run_group"], run["job_type"]) == ("mine", "train")
    assert run["tags"] == ["multihead", "parity"]
    summary: dict[str, Any] = {}
    for record in records:
        summary |= record["summary"]["update"] if record["type"] == "summary" else {}
    assert {name: summary[name] for name in SUMMARY} == SUMMARY
    assert (summary["tokens"], summary["flops"]) == (1100, 1650)


@pytest.mark.parametrize(("overrides", "is_on"), [((), True), (["logger.wandb.include=[]"], False)])
def test_wandb_is_set_as_its_knobs_say(composed, monkeypatch, overrides, is_on):
    import wandb

    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(wandb, "setup", lambda settings: None)
    monkeypatch.setattr(wandb, "init", lambda **given: asked.append(given) or MagicMock())
    words = ["group=g", "job_type=probe", "tags=[a,b]", "notes='by hand'", "entity=me"]
    config = composed("logger=wandb", *(f"logger.wandb.{word}" for word in words), *overrides)
    for is_live in (True, False):
        run = LoggedRun("name", 2, {}, CHOICES, "mine", 10, 0.5, is_live)
        config.build_parts("logger")["wandb"].start(Path(), run)
        # The machine that sends a run later is not the one that trained it.
        settings = asked[-1]["settings"]
        assert settings.x_disable_stats == (not (is_on and is_live))
        # wandb 0.31 measures no load where it may not look at the machine.
        assert settings.x_disable_machine_info == settings.x_disable_stats
    stated = {name: asked[-1][name] for name in ("group", "job_type", "tags", "notes", "entity")}
    assert stated == {
        "group": "g",
        "job_type": "probe",
        "tags": ["a", "b"],
        "notes": "by hand",
        "entity": "me",
    }


def test_wandb_holds_the_name_the_config_and_how_it_ended(mirrored, once):
    config = described(once(LOGGERS).values)
    for number, code in ((1, 0), (2, 1)):
        records = {record["type"]: record for record in mirrored.records(number)}
        run = records["run"]["run"]
        assert {n: v for n, v in run["config"]["update"].items() if n != "_wandb"} == config
        assert (run["display_name"], run["project"]) == ("name-0abc", "attnlab")
        assert run["run_id"] == f"name-0abc-{number}"
        assert records["exit"]["exit"].get("exit_code", 0) == code


def test_wandb_keeps_the_pixels_the_page_and_no_code(mirrored):
    (run,) = mirrored.attempt(1).glob("wandb/offline-run-*")
    files = {path.suffix: path for path in run.glob("files/**/*") if path.is_file()}
    assert files.keys() == {".png", ".html"}
    assert np.array_equal(decoded(files[".png"].read_bytes()), PIXELS)
    assert PIXELS.max() == 255
    assert files[".html"].read_text(encoding="utf-8") == PAGE


def test_wandb_names_the_file_by_its_digest_where_it_lies(mirrored):
    (artifact,) = (r["artifact"] for r in mirrored.records(1) if r["type"] == "artifact")
    assert (artifact["name"], artifact["type"]) == ("name-0abc-patterns", "patterns")
    (entry,) = artifact["manifest"]["contents"]
    assert entry["path"] == "patterns.arrow"
    assert entry["digest"] == b64encode(hashlib.md5(PACKED).digest()).decode()
    assert int(entry["size"]) == len(PACKED)
    assert Path(entry["local_path"]) == mirrored.attempt(1) / "patterns.arrow"


def test_an_artifact_can_be_left_out(composed):
    logger = composed("logger=wandb", "logger.wandb.include=[system_metrics]").build_parts(
        "logger"
    )["wandb"]
    logger.log_files(lambda: pytest.fail("made for nobody"))


def test_tensorboard_holds_scalars_pixels_and_config(mirrored, once):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    events = EventAccumulator(str(mirrored.attempt(1) / "tensorboard")).Reload()
    history: dict[int, dict[str, str]] = {}
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            history.setdefault(event.step, {})[name] = str(np.float32(event.value))
    sent = told().items()
    assert history == {s: {n: str(np.float32(v)) for n, v in row.items()} for s, row in sent}
    (picture,) = events.Images("attention/pattern")
    assert picture.step == 100
    assert np.array_equal(decoded(picture.encoded_image_string), PIXELS)
    about = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    start = metadata.parse_session_start_info_plugin_data(about)
    hparams = {n: getattr(v, v.WhichOneof("kind")) for n, v in start.hparams.items()}
    assert hparams == dict(flat(described(once(LOGGERS).values)))
    (summary,) = events.Tensors("summary/text_summary")
    assert "| commit | 0abc |" in summary.tensor_proto.string_val[0].decode()


def test_csv_holds_all_scalars_at_their_steps_and_the_config(mirrored, once):
    directory = mirrored.attempt(1) / "csv"
    history: dict[int, dict[str, str]] = {}
    with (directory / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            values = {n: str(float(v)) for n, v in row.items() if v and n != "step"}
            history.setdefault(int(row["step"]), {}).update(values)
    assert history == told()
    config = described(once(LOGGERS).values)
    assert yaml.safe_load((directory / "hparams.yaml").read_text()) == config
    assert yaml.safe_load((directory / "summary.yaml").read_text()) == SUMMARY


def test_nothing_is_written_elsewhere_and_nothing_printed(mirrored):
    for number in (1, 2):
        written = {path.name for path in mirrored.attempt(number).iterdir()}
        assert written == {"csv", "tensorboard", "wandb", "patterns.arrow"}
    assert list(mirrored.cwd.iterdir()) == []
    # wandb's processes in the background (core, and symon for the load of the machine) keep logs of
    # their own, and know no setting against it.
    files = [path for path in mirrored.home.rglob("*") if path.is_file()]
    logs = [f".cache/wandb/logs/{name}-debug-*.log" for name in ("core", "symon")]
    assert all(any(path.match(log) for log in logs) for path in files)
    assert sum(path.stat().st_size for path in files) < 20_000
    assert mirrored.printed == ""


def test_wandb_online_without_an_account_is_an_error_and_no_question(tmp_path):
    script = (
        "import sys; from pathlib import Path; from attnlab.logger.wandb import Wandb; "
        "from attnlab.logger.base import LoggedRun; "
        "run = LoggedRun('name', 1, {}, {}, None, 1, 1.0); "
        "Wandb(mode='online').start(Path(sys.argv[1]), run)"
    )
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, tmp_path],
            env=alone(tmp_path),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        printed = os.read(ours, 100_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 1
    # The words are wandb's: an error, and not the question which account to use.
    assert "No API key configured" in printed
    assert "Enter your choice" not in printed


@pytest.mark.parametrize("choice", choices("logger"))
def test_every_logger_composes(composed, choice):
    expected = set() if choice == "none" else {choice}
    assert set(composed(f"logger={choice}").build_parts("logger")) == expected


def test_no_logger_is_no_logger(composed):
    for override in ("logger=[]", "~logger"):
        assert composed(override).build_parts("logger") == {}, override


def test_a_logger_can_be_taken_away(composed):
    assert set(composed(LOGGERS, "logger.csv=null").build_parts("logger")) == {
        "tensorboard",
        "wandb",
    }


def test_a_logger_does_not_make_another_run(once):
    assert Experiment(once(LOGGERS)).identity == Experiment(once()).identity


def test_a_missing_package_is_refused_in_words(composed, monkeypatch):
    monkeypatch.setattr("attnlab.logger.base.find_spec", lambda package: None)
    with refuses(ConfigError, "logger.missing_package"):
        composed(LOGGERS)


def test_a_typo_in_a_logger_is_told(composed):
    with refuses(ConfigError, "logger.typo"):
        composed("logger=wandb", "+logger.wandb.projekt=mine", "logger.wandb.mode=onlin")


@pytest.mark.parametrize(("fault", "tags"), [("text", "mine"), ("empty", "[a,'']")])
def test_tags_are_a_list_of_names(composed, fault, tags):
    with refuses(ConfigError, f"logger.tags_{fault}"):
        composed("logger=wandb", f"logger.wandb.tags={tags}")
