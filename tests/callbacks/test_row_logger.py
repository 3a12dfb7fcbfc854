"""What a logger is told is what the record holds, also by an attempt that was resumed."""

import csv
import hashlib
import html
import json
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from math import fsum, isnan
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

import attnlab
from attnlab.analysis.select import select_runs
from attnlab.callbacks.row_logger import RowLogger, average_over_heads
from attnlab.figures.grid import draw_pattern_grid
from attnlab.interruption import Interrupted
from attnlab.launch.sync import logger_for, sync_runs
from attnlab.layers import AttentionLayer, Axes, HeadRef, Layer
from attnlab.logger.base import LoggedRun, Logger
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.evidence_history import evidence_rows
from attnlab.run_record.finding import Finding, NamedHead
from attnlab.run_record.head_scores import measure_row
from attnlab.run_record.layers import Layers
from attnlab.run_record.mirrors import read_mirrors
from attnlab.run_record.pattern_table import Pattern, PatternWeights, load_patterns
from attnlab.run_record.record import Record
from attnlab.run_record.result import RunResult
from tests import child
from tests.logger.test_logger import alone
from tests.prose import says


class Fake(Logger):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told = []

    def start(self, directory, run) -> None:
        self.told.append(("start", directory.name, run))

    def log_scalars(self, step, values) -> None:
        self.told.append((step, dict(values)))

    def log_picture(self, step, name, pixels) -> None:
        self.told.append((step, name, pixels))

    def log_page(self, step, name, html) -> None:
        self.told.append((step, name, html()))

    def log_summary(self, values) -> None:
        self.told.append(("summary", dict(values)))

    def log_files(self, pack_files) -> None:
        self.told.append({name: path.read_bytes() for name, path in pack_files().items()})
        assert pack_files() == pack_files()

    def end(self, status) -> None:
        self.told.append(("end", status))


class Clumsy(Fake):
    """Fails at the end."""

    def log_page(self, step, name, html) -> None:
        raise ConnectionError("nobody\nlistens")

    def end(self, status) -> None:
        super().end(status)
        raise OSError("no room")


FIRST, SECOND = (AttentionLayer(at, f"blocks.{at}", 2, Axes()) for at in (0, 1))
CROSS = AttentionLayer(2, "cross", 3, Axes("prefix", "inputs"))


RUN = LoggedRun("run", 1, {"seed": 0}, {"dataset": "mqar"}, None, 40, 2.5)


def mirror(*loggers: Logger, warned: list[str] | None = None) -> RowLogger:
    """Mirror with pages that say of which source and step they are."""
    said = [] if warned is None else warned
    return RowLogger(
        loggers,
        RUN,
        Layers([FIRST, SECOND, CROSS]),
        lambda ps: f"{[(p.source, p.step) for p in ps]}",
        said.append,
    )


def of_csv(path: Path) -> dict[tuple[int, str], float]:
    with open(path) as file:
        return {
            (int(row["step"]), name): float(value)
            for row in csv.DictReader(file)
            for name, value in row.items()
            if name != "step" and value != ""
        }


def of_record(record: Record) -> dict[tuple[int, str], float]:
    values = {
        (row["step"], f"{table}/{name}"): value
        for table in ("train", "validation", "test")
        for row in record.rows(table).to_pylist()
        for name, value in row.items()
        if name != "step"
    }
    values |= of_heads(record)
    result = record.result
    assert result is not None
    values |= {(result.steps, name): v for name, v in result.metrics.items()}
    return values | axes(result, {step for step, _ in values})


