"""A corpus is tokenised once, survives whatever happens to its makers, and is found by content."""

import gzip
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from attnlab.corpus import source, store
from attnlab.corpus.source import File, Source
from attnlab.tokenizer.bpe import BPE
from attnlab.tokenizer.bytes import Bytes
from attnlab.tokenizer.characters import Characters
from attnlab.tokenizer.words import Words
from tests.prose import refuses, says


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


@pytest.mark.parametrize(
    "name", ["..", "../../elsewhere", "", "AB" * 32, "0" * 63, "0" * 64 + "\n"]
)
def test_a_name_that_is_no_sum_names_no_place(name):
    with pytest.raises(ValueError, match="is no SHA-256"):
        store.load(name, Characters())
    with pytest.raises(ValueError, match="is no SHA-256"):
        store.load_rows(name)


def test_the_sha256_is_that_of_the_file(text):
    assert text.sha256() == hashlib.sha256(text.path.read_bytes()).hexdigest()
    before = text.sha256()
    text.path.write_text("another")
    assert text.sha256() != before


def test_a_text_is_read_once_and_then_found_by_its_content(text):
    made = store.load_or_tokenise({"": text}, "0" * 64, Characters())
    again = store.load_or_tokenise({"": Unreadable()}, "0" * 64, Characters())
    assert np.array_equal(made.tokens, again.tokens)
    assert made.vocabulary == again.vocabulary == sorted(set(text.path.read_text()))
    assert "".join(made.vocabulary[t] for t in again.tokens) == text.path.read_text()
    assert isinstance(again.tokens, np.memmap)
    assert store.load("1" * 64, Characters()) is None
    assert store.load("0" * 64, Bytes()) is None


def test_nothing_but_whole_entries_is_left_of_a_text_that_cannot_be_read(tmp_path, cache):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"caf\xe9" * 100)
    with refuses(ValueError, "corpus.not_utf8"):
        store.load_or_tokenise({"": File(path)}, "0" * 64, Characters())
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
made = store.load_or_tokenise({"": File(Path(sys.argv[1]))}, "0" * 64, Slow())
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
    lengths = [process.communicate("\n", timeout=60)[0] for process in makers]
    length = len(text.path.read_text())
    assert lengths == [f"{length}\n"] * 2
    assert [entry.name for entry in cache.iterdir()] == [f"{'0' * 64}-characters"]


def test_a_killed_maker_leaves_nothing_that_is_read_and_is_cleared_after_a_day(text, cache):
    process = maker(text)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert store.load("0" * 64, Characters()) is None
    (leftover,) = cache.iterdir()
    assert leftover.name.startswith(store.TEMPORARY)
    made = store.load_or_tokenise({"": text}, "0" * 64, Characters())
    assert len(made.tokens) == len(text.path.read_text())
    # A young one may be another process at work.
    assert leftover.exists()
    old = time.time() - 2 * store.DAY
    os.utime(leftover, (old, old))
    store.load_or_tokenise({"": text}, "1" * 64, Characters())
    assert not leftover.exists()


def test_an_entry_of_another_form_is_not_read(text, cache):
    store.load_or_tokenise({"": text}, "0" * 64, Characters())
    (cache / f"{'0' * 64}-characters/vocabulary.json").write_text('{"tokens": ["a"]}')
    with refuses(ValueError, "corpus.vocabulary_is_no_list", cache):
        store.load("0" * 64, Characters())


@pytest.mark.parametrize("name", ["tokens.npy", "vocabulary.json"])
def test_a_damaged_entry_is_named(text, cache, name):
    store.load_or_tokenise({"": text}, "0" * 64, Characters())
    file = cache / f"{'0' * 64}-characters" / name
    file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(ValueError, match=re.escape(str(file.parent))) as raised:
        store.load("0" * 64, Characters())
    # What is in brackets is what a library says.
    says("corpus.damaged", re.sub(r"\(.*\)", "(...)", str(raised.value), flags=re.S), cache)


class Told(Source):
    def __init__(self, text: str) -> None:
        self.text = text

    def pieces(self):
        yield self.text.encode()


PARTS = {"train": Told("a b a b\nc é\n"), "validation": Told("b a d\n"), "test": Told("e\n")}


@pytest.mark.parametrize("tokenizer", [Words, lambda: BPE(vocab_size=260), Characters, Bytes])
def test_parts_are_tokenised_each_for_itself_and_kept(tokenizer):
    made = store.load_or_tokenise(PARTS, "0" * 64, tokenizer(), "own")
    fresh = tokenizer()
    again = store.load("0" * 64, fresh, "own")
    assert again is not None
    assert made.vocabulary == again.vocabulary
    for name, part in PARTS.items():
        names = [again.vocabulary[token] for token in again.tokens_by_part[name]]
        known = set(again.vocabulary)
        assert names == [n if n in known else "<unk>" for n in fresh.tokenize(part.text)]
    assert sum(map(len, again.tokens_by_part.values())) == len(again.tokens)
    assert store.load("0" * 64, tokenizer()) is None
    assert store.load("0" * 64, tokenizer(), "0.1-0.1") is None


