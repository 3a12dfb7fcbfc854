"""A file is the bytes of its text, however it is packed; a file of another format is refused."""

import bz2
import codecs
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from attnlab.corpus import files, source
from attnlab.corpus.source import File
from tests.corpus.test_tables import zstd
from tests.refused_calls import refused_calls

TEXT = ("to be, or not to be\n" * 30).encode()
PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


def content(path: Path) -> bytes:
    return b"".join(source.find_source(str(path), "text").pieces())


@pytest.mark.parametrize("ending", [*PACKERS, ".GZ"])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_a_text_is_the_same_however_it_is_packed_and_with_or_without_a_mark(tmp_path, ending, mark):
    path = tmp_path / f"text.txt{ending}"
    path.write_bytes(PACKERS[ending.lower()](mark + TEXT))
    (tmp_path / "text.txt").write_bytes(TEXT)
    assert content(path) == TEXT
    assert File(path).sha256() == File(tmp_path / "text.txt").sha256()


def test_only_the_first_mark_is_none_of_the_text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(codecs.BOM_UTF8 * 2 + TEXT)
    assert content(path) == codecs.BOM_UTF8 + TEXT


def test_each_file_of_a_directory_is_read_without_its_mark(tmp_path):
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_bytes(codecs.BOM_UTF8 + TEXT)
    for part in source.find_split_sources(str(tmp_path), "text").values():
        assert b"".join(part.pieces()) == TEXT


def archive() -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as packed:
            packed.writestr("text.txt", TEXT)
        return file.getvalue()


def tar() -> bytes:
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w") as packed:
            member = tarfile.TarInfo("text.txt")
            member.size = len(TEXT)
            packed.addfile(member, io.BytesIO(TEXT))
        return file.getvalue()


def array() -> bytes:
    with io.BytesIO() as file:
        np.save(file, np.arange(9))
        return file.getvalue()


def test_other_formats_are_refused_by_their_first_bytes(tmp_path):
    contents = {
        "gzip": gzip.compress(TEXT),
        "bzip2": bz2.compress(TEXT),
        "xz": lzma.compress(TEXT),
        "zstd": zstd(TEXT),
        "zip": archive(),
        "tar": tar(),
        "parquet": b"PAR1 and more",
        "pdf": b"%PDF-1.7\n",
        "rtf": rb"{\rtf1 to be}",
        "office": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + TEXT,
        "sqlite": b"SQLite format 3\0" + TEXT,
        "numpy": array(),
        "utf16": TEXT.decode().encode("utf-16"),
        "utf16_be": codecs.BOM_UTF16_BE + TEXT.decode().encode("utf-16-be"),
        "utf32_be": codecs.BOM_UTF32_BE + TEXT.decode().encode("utf-32-be"),
    }
    plain, packed = tmp_path / "text.txt", tmp_path / "text.txt.gz"

    def fails(path: Path, given: bytes) -> Callable[[], object]:
        def call() -> None:
            path.write_bytes(given)
            content(path)

        return call

    calls = {name: fails(plain, given) for name, given in contents.items()}
    calls["tar_in_gzip"] = fails(packed, gzip.compress(tar()))
    calls["only_a_mark"] = fails(plain, codecs.BOM_UTF8)
    calls["no_gzip"] = fails(packed, TEXT)
    for ending, pack in PACKERS.items():
        calls[f"torn{ending}"] = fails(tmp_path / f"torn.txt{ending}", pack(TEXT)[:-12])
    refused_calls("corpus.files.{}", calls, tmp_path)


def test_endings_of_languages_are_no_formats(tmp_path):
    for language in ("pt", "br", "tar.de", "rar"):
        path = tmp_path / f"train.{language}"
        path.write_bytes(TEXT)
        assert content(path) == TEXT


def test_other_formats_are_refused_by_their_names(tmp_path):
    offenders = []
    for ending in (*files.UNREADABLE, ".ZIP", ".csv.zip", ".tar.gz", ".xlsx.gz"):
        path = tmp_path / f"text{ending}"
        path.write_bytes(TEXT)
        try:
            content(path)
        except ValueError as error:
            if str(error).startswith(f"path={path} is a") or "no text" in str(error):
                continue
            if str(error) == f"path={path} is packed; unpack it":
                continue
        offenders.append(ending)
    assert offenders == []
