"""A corpus is tokenised once, survives whatever happens to its makers, and is found by content."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from attnlab.corpus import store
from attnlab.corpus.source import File, Source
from attnlab.tokenizer.bytes import Bytes
from attnlab.tokenizer.characters import Characters


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ATTNLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/corpora"


@pytest.fixture
def text(tmp_path) -> File:
    path = tmp_path / "text.txt"
    path.write_text("to be, or not to be: that is the question. é\n" * 50)
    return File(path)


class Unreadable(Source):
    def pieces(self):
        raise AssertionError("it was read again")


def test_the_sha256_is_that_of_the_file(text):
    assert text.sha256() == hashlib.sha256(text.path.read_bytes()).hexdigest()
    before = text.sha256()
    text.path.write_text("another")
    assert text.sha256() != before


def test_a_text_is_read_once_and_then_found_by_its_content(text):
    made = store.make(text, "0" * 64, Characters())
    again = store.make(Unreadable(), "0" * 64, Characters())
    assert np.array_equal(made.tokens, again.tokens)
    assert made.vocabulary == again.vocabulary == sorted(set(text.path.read_text()))
    assert "".join(made.vocabulary[t] for t in again.tokens) == text.path.read_text()
    assert isinstance(again.tokens, np.memmap)
    assert store.load("1" * 64, Characters()) is None
    assert store.load("0" * 64, Bytes()) is None


def test_nothing_but_whole_entries_is_left_of_a_text_that_cannot_be_read(tmp_path, cache):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"caf\xe9" * 100)
    with pytest.raises(ValueError, match="not UTF-8"):
        store.make(File(path), "0" * 64, Characters())
    assert not list(cache.iterdir())


MAKE = """
import sys
from pathlib import Path
from attnlab.corpus import store
from attnlab.corpus.source import File
from attnlab.tokenizer.characters import Characters
class Slow(Characters):
    key = "characters"
    def encode(self, pieces, vocabulary):
        print("begun", flush=True)
        sys.stdin.readline()
        yield from super().encode(pieces, vocabulary)
made = store.make(File(Path(sys.argv[1])), "0" * 64, Slow())
print(len(made.tokens))
"""


def maker(text: File) -> subprocess.Popen:
    command = [sys.executable, "-c", MAKE, str(text.path)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def test_two_processes_may_make_it_at_once(text, cache):
    makers = [maker(text) for _ in range(2)]
    said = [process.communicate("\n", timeout=60)[0] for process in makers]
    length = len(text.path.read_text())
    assert said == [f"{length}\n"] * 2
    assert [entry.name for entry in cache.iterdir()] == [f"{'0' * 64}-characters"]


def test_a_killed_maker_leaves_nothing_that_is_read_and_is_cleared_after_a_day(text, cache):
    process = maker(text)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert store.load("0" * 64, Characters()) is None
    (leftover,) = cache.iterdir()
    assert leftover.name.startswith(store.TEMPORARY)
    made = store.make(text, "0" * 64, Characters())
    assert len(made.tokens) == len(text.path.read_text())
    # A young one may be another process at work.
    assert leftover.exists()
    old = time.time() - 2 * store.DAY
    os.utime(leftover, (old, old))
    store.make(text, "1" * 64, Characters())
    assert not leftover.exists()


def test_an_entry_of_another_form_is_not_read(text, cache):
    store.make(text, "0" * 64, Characters())
    (cache / f"{'0' * 64}-characters/vocabulary.json").write_text('{"tokens": ["a"]}')
    with pytest.raises(ValueError, match=r"is damaged \(its vocabulary is no list\); delete it"):
        store.load("0" * 64, Characters())


@pytest.mark.parametrize("name", ["tokens.npy", "vocabulary.json"])
def test_a_damaged_entry_is_named(text, cache, name):
    store.make(text, "0" * 64, Characters())
    file = cache / f"{'0' * 64}-characters" / name
    file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(ValueError, match=r"is damaged \(.*delete it"):
        store.load("0" * 64, Characters())
