"""Real text: parted by document, read whole, the same on the same interpreter."""

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from attnlab.dataset.pydocs import PyDocs, parted, unrepeated
from attnlab.split import Windows
from tests.prose import refuses

# Twenty-five topics with a paragraph of their own, one that all share, and characters beyond ASCII.
TOPICS = {
    f"topic{number:02}": "\n\n".join(
        [
            f"Topic {number}\n*******",
            "Every topic says this.",
            f"Topic {number}\u2019s own \u201cword\u201d\u2026 caf\u00e9, "
            + "and again, " * (number + 3),
        ]
    )
    for number in range(25)
}


@pytest.fixture
def fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", SimpleNamespace(topics=TOPICS))  # type: ignore[arg-type]


def text(dataset: PyDocs, split: str) -> str:
    windows = dataset.splits[split]
    assert isinstance(windows, Windows)
    return "".join(dataset.tokens[token] for token in windows.tokens)


def test_the_text_is_english_from_pythons_own_help():
    dataset = PyDocs()
    train = text(dataset, "train")
    assert len(train) > 200_000
    assert train.count(" the ") > 2000
    assert train.isascii()
    assert set(dataset.tokens) == set("".join(text(dataset, s) for s in dataset.splits))


def test_each_part_has_its_share_of_the_characters():
    dataset = PyDocs()
    sizes = {split: len(text(dataset, split)) for split in dataset.splits}
    for split in ("test", "validation"):
        assert 0.08 < sizes[split] / sum(sizes.values()) < 0.11


def test_a_document_is_in_one_split_and_whole():
    documents = [f"document {number} " * (1 + number % 7) for number in range(40)]
    parts = parted(documents, seed=3)
    assert sorted(d for part in parts.values() for d in part) == sorted(documents)
    room = sum(map(len, documents)) // 10
    assert 0 < sum(map(len, parts["test"])) <= room
    assert 0 < sum(map(len, parts["validation"])) <= room
    assert parted(documents, seed=4) != parts


def test_a_paragraph_is_kept_once_where_it_first_stands():
    assert unrepeated(["a b\n\nc", "c\n\nd\n\n  a\nb", "a b\n\nc"]) == ["a b\n\nc", "d"]


def test_training_reads_every_offset_and_evaluation_every_character_once():
    dataset = PyDocs(length=50)
    for split, windows in dataset.splits.items():
        characters = text(dataset, split)
        batch = windows.batch(np.arange(20))
        stride = 1 if split == "train" else 50
        assert len(windows) == math.ceil((len(characters) - 51) / stride) + 1
        for row in range(20):
            read, asked = (
                "".join(dataset.tokens[t] for t in tokens)
                for tokens in (batch.inputs[row], batch.targets[row])
            )
            assert read == characters[row * stride : row * stride + 50]
            assert asked == characters[row * stride + 1 : row * stride + 51]


@pytest.mark.usefixtures("fixture")
def test_the_bytes_of_a_fixed_text_are_those_of_the_first_release():
    dataset = PyDocs(length=16)
    assert dataset.data_hash.startswith("81bc267f3c1ed954")


@pytest.mark.usefixtures("fixture")
def test_quotes_become_plain_and_a_shared_paragraph_stands_once():
    dataset = PyDocs(length=16)
    characters = "".join(text(dataset, split) for split in dataset.splits)
    assert 'Topic 7\'s own "word"... caf?, and again' in characters
    assert characters.count("Every topic says this.") == 1
    assert characters.count("says") == 1


def test_an_example_reads_as_text():
    dataset = PyDocs(length=30)
    shown, characters = dataset.show("validation", 1), text(dataset, "validation")
    assert shown.startswith(characters[30:60])
    assert shown.endswith(f"({characters[59]!r}): {characters[60]!r}")


@pytest.mark.usefixtures("fixture")
def test_a_length_beyond_the_text_is_refused():
    with refuses(ValueError, "dataset.pydocs.long"):
        _ = PyDocs(length=5000).splits


def test_a_python_without_its_documentation_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with refuses(ValueError, "dataset.pydocs.no_documentation"):
        PyDocs()