def axes(result: RunResult, steps: set[int]) -> dict[tuple[int, str], float]:
    """Tokens up to each step, and three forward passes of each."""
    tokens = {step: step * result.tokens // result.steps for step in steps}
    flops = {step: 3 * result.flops_per_token * tokens[step] for step in steps}
    named = {"tokens": tokens, "flops": flops}
    return {(s, name): value for name, by_step in named.items() for s, value in by_step.items()}


def of_heads(record: Record) -> dict[tuple[int, str], float]:
    """Mean and largest over the heads, of stacks in which a layer has the number of its block."""
    means = {}
    for line in record.rows("heads").to_pylist():
        number = re.search(r"blocks\.(\d+)\.", line["layer"])
        assert number
        name, values = f"heads/{number[1]}/{line['measure']}", line["heads"]
        if isnan(fsum(values)):
            continue
        means[line["step"], name] = fsum(values) / len(values)
        if re.search("previous|duplicate_token|induction|prefix_matching|sink", name):
            means[line["step"], f"{name}_max"] = sorted(values)[-1]
    assert means
    return means


def pictures(record: Record) -> dict[int, np.ndarray]:
    """The grid of the first probe's maps at each recorded step."""
    maps = [p for p in load_patterns(record) if p.layer is not None]
    first = [p for p in maps if p.probe == maps[0].probe]
    return {
        s: draw_pattern_grid([p.weights for p in first if p.step == s])
        for s in {p.step for p in maps}
    }


def require_equal(shown: dict[int, np.ndarray], record: Record) -> None:
    expected = pictures(record)
    assert shown.keys() == expected.keys()
    for step, pixels in shown.items():
        assert np.array_equal(pixels, expected[step]), step
        assert len(np.unique(pixels)) > 10


def of_tensorboard(directory: Path) -> dict[int, np.ndarray]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory), size_guidance={"images": 0}).Reload()
    assert events.Tags()["images"] == ["patterns/grid"]
    return {
        event.step: np.asarray(Image.open(BytesIO(event.encoded_image_string)).convert("L"))
        for event in events.Images("patterns/grid")
    }


def of_wandb(
    path: Path,
) -> tuple[dict[tuple[int, str], float], dict[int, np.ndarray], dict[int, str], dict[str, Any]]:
    """Read scalars by step and name, pictures and pages by step, and the artifact."""
    program = str(Path(sys.executable).with_name("wandb"))
    lines = subprocess.check_output([program, "leet", "inspect", "--json", path], text=True)
    scalars, shown, pages, artifacts = {}, {}, {}, []
    for entry in map(json.loads, lines.splitlines()):
        if entry["type"] == "artifact":
            artifacts.append(entry["artifact"])
        if entry["type"] == "history":
            item = entry["history"]["item"]
            step = item["_step"]
            if "patterns/grid.path" in item:
                with Image.open(path.parent / "files" / item["patterns/grid.path"]) as image:
                    shown[step] = np.asarray(image.convert("L"))
            if "patterns/page.path" in item:
                file = path.parent / "files" / item["patterns/page.path"]
                pages[step] = file.read_text(encoding="utf-8")
            scalars |= {
                (step, name): float(value)
                for name, value in item.items()
                if not name.startswith(("_", "patterns/grid.", "patterns/page."))
            }
    (artifact,) = artifacts
    return scalars, shown, pages, artifact


WORDS = ("callbacks.cadence.test_every=4", "model.num_layers=2")


@pytest.fixture(scope="module")
def mirrored_dir(tmp_path_factory) -> Path:
    """The directory of a run with two loggers."""
    runs_dir = tmp_path_factory.mktemp("mirrored")
    assert child.train(runs_dir, "logger=[csv,tensorboard]", *WORDS) == 0
    return runs_dir


def test_a_mirror_holds_the_rows_of_the_record_and_the_result(mirrored_dir):
    record = child.only_record(mirrored_dir)
    assert of_csv(record.path / "attempts/1/csv/metrics.csv") == of_record(record)
    require_equal(of_tensorboard(record.path / "attempts/1/tensorboard"), record)


def test_a_copy_that_is_sent_later_is_that_of_a_logger_that_followed(mirrored_dir, tmp_path):
    record = child.only_record(mirrored_dir)
    places = [(entry["tool"], entry["place"]) for entry in read_mirrors(record.path)]
    assert places == [("csv", "attempts/1/csv"), ("tensorboard", "attempts/1/tensorboard")]
    live = record.path / "attempts/1"
    selection = select_runs([str(record.path)], None)
    for tool in ("csv", "tensorboard"):
        assert [run.status for run in sync_runs(selection, logger_for(tool))] == ["present"]
        assert [run.status for run in sync_runs(selection, logger_for(tool), tmp_path)] == ["sent"]
    (copy,) = tmp_path.iterdir()
    assert of_csv(copy / "csv/metrics.csv") == of_csv(live / "csv/metrics.csv")
    for name in ("hparams.yaml", "summary.yaml"):
        assert (copy / "csv" / name).read_text() == (live / "csv" / name).read_text()
    assert "model/mixer: multihead" in (copy / "csv/hparams.yaml").read_text()
    assert events(copy / "tensorboard") == events(live / "tensorboard")


