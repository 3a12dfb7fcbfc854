"""A text is the same bytes wherever it lies, and what cannot be had is told at once."""

import gzip
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnlab.corpus import source
from attnlab.dataset.text import Text
from attnlab.errors import ConfigError
from attnlab.experiment import Experiment
from attnlab.split import IGNORE, Windows
from attnlab.tokenizer.bpe import BPE
from attnlab.tokenizer.bytes import Bytes
from attnlab.tokenizer.characters import Characters
from attnlab.tokenizer.words import Words
from tests.corpus.real import real
from tests.dataset.stated import build, published_knobs
from tests.prose import refuses, says
from tests.refused_calls import refused_calls

PARTS = ("train", "validation", "test")


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{n} bottles of beer on the wall\n" for n in range(99, 0, -1)))
    return path


def make(path, **knobs: Any) -> Text:
    return Text(path=str(path), tokenizer=Characters(), **{"length": 16, **knobs})


def test_the_parts_are_cut_where_they_say(file):
    text = file.read_text()
    dataset = make(file, validation=0.2, test=0.1)
    train, validation = int(len(text) * 0.7), int((len(text) - int(len(text) * 0.7)) * 2 / 3)
    bounds = {
        "train": text[:train],
        "validation": text[train : train + validation],
        "test": text[train + validation :],
    }
    for split, wanted in bounds.items():
        assert dataset.decode(tokens(dataset, split).tolist()) == wanted


def test_every_token_of_a_held_back_split_but_the_first_is_asked_once(file):
    dataset = make(file)
    for split in ("validation", "test"):
        batch = dataset.splits[split].batch(np.arange(len(dataset.splits[split])))
        asked = batch.targets[batch.targets != IGNORE].tolist()
        assert asked == tokens(dataset, split)[1:].tolist()


def test_without_a_test_share_runs_report_validation(file, composed):
    words = [f"dataset.path={file}", "dataset=text", "dataset.length=16", "dataset.test=0"]
    dataset = Experiment(composed(*words)).dataset
    assert dataset.split_names == ("validation", "train")
    assert dataset.report_split == "validation"
    assert set(dataset.splits) == {"validation", "train"}
    text = file.read_text()
    assert dataset.decode(tokens(dataset, "train").tolist()) == text[: int(len(text) * 0.95)]
    with pytest.raises(ConfigError) as raised:
        composed(*words, "callbacks=test_curve")
    says("dataset.text.curve_without_test", raised.value)


def test_the_identity_holds_the_content_and_not_the_place(file, tmp_path, composed):
    other_path = tmp_path / "elsewhere.md"
    other_path.write_bytes(file.read_bytes())
    identity, of_other = (
        Experiment(composed("dataset=text", "dataset.length=16", f"dataset.path={path}")).identity
        for path in (file, other_path)
    )
    assert identity == of_other
    assert identity["dataset"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert identity["dataset"]["path"] is None


def test_a_text_that_was_read_once_needs_no_place(file):
    dataset = make(file)
    again = Text(path=None, sha256=dataset.sha256, tokenizer=Characters(), length=16)
    assert again.data_hash == dataset.data_hash
    file.unlink()
    hub = Text(path="hub:nobody/nothing", sha256=dataset.sha256, tokenizer=Characters(), length=16)
    assert hub.data_hash == dataset.data_hash


def tokens(dataset, split: str) -> np.ndarray:
    windows = dataset.splits[split]
    assert isinstance(windows, Windows)
    return windows.tokens


TABLES = {
    "csv": lambda rows: "text,other\n" + "".join(f'"{row}",1\n' for row in rows),
    "jsonl": lambda rows: "".join(json.dumps({"text": row}) + "\n" for row in rows),
}


@pytest.mark.parametrize("kind", [*TABLES, "parquet"])
def test_a_column_of_a_table_is_its_rows(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    rows = [f"line {n}, and more of it" for n in range(60)]
    path = tmp_path / f"table.{kind}"
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"text": rows, "label": list(range(60))}), path)
    else:
        path.write_text(TABLES[kind](rows))
    dataset = make(path)
    text = "".join(f"{row}\n" for row in rows)
    assert dataset.decode(dataset.whole.tolist()) == text
    assert dataset.sha256 == hashlib.sha256(text.encode()).hexdigest()
    with refuses(ValueError, f"dataset.text.no_column.{kind}", tmp_path):
        make(path, column="body")


