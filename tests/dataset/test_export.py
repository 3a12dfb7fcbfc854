"""What leaves attnlab as a table or as files is what a model would be asked, example by example."""

import json
import subprocess
import sys
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from attnlab.assemble import Experiment
from attnlab.config import conf_dir
from attnlab.dataset import export as module
from attnlab.dataset.base import Dataset, Task
from attnlab.dataset.export import Origin, columns, export, features, sizes, table
from attnlab.dataset.mqar import MQAR
from attnlab.dataset.pronoun import Pronoun
from attnlab.dataset.reversal import Reversal
from attnlab.split import IGNORE, Batch, Rows
from tests.choices import choices, dataset_words, marked

SMALL: dict[str, Any] = {"num_train": 30, "num_validation": 5, "num_test": 8}


class Sides(Task):
    """Names at some places whether the token there is small; lengths vary, and 0 is padding."""

    tokens, classes, max_length, chance = ["<pad>", *"abcdef"], ["small", "large"], 7, 0.5

    def rows(self, generator: np.random.Generator, n: int, split: str) -> Rows:
        valid = np.arange(7) < generator.integers(3, 8, size=(n, 1))
        inputs = np.where(valid, generator.integers(1, 7, size=(n, 7)), 0).astype(np.int32)
        at = np.argsort(generator.random((n, 3)), axis=1).astype(np.int32)
        targets = (np.take_along_axis(inputs, at, axis=1) > 3).astype(np.int32)
        # The last label of some examples is not asked, though its place may be another's.
        targets[::2, 2], at[::2, 2] = IGNORE, at[::2, 0]
        return Rows(inputs, targets, at, valid)


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


def asked(batch: Batch, row: int) -> list[tuple[int, int]]:
    """List (place, label) of one example."""
    targets = batch.targets[row].tolist()
    at = list(range(len(targets))) if batch.at is None else batch.at[row].tolist()
    return sorted((p, t) for p, t in zip(at, targets, strict=True) if t != IGNORE)


def assert_row(data: Dataset, batch: Batch, number: int, row: dict[str, Any]) -> None:
    """Hold a row of a table against the batch that a model is asked from."""
    valid = [True] * batch.inputs.shape[1] if batch.valid is None else batch.valid[number].tolist()
    inputs = [t for t, v in zip(batch.inputs[number].tolist(), valid, strict=True) if v]
    assert row["inputs"] == inputs
    expected = asked(batch, number)
    if data.answer_length is not None:
        assert list(enumerate(row["targets"])) == expected
        assert set(row) == {"inputs", "targets"}
    elif data.classes is None:
        assert len(row["targets"]) == len(inputs)
        found = [(place, t) for place, t in enumerate(row["targets"]) if t != -100]
        assert found == expected
        assert set(row) == {"inputs", "targets"}
    elif isinstance(row["label"], list):
        assert sorted(zip(row["at"], row["label"], strict=True)) == expected
    else:
        assert [(row["at"], row["label"])] == expected


def reads(name: str) -> bool:
    """Whether a dataset is read from files, as its YAML or one that it builds on says."""
    text = (conf_dir() / f"dataset/{name}.yaml").read_text()
    below = [d for d in yaml.safe_load(text).get("defaults", []) if isinstance(d, str)]
    return "\n  path:" in text or any(reads(one) for one in below if one != "_self_")


FAST = ("mqar", "parity", "reversal", "pydocs", "mixture", "cumulative_parity")


@pytest.mark.parametrize(
    "name", [marked(name, FAST) for name in choices("dataset") if not reads(name)]
)
def test_every_dataset_without_files_has_the_columns_of_what_a_model_is_asked(composed, name):
    data = Experiment(composed(f"dataset={name}")).dataset
    # The other splits take longer to draw.
    data.split_names = (data.reported,)
    batch = data.splits[data.reported][:5]
    found = columns(data, batch)
    types = features(data).arrow_schema
    assert {name: column.type for name, column in found.items()} == {f.name: f.type for f in types}
    for number in range(len(batch.inputs)):
        row = {name: column[number].as_py() for name, column in found.items()}
        assert_row(data, batch, number, row)


@pytest.mark.parametrize("make", TASKS)
def test_a_table_has_every_example_of_the_split(make):
    data = make()
    for split, examples in data.splits.items():
        made = table(data, split)
        assert isinstance(made, datasets.Dataset)
        assert made.split == split
        assert len(made) == len(examples)
        for number in range(len(made)):
            assert_row(data, examples[:], number, made[number])


def test_a_table_knows_its_classes_and_becomes_tensors():
    data = Pronoun(**SMALL)
    made = table(data, "test")
    label = made.features["label"]
    assert label.names == data.classes
    assert data.classes is not None
    assert data.classes[made[:1]["label"][0]] in data.show("test", 0)
    tensors = table(MQAR(**SMALL), "test").with_format("torch")[:8]
    assert tensors["inputs"].shape == tensors["targets"].shape == (8, 64)
    assert tensors["inputs"].dtype == torch.int64


