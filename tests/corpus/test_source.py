"""Directories, patterns and saved datasets are found as they are named, or refused in words."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from attnlab.corpus import source
from attnlab.dataset.text import Text
from attnlab.tokenizer.bytes import Bytes
from attnlab.tokenizer.characters import Characters
from tests.refused_calls import refused_calls


@pytest.fixture
def folder(tmp_path) -> Path:
    place = tmp_path / "stories"
    (place / "b").mkdir(parents=True)
    (place / "c.txt").write_text("third\n")
    (place / "a.txt").write_text("first")
    (place / "b/x.txt").write_text("second")
    (place / "b/empty.txt").write_text("")
    (place / ".hidden").write_text("none of it")
    (place / "d.jsonl").write_text('{"text": "fourth"}\n{"text": null}\n{"text": "fifth"}\n')
    return place


def content(path: Path | str, column: str = "text") -> str:
    return b"".join(source.find_source(str(path), column).pieces()).decode()


def test_a_directory_is_its_files_in_the_order_of_their_paths(folder):
    text = source.find_source(str(folder), "text")
    assert content(folder) == "first\nsecond\nthird\nfourth\nfifth\n"
    assert [*text.documents()] == [b"first", b"second", b"third\n", b"fourth", b"fifth"]
    assert isinstance(text, source.Folder)
    # An empty file, and a row without a text.
    assert text.counts()[1:] == (7, 2)
    assert text.sha256() == source.Source.sha256(text)
    (folder / "e.txt").write_text("sixth")
    assert source.find_source(str(folder), "text").sha256() != text.sha256()


def test_a_pattern_is_the_files_that_it_matches(folder, monkeypatch):
    assert content(folder / "*.txt") == "first\nthird\n"
    assert content(folder / "**/*.txt") == "first\nsecond\nthird\n"
    monkeypatch.chdir(folder)
    assert content("?.txt") == "first\nthird\n"
    # A file that is named like a pattern is that file.
    (folder / "[a].txt").write_text("itself")
    assert content("[a].txt") == "itself"


def test_a_saved_dataset_is_its_column(tmp_path):
    texts = ["first", "second"]
    table = datasets.Dataset.from_dict({"story": texts, "n": [1, 2]})
    table.save_to_disk(tmp_path / "one")
    assert content(tmp_path / "one", "story") == "first\nsecond\n"
    splits = datasets.DatasetDict({"train": table, "validation": table.select([1])})
    splits.save_to_disk(tmp_path / "splits")
    found = source.find_split_sources(str(tmp_path / "splits"), "story")
    assert {split: b"".join(part.pieces()) for split, part in found.items()} == {
        "train": b"first\nsecond\n",
        "validation": b"second",
    }


def test_splits_may_be_directories_and_tables(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/a.txt").write_text("one")
    (tmp_path / "train/b.txt").write_text("two")
    (tmp_path / "dev.jsonl").write_text('{"text": "three"}\n')
    found = source.find_split_sources(str(tmp_path), "text")
    contents = {split: b"".join(part.pieces()) for split, part in found.items()}
    assert contents == {"train": b"one\ntwo\n", "validation": b"three"}


def test_joined_files_are_noted(tmp_path):
    for number in range(9):
        (tmp_path / f"{number}.txt").write_text("all the same words here\n" * 9)
    dataset = Text(path=str(tmp_path), tokenizer=Characters(), length=16)
    assert dataset.notes == [
        "9 files are joined into one text, each ends with its line; dataset=documents keeps them "
        "apart"
    ]
    assert dataset.origin == "validation (0.05) and test (0.05) from the end of the text"


def test_what_is_no_text_is_told_by_its_file(tmp_path):
    def text(name: str, **files: Any) -> Any:
        def call() -> None:
            place = tmp_path / name
            place.mkdir()
            for file, text in files.items():
                (place / file.replace("_", ".")).write_bytes(text)
            Text(path=str(place), tokenizer=Characters(), length=4)

        return call

    datasets.DatasetDict(
        {split: datasets.Dataset.from_dict({"text": ["a"]}) for split in ("train", "test")}
    ).save_to_disk(tmp_path / "saved")
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / "state.json").write_text(json.dumps({}))
    good = b"words and words\n" * 9
    refused_calls(
        "corpus.source.{}",
        {
            "latin": text("latin", a_txt=good, b_txt=b"caf\xe9", c_txt=good),
            "picture": text("picture", a_txt=good, cover_png=b"\x89PNG\0\0"),
            "archive": text("archive", a_txt=good, more_zip=b"PK"),
            "empty": text("empty"),
            "empty_files": text("empty_files", a_txt=b"", b_txt=b""),
            "blank_files": text("blank_files", a_txt=b" ", b_txt=b"\n"),
            "splits": text("splits", train_txt=good, test_txt=good),
            "no_match": lambda: source.find_source(str(tmp_path / "*.none"), "text"),
            "saved_splits": lambda: source.find_source(str(tmp_path / "saved"), "text"),
            "saved_column": lambda: source.find_split_sources(str(tmp_path / "saved"), "txt"),
            "torn": lambda: source.find_source(str(torn), "text"),
        },
        tmp_path,
    )
    place = str(tmp_path / "latin")
    assert len(Text(path=place, tokenizer=Bytes(), length=4).tokens) == 256