def test_what_cannot_be_a_text_is_refused(file, tmp_path):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "packed.txt").write_bytes(gzip.compress(file.read_bytes()))
    (tmp_path / "no.csv").write_bytes(b'a,"b\n\xff\x001')
    refused_calls(
        "dataset.text.{}",
        {
            "nowhere": lambda: make(tmp_path / "nowhere.txt"),
            "directory": lambda: make(tmp_path),
            "empty": lambda: make(tmp_path / "empty.txt"),
            "packed": lambda: make(tmp_path / "packed.txt"),
            "hub_without_name": lambda: make("hub:"),
            "no_csv": lambda: make(tmp_path / "no.csv"),
            "other_hash": lambda: make(file, sha256="00"),
            "long": lambda: make(file, length=500),
            "nothing_for_validation": lambda: make(file, validation=0.0),
            "less_than_nothing_for_test": lambda: make(file, test=-0.1),
            "nothing_for_train": lambda: make(file, validation=0.5, test=0.5),
            "no_path": lambda: Text(tokenizer=Characters()),
        },
        tmp_path,
    )


FRESH = """
import sys, time
import attnlab.dataset.export
print(*({"datasets", "pyarrow", "pandas"} & sys.modules.keys()))
from attnlab.dataset.text import Text
from attnlab.tokenizer.characters import Characters
for endpoint in sys.argv[1:]:
    import os
    os.environ["HF_ENDPOINT"] = endpoint
    began = time.perf_counter()
    try:
        Text(path="hub:karpathy/tiny_shakespeare@main", obtain="it by hand", tokenizer=Characters())
    except ValueError as error:
        print(time.perf_counter() - began, error)
"""


def test_a_fresh_process_loads_no_library_of_tables_and_does_not_wait_for_the_hub(tmp_path):
    """Neither to export data, nor to be told that there is no network."""
    endpoints = {
        "refuses": "https://127.0.0.1:9",
        "unknown": "https://no.such.host.invalid",
    }
    environment = {
        **{k: v for k, v in os.environ.items() if "proxy" not in k.lower()},
        "HF_HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", FRESH, *endpoints.values()],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    libraries, *answers = done.stdout.splitlines()
    assert libraries == ""
    for name, answer in zip(endpoints, answers, strict=True):
        seconds, _, refusal = answer.partition(" ")
        says(f"dataset.text.hub.{name}", refusal)
        assert float(seconds) < 2