def test_several_classes_are_lists_of_a_class_and_its_place():
    data = Sides(30, 5, 8, 0)
    made = table(data, "train")
    assert made.features["label"] == datasets.List(datasets.ClassLabel(names=["small", "large"]))
    rows = made.to_list()
    assert {len(row["label"]) for row in rows} == {2, 3}
    for row in rows:
        sides = [int(row["inputs"][at] > 3) for at in row["at"]]
        assert sides == row["label"]


def test_a_split_draws_batches_and_single_examples_in_the_same_order():
    split = MQAR(**SMALL).splits["train"]
    whole = torch.cat([batch.inputs for batch in split.batches(7)])
    assert torch.equal(whole, split[:].inputs)
    assert torch.equal(split[:8].inputs, whole[:8])
    assert torch.equal(split[-1].inputs, whole[-1:])


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize("make", TASKS)
def test_files_load_as_the_same_tables_by_the_card_alone(tmp_path, make, kind):
    data = make()
    export(data, tmp_path / "made", kind)
    loaded = datasets.load_dataset(str(tmp_path / "made"), cache_dir=str(tmp_path / "cache"))
    assert isinstance(loaded, datasets.DatasetDict)
    assert list(loaded) == ["train", "validation", "test"]
    for split in data.splits:
        expected = table(data, split)
        assert loaded[split].features == expected.features
        assert loaded[split][:] == expected[:]
    names = json.loads((tmp_path / "made/vocabulary.json").read_text())
    assert names == {"tokens": data.tokens, "classes": data.classes}


def test_windows_of_a_text_leave_as_they_are_asked(tmp_path, composed):
    words = [*dataset_words("text"), "dataset.length=100"]
    data = Experiment(composed(*words)).dataset
    export(data, tmp_path / "made")
    made = pq.read_table(tmp_path / "made/test.parquet").to_pylist()
    assert len(made) == len(data.splits["test"])
    assert {len(row["inputs"]) for row in made} == {len(made[0]["targets"])} == {100}
    assert made[-1]["targets"][0] == IGNORE
    assert made[0]["targets"][:-1] == made[0]["inputs"][1:]


def test_tests_of_other_lengths_come_last(tmp_path):
    class Longer(Sides):
        def __init__(self) -> None:
            super().__init__(30, 5, 8, 0, (3, 7), (9, 12))

    data = Longer()
    assert list(sizes(data)) == ["train", "validation", "test", "test_9", "test_12"]
    export(data, tmp_path / "made", "jsonl")
    assert {path.stem for path in tmp_path.glob("made/*.jsonl")} == set(data.splits)


def test_small_pieces_make_the_same_table(tmp_path, monkeypatch):
    data = MQAR(**SMALL)
    whole = table(data, "train")[:]
    monkeypatch.setattr(module, "PIECE", 7 * 64)
    assert table(data, "train")[:] == whole
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
    origin = Origin("mine", "What it is.", {"held": 0.25}, "attnlab data export mine -o x")
    export(data, tmp_path / "made", origin=origin)
    card = (tmp_path / "made/README.md").read_text()
    for words in (
        *("# mine\n", "What it is.", "Names the noun that", data.data_hash, "142 tokens"),
        *("60 classes", "| train | 30 | train.parquet |", "| `held` | `0.25` |", "chance 0.5"),
        *("attnlab data export mine -o x", "load_dataset", "| `label` | `int64` | the class |"),
    ):
        assert words in card
    export(MQAR(**SMALL), tmp_path / "plain")
    plain = (tmp_path / "plain/README.md").read_text()
    assert "# MQAR\n" in plain
    assert "## Knobs" not in plain
    assert "| `targets` | `list<int32>` |" in plain


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
    with pytest.raises(ValueError, match="is not empty; delete it, or name another"):
        export(data, tmp_path / "made")
    file = tmp_path / "made/README.md"
    for place in (file, file / "below"):
        with pytest.raises(ValueError, match=r"README.md is no directory"):
            export(data, place)
    with pytest.raises(ValueError, match="kind=csv must be one of parquet, jsonl"):
        export(data, tmp_path / "other", "csv")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before
    export(data, tmp_path / "deep/below")
    assert (tmp_path / "deep/below/test.parquet").exists()
    assert (tmp_path / "deep/below").stat().st_mode == tmp_path.joinpath("deep").stat().st_mode


def test_a_place_that_is_filled_meanwhile_is_left_as_it_is(tmp_path, monkeypatch):
    def other(data, split, file):
        (tmp_path / "made").mkdir(exist_ok=True)
        (tmp_path / "made/theirs").write_text("theirs")

    monkeypatch.setitem(module.WRITERS, "parquet", other)
    with pytest.raises(ValueError, match="is not empty"):
        export(Reversal(**SMALL), tmp_path / "made")
    assert [path.name for path in tmp_path.rglob("*")] == ["made", "theirs"]


def test_the_libraries_of_tables_are_loaded_only_for_tables():
    script = (
        "import sys, attnlab.dataset.export; "
        "sys.exit(' '.join({'datasets', 'pyarrow', 'pandas'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
