"""A pair of sentences is read as it stands in its files, and what is left out is counted."""

import csv
import gzip
import json
from typing import Any

import numpy as np
import pytest

from attnlab.dataset.translation import Translation
from attnlab.experiment import Experiment
from attnlab.split import IGNORE
from tests.corpus.real import SMALL, real
from tests.prose import refuses
from tests.refused_calls import refused_calls

FILES = {"train": "train", "validation": "val", "test": "test"}
PAIRS = {
    "train": [("Ein Hund läuft.", "A dog runs."), ("Zwei Hunde", "Two dogs"), ("", "nothing")],
    "val": [("Ein Hund", "A dog"), ("Ein Hund läuft, ein Hund", "A dog runs, a dog")],
    "test": [("Zwei Hunde", "Two dogs don't")],
}


@pytest.fixture
def directory(tmp_path):
    for name, pairs in PAIRS.items():
        for side, language in enumerate(("de", "en")):
            text = "".join(f"{pair[side]}\n" for pair in pairs)
            (tmp_path / f"{name}.{language}").write_text(text)
    return tmp_path


def make(directory, **knobs) -> Translation:
    return Translation(path=str(directory), files=FILES, **knobs)


def test_words_are_numbered_by_how_often_training_has_them(directory):
    dataset = make(directory)
    assert dataset.tokens[:3] == ["<pad>", "<unk>", "<end>"]
    assert sorted(dataset.tokens[3:]) == sorted(["ein", "hund", "läuft", ".", "a", "dog", "runs"])
    assert dataset.tokens[3] == "."
    batch = dataset.splits["validation"][:]
    assert dataset.show("validation", 0) == "ein hund\nanswer: a dog <end>"
    assert dataset.show("validation", 1) == (
        "ein hund läuft <unk> ein hund\nanswer: a dog runs <unk> a dog <end>"
    )
    assert batch.valid is not None
    assert batch.valid.sum(dim=1).tolist() == [2, 6]
    assert (batch.targets != IGNORE).sum(dim=1).tolist() == [3, 7]
    assert dataset.slices(batch)["length"].tolist() == [0, 0]
    assert dataset.tokenize("Don't stop-and-go!") == ["don't", "stop-and-go", "!"]


def test_what_is_left_out_is_counted(directory):
    dataset = make(directory, length=5)
    # A source that the test holds, and an empty one; six tokens where five fit.
    assert dataset.left_out == {"test": 0, "validation": 1, "train": 2}
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "test": 1,
        "validation": 1,
        "train": 1,
    }
    assert dataset.notes == [
        "validation: 1 of 2 pairs are left out (longer than length=5: 1)",
        "train: 2 of 3 pairs are left out (in an earlier split: 1; with an empty side: 1)",
    ]
    with refuses(ValueError, "dataset.translation.short", directory):
        make(directory, length=1)


def test_rare_words_are_unknown(directory):
    assert make(directory, min_count=2).tokens == ["<pad>", "<unk>", "<end>", "."]


def test_packed_files_and_kept_rows_are_the_same_data(directory, monkeypatch, tmp_path):
    dataset = make(directory)
    of_kept_rows = Translation(path=None, files=FILES, sha256=dataset.sha256)
    assert of_kept_rows.data_hash == dataset.data_hash
    assert dataset.content_identity == {"path": None, "obtain": None, "sha256": dataset.sha256}
    for file in directory.glob("*.*"):
        if file.is_file():
            (directory / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    assert make(directory).data_hash == dataset.data_hash
    monkeypatch.setenv("ATTNLAB_CACHE", str(tmp_path / "empty"))
    with refuses(ValueError, "dataset.translation.not_kept"):
        Translation(path=None, files=FILES, sha256=dataset.sha256, obtain="it by hand")


def test_columns_of_the_hub_are_read_as_files_are(directory, monkeypatch, tmp_path):
    import datasets

    tables = datasets.DatasetDict(
        {
            split: datasets.Dataset.from_dict(
                {"de": [p[0] for p in PAIRS[name]], "en": [p[1] for p in PAIRS[name]]}
            )
            for split, name in FILES.items()
        }
    )
    monkeypatch.setattr("attnlab.corpus.hub._hub_answers", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: tables)
    hub = Translation(path="hub:some/pairs", files=FILES)
    assert hub.sha256 == make(directory).sha256
    more = {**FILES, "test_2": "other"}
    refused_calls(
        "dataset.translation.{}",
        {
            "hub_without_column": lambda: Translation(
                path="hub:some/pairs", files=FILES, languages=["fr", "en"]
            ),
            "hub_without_split": lambda: Translation(path="hub:some/pairs", files=more),
        },
    )


def test_pairs_in_one_column_of_the_hub_are_read(directory, monkeypatch):
    import datasets

    pairs: dict[str, list[Any]] = {
        split: [{"translation": {"de": de, "en": en}} for de, en in PAIRS[name]]
        for split, name in FILES.items()
    }
    pairs["train"] += [{"translation": {"de": "Hund", "en": None}}, {"translation": None}]

    def tables() -> datasets.DatasetDict:
        return datasets.DatasetDict({s: datasets.Dataset.from_list(p) for s, p in pairs.items()})

    monkeypatch.setattr("attnlab.corpus.hub._hub_answers", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: tables())
    hub, of_files = Translation(path="hub:some/pairs", files=FILES), make(directory)
    assert (hub.pairs, hub.tokens) == (of_files.pairs, of_files.tokens)
    # What is missing is no word.
    assert hub.left_out["train"] == of_files.left_out["train"] + 2
    pairs["train"] = [{"translation": "Hund"}]
    with refuses(ValueError, "dataset.translation.hub_no_pair"):
        Translation(path="hub:some/pairs", files=FILES)
    pairs["train"] = [{"translation": {"de": 1, "en": "one"}}]
    with refuses(ValueError, "dataset.translation.hub_number"):
        Translation(path="hub:some/pairs", files=FILES)


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "saved", "csv"])
def test_nested_columns_of_tables_are_read_as_files_are(directory, tmp_path, kind):
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = tmp_path / "tables"
    place.mkdir()
    splits = {
        split: [{"translation": {"de": de, "en": en}} for de, en in PAIRS[name]]
        for split, name in FILES.items()
    }
    for split, rows in splits.items():
        if kind == "jsonl":
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (place / f"{split}.jsonl").write_text(text)
        elif kind == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), place / f"{split}-00000.parquet")
        elif kind == "csv":
            with (place / f"{split}.csv").open("w", newline="") as file:
                pairs = [row["translation"] for row in rows]
                csv.writer(file).writerows([["de", "en"], *(pair.values() for pair in pairs)])
    if kind == "saved":
        tables = {split: datasets.Dataset.from_list(rows) for split, rows in splits.items()}
        datasets.DatasetDict(list(tables.items())).save_to_disk(place)
    of_tables = Translation(path=str(place))
    assert of_tables.sha256 == make(directory).sha256
    assert of_tables.pairs == make(directory).pairs


