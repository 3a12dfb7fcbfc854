"""What a logger is told is what the record holds, also by an attempt that was resumed."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attnlab.callbacks.mirror import Mirror
from attnlab.callbacks.timekeeper import Interrupted
from attnlab.figures.grid import grid
from attnlab.logger.base import Logger
from attnlab.runs.attempt import Attempt
from attnlab.runs.patterns import Pattern, recorded
from attnlab.runs.record import Record
from tests import child
from tests.test_logger import alone


class Fake(Logger):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told = []

    def start(self, directory, name, config) -> None:
        self.told.append(("start", directory.name, name, dict(config)))

    def scalars(self, step, values) -> None:
        self.told.append((step, dict(values)))

    def picture(self, step, name, pixels) -> None:
        self.told.append((step, name, pixels))

    def end(self, status) -> None:
        self.told.append(("end", status))


def of_csv(path: Path) -> dict[tuple[int, str], float]:
    with open(path) as file:
        return {
            (int(row["step"]), name): float(value)
            for row in csv.DictReader(file)
            for name, value in row.items()
            if name != "step" and value != ""
        }


def of_record(record: Record) -> dict[tuple[int, str], float]:
    found = {
        (row["step"], f"{table}/{name}"): value
        for table in ("train", "validation", "test")
        for row in record.rows(table).to_pylist()
        for name, value in row.items()
        if name != "step"
    }
    result = record.result
    assert result is not None
    return found | {(result["steps"], name): v for name, v in result["metrics"].items()}


def of_wandb(path: Path) -> tuple[dict[tuple[int, str], float], dict[int, str]]:
    """Read scalars by step and name, and the file of each step's picture."""
    program = str(Path(sys.executable).with_name("wandb"))
    lines = subprocess.check_output([program, "leet", "inspect", "--json", path], text=True)
    scalars, pictures = {}, {}
    for entry in map(json.loads, lines.splitlines()):
        if entry["type"] == "history":
            item = entry["history"]["item"]
            pictures[item["_step"]] = item.get("patterns/tired.path")
            scalars |= {
                (item["_step"], name): float(value)
                for name, value in item.items()
                if not name.startswith(("_", "patterns/"))
            }
    return scalars, pictures


def test_a_mirror_holds_the_rows_of_the_record_and_the_result(tmp_path):
    assert child.train(tmp_path, "logger=csv", "callbacks.clock.test_every=4") == 0
    record = child.only_record(tmp_path)
    assert of_csv(record.path / "attempts/1/csv/metrics.csv") == of_record(record)


def test_the_mirror_of_a_resumed_attempt_is_whole(tmp_path):
    fault = "file.name:kill:3"
    assert child.train(tmp_path, "logger=csv", fault=fault) == child.KILLED
    assert child.train(tmp_path, "logger=csv") == 0
    record = child.only_record(tmp_path)
    assert of_csv(record.path / "attempts/2/csv/metrics.csv") == of_record(record)


@pytest.mark.parametrize("logger", ["csv", "tensorboard"])
def test_a_logger_leaves_training_and_the_identity_as_they_are(tmp_path, logger):
    assert child.train(tmp_path / "with", f"logger={logger}") == 0
    assert child.train(tmp_path / "without") == 0
    names = [child.only_record(tmp_path / side).name for side in ("with", "without")]
    assert names[0] == names[1]
    (weights, rows), (others, other_rows) = (
        child.result(tmp_path / side) for side in ("with", "without")
    )
    assert rows == other_rows
    for name, value in weights.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, others[name]), name


def pattern(probe: str, source: str, weights: np.ndarray) -> Pattern:
    return Pattern(5, probe, source, ["a", "b"], [0, 1], 1, weights.astype(np.float32))


def test_the_picture_is_the_grid_of_the_first_probes_layers():
    maps = [np.random.default_rng(i).dirichlet([1, 1], (3, 2)) for i in range(3)]
    shown = [pattern("one", f"blocks.{i}.pattern", maps[i]) for i in (0, 1)]
    others = [pattern("two", "blocks.0.pattern", maps[2]), pattern("one", "influence", maps[2])]
    fake = Fake()
    Mirror([fake]).saw([*shown, *others])
    ((step, name, pixels),) = fake.told
    assert (step, name) == (5, "patterns/one")
    assert np.array_equal(pixels, grid([p.weights for p in shown]))
    assert pixels.max() > 128


def test_a_model_without_maps_sends_no_picture():
    fake = Fake()
    Mirror([fake]).saw([pattern("one", "influence", np.ones((1, 1, 2)) / 2)])
    assert fake.told == []


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "finished"), (ValueError("x"), "failed"), (Interrupted(3), "interrupted")],
)
def test_a_logger_is_told_how_it_ended_once(tmp_path, error, status):
    fake, attempt = Fake(), Attempt.claim(tmp_path / "run", {"seed": 0})

    def work():
        with Mirror([fake]).following(attempt, Record(tmp_path / "run"), {"seed": 0}):
            if error:
                raise error

    if error:
        with pytest.raises(type(error)):
            work()
    else:
        work()
    assert fake.told == [("start", "1", "run", {"seed": 0}), ("end", status)]


@pytest.mark.slow
def test_wandb_holds_the_record_after_a_run_from_the_command_line(tmp_path):
    words = ["train", *child.TINY, "dataset=pronoun", "logger=wandb", f"runs_dir={tmp_path}"]
    command = [sys.executable, "-m", "attnlab.cli", *words]
    done = subprocess.run(
        command, cwd=tmp_path, env=alone(tmp_path), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    record = child.only_record(tmp_path)
    (file,) = record.path.glob("attempts/1/wandb/*/*.wandb")
    told, pictures = of_wandb(file)
    assert told == of_record(record)
    maps = recorded(record, probe="tired")
    for step in (0, 1, 2, 3, 6, 9):
        expected = grid([p.weights for p in maps if p.step == step and p.source != "influence"])
        with Image.open(file.parent / "files" / pictures[step]) as image:
            pixels = np.asarray(image.convert("L"))
        assert pixels.shape == expected.shape
        # The record holds the weights as bytes of their roots; the picture was drawn before that.
        assert np.abs(pixels.astype(int) - expected).max() <= 2
        assert pixels.max() > 0