def test_a_learning_tokenizer_sees_the_training_part_alone(cache):
    pieces_read = []

    class Watched(Words):
        def vocabulary(self, pieces):
            pieces_read.extend(pieces)
            return super().vocabulary(pieces_read)

    store.load_or_tokenise(PARTS, "0" * 64, Watched(), "own")
    assert b"".join(pieces_read) == PARTS["train"].text.encode()


def test_what_was_learnt_is_needed(cache):
    store.load_or_tokenise(PARTS, "0" * 64, BPE(vocab_size=260), "own")
    file = cache / f"{'0' * 64}-bpe-260-own/parts.json"
    parts = file.read_text()
    file.write_text(parts.replace('"learnt": "', '"learnt": "x'))
    with pytest.raises(ValueError, match=re.escape(str(file.parent))) as raised:
        store.load("0" * 64, BPE(vocab_size=260), "own")
    message = re.sub(r"\((its model).*\)", r"(\1 ...)", str(raised.value), flags=re.S)
    says("corpus.damaged_model", message, cache)
    file.write_text(parts.replace('"train": ', '"train": 9'))
    with refuses(ValueError, "corpus.damaged_parts", cache):
        store.load("0" * 64, BPE(vocab_size=260), "own")


def test_a_cut_ends_with_a_line_or_a_word_or_a_character():
    lines = Told("".join(f"line {n}\n" for n in range(100)))
    parts = source.split_text_by_shares(lines, {"validation": 0.2, "test": 0.1})
    texts = {name: b"".join(part.pieces()).decode() for name, part in parts.items()}
    assert "".join(texts.values()) == lines.text
    assert all(text.endswith("\n") for text in texts.values())
    assert 0.19 < len(texts["validation"]) / len(lines.text) < 0.22
    words = source.split_text_by_shares(Told("word " * 100), {"validation": 0.33})
    assert all(b"".join(part.pieces()).endswith(b" ") for part in words.values())
    letters = source.split_text_by_shares(Told("é" * 99), {"validation": 0.5})
    assert [b"".join(part.pieces()).decode() for part in letters.values()] == ["é" * 50, "é" * 49]


def test_a_packed_file_is_what_it_holds(tmp_path, text):
    packed = tmp_path / "text.txt.gz"
    packed.write_bytes(gzip.compress(text.path.read_bytes()))
    assert File(packed).sha256() == text.sha256()
    packed.write_bytes(packed.read_bytes()[:-20])
    with refuses(ValueError, "corpus.torn_gzip", tmp_path):
        File(packed).sha256()


def test_small_rows_are_kept_without_their_files(cache):
    rows = {"train": [["a b", "1"]], "test": [["é", "0"]]}
    assert store.load_rows("0" * 64) is None
    store.write_rows("0" * 64, rows)
    store.write_rows("0" * 64, rows)
    assert store.load_rows("0" * 64) == rows
    (cache / f"{'0' * 64}-rows/rows.json").write_text("[")
    with pytest.raises(ValueError, match=re.escape(str(cache))) as raised:
        store.load_rows("0" * 64)
    says("corpus.damaged_rows", re.sub(r"\(.*\)", "(...)", str(raised.value), flags=re.S), cache)


FLAT = """
import resource, sys
from pathlib import Path
import numpy, tokenizers
from attnlab.corpus import source, store
from attnlab.tokenizer.bpe import BPE
from attnlab.tokenizer.bytes import Bytes
path, limit, name = sys.argv[1:]
tokenizer = {"bytes": Bytes(), "bpe": BPE(vocab_size=512)}[name]
parting = "0.1-0" if tokenizer.learns else ""
BPE(vocab_size=300).vocabulary([b"the threads of the library begin here " * 100])
there = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
resource.setrlimit(resource.RLIMIT_AS, (there + int(limit), hard))
# The tokens are mapped from their file, which takes room in the address space but no memory; so
# all but the last step, that opens what was made, has to do without.
load, store.load = store.load, lambda *_: None
file = source.File(Path(path))
parts = source.split_text_by_shares(file, {"validation": 0.1}) if tokenizer.learns else {"": file}
sha = file.sha256()
try:
    store.load_or_tokenise(parts, sha, tokenizer, parting)
except ValueError as error:
    assert "cannot be made" in str(error), error
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
print(len(load(sha, tokenizer, parting).tokens))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("tokenizer", "megabytes", "limit"), [("bytes", 256, 64), ("bpe", 48, 40)])
def test_memory_stays_flat_for_a_text_larger_than_the_address_space(
    tmp_path, tokenizer, megabytes, limit
):
    path = tmp_path / "large.txt"
    line = b"the quick brown fox jumps over the lazy dog and sleeps at once, number %07d\n"
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(b"".join(line % n for n in range(13_981)))
    command = [sys.executable, "-c", FLAT, str(path), str(limit << 20), tokenizer]
    environment = {**os.environ, "RAYON_NUM_THREADS": "2", "MALLOC_ARENA_MAX": "2"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert path.stat().st_size > limit << 20
    tokens = int(done.stdout)
    assert tokens == path.stat().st_size if tokenizer == "bytes" else tokens > 1e6