def test_one_table_is_split_by_the_hash_of_its_sources(tmp_path):
    rows = [{"translation": {"de": f"satz {n}", "en": f"sentence {n}"}} for n in range(80)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = Translation(path=str(path))
    sources = {split: {pair[0] for pair in pairs} for split, pairs in dataset.pairs.items()}
    assert sum(map(len, sources.values())) == len(set.union(*sources.values())) == 80
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[::-2]))
    for split, pairs in Translation(path=str(path)).pairs.items():
        assert {pair[0] for pair in pairs} <= sources[split]
    path.write_text('{"translation": {"fr": "a"}}\n' * 3)
    (tmp_path / "text.txt").write_text("a\n")
    refused_calls(
        "dataset.translation.table.{}",
        {
            "no_language": lambda: Translation(path=str(path), languages=["xx", "en"]),
            "no_translation": lambda: Translation(path=str(path)),
            "text": lambda: Translation(path=str(tmp_path / "text.txt")),
        },
        tmp_path,
    )


def test_marks_at_the_beginning_are_no_word(directory):
    dataset = make(directory)
    for file in directory.glob("*.de"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert make(directory).sha256 == dataset.sha256


def test_segmented_files_bring_their_tokens():
    dataset = Translation(
        path=str(SMALL / "multi30k_bpe"),
        files={"train": "train", "validation": "valid", "test": "test.2016"},
        segmented=True,
    )
    numbers = [dataset.tokens.index(word) for word in ("schl@@", "äft")]
    assert dataset.decode(numbers) == "schläft"


def test_what_cannot_be_pairs_is_refused(directory):
    def of(**files) -> Translation:
        return Translation(path=str(directory), files=files)

    def of_validation(content: bytes) -> Translation:
        (directory / "val.de").write_bytes(content)
        return make(directory)

    refused_calls(
        "dataset.translation.{}",
        {
            "no_length": lambda: make(directory, length=0),
            "no_count": lambda: make(directory, min_count=0),
            "one_language": lambda: make(directory, languages=("de",)),
            "one_language_twice": lambda: make(directory, languages=("de", "de")),
            "no_file": lambda: make(directory, languages=("de", "fr")),
            "other_hash": lambda: make(directory, sha256="00"),
            "all_for_validation": lambda: of(train="train", validation=1.0),
            "nothing_for_validation": lambda: of(train="train", validation=0.0),
            "share_for_train": lambda: of(train=0.5, validation="val"),
            "no_validation": lambda: of(train="train"),
            "unknown_split": lambda: of(**FILES, dev="val"),
            "nowhere": lambda: Translation(path="nowhere", files=FILES),
            "one_file": lambda: Translation(path=str(directory / "val.de"), files=FILES),
            "no_path": lambda: Translation(path=None, files=FILES),
            "uneven_lines": lambda: of_validation(b"one line\n"),
            "empty": lambda: of_validation(b""),
            "latin": lambda: of_validation(b"caf\xe9\n"),
            "utf16": lambda: of_validation("ab".encode("utf-16-le")),
        },
        directory,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "place"), [("multi30k", "multi30k"), ("multi30k_bpe", "multi30k-bpe")]
)
def test_the_real_multi30k_is_the_published_one(composed, name, place):
    dataset = Experiment(composed(f"dataset={name}", f"dataset.path={real(place)}")).dataset
    assert isinstance(dataset, Translation)
    sizes = {split: len(made) for split, made in dataset.splits.items()}
    assert sizes["test"] == 1000
    assert sizes["validation"] == 1014
    assert sizes["train"] + dataset.left_out["train"] == 29_000
    if name == "multi30k_bpe":
        # Wu et al. (2021) count 9,708 types; three are special here.
        assert len(dataset.tokens) == 9_708 + 3
        assert sizes["test_2017"] == 1000
        for split in dataset.splits.values():
            assert not np.any(split[:].inputs.numpy() == len(dataset.tokens))
