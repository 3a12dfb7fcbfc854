"""What leaves attnlab as a table or as files is what a model would be asked, example by example."""

import json
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from attnlab.dataset import export as module
from attnlab.dataset.base import Task
from attnlab.dataset.export import (
    ExportOrigin,
    column_features,
    example_columns,
    export,
    split_sizes,
    to_hub_dataset,
)
from attnlab.dataset.mqar import MQAR
from attnlab.dataset.pronoun import Pronoun
from attnlab.dataset.reversal import Reversal
from attnlab.split import IGNORE, ExampleArrays
from tests.dataset.asked import assert_row
from tests.dataset.stated import build
from tests.prose import refuses
from tests.refused_calls import refused_calls

SMALL: dict[str, Any] = {"num_train": 30, "num_validation": 5, "num_test": 8}


class Sides(Task):
    """Names at some places whether the token there is small; lengths vary, and 0 is padding."""

    tokens, classes, max_length, chance = ["<pad>", *"abcdef"], ["small", "large"], 7, 0.5

    def draw_examples(self, generator: np.random.Generator, n: int, split: str) -> ExampleArrays:
        valid = np.arange(7) < generator.integers(3, 8, size=(n, 1))
        inputs = np.where(valid, generator.integers(1, 7, size=(n, 7)), 0).astype(np.int32)
        at = np.argsort(generator.random((n, 3)), axis=1).astype(np.int32)
        targets = (np.take_along_axis(inputs, at, axis=1) > 3).astype(np.int32)
        # The last label of some examples is not asked, though its place may be another's.
        targets[::2, 2], at[::2, 2] = IGNORE, at[::2, 0]
        return ExampleArrays(inputs, targets, at, valid)


class Said(Sides):
    """The same, but what is named is a token."""

    classes = None


TASKS = [
    lambda: MQAR(num_pairs=3, length=20, **SMALL),
    lambda: Pronoun(**SMALL),
    lambda: Reversal(**SMALL),
    lambda: Sides(30, 5, 8, 0),
    lambda: Said(30, 5, 8, 0),
]


@pytest.mark.parametrize("name", ["pydocs", "mixture"])
def test_a_text_and_a_mixture_have_the_columns_of_what_a_model_is_asked(name):
    """tests/dataset/test_tasks.py has this law for each task."""
    data = build(name)
    batch = data.splits["validation"][:5]
    row_table = example_columns(data, batch)
    types = column_features(data).arrow_schema
    assert {name: column.type for name, column in row_table.items()} == {
        f.name: f.type for f in types
    }
    for number in range(len(batch.inputs)):
        row = {name: column[number].as_py() for name, column in row_table.items()}
        assert_row(data, batch, number, row)


@pytest.mark.parametrize("make", TASKS)
def test_a_table_has_every_example_of_the_split(make):
    data = make()
    for split, examples in data.splits.items():
        rows = to_hub_dataset(data, split)
        assert isinstance(rows, datasets.Dataset)
        assert rows.split == split
        assert len(rows) == len(examples)
        for number in range(len(rows)):
            assert_row(data, examples[:], number, rows[number])


def test_a_table_knows_its_classes_and_becomes_tensors():
    data = Pronoun(**SMALL)
    rows = to_hub_dataset(data, "test")
    label = rows.features["label"]
    assert label.names == data.classes
    assert data.classes is not None
    assert data.classes[rows[:1]["label"][0]] in data.show("test", 0)
    tensors = to_hub_dataset(MQAR(**SMALL), "test").with_format("torch")[:8]
    assert tensors["inputs"].shape == tensors["targets"].shape == (8, 64)
    assert tensors["inputs"].dtype == torch.int64


def test_several_classes_are_lists_of_a_class_and_its_place():
    data = Sides(30, 5, 8, 0)
    examples = to_hub_dataset(data, "train")
    assert examples.features["label"] == datasets.List(
        datasets.ClassLabel(names=["small", "large"])
    )
    rows = examples.to_list()
    assert {len(row["label"]) for row in rows} == {2, 3}
    for row in rows:
        sides = [int(row["inputs"][at] > 3) for at in row["at"]]
        assert sides == row["label"]


def test_a_split_draws_batches_and_single_examples_in_the_same_order():
    split = MQAR(**SMALL).splits["train"]
    inputs = torch.cat([batch.inputs for batch in split.batches(7)])
    assert torch.equal(inputs, split[:].inputs)
    assert torch.equal(split[:8].inputs, inputs[:8])
    assert torch.equal(split[-1].inputs, inputs[-1:])


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize("make", TASKS)
def test_files_load_as_the_same_tables_by_the_card_alone(tmp_path, make, kind):
    data = make()
    export(data, tmp_path / "made", kind)
    loaded = datasets.load_dataset(str(tmp_path / "made"), cache_dir=str(tmp_path / "cache"))
    assert isinstance(loaded, datasets.DatasetDict)
    assert list(loaded) == ["train", "validation", "test"]
    for split in data.splits:
        expected = to_hub_dataset(data, split)
        assert loaded[split].features == expected.features
        assert loaded[split][:] == expected[:]
    names = json.loads((tmp_path / "made/vocabulary.json").read_text())
    assert names == {"tokens": data.tokens, "classes": data.classes}


