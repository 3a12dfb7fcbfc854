"""A cell is what stands in its file, in every form of a table; what is no text is told by row."""

import bz2
import csv
import gzip
import hashlib
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attnlab.corpus import source
from tests.prose import refuses
from tests.refused_calls import refused_calls

TEXTS = [f"line {n} of the text" for n in range(12)]
PLAIN = "".join(f"{text}\n" for text in TEXTS)
JSONL = "".join(json.dumps({"text": text, "n": 1}) + "\n" for text in TEXTS)
CSV = "n,text\n" + "".join(f"1,{text}\n" for text in TEXTS)
TSV = CSV.replace(",", "\t")
MARK = b"\xef\xbb\xbf"


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def read(tmp_path: Path, name: str, content: bytes | str, column: str = "text") -> str:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return b"".join(source.find_source(str(path), column).pieces()).decode()


@pytest.mark.parametrize("word", ["NA", "N/A", "null", "None", "nan", "NULL", "n/a", "#N/A", "1.0"])
@pytest.mark.parametrize(("name", "separator"), [("t.csv", ","), ("t.tsv", "\t")])
def test_a_word_in_a_cell_is_that_word(tmp_path, word, name, separator):
    lines = "".join(f"{word}{separator}1\n" for _ in range(3))
    assert read(tmp_path, name, f"text{separator}n\n{lines}") == f"{word}\n" * 3


SPELT = {
    "t.CSV": CSV.encode(),
    "t.csv.gz": gzip.compress(CSV.encode()),
    "t.tsv": TSV.encode(),
    "t.tab": TSV.encode(),
    "t.Tsv.GZ": gzip.compress(TSV.encode()),
    "t.ndjson": JSONL.encode(),
    "t.jsonlines": JSONL.encode(),
    "t.jl": JSONL.encode(),
    "t.JSONL": JSONL.encode(),
    "t.jsonl.gz": gzip.compress(JSONL.encode()),
    "t.jsonl.bz2": bz2.compress(JSONL.encode()),
    "t.jsonl.xz": lzma.compress(JSONL.encode()),
    "t.jsonl.zst": zstd(JSONL.encode()),
    "t.json": json.dumps([{"text": text} for text in TEXTS], indent=1).encode(),
    "texts.json": json.dumps(TEXTS).encode(),
    "columns.json": json.dumps({"text": TEXTS}, indent=1).encode(),
    "one_line.json": json.dumps({"text": TEXTS, "n": [1] * 12}).encode(),
    "texts.jsonl": "".join(json.dumps(text) + "\n" for text in TEXTS).encode(),
    "mark.csv": MARK + f"text\n{PLAIN}".encode(),
    "mark.jsonl": MARK + JSONL.encode(),
    "mark.json": MARK + json.dumps(TEXTS).encode(),
    "mark.tsv.gz": gzip.compress(MARK + f"text\n{PLAIN}".encode()),
    "return.csv": CSV.replace("\n", "\r\n").encode(),
    "return.tsv": TSV.replace("\n", "\r\n").encode(),
    "return.jsonl": JSONL.replace("\n", "\r\n").encode(),
    "mac.csv": CSV.replace("\n", "\r").encode(),
    "empty_last.csv": "".join(["text,n\n", *(f"{text},\n" for text in TEXTS)]).encode(),
    "blank_lines.csv": CSV.replace("\n", "\n\n").encode(),
    "blank_lines.jsonl": JSONL.replace("\n", "\n\n").encode(),
}


@pytest.mark.parametrize("name", SPELT)
def test_a_table_is_its_column_however_it_is_spelt_and_packed(tmp_path, name):
    assert read(tmp_path, name, SPELT[name]) == PLAIN


@pytest.mark.parametrize("name", ["t.PARQUET", "t.pq"])
def test_a_parquet_table_is_its_column(tmp_path, name):
    pq.write_table(pa.table({"n": [1] * 12, "text": TEXTS}), tmp_path / name)
    text = source.find_source(str(tmp_path / name), "text")
    assert b"".join(text.pieces()).decode() == PLAIN
    assert text.sha256() == hashlib.sha256(PLAIN.encode()).hexdigest()


def test_quotes_hold_commas_and_lines_together(tmp_path):
    cells = ['say "hi", twice', "two\nlines", "two\r\nlines", " spaces ", "", "it's"]
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "n"], *([cell, 1] for cell in cells)])
    text = b"".join(source.find_source(str(tmp_path / "t.csv"), "text").pieces()).decode()
    assert text == "".join(f"{cell}\n" for cell in cells)
    # TSV has no quotes: GLUE begins cells with them.
    assert read(tmp_path, "t.tsv", 'text\n"a b\nc d\n') == '"a b\nc d\n'
    # A cell may be long.
    assert len(read(tmp_path, "long.csv", f"text\n{'x' * 300_000}\n")) == 300_000


def test_dates_and_numbers_in_quotes_are_texts(tmp_path):
    rows = "".join(json.dumps({"text": f"2020-01-0{n}"}) + "\n" for n in range(1, 5))
    assert read(tmp_path, "t.jsonl", rows).startswith("2020-01-01\n2020-01-02\n")
    assert read(tmp_path, "t.csv", "text\n1\n2\n03\n") == "1\n2\n03\n"


