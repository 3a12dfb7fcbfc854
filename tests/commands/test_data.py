"""`attnlab data`, from the words that are typed to what is printed and written."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from attnlab.analysis.data_report import data_report, open_data
from attnlab.cli import main
from attnlab.config import conf_dir
from attnlab.dataset import export as module
from attnlab.dataset.export import to_hub_dataset
from attnlab.dataset.mqar import MQAR
from tests.prose import says
from tests.refusals import UNBROKEN, refusals

LICENSE = Path(__file__).parents[2] / "LICENSE"
SMALL = ("dataset.num_train=30", "dataset.num_validation=5", "dataset.num_test=8")
SIZES: dict[str, Any] = {"num_train": 30, "num_validation": 5, "num_test": 8}


def data(*words: str) -> int:
    return main(["data", *words])


def shown(capsys, *words: str) -> Any:
    assert data("show", *words, "--format", "json") == 0
    return json.loads(capsys.readouterr().out)


def test_show_tells_what_a_dataset_is_and_gives_examples(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", UNBROKEN)
    assert data("show", "mqar", *SMALL, "--split", "test", "--index", "2", "--count", "2") == 0
    made = MQAR(**SIZES)
    examples = made.show("test", 2), made.show("test", 3)
    says("commands.data.shown", capsys.readouterr().out, made.data_hash, *examples)


def test_json_is_one_object_of_the_documented_form(capsys):
    found = shown(capsys, "mqar", *SMALL, "dataset.num_pairs=4")
    made = MQAR(num_pairs=4, **SIZES)
    examples = found.pop("examples")
    assert found == {
        "schema": 2,
        "name": "mqar",
        "summary": "Multi-query associative recall: which value came with this key? "
        "(Arora et al. 2023)",
        "class": "attnlab.dataset.mqar.MQAR",
        "vocabulary": 256,
        "classes": None,
        "max_length": 64,
        "splits": {"train": 30, "validation": 5, "test": 8},
        "contents": {
            split: {"tokens": 64 * size, "documents": None, "classes": None}
            for split, size in (("train", 30), ("validation", 5), ("test", 8))
        },
        "origin": "each drawn by itself, from `seed`",
        "notes": [],
        "data_hash": made.data_hash,
        "chance": 0.25,
        "best": 1.0,
    }
    rows = to_hub_dataset(made, "train").to_list()
    assert examples == [
        {"split": "train", "index": at, "text": made.show("train", at), **rows[at]}
        for at in range(3)
    ]


def test_json_is_the_report_of_python(capsys):
    knobs = ["dataset.num_pairs=4", *SMALL]
    words = ("--split", "test", "--index", "6", "--count", "5")
    report = data_report(open_data("mqar", knobs), split="test", index=6, count=5)
    assert shown(capsys, "mqar", *knobs, *words) == report.to_json()
    assert [example.index for example in report.examples] == [6, 7]


def test_classes_are_listed_and_odd_tokens_are_quoted(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", UNBROKEN)
    assert data("show", "pronoun", *SMALL) == 0
    (line,) = (s for s in capsys.readouterr().out.splitlines() if s.startswith("classes "))
    says("commands.data.shown_classes", line)
    words = (f"dataset.path={LICENSE}", "dataset.length=20")
    assert data("show", "text", *words) == 0
    said = capsys.readouterr().out
    assert "'\\n' ' '" in said
    assert "accuracy" not in said
    found = shown(capsys, "text", *words)
    assert (found["chance"], found["best"]) == (None, None)
    assert len(found["examples"][0]["inputs"]) == 20


def test_tokens_documents_and_classes_of_each_split_are_counted(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", UNBROKEN)
    rows = "".join(f"{'fine' if n % 4 else 'dull'} film {n},{n % 4 > 0}\n" for n in range(60))
    (tmp_path / "films.csv").write_text(f"text,label\n{rows}")
    words = ("sentences", f"dataset.path={tmp_path / 'films.csv'}", "dataset.min_count=1")
    found = shown(capsys, *words)
    contents = found["contents"]
    assert {split: sum(held["classes"].values()) for split, held in contents.items()} == (
        found["splits"]
    )
    assert {split: held["tokens"] for split, held in contents.items()} == {
        split: 4 * size for split, size in found["splits"].items()
    }
    assert sum(held["classes"]["False"] for held in contents.values()) == 15
    assert data("show", *words) == 0
    says("commands.data.shown_table", capsys.readouterr().out)
    (tmp_path / "stories").mkdir()
    for number in range(60):
        (tmp_path / f"stories/{number}.txt").write_text(f"story {number}\n" * 3)
    words = ("documents", f"dataset.path={tmp_path / 'stories'}", "dataset.length=16")
    contents = shown(capsys, *words)["contents"]
    assert sum(held["documents"] for held in contents.values()) == 60
    assert contents["train"]["classes"] is None


def test_the_last_examples_are_fewer_than_asked(capsys):
    examples = shown(capsys, "reversal", *SMALL, "--index", "28")["examples"]
    assert [example["index"] for example in examples] == [28, 29]
    assert examples[0]["targets"][:-1] == examples[0]["inputs"][::-1]


def test_a_dataset_of_ones_own_is_shown_with_its_own_words(tmp_path, capsys):
    (tmp_path / "dataset").mkdir()
    text = (conf_dir() / "dataset/mqar.yaml").read_text().splitlines()
    for name, lines in (("said", [text[0], "# My own.", *text[2:]]), ("silent", text[2:])):
        path = tmp_path / f"dataset/{name}.yaml"
        path.write_text("\n".join(["# @package _global_", *lines]))
        found = shown(capsys, name, *SMALL, "--config-dir", str(tmp_path))
        assert found["summary"] == (
            "My own." if name == "said" else (MQAR.__doc__ or "").splitlines()[0]
        )


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_export_writes_what_loads_again_and_says_how_it_was_made(tmp_path, capsys, kind):
    where, words = tmp_path / "made", ("dataset.num_pairs=4", *SMALL)
    assert data("export", "mqar", *words, "-o", str(where), "--format", kind) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == ["train: 30 examples", "validation: 5 examples", "test: 8 examples", str(where)]
    assert sorted(path.name for path in where.iterdir()) == sorted(
        ["README.md", "vocabulary.json", *(f"{s}.{kind}" for s in ("train", "validation", "test"))]
    )
    made = MQAR(num_pairs=4, **SIZES)
    loaded = datasets.load_dataset(str(where), cache_dir=str(tmp_path / "cache"))
    assert isinstance(loaded, datasets.DatasetDict)
    assert loaded["train"][:] == to_hub_dataset(made, "train")[:]
    card = (where / "README.md").read_text()
    assert f"attnlab data export mqar {' '.join(words)} -o made --format {kind}" in card
    assert "| `num_pairs` | `4` |" in card
    assert "Multi-query associative recall: which value" in card
    assert made.data_hash in card


def test_a_card_names_a_text_by_its_content_among_the_knobs(tmp_path):
    book = tmp_path / "book of mine.txt"
    book.write_text(LICENSE.read_text())
    assert data("export", "text", f"dataset.path={book}", "-o", str(tmp_path / "made")) == 0
    card = (tmp_path / "made/README.md").read_text()
    assert "| `path` | `null` |" in card
    assert "| `sha256` | `null` |" not in card
    assert "Characters" in card


def test_what_is_left_out_is_said_by_show_export_and_card(tmp_path, capsys):
    for name in ("train", "validation", "test"):
        lines = f"film one of {name}\t1\nfilm two of {name}\t0\nfilm in all\t1\n"
        (tmp_path / f"{name}.tsv").write_text(f"sentence\tlabel\n{lines}")
    words = ("sentences", f"dataset.path={tmp_path}")
    notes = [
        f"{split}: 1 of 3 sentences are left out (in an earlier split: 1)"
        for split in ("validation", "train")
    ]
    assert shown(capsys, *words)["notes"] == notes
    assert data("show", *words) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line.startswith("note")] == [f"note        {n}" for n in notes]
    assert data("export", *words, "-o", str(tmp_path / "made")) == 0
    assert capsys.readouterr().out.splitlines()[3:-1] == notes
    card = (tmp_path / "made/README.md").read_text()
    assert all(f"\n- {note}\n" in card for note in notes)


def test_data_that_cannot_be_read_are_refused_and_write_nothing(tmp_path, capsys):
    contents = {
        "torn.jsonl": b'{"text": "a b"}\n{"text": "half',
        "numbers.jsonl": b'{"text": 3}\n',
        "null.jsonl": b'{"text": null}\n' * 9,
        "letters.txt": b"a" * 9999,
        "utf16.txt": "to be".encode("utf-16"),
        "book.pdf": b"%PDF-1.7",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    requests = {
        name.replace(".", "_"): ["data", "show", "text", f"dataset.path={tmp_path / name}"]
        for name in contents
    }
    requests["column"] = [
        *("data", "show", "text", f"dataset.path={LICENSE}", "dataset.column=foo"),
    ]
    refusals(capsys, "commands.data.unread.{}", requests, tmp_path, LICENSE)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(contents)


def test_a_wrong_request_is_refused_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    wrong = {
        "dataset": ["show", "mqra"],
        "knob": ["show", "mqar", "dataset.num_pair=3"],
        "length": ["show", "mqar", "dataset.length=3"],
        "model": ["show", "mqar", "model.d_model=32"],
        "split": ["show", "mqar", *SMALL, "--split", "tset"],
        "index": ["show", "mqar", *SMALL, "--index", "30"],
        "index_below_0": ["show", "mqar", *SMALL, "--index", "-1"],
        "count": ["show", "mqar", *SMALL, "--count", "0"],
        "show_parquet": ["show", "mqar", "--format", "parquet"],
        "show_output": ["show", "mqar", "-o", "there"],
        "no_path": ["show", "text"],
        "too_few": ["show", "reversal", "dataset.vocab_size=2", "dataset.length=4"],
        "no_output": ["export", "mqar"],
        "export_json": ["export", "mqar", "-o", "there", "--format", "json"],
        "export_split": ["export", "mqar", "-o", "there", "--split", "test"],
        "output_file": ["export", "mqar", "-o", str(LICENSE)],
        "output_not_empty": ["export", "mqar", "-o", str(LICENSE.parent)],
    }
    requests = {name: ["data", *words] for name, words in wrong.items()}
    refusals(capsys, "commands.data.{}", requests, LICENSE, LICENSE.parent)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_export_leaves_nothing_and_exits_130(tmp_path, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setitem(module.WRITERS, "parquet", stopped)
    assert data("export", "mqar", *SMALL, "-o", str(tmp_path / "made")) == 130
    assert list(tmp_path.iterdir()) == []