def test_what_a_logger_did_not_complete_is_no_copy(mirrored_dir, tmp_path):
    record = child.only_record(mirrored_dir)
    copied = Path(shutil.copytree(record.path, tmp_path / record.name))
    # As where a logger fails at the end.
    (copied / "mirrors.jsonl").unlink()
    (run,) = sync_runs(select_runs([str(copied)], None), logger_for("csv"))
    assert (run.status, read_mirrors(copied)) == ("failed", [])
    says("sync.incomplete", run.reason, copied)


def events(directory: Path) -> set[tuple[int, str, bytes]]:
    """Read all that a TensorBoard has, by step and name."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    (file,) = directory.glob("events.*")
    values = [(e.step, v) for e in EventFileLoader(str(file)).Load() for v in e.summary.value]
    contents = [
        # When a session of hyperparameters began is not what it holds.
        (step, value.tag, b"" if "session" in value.tag else value.tensor.SerializeToString())
        for step, value in values
    ]
    steps = [step for step, name, _ in contents if name == "tokens"]
    assert steps == sorted(set(steps))
    assert len(contents) > 50
    return set(contents)


def test_the_mirror_of_a_resumed_attempt_is_whole(tmp_path):
    fault = "file.name:kill:3"
    assert child.train(tmp_path, "logger=csv", fault=fault) == child.KILLED
    assert child.train(tmp_path, "logger=[csv,tensorboard]") == 0
    record = child.only_record(tmp_path)
    assert of_csv(record.path / "attempts/2/csv/metrics.csv") == of_record(record)
    require_equal(of_tensorboard(record.path / "attempts/2/tensorboard"), record)


@pytest.mark.slow
def test_layers_are_counted_as_by_ablate_and_maps_across_are_drawn(tmp_path):
    words = ("dataset=reversal", "logger=[csv,tensorboard]", "model.num_layers=2")
    assert child.train(tmp_path, *words) == 0
    record = child.only_record(tmp_path)
    layers = attnlab.load(record.path).model.attention_layers()
    paths = [layer.path for layer in layers]
    assert list(record.layers.attention) == layers
    lines = record.rows("heads").to_pylist()
    assert list(dict.fromkeys(line["layer"] for line in lines)) == paths
    logged = of_csv(record.path / "attempts/1/csv/metrics.csv")
    entropies = [line for line in lines if line["measure"] == "entropy"]
    assert len(paths) == 6
    for line in entropies:
        name = f"heads/{paths.index(line['layer'])}/entropy"
        assert logged[line["step"], name] == fsum(line["heads"]) / len(line["heads"])
    shapes = {p.weights.shape[1] == p.weights.shape[2] for p in load_patterns(record)}
    assert shapes == {True, False}
    require_equal(of_tensorboard(record.path / "attempts/1/tensorboard"), record)


def test_loggers_leave_training_and_the_identity_as_they_are(tmp_path, mirrored_dir):
    assert child.train(tmp_path, *WORDS) == 0
    assert child.only_record(tmp_path).name == child.only_record(mirrored_dir).name
    (weights, rows), (others, other_rows) = child.result(mirrored_dir), child.result(tmp_path)
    assert rows == other_rows
    for name, value in weights.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, others[name]), name


def pattern(probe: str, layer: Layer | None, weights: np.ndarray) -> Pattern:
    exact = PatternWeights(weights.astype(np.float32))
    return Pattern(5, probe, layer, ["a", "b"], [0, 1], 1, exact)


def test_the_numbers_of_evidence_are_told_at_their_steps_under_the_names_of_the_result():
    finding = Finding({"right": 0.5, "cut": 0.25}, {"it": NamedHead(HeadRef(0, 1), "points", 0.5)})
    fake = Fake()
    mirror(fake).receive_rows("evidence", evidence_rows(40, "pronoun", finding))
    assert fake.told == [(40, {"pronoun/right": 0.5, "pronoun/cut": 0.25})]


def test_the_picture_is_the_grid_of_the_first_probes_layers():
    maps = [np.random.default_rng(i).dirichlet([1, 1], (3, 2)) for i in range(3)]
    shown = [pattern("one", layer, maps[layer.index]) for layer in (FIRST, SECOND)]
    across = PatternWeights(
        np.random.default_rng(3).dirichlet([1, 1, 1], (3, 2)).astype(np.float32)
    )
    shown.append(Pattern(5, "one", CROSS, ["a", "b", "c"], [0, 1], 1, across, ["d", "e"]))
    others = [pattern("two", FIRST, maps[2]), pattern("one", None, maps[2])]
    rows = [p.to_row() for p in (*shown, *others)]
    fake = Fake()
    mirror(fake).receive_rows("patterns", rows)
    ((step, name, pixels),) = fake.told
    assert (step, name) == (5, "patterns/grid")
    layers = Layers([FIRST, SECOND, CROSS])
    assert np.array_equal(
        pixels, draw_pattern_grid([Pattern.from_row(row, layers).weights for row in rows[:3]])
    )
    assert pixels.max() > 128


def test_a_model_without_maps_sends_no_picture():
    fake = Fake()
    given = pattern("one", None, np.ones((1, 2, 2)) / 2)
    mirror(fake).receive_rows("patterns", [given.to_row()])
    assert fake.told == []


def test_of_the_heads_each_layer_tells_its_mean_and_the_most_of_what_names_them():
    rows = [
        measure_row(4, SECOND, "entropy", [1.0, 2.0]),
        measure_row(4, FIRST, "prefix_matching", [0.25, 0.75]),
        measure_row(4, FIRST, "induction", [float("nan"), float("nan")]),
        measure_row(4, AttentionLayer(0, "gone", 2, Axes()), "entropy", [1.0, 2.0]),
    ]
    expected = {
        "heads/1/entropy": 1.5,
        "heads/0/prefix_matching": 0.5,
        "heads/0/prefix_matching_max": 0.75,
    }
    # Layers go by the numbers that they state, whatever their order.
    assert average_over_heads(rows, Layers([SECOND, FIRST])) == expected
    fake = Fake()
    mirror(fake).receive_rows("heads", rows)
    assert fake.told == [(4, expected)]


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "finished"), (ValueError("x"), "failed"), (Interrupted(3), "interrupted")],
)
def test_a_logger_is_told_how_it_ended_once(tmp_path, error, status):
    fake, attempt = Fake(), Attempt.claim(tmp_path / "run", {"seed": 0})

    def work():
        with mirror(fake).logging_attempt(attempt, Record(tmp_path / "run")):
            if error:
                raise error

    if error:
        with pytest.raises(type(error)):
            work()
    else:
        work()
    files = [] if status == "failed" else [{}]
    assert fake.told == [("start", "1", RUN), *files, ("end", status)]


def begun(path: Path) -> tuple[Attempt, list[Pattern]]:
    """An attempt that recorded two steps of two probes and measured its heads once."""
    attempt, even = Attempt.claim(path, {"seed": 0}), np.ones((2, 2, 2)) / 2
    made = [
        replace(pattern(probe, layer, even), step=step)
        for step in (1, 5)
        for probe in ("one", "two")
        for layer in (FIRST, None)
    ]
    attempt.append("patterns", [p.to_row() for p in made])
    attempt.append("heads", [measure_row(5, FIRST, "entropy", [1.0, 2.0])])
    return attempt, made


def test_at_the_end_come_a_page_of_the_last_patterns_and_the_files(tmp_path):
    fake = Fake()
    attempt, made = begun(tmp_path / "run")
    mirrored = mirror(fake)
    with mirrored.logging_attempt(attempt, Record(tmp_path / "other")):
        mirrored.receive_rows("patterns", [p.to_row() for p in made])
        mirrored.log_scalars(7, {"test/loss": 1.0})
    page, files, _ = fake.told[-3:]
    assert page == (7, "patterns/page", "[('blocks.0.pattern', 5), ('influence', 5)]")
    assert files == {
        name: (attempt.path / name).read_bytes() for name in ("patterns.arrow", "heads.arrow")
    }


def test_the_files_and_the_page_of_a_resumed_attempt_are_whole(tmp_path):
    first, _ = begun(tmp_path / "run")
    first.close()
    origin = {"attempt": 1, "step": 1, "sha256": ""}
    attempt = Attempt.claim(tmp_path / "run", {"seed": 0}, origin)
    record, fake = Record(tmp_path / "run"), Fake()
    other = Fake()
    with mirror(fake, other).logging_attempt(attempt, record):
        attempt.append("heads", [measure_row(9, FIRST, "entropy", [1.0, 3.0])])
    page, files, _ = fake.told[-3:]
    assert other.told == fake.told
    assert page == (1, "patterns/page", "[('blocks.0.pattern', 1), ('influence', 1)]")
    for name, steps in (("patterns", [1, 1, 1, 1]), ("heads", [9])):
        table = pa.ipc.open_stream(files[f"{name}.arrow"]).read_all()
        assert table.equals(record.rows(name))
        assert table["step"].to_pylist() == steps


def test_a_logger_that_fails_at_the_end_fails_nothing(tmp_path):
    clumsy, fake, warned = Clumsy(), Fake(), []
    attempt, made = begun(tmp_path / "run")
    mirrored = mirror(clumsy, fake, warned=warned)
    with mirrored.logging_attempt(attempt, Record(tmp_path / "other")):
        mirrored.receive_rows("patterns", [p.to_row() for p in made])
    assert clumsy.told[-1] == fake.told[-1] == ("end", "finished")
    says("callbacks.clumsy_logger", "\n".join(warned))
    assert "ConnectionError: nobody" in (attempt.path / "run.log").read_text()


def test_a_logger_that_ends_well_leaves_the_line_of_its_copy(tmp_path):
    class Online(Fake):
        tool = "wandb"

        @property
        def destination(self) -> str:
            return "mine"

        @property
        def is_online(self) -> bool:
            return True

    class Failing(Clumsy):
        tool = "csv"

    class Nameless(Fake):
        tool = None

    attempt, record = Attempt.claim(tmp_path / "run", {"seed": 0}), Record(tmp_path / "run")
    with mirror(Online(), Failing(), Nameless()).logging_attempt(attempt, record):
        pass
    lines = [(m["tool"], m["place"], m["project"], m["run_id"]) for m in read_mirrors(record.path)]
    assert lines == [
        ("wandb", "attempts/1/wandb", "mine", "run-1"),
        ("wandb", "online", "mine", "run-1"),
    ]
    attempt = Attempt.claim(tmp_path / "run", {"seed": 0})
    with pytest.raises(Interrupted), mirror(Online()).logging_attempt(attempt, record):
        raise Interrupted(1)
    assert len(read_mirrors(record.path)) == 2


@pytest.mark.slow
def test_wandb_holds_the_record_after_a_run_from_the_command_line(tmp_path):
    words = ["train", *child.TINY, "model.num_layers=2", "dataset=pronoun", "logger=wandb"]
    command = [sys.executable, "-m", "attnlab.cli", *words, f"runs_dir={tmp_path}"]
    done = subprocess.run(
        command, cwd=tmp_path, env=alone(tmp_path), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    record = child.only_record(tmp_path)
    (file,) = record.path.glob("attempts/1/wandb/*/*.wandb")
    logged, shown, pages, artifact = of_wandb(file)
    assert record.result is not None
    assert logged == of_record(record) | axes(record.result, {*shown, *pages})
    require_equal(shown, record)
    assert pages.keys() == {9}
    require_alone(pages[9], load_patterns(record)[0].tokens)
    assert artifact["name"] == f"{record.name}-patterns"
    digests = {entry["path"]: entry["digest"] for entry in artifact["manifest"]["contents"]}
    assert {name: b64decode(digest) for name, digest in digests.items()} == {
        name: hashlib.md5((record.path / "attempts/1" / name).read_bytes()).digest()
        for name in ("patterns.arrow", "heads.arrow")
    }


def require_alone(page: str, tokens: Sequence[str]) -> None:
    """Say that a page shows tokens and asks nobody for anything."""
    assert all(f'"{token}"' in page or f">{token}<" in page for token in tokens)
    assert "default-src 'none'" in html.unescape(page)
    assert not re.search(r"<script[^>]+src", page)
    markup = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "http" not in markup.replace("http-equiv", "")
