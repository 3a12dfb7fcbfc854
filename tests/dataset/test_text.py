"""A text is the same bytes wherever it lies, and what cannot be had is told at once."""

import gzip
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from attnlab.assemble import Experiment
from attnlab.dataset.base import IGNORE, Windows
from attnlab.dataset.text import Text
from attnlab.tokenizer.characters import Characters
from tests.conftest import dataset_words

PLAYS = Path(__file__).parents[3] / "shared/data/tinyshakespeare/input.txt"
PARTS = ("train", "validation", "test")


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{n} bottles of beer on the wall\n" for n in range(99, 0, -1)))
    return path


def make(path, **knobs) -> Text:
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
        assert dataset.write(tokens(dataset, split).tolist()) == wanted


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
    assert dataset.reported == "validation"
    assert set(dataset.splits) == {"validation", "train"}
    text = file.read_text()
    assert dataset.write(tokens(dataset, "train").tolist()) == text[: int(len(text) * 0.95)]
    with pytest.raises(ValueError, match=r"test_every: the dataset has no test split"):
        composed(*words, "callbacks=test_curve")


def test_the_identity_holds_the_content_and_not_the_place(file, tmp_path, composed):
    other = tmp_path / "elsewhere.md"
    other.write_bytes(file.read_bytes())
    one, two = (
        Experiment(composed("dataset=text", "dataset.length=16", f"dataset.path={path}")).identity
        for path in (file, other)
    )
    assert one == two
    assert one["dataset"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert one["dataset"]["path"] is None


def test_a_text_that_was_read_once_needs_no_place(file):
    made = make(file)
    again = Text(path=None, sha256=made.sha256, tokenizer=Characters(), length=16)
    assert again.data_hash == made.data_hash
    file.unlink()
    hub = Text(path="hub:nobody/nothing", sha256=made.sha256, tokenizer=Characters(), length=16)
    assert hub.data_hash == made.data_hash


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
    whole = "".join(f"{row}\n" for row in rows)
    assert dataset.write(dataset.whole.tolist()) == whole
    assert dataset.sha256 == hashlib.sha256(whole.encode()).hexdigest()
    with pytest.raises(ValueError, match=r"column='body' is not in .*; there is .*text"):
        make(path, column="body")


def test_what_cannot_be_a_text_is_refused(file, tmp_path):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "packed.txt").write_bytes(gzip.compress(file.read_bytes()))
    (tmp_path / "no.csv").write_bytes(b'a,"b\n\xff\x001')
    for path, said in {
        tmp_path / "nowhere.txt": "does not exist",
        tmp_path: "is a directory",
        tmp_path / "empty.txt": "is empty",
        tmp_path / "packed.txt": r"not UTF-8: byte 0x8b at 1",
        tmp_path / "no.csv": "cannot be read",
        "hub:": "no hub:NAME",
    }.items():
        with pytest.raises(ValueError, match=said):
            make(path)
    with pytest.raises(ValueError, match=r"sha256 [0-9a-f]{64}, expected 00.*sha256=null"):
        make(file, sha256="00")
    with pytest.raises(ValueError, match=r"length=500 is too long: the test text has 153 tokens"):
        make(file, length=500)
    for shares in ({"validation": 0.0}, {"test": -0.1}, {"validation": 0.5, "test": 0.5}):
        with pytest.raises(ValueError, match="shares that leave some text"):
            make(file, **shares)
    with pytest.raises(ValueError, match=r"dataset.path=FILE"):
        Text(tokenizer=Characters())


HUB = """
import time
from attnlab.dataset.text import Text
from attnlab.tokenizer.characters import Characters
began = time.perf_counter()
try:
    Text(path="hub:karpathy/tiny_shakespeare@main", obtain="it by hand", tokenizer=Characters())
except ValueError as error:
    print(time.perf_counter() - began, error)
"""


@pytest.mark.parametrize("endpoint", ["https://127.0.0.1:9", "https://no.such.host.invalid"])
def test_without_a_network_the_hub_fails_at_once_and_says_what_to_do(tmp_path, endpoint):
    environment = {
        **{k: v for k, v in os.environ.items() if "proxy" not in k.lower()},
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", HUB], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    seconds, said = done.stdout.split(" ", 1)
    assert f"{endpoint} does not answer; obtain it by hand, and give dataset.path=FILE" in said
    assert float(seconds) < 2


def test_a_silent_server_is_not_waited_for(tmp_path):
    """A host that takes no connection: a full queue, as behind a firewall."""
    import socket

    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = []
        for _ in range(3):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(full.getsockname())
            waiting.append(client)
        from attnlab.corpus import source

        began = time.perf_counter()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{full.getsockname()[1]}")
            patch.setenv("HF_HOME", str(tmp_path))
            for name in ("http_proxy", "https_proxy", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
                patch.setenv(name, "")
            with pytest.raises(ValueError, match="does not answer"):
                source.find("hub:some/name", "text")
        assert time.perf_counter() - began < 2
        for client in waiting:
            client.close()


@pytest.mark.skipif(not PLAYS.exists(), reason="the real tiny Shakespeare is not on this machine")
def test_tiny_shakespeare_is_the_published_text(composed):
    dataset = Experiment(composed("dataset=shakespeare", f"dataset.path={PLAYS}")).dataset
    assert len(dataset.tokens) == 65
    assert [len(tokens(dataset, split)) for split in PARTS] == [1_003_854, 55_770, 55_770]


def test_another_text_is_not_taken_for_shakespeare(composed, file):
    with pytest.raises(ValueError, match=r"expected 86c4e6aa.*obtain data/tinyshakespeare"):
        composed("dataset=shakespeare", f"dataset.path={file}")


def test_the_vocabulary_of_bytes_does_not_depend_on_the_text(composed):
    words = [*dataset_words("text"), "dataset/tokenizer=bytes"]
    assert len(Experiment(composed(*words)).dataset.tokens) == 256
