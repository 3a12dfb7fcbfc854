"""A file read as text bytes: unpacked, without byte order mark; other formats are refused."""

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PIECE = 1 << 22
"""The number of bytes that are read at once."""
HEAD = 512
"""The number of bytes at the beginning from which a format is recognised."""
ICONV = "convert it to UTF-8, as `iconv -f UTF-16 -t UTF-8` does"

FORMATS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x1f\x8b\x08", "packed by gzip, which its name does not say; add .gz to its name"),
    (0, b"\xfd7zXZ\0", "packed by xz, which its name does not say; add .xz to its name"),
    (0, b"\x28\xb5\x2f\xfd", "packed by zstd, which its name does not say; add .zst to its name"),
    (4, b"1AY&SY", "packed by bzip2, which its name does not say; add .bz2 to its name"),
    (0, b"PAR1", "a Parquet table, which its name does not say; let its name end in .parquet"),
    (0, b"PK\3\4", "a zip archive, or packed as one (.docx, .xlsx, .npz); unpack it"),
    (0, b"PK\5\6", "an empty zip archive; name another file"),
    (257, b"ustar", "a tar archive; unpack it"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it"),
    (0, b"Rar!\x1a\7", "a RAR archive; unpack it"),
    (0, b"\x04\x22\x4d\x18", "packed by LZ4; unpack it"),
    (0, b"%PDF-", "a PDF document; save its text"),
    (0, b"{\\rtf", "an RTF document; save its text"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document (.doc, .xls); save its text"),
    (0, b"SQLite format 3\0", "an SQLite database; save a table of it as .csv or .parquet"),
    (0, b"ARROW1\0", "an Arrow table; save it as .parquet"),
    (0, b"\x89HDF\r\n", "an HDF5 file; save its text"),
    (0, b"\x93NUMPY", "an array of NumPy; save its text"),
    (0, b"Obj\1", "an Avro table; save it as .parquet or .jsonl"),
    (0, codecs.BOM_UTF16_LE, f"UTF-16 or UTF-32, as its first bytes say; {ICONV}"),
    (0, codecs.BOM_UTF16_BE, f"UTF-16, as its first bytes say; {ICONV}"),
    (0, codecs.BOM_UTF32_BE, "UTF-32, as its first bytes say; convert it to UTF-8"),
)
"""Formats without plain text: the offset and bytes of their signature, and what to do."""
UNREADABLE: dict[str, str] = {
    **dict.fromkeys((".zip", ".7z", ".tar"), "an archive; unpack it"),
    **dict.fromkeys((".tgz", ".tbz", ".tbz2", ".txz", ".tzst"), "an archive; unpack it"),
    **dict.fromkeys((".lz4", ".z", ".lzma", ".lzo"), "packed; unpack it"),
    **dict.fromkeys((".xls", ".xlsx", ".ods"), "a spreadsheet; save it as .csv"),
    **dict.fromkeys((".feather", ".arrow", ".orc", ".avro"), "a table; save it as .parquet"),
    **dict.fromkeys((".pdf", ".docx", ".odt", ".epub", ".rtf"), "a document; save its text"),
    **dict.fromkeys((".npy", ".npz", ".pkl", ".pickle"), "no text; save its text"),
    **dict.fromkeys((".h5", ".hdf5", ".sqlite", ".sqlite3"), "no text; save its text"),
}
"""Name endings of files without plain text, and what to do; no language code is among them."""


def read_pieces(path: Path) -> Iterator[bytes]:
    """Yield the text of a file. Raises ValueError if it has another format or is damaged."""
    with open_text(path) as file:
        while piece := file.read(PIECE):
            yield piece


@contextmanager
def open_text(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file at the beginning of its text, unpacked if its name says that it is packed.

    Raises ValueError if its format is not text, or if it cannot be read.
    """
    unpacked_path = path.with_suffix("") if path.suffix.lower() in PACKED else path
    for name in (path, unpacked_path):
        if advice := UNREADABLE.get(name.suffix.lower()):
            raise ValueError(f"path={path} is {advice}")
    try:
        opener = PACKED.get(path.suffix.lower(), _open_plain)
        with opener(path) as raw_file, io.BufferedReader(raw_file, PIECE) as file:
            first_bytes = file.peek(HEAD)
            for offset, signature, advice in FORMATS:
                if first_bytes[offset : offset + len(signature)] == signature:
                    packed_note = ", unpacked," if unpacked_path != path else ""
                    raise ValueError(f"path={path}{packed_note} is {advice}")
            if first_bytes.startswith(codecs.BOM_UTF8):
                file.read(len(codecs.BOM_UTF8))
            yield file
    except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"path={path} cannot be unpacked: {error}") from error
    except OSError as error:
        action = "unpacked" if error.errno is None else "read"
        raise ValueError(f"path={path} cannot be {action}: {error.strerror or error}") from error


def unpacked_name(name: str) -> str:
    """Return a file's name in lower case, without the ending of its compression."""
    path = Path(name.lower())
    return path.stem if path.suffix in PACKED else path.name


def _open_plain(path: Path) -> Any:
    return path.open("rb", buffering=0)


def _open_zstd(path: Path) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")


PACKED: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zstd,
}
"""The function that opens a packed file, by the ending of its name."""