def test_windows_of_a_text_leave_as_they_are_asked(tmp_path):
    data = build("text", length=100)
    export(data, tmp_path / "made")
    rows = pq.read_table(tmp_path / "made/test.parquet").to_pylist()
    assert len(rows) == len(data.splits["test"])
    assert {len(row["inputs"]) for row in rows} == {len(rows[0]["targets"])} == {100}
    assert rows[-1]["targets"][0] == IGNORE
    assert rows[0]["targets"][:-1] == rows[0]["inputs"][1:]


def test_tests_of_other_lengths_come_last(tmp_path):
    class Longer(Sides):
        def __init__(self) -> None:
            super().__init__(30, 5, 8, 0, (3, 7), (9, 12))

    data = Longer()
    assert list(split_sizes(data)) == ["train", "validation", "test", "test_9", "test_12"]
    export(data, tmp_path / "made", "jsonl")
    assert {path.stem for path in tmp_path.glob("made/*.jsonl")} == set(data.splits)


def test_small_pieces_make_the_same_table(tmp_path, monkeypatch):
    data = MQAR(**SMALL)
    rows = to_hub_dataset(data, "train")[:]
    monkeypatch.setattr(module, "PIECE", 7 * 64)
    assert to_hub_dataset(data, "train")[:] == rows
    export(data, tmp_path / "made")
    file = pq.ParquetFile(tmp_path / "made/train.parquet")
    groups = [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)]
    assert groups == [7, 7, 7, 7, 2]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_the_same_data_make_the_same_bytes(tmp_path, kind):
    for name in ("one", "other"):
        export(Reversal(**SMALL), tmp_path / name, kind)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()


def test_the_card_says_what_the_data_are(tmp_path):
    data = Pronoun(**SMALL)
    origin = ExportOrigin("mine", "What it is.", {"held": 0.25}, "attnlab data export mine -o x")
    export(data, tmp_path / "made", origin=origin)
    card = (tmp_path / "made/README.md").read_text()
    assert data.classes is not None
    about = yaml.safe_load(card.split("---")[1])
    label = {feature["name"]: feature for feature in about["dataset_info"]["features"]}["label"]
    assert list(label["dtype"]["class_label"]["names"].values()) == data.classes
    given = ("mine", "What it is.", "`held`", "`0.25`", "attnlab data export mine -o x")
    (summary, *_) = (Pronoun.__doc__ or "").splitlines()
    numbers = (len(data.tokens), len(data.classes), data.chance)
    for text in (*given, summary, data.data_hash, *map(str, numbers), "| train | 30 |"):
        assert text in card
    export(MQAR(**SMALL), tmp_path / "plain")
    plain = (tmp_path / "plain/README.md").read_text()
    assert "# MQAR\n" in plain
    assert "## Knobs" in card
    assert "## Knobs" not in plain


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_what_stops_in_between_leaves_nothing(tmp_path, monkeypatch, stop):
    def broken(data, split, file):
        file.write(b"half")
        if split == "validation":
            raise stop

    monkeypatch.setitem(module.WRITERS, "parquet", broken)
    with pytest.raises(stop):
        export(MQAR(**SMALL), tmp_path / "made")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_holds_something_is_left_as_it_is(tmp_path):
    data = Reversal(**SMALL)
    (tmp_path / "made").mkdir()
    export(data, tmp_path / "made")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    file = tmp_path / "made/README.md"
    refused_calls(
        "dataset.export.{}",
        {
            "not_empty": lambda: export(data, tmp_path / "made"),
            "file": lambda: export(data, file),
            "below_a_file": lambda: export(data, file / "below"),
            "unknown_kind": lambda: export(data, tmp_path / "other", "csv"),
        },
        tmp_path,
    )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before
    export(data, tmp_path / "deep/below")
    assert (tmp_path / "deep/below/test.parquet").exists()
    assert (tmp_path / "deep/below").stat().st_mode == tmp_path.joinpath("deep").stat().st_mode


def test_a_place_that_is_filled_meanwhile_is_left_as_it_is(tmp_path, monkeypatch):
    def other(data, split, file):
        (tmp_path / "made").mkdir(exist_ok=True)
        (tmp_path / "made/theirs").write_text("theirs")

    monkeypatch.setitem(module.WRITERS, "parquet", other)
    with refuses(ValueError, "dataset.export.filled_meanwhile", tmp_path):
        export(Reversal(**SMALL), tmp_path / "made")
    assert [path.name for path in tmp_path.rglob("*")] == ["made", "theirs"]