def test_a_silent_server_is_not_waited_for(tmp_path):
    """A host that takes no connection: a full queue, as behind a firewall."""
    with ExitStack() as sockets:
        full = sockets.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            client = sockets.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        endpoint = f"http://127.0.0.1:{full.getsockname()[1]}"
        patch = sockets.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("HF_ENDPOINT", endpoint)
        patch.setenv("HF_HOME", str(tmp_path))
        for name in ("http_proxy", "https_proxy", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
            patch.setenv(name, "")
        began = time.perf_counter()
        with refuses(ValueError, "dataset.text.hub.silent", endpoint):
            try:
                source.find_source("hub:some/name", "text")
            finally:
                seconds = time.perf_counter() - began
        assert seconds < 2


def test_tiny_shakespeare_is_the_published_text(composed):
    plays = real("tinyshakespeare/input.txt")
    dataset = Experiment(composed("dataset=shakespeare", f"dataset.path={plays}")).dataset
    assert len(dataset.tokens) == 65
    # That of the recorded results, which would have to be made anew.
    assert dataset.data_hash.startswith("8037fba8cf0a6f69")
    assert [len(tokens(dataset, split)) for split in PARTS] == [1_003_854, 55_770, 55_770]


def test_another_text_is_not_taken_for_shakespeare(file):
    with refuses(ValueError, "dataset.text.no_shakespeare", file):
        build("shakespeare", path=str(file), sha256=published_knobs("shakespeare")["sha256"])


def test_the_vocabulary_of_bytes_does_not_depend_on_the_text(file):
    assert len(Text(path=str(file), tokenizer=Bytes(), length=16).tokens) == 256


@pytest.fixture
def directory(tmp_path) -> Path:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name, word in (("wiki.train.tokens", "a"), ("valid.txt", "b"), ("wiki_test.txt", "c")):
        (corpus / name).write_text("".join(f"{word} {n % 7} and more\n" for n in range(40)))
    (corpus / "notes.md").write_text("nothing of it")
    return corpus


OWN: dict[str, Any] = {"validation": None, "test": None}


@pytest.mark.parametrize("tokenizer", [Characters, Words, lambda: BPE(vocab_size=280)])
def test_a_directory_brings_its_own_splits(directory, tokenizer):
    dataset = Text(path=str(directory), tokenizer=tokenizer(), length=16, **OWN)
    files = {"train": "wiki.train.tokens", "validation": "valid.txt", "test": "wiki_test.txt"}
    for split, name in files.items():
        text = (directory / name).read_text()
        written = dataset.decode(tokens(dataset, split).tolist())
        if isinstance(dataset.tokenizer, Words) and split != "train":
            text = text.replace("b", "<unk>").replace("c", "<unk>")
        assert written == text
    lines = [
        f"{hashlib.sha256((directory / name).read_bytes()).hexdigest()}  {split}\n"
        for split, name in files.items()
    ]
    assert dataset.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    again = Text(sha256=dataset.sha256, tokenizer=tokenizer(), length=16, **OWN)
    assert again.data_hash == dataset.data_hash
    assert again.tokenize("a 1 and") == dataset.tokenize("a 1 and")


def test_own_splits_and_shares_go_together(directory):
    text = (directory / "wiki.train.tokens").read_text()
    shares: dict[str, Any] = {"validation": None, "test": 0.25}
    dataset = Text(path=str(directory), tokenizer=Words(), length=16, **shares)
    parts = [dataset.decode(tokens(dataset, split).tolist()) for split in ("train", "test")]
    assert "".join(parts) == text
    assert len(parts[1].splitlines()) == 10
    unreported = Text(path=str(directory), tokenizer=Words(), length=16, validation=None, test=0.0)
    assert unreported.split_names == ("validation", "train")


def test_a_vocabulary_is_that_of_the_training_part(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("".join(f"early {n % 9}\n" for n in range(200)) + "late x\n" * 40)
    shares: dict[str, Any] = {"validation": 0.1, "test": 0.1}
    dataset = Text(path=str(path), tokenizer=Words(), length=8, **shares)
    assert "late" not in dataset.tokens
    assert "<unk>" in dataset.decode(tokens(dataset, "test").tolist())
    assert "<unk>" not in dataset.decode(tokens(dataset, "train").tolist())


def test_the_hash_of_the_data_holds_what_was_learnt(file, tmp_path):
    other_path = tmp_path / "other.txt"
    other_path.write_text(file.read_text().replace("beer", "bees"))
    dataset, of_other = (
        Text(path=str(path), tokenizer=Words(), length=16, validation=0.2, test=0.2)
        for path in (file, other_path)
    )
    assert dataset.splits["test"].digest() == of_other.splits["test"].digest()
    assert dataset.data_hash != of_other.data_hash


def test_splits_that_are_not_there_are_named(directory, file):
    refused_calls(
        "dataset.text.own_splits.{}",
        {"one_file": lambda: make(file, **OWN), "nowhere": lambda: make("nowhere", **OWN)},
        file,
    )
    (directory / "test.txt").write_text("again")
    with refuses(ValueError, "dataset.text.own_splits.several_files", directory):
        make(directory, **OWN)
    for name in ("test.txt", "wiki_test.txt"):
        (directory / name).unlink()
    with refuses(ValueError, "dataset.text.own_splits.no_test", directory):
        make(directory, **OWN)
    (directory / "valid.txt").write_text("")
    with refuses(ValueError, "dataset.text.own_splits.empty", directory):
        make(directory, validation=None, test=0.1)


def test_the_hub_brings_its_own_splits(directory, monkeypatch):
    import datasets

    rows = {"train": ["", " a b \n", " c \n"] * 20, "validation": [" a \n"] * 30}
    tables = datasets.DatasetDict(
        {split: datasets.Dataset.from_dict({"text": found}) for split, found in rows.items()}
    )
    monkeypatch.setattr("attnlab.corpus.hub._hub_answers", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: tables)
    dataset = Text(path="hub:some/words", tokenizer=Words(), length=8, validation=None, test=0.2)
    # A row that ends its line is not ended again.
    assert dataset.decode(tokens(dataset, "validation").tolist()) == "a\n" * 30
    assert dataset.decode(tokens(dataset, "train").tolist()).startswith("\na b\nc\n\na b\n")


def test_the_published_layouts_are_read():
    for name in ("wikitext2", "wikitext103", "tinystories"):
        assert set(build(name).splits) == set(PARTS), name


@pytest.mark.slow
def test_wikitext_2_has_its_published_sizes(composed):
    path = real("wikitext-2")
    dataset = Experiment(composed("dataset=wikitext2", f"dataset.path={path}")).dataset
    # 33,277 types, and the end of a line (Merity et al. 2017, table 1, with 36,718 line ends).
    assert len(dataset.tokens) == 33_278
    assert [len(tokens(dataset, split)) for split in PARTS] == [2_088_628, 217_646, 245_569]


def test_a_column_that_no_table_has_is_refused(file, directory, tmp_path):
    (directory / "valid.txt").rename(tmp_path / "text.md")
    refused_calls(
        "dataset.text.column.{}",
        {
            "of_a_text": lambda: make(file, column="foo"),
            "of_a_packed_text": lambda: make(packed(file), column="foo"),
            "of_a_directory": lambda: make(directory, column="foo", validation=0.1, test=None),
        },
        tmp_path,
    )
    # What was read once is found again, of a table or not.
    dataset = make(file)
    again = Text(sha256=dataset.sha256, column="foo", tokenizer=Characters(), length=16)
    assert again.data_hash == dataset.data_hash


def packed(file: Path) -> Path:
    path = file.with_name("packed.txt.gz")
    path.write_bytes(gzip.compress(file.read_bytes()))
    return path


def test_a_text_with_nothing_to_learn_is_refused(tmp_path):
    letters = "ab cd\n" * 50

    def of(text: str, tokenizer: Any = Characters, **knobs: Any) -> None:
        (tmp_path / "text.txt").write_text(text)
        Text(path=str(tmp_path / "text.txt"), tokenizer=tokenizer(), length=4, **knobs)

    refused_calls(
        "dataset.text.nothing.{}",
        {
            "one_character": lambda: of("a" * 300),
            "one_character_for_training": lambda: of("a" * 270 + "b" * 30),
            "white_space": lambda: of(" \n" * 300),
            "white_space_for_test": lambda: of(letters + "\n" * 60),
            "one_byte": lambda: of("a" * 300, Bytes),
            "rare_words": lambda: of(letters, lambda: Words(min_count=99)),
        },
        tmp_path,
    )
    of("ab" * 135 + "b" * 30)


def test_rows_without_a_text_are_told(tmp_path, monkeypatch):
    import datasets

    path = tmp_path / "rows.jsonl"
    texts = [None if n % 3 == 0 else f"row {n} of it" for n in range(60)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    dataset = make(path)
    assert "None" not in dataset.decode(dataset.whole.tolist())
    joined = "rows are joined into one text, each ends with its line; dataset=documents keeps"
    assert dataset.notes == [
        "20 of 60 rows are left out (without a text)",
        f"40 {joined} them apart",
    ]
    assert make(path).notes == dataset.notes
    tables = datasets.DatasetDict(
        {split: datasets.Dataset.from_dict({"text": texts}) for split in ("train", "validation")}
    )
    monkeypatch.setattr("attnlab.corpus.hub._hub_answers", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: tables)
    hub = make("hub:some/rows", validation=None, test=0.2)
    assert hub.notes[::2] == [
        f"{split}: 20 of 60 rows are left out (without a text)" for split in ("train", "validation")
    ]
    with refuses(ValueError, "dataset.text.hub.number"):
        tables["train"] = datasets.Dataset.from_dict({"text": [1, 2, 3]})
        make("hub:some/rows")


def test_a_text_and_its_tables_are_tokenised_without_a_mark(file, tmp_path):
    path = tmp_path / "marked.txt"
    path.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert make(path).sha256 == make(file).sha256
    assert "\ufeff" not in make(path).tokens
    assert "\ufeff" not in Text(path=str(path), tokenizer=Words(), length=16).tokens
