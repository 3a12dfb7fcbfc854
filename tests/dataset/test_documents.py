"""Documents are kept apart: each begins with a token, and is in one split alone."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

from attnlab.corpus import store
from attnlab.dataset.documents import Documents
from attnlab.experiment import Experiment
from attnlab.objective.autoregressive import Autoregressive
from attnlab.split import Windows
from attnlab.tokenizer.boundary import BOUNDARY
from attnlab.tokenizer.bpe import BPE
from attnlab.tokenizer.bytes import Bytes
from attnlab.tokenizer.characters import Characters
from attnlab.tokenizer.words import Words
from tests.refused_calls import refused_calls

TEXTS = [f"story {n} : a fox met {n % 7} hens .\nthe end" for n in range(60)]


@pytest.fixture
def table(tmp_path) -> Path:
    path = tmp_path / "stories.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def make(path: Path | None, **knobs: Any) -> Documents:
    shares: dict[str, Any] = {"validation": 0.2, "test": 0.2}
    knobs = {"tokenizer": Characters(), "length": 16, **shares, **knobs}
    return Documents(path=path and str(path), **knobs)


def documents_of(dataset: Documents, split: str) -> list[str]:
    windows = dataset.splits[split]
    assert isinstance(windows, Windows)
    first, *documents = dataset.decode(windows.tokens.tolist()).split(BOUNDARY)
    assert first == ""
    return documents


TOKENIZERS = [Characters, Bytes, lambda: Words(min_count=1), lambda: BPE(vocab_size=280)]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_every_document_is_in_one_split_after_its_boundary(table, tokenizer):
    dataset = make(table, tokenizer=tokenizer())
    by_split = {split: documents_of(dataset, split) for split in dataset.split_names}
    assert {split: len(found) for split, found in by_split.items()} == dataset.num_documents
    assert sum(dataset.num_documents.values()) == len(TEXTS)
    if not isinstance(tokenizer(), Words):
        assert sorted(text for found in by_split.values() for text in found) == sorted(TEXTS)
    assert dataset.tokens[-1] == BOUNDARY
    assert dataset.tokens.count(BOUNDARY) == 1
    assert min(dataset.num_documents.values()) > 5


def test_a_documents_split_does_not_depend_on_its_neighbours(table, tmp_path):
    dataset, of_other_seed = make(table), make(table, seed=1)
    fewer = tmp_path / "fewer.jsonl"
    fewer.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS[::-2]))
    for split in dataset.split_names:
        found = set(documents_of(dataset, split))
        assert found & set(TEXTS[::-2]) == set(documents_of(make(fewer), split))
    assert set(documents_of(of_other_seed, "test")) != set(documents_of(dataset, "test"))


def test_a_repeated_document_is_in_one_split(table):
    table.write_text(table.read_text() * 2)
    dataset = make(table)
    splits = [set(documents_of(dataset, split)) for split in dataset.split_names]
    assert sum(map(len, splits)) == len(TEXTS)
    assert sum(dataset.num_documents.values()) == 2 * len(TEXTS)


def test_files_rows_and_saved_tables_are_the_same_documents(table, tmp_path):
    (tmp_path / "stories/deep").mkdir(parents=True)
    for number, text in enumerate(TEXTS):
        name = f"{number:02}.txt" if number < 30 else f"deep/{number}.txt"
        (tmp_path / "stories" / name).write_text(text)
    (tmp_path / "stories/.hidden").write_text("none of it")
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / "saved")
    places = (table, tmp_path / "stories", tmp_path / "stories/**/*.txt", tmp_path / "saved")
    shas = {make(place).sha256 for place in places[:2]} | {make(places[3]).sha256}
    assert len(shas) == 1
    assert sum(make(places[2]).num_documents.values()) == len(TEXTS)


def test_what_was_read_once_needs_no_path(table):
    dataset = make(table)
    again = make(None, sha256=dataset.sha256)
    assert again.data_hash == dataset.data_hash
    assert again.num_documents == dataset.num_documents
    assert dataset.content_identity == {"path": None, "sha256": dataset.sha256}


def test_own_splits_are_read_and_repeated_documents_are_left_out(tmp_path):
    directory = tmp_path / "stories"
    for split, texts in (("train", TEXTS), ("valid", TEXTS[:9]), ("test", TEXTS[5:14])):
        (directory / split).mkdir(parents=True)
        for number, text in enumerate(texts):
            (directory / split / f"{number:02}.txt").write_text(text)
    dataset = make(directory, validation=None, test=None)
    assert documents_of(dataset, "test") == TEXTS[5:14]
    assert documents_of(dataset, "validation") == TEXTS[:5]
    assert documents_of(dataset, "train") == TEXTS[14:]
    assert dataset.notes == [
        "validation: 4 of 9 documents are left out (in an earlier split: 4)",
        "train: 14 of 60 documents are left out (in an earlier split: 14)",
    ]
    assert dataset.origin == "validation and test as the data have them"
    mixed = make(directory, validation=0.3, test=None)
    assert documents_of(mixed, "test") == TEXTS[5:14]
    held = set(documents_of(mixed, "validation")) | set(documents_of(mixed, "train"))
    assert held == set(TEXTS) - set(TEXTS[5:14])


def test_the_boundary_is_a_token_of_prompts_and_no_byte(table):
    for build in TOKENIZERS:
        dataset = make(table, tokenizer=build())
        names = dataset.tokenize(f"{BOUNDARY}a fox{BOUNDARY}{BOUNDARY}met")
        assert names.index(BOUNDARY) == 0
        assert names.count(BOUNDARY) == 3
        assert dataset.tokenizer.num_bytes(BOUNDARY) == 0
        assert dataset.decode(dataset.encode(BOUNDARY)) == BOUNDARY
    dataset = make(table, tokenizer=Bytes())
    (size,) = {dataset.tokenizer.num_bytes(name) for name in dataset.tokens[:-1]}
    share = dataset.num_documents["test"] / len(dataset.splits["test"].tokens)  # pyright: ignore
    assert dataset.bytes_per_token("test") == pytest.approx(size * (1 - share))


def test_the_boundarys_name_in_a_text_is_text(table):
    table.write_text(table.read_text().replace("the end", "the <document> end"))
    dataset = make(table)
    windows = dataset.splits["train"]
    assert isinstance(windows, Windows)
    assert (
        np.count_nonzero(windows.tokens == len(dataset.tokens) - 1)
        == (dataset.num_documents["train"])
    )
    with pytest.raises(ValueError, match="is a word of the text"):
        make(table, tokenizer=Words())


def test_without_a_test_share_runs_report_validation(table, composed):
    config = composed(
        "dataset=documents", f"dataset.path={table}", "dataset.test=0", "dataset.length=16"
    )
    dataset = Experiment(config).dataset
    assert dataset.split_names == ("validation", "train")
    assert dataset.report_split == "validation"


def test_a_document_mask_is_of_the_boundary(table):
    dataset = make(table)
    arrangement = Autoregressive(dataset, document_mask=True).arrangement
    assert arrangement.boundary is not None
    assert dataset.tokens[arrangement.boundary] == BOUNDARY


def test_a_sample_ends_where_the_next_document_would_begin(table, offer):
    knobs = (f"dataset.path={table}", "dataset.length=16", "objective.document_mask=true")
    run = offer("dataset=documents", *knobs)
    boundary = run.dataset.tokens.index(BOUNDARY)
    head = run.model.head
    assert isinstance(head, torch.nn.Linear)
    drawn = []
    for bias in (-1e4, 0.0):
        with torch.no_grad():
            head.bias[boundary] = bias
        drawn.append("".join(run.generate("", 300)))
    never, sometimes = drawn
    # With an empty prompt, a document begins.
    assert len(never) == 300
    assert BOUNDARY not in sometimes
    assert len(sometimes) < 300
    assert never.startswith(sometimes[:1])


def test_what_cannot_be_documents_is_refused(table, tmp_path):
    def of(name: str, content: bytes, **knobs: Any) -> None:
        place = tmp_path / "refused"
        place.mkdir(exist_ok=True)
        for old in place.iterdir():
            old.unlink()
        (place / name).write_bytes(content)
        make(place, **knobs)

    refused_calls(
        "dataset.documents.{}",
        {
            "no_path": lambda: make(None),
            "nowhere": lambda: make(tmp_path / "nowhere"),
            "not_kept": lambda: make(None, sha256="0" * 64),
            "other_hash": lambda: make(table, sha256="0" * 64),
            "no_column": lambda: make(table, column="txt"),
            "one_document": lambda: of("a.txt", b"only one"),
            "blank": lambda: of("a.txt", b" \n "),
            "empty_directory": lambda: of(".hidden", b"a"),
            "empty_file": lambda: of("a.txt", b""),
            "latin": lambda: of("a.txt", b"caf\xe9 " * 30, validation=0.4, test=0.0),
            "no_share": lambda: make(table, validation=0.0),
            "all_held": lambda: make(table, validation=0.5, test=0.5),
            "long": lambda: make(table, length=2000),
            "no_split": lambda: make(table.parent, validation=None),
        },
        tmp_path,
        store.directory(),
    )