def test_rows_without_a_text_are_left_out_and_counted(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a b"}\n{"text": null}\n{"other": 1}\n{"text": ""}\n{"text": "c"}\n')
    text = source.find_source(str(path), "text")
    assert isinstance(text, source.RowSource)
    assert b"".join(text.pieces()) == b"a b\n\nc\n"
    assert text.counts()[1:] == (5, 2)


def faults(tmp_path: Path) -> dict[str, Callable[[], object]]:
    contents: dict[str, tuple[str, bytes | str]] = {
        "torn_end": ("t.jsonl", f'{JSONL}{{"text": "half'),
        "torn_line": ("t.jsonl", f'{JSONL}{{"text": "half\n{JSONL}'),
        "torn_array": ("t.json", json.dumps(TEXTS, indent=1)[:70]),
        "number": ("t.jsonl", f'{JSONL}{{"text": 3}}\n'),
        "list": ("t.jsonl", f'{JSONL}{{"text": ["a"]}}\n'),
        "struct": ("t.jsonl", f'{JSONL}{{"text": {{"de": "a"}}}}\n'),
        "arrays": ("t.jsonl", '["a"]\n["b"]\n'),
        "numbers": ("t.jsonl", "1\n2\n"),
        "surrogate": ("t.jsonl", f'{JSONL}{{"text": "\\ud800"}}\n'),
        "deep": ("t.jsonl", f'{JSONL}{{"text": {"[" * 100_000}\n'),
        "array_among_lines": ("t.jsonl", f'{JSONL}["a"]\n{JSONL}'),
        "one_key_twice": ("t.jsonl", f'{JSONL}{{"text": "a", "text": "b"}}\n'),
        "many_columns": ("t.json", json.dumps([{str(n): "a" for n in range(99)}])),
        "no_header": ("t.csv", f"{'a long line of text ' * 9},1\nb,2\n"),
        "no_keys": ("t.jsonl", "{}\n{}\n"),
        "array_of_nothing": ("t.json", "[]"),
        "empty_parquet": ("t.parquet", ""),
        "unlike_columns": ("t.json", '{\n"text": ["a"], "n": [1, 2]}'),
        "no_json_column": ("t.jsonl", '{"body": "a"}\n'),
        "latin_json": ("t.jsonl", f'{JSONL}{{"text": "caf\xe9"}}\n'.encode("latin-1")),
        "latin_csv": ("t.csv", f"{CSV}1,caf\xe9\n".encode("latin-1")),
        "short_row": ("t.csv", f"{CSV}1\n{CSV}"),
        "long_row": ("t.csv", f"{CSV}1,2,3\n"),
        "long_rows": ("t.csv", "text,n\na,1,\nb,2,\n"),
        "open_quote": ("t.csv", f'{CSV}1,"never closed\n1,a\n'),
        "two_columns": ("t.csv", "text,text\na,b\n"),
        "semicolons": ("t.csv", "text;n\na;1\n"),
        "short_tsv": ("t.tsv", f"{TSV}1\n"),
        "zero_byte": ("t.csv", CSV.encode("utf-16-le")),
        "only_head": ("head.csv", "text,n\n"),
        "nothing": ("t.csv", ""),
        "all_null": ("null.jsonl", '{"text": null}\n' * 5),
        "all_empty": ("empty.csv", "text,n\n,1\n ,2\n"),
        "packed_parquet": ("t.parquet.gz", b"PAR1"),
        "no_parquet": ("t.parquet", "PAR1 and no more"),
    }

    def fails(name: str, content: bytes | str) -> Callable[[], object]:
        def call() -> None:
            read(tmp_path, name, content)
            source.find_source(str(tmp_path / name), "text").sha256()

        return call

    return {key: fails(*given) for key, given in contents.items()}


def test_what_cannot_be_read_is_told_with_its_line(tmp_path):
    refused_calls("corpus.tables.{}", faults(tmp_path), tmp_path)


def test_a_column_of_parquet_that_is_no_text_is_told_by_its_type(tmp_path):
    columns = {"n": [1], "share": [0.5], "list": [["a"]], "struct": [{"de": "a"}], "bytes": [b"a"]}
    pq.write_table(pa.table({**columns, "null": pa.nulls(1)}), tmp_path / "t.parquet")
    refused_calls(
        "corpus.tables.parquet_{}",
        {
            name: lambda name=name: source.find_source(str(tmp_path / "t.parquet"), name).sha256()
            for name in (*columns, "null")
        },
        tmp_path,
    )


def test_what_a_library_says_of_the_hub_is_told_with_its_cause(monkeypatch):
    import datasets

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("An error occurred") from ValueError("line 3 is torn\nmore of it")

    monkeypatch.setattr("attnlab.corpus.hub._hub_answers", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", fails)
    with refuses(ValueError, "corpus.tables.cause"):
        source.find_source("hub:some/name", "text")
