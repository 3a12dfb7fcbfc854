"""A pair of sentences is read as it stands in its files, and what is left out is counted."""

import gzip
import json

import numpy as np
import pytest

from attnlab.assemble import Experiment
from attnlab.dataset.translation import Translation
from attnlab.split import IGNORE
from tests.corpus.real import SMALL, real

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
    assert dataset.words("Don't stop-and-go!") == ["don't", "stop-and-go", "!"]


def test_what_is_left_out_is_counted(directory):
    dataset = make(directory, length=5)
    # A source that the test holds, and an empty one; six tokens where five fit.
    assert dataset.left_out == {"test": 0, "validation": 1, "train": 2}
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "test": 1,
        "validation": 1,
        "train": 1,
    }
    with pytest.raises(ValueError, match=r"length=1 leaves none of the 1 pairs of test"):
        make(directory, length=1)


def test_rare_words_are_unknown(directory):
    assert make(directory, min_count=2).tokens == ["<pad>", "<unk>", "<end>", "."]


def test_packed_files_and_kept_rows_are_the_same_data(directory, monkeypatch, tmp_path):
    made = make(directory)
    kept = Translation(path=None, files=FILES, sha256=made.sha256)
    assert kept.data_hash == made.data_hash
    assert made.located == {"path": None, "obtain": None, "sha256": made.sha256}
    for file in directory.glob("*.*"):
        if file.is_file():
            (directory / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    assert make(directory).data_hash == made.data_hash
    monkeypatch.setenv("ATTNLAB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(
        ValueError, match=r"are not kept here; obtain it by hand, and give dataset.p"
    ):
        Translation(path=None, files=FILES, sha256=made.sha256, obtain="it by hand")


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
    monkeypatch.setattr("attnlab.corpus.source._reachable", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: tables)
    hub = Translation(path="hub:some/pairs", files=FILES)
    assert hub.sha256 == make(directory).sha256
    with pytest.raises(ValueError, match=r"column='fr' is not in hub:some/pairs; there is de, en"):
        Translation(path="hub:some/pairs", files=FILES, languages=["fr", "en"])
    with pytest.raises(ValueError, match=r"has no test_2; there is train, validation, test"):
        Translation(path="hub:some/pairs", files={**FILES, "test_2": "other"})


def test_segmented_files_bring_their_tokens():
    dataset = Translation(
        path=str(SMALL / "multi30k_bpe"),
        files={"train": "train", "validation": "valid", "test": "test.2016"},
        segmented=True,
    )
    numbers = [dataset.tokens.index(word) for word in ("schl@@", "äft")]
    assert dataset.write(numbers) == "schläft"


def test_what_cannot_be_pairs_is_refused(directory):
    for knobs, said in {
        (("length", 0),): "length=0 must be at least 1",
        (("min_count", 0),): "min_count=0 must be at least 1",
        (("languages", ("de",)),): "must be two different ones",
        (("languages", ("de", "de")),): "must be two different ones",
        (("languages", ("de", "fr")),): r"has no file train.fr, nor train.fr.gz",
        (("sha256", "00"),): r"has sha256 [0-9a-f]{64}, expected 00; dataset.sha256=null",
    }.items():
        with pytest.raises(ValueError, match=said):
            make(directory, **dict(knobs))
    for files, said in {
        json.dumps({"train": "train", "validation": 1.0}): "leave some of train",
        json.dumps({"train": "train", "validation": 0.0}): "leave some of train",
        json.dumps({"train": 0.5, "validation": "val"}): "must have a file for train",
        json.dumps({"train": "train"}): "there is none for validation",
        json.dumps({**FILES, "dev": "val"}): "files: dev must be train, validation",
    }.items():
        with pytest.raises(ValueError, match=said):
            Translation(path=str(directory), files=json.loads(files))
    for path, said in {
        "nowhere": "path=nowhere does not exist; give the directory of train, val, test",
        str(directory / "val.de"): "is one file; give the directory",
        None: "it needs data; give dataset.path=DIRECTORY",
    }.items():
        with pytest.raises(ValueError, match=said):
            Translation(path=path, files=FILES)
    (directory / "val.de").write_text("one line\n")
    with pytest.raises(ValueError, match="val has 1 and 2 lines in de and en"):
        make(directory)
    for content, said in {
        b"": "val.de is empty",
        b"caf\xe9\n": "val.de is not utf-8: byte 0xe9 at 3; convert it",
        "ab".encode("utf-16-le"): "val.de has a zero byte at 1: it is binary, or UTF-16",
    }.items():
        (directory / "val.de").write_bytes(content)
        with pytest.raises(ValueError, match=said):
            make(directory)


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
