"""Tables of the hub, and of directories that the `datasets` library saved."""

import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from attnlab.corpus import tables
from attnlab.environment import expand_home, read_variable

HUB = "hub:"
PROBE_SECONDS = 1.0
BATCH = 1000
"""The number of rows that are converted at once."""
SAVED = ("dataset_dict.json", "state.json")
"""The files by which a directory of `save_to_disk` is known: of several splits, or of one table."""
ONLY = "all"
"""The name of the only table of a source without splits."""


def load_hub_tables(path: str, columns: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Load the tables of `hub:NAME[:CONFIG][@REVISION]`, by split: train, validation, test, others.

    Each entry of `columns` lists names for one column, of which a table must have one.
    """
    return _load_from_hub(path.removeprefix(HUB), columns)


def is_saved_dataset(directory: Path) -> bool:
    """Return whether `save_to_disk` of the `datasets` library wrote a directory."""
    return any((directory / name).is_file() for name in SAVED)


def load_saved_tables(
    directory: Path, path: str, columns: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """Load the tables of a directory of `save_to_disk` by split; a single table is named `ONLY`."""
    import datasets

    try:
        dataset = datasets.load_from_disk(str(directory))
    except Exception as error:  # The library raises any exception of its readers.
        raise ValueError(f"path={path} cannot be read: {_describe_causes(error)}") from error
    table_by_split = dataset if isinstance(dataset, datasets.DatasetDict) else {ONLY: dataset}
    return _tables_by_split(table_by_split, columns, path)


def read_rows(
    path: str, table: Any, columns: Sequence[str], names_classes: bool = False
) -> Iterator[tables.Row]:
    """Yield the cells of a table of the hub or of a saved dataset.

    `names_classes` gives the names of classes in place of their numbers.
    """
    if names_classes:
        table = _with_class_names(table, columns)
    outer_columns = [tables.outer_column(name, table.column_names) for name in columns]
    table_columns = list(dict.fromkeys(outer_columns))
    row_number = 0
    for batch in table.select_columns(table_columns).iter(batch_size=BATCH):
        for index in range(len(batch[table_columns[0]])):
            row_location = f"path={path}, row {row_number}"
            names_and_columns = zip(columns, outer_columns, strict=True)
            yield tables.Row(
                row_location,
                [
                    tables.nested_cell(batch[column][index], name, column, row_location)
                    for name, column in names_and_columns
                ],
            )
            row_number += 1


def _with_class_names(table: Any, columns: Sequence[str]) -> Any:
    """Return a table whose classes, in some of its columns, are their names."""
    import datasets

    for column in columns:
        feature = table.features.get(column)
        if isinstance(feature, datasets.ClassLabel):
            names = [None if n is None or n < 0 else feature.int2str(n) for n in table[column]]
            table = table.remove_columns(column).add_column(column, names)
    return table


def _load_from_hub(name: str, columns: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Load the tables of `NAME[:CONFIG][@REVISION]` by split. Raises ValueError."""
    match = re.fullmatch(r"([^:@]+)(?::([^@]+))?(?:@(.+))?", name)
    if match is None:
        raise ValueError(f"path=hub:{name} is no hub:NAME[:CONFIG][@REVISION]")
    repository, config, revision = match.groups()
    if not _hub_answers():
        # Without these variables the library retries for 20 seconds before it gives up.
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
        if not _is_downloaded(repository):
            raise ValueError(
                f"path=hub:{name} is not here, and {_hub_endpoint()} does not answer; give a file, "
                "or what `save_to_disk` wrote where there is a network"
            )
    return _load_tables(repository, columns, f"hub:{name}", name=config, revision=revision)


def _load_tables(
    builder: str, columns: Sequence[Sequence[str]], path: str, **options: Any
) -> dict[str, Any]:
    """Load the tables of a hub dataset by split, and check that each has all columns."""
    import datasets

    datasets.disable_progress_bars()
    try:
        dataset = datasets.load_dataset(builder, **options)
    except Exception as error:  # The library raises any exception of its readers and servers.
        raise ValueError(f"path={path} cannot be read: {_describe_causes(error)}") from error
    assert isinstance(dataset, datasets.DatasetDict)
    return _tables_by_split(dataset, columns, path)


def _tables_by_split(
    named_tables: Mapping[Any, Any], columns: Sequence[Sequence[str]], path: str
) -> dict[str, Any]:
    """Return the tables by split: train, validation, test, others; each has all columns."""
    standard_splits = [split for split in ("train", "validation", "test") if split in named_tables]
    table_by_split = {
        str(name): named_tables[name] for name in dict.fromkeys([*standard_splits, *named_tables])
    }
    for table in table_by_split.values():
        for names in columns:
            tables.find_column(names, table.column_names, path)
    return table_by_split


def _describe_causes(error: BaseException) -> str:
    """Return the first line of an exception and of its causes.

    Exceptions of the library say only that loading failed; their causes say what failed.
    """
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    return ": ".join(f"{type(e).__name__}: {str(e).strip().split(chr(10))[0]}" for e in causes)


def _hub_endpoint() -> str:
    return read_variable("HF_ENDPOINT") or "https://huggingface.co"


def _hub_answers() -> bool:
    """Return whether the hub, or the proxy before it, accepts a connection."""
    if (read_variable("HF_HUB_OFFLINE") or "").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    server = urlsplit(_hub_endpoint())
    proxy = getproxies().get(server.scheme)
    if proxy and not proxy_bypass(server.hostname or ""):
        server = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    port = server.port or (80 if server.scheme == "http" else 443)
    try:
        with socket.create_connection((server.hostname or "", port), PROBE_SECONDS):
            return True
    except OSError:
        return False


def _is_downloaded(name: str) -> bool:
    """Return whether the library's cache has an earlier download, without importing the library."""
    home = expand_home(read_variable("HF_HOME") or "~/.cache/huggingface")
    cache = expand_home(read_variable("HF_DATASETS_CACHE") or home / "datasets")
    return (cache / name.replace("/", "___").lower()).is_dir()
