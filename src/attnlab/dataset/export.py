"""A dataset for use elsewhere: as a `datasets.Dataset`, or as files with a data card.

The columns are the same in both. `inputs` are token ids, without padding. The other columns:
    labels at positions | `targets`, as long as `inputs`, -100 where there is no label
    answers that are sequences | `targets`, of their own length, the end included
    classes | `label` and the position `at` that it belongs to; lists if there are several
"""

import inspect
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from attnlab.dataset.base import Dataset
from attnlab.places import require_writable
from attnlab.split import IGNORE, Batch

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

PIECE = 1 << 20
"""The number of tokens that are converted at once."""
VOCABULARY = "vocabulary.json"
MEANING = {
    "inputs": "the numbers of the tokens",
    "targets": "what each position should say, -100 where nothing is asked",
    "label": "the class",
    "at": "the position in `inputs` that the class belongs to",
}


class ExportOrigin(NamedTuple):
    """The origin of the data, as a data card states it."""

    name: str
    summary: str
    knobs: Mapping[str, Any]
    command: str


def to_hub_dataset(dataset: Dataset, split: str) -> "datasets.Dataset":
    """Return a split as a `datasets.Dataset`, held in memory."""
    import datasets
    import pyarrow as pa

    schema = column_features(dataset).arrow_schema
    arrow_table = pa.Table.from_batches(_record_batches(dataset, split), schema)
    fingerprint = dataset.splits[split].digest().hex()[:16]
    return datasets.Dataset(arrow_table, split=datasets.NamedSplit(split), fingerprint=fingerprint)


def split_sizes(dataset: Dataset) -> dict[str, int]:
    """Count the examples of each split: training first, and tests of other lengths last."""
    standard = [name for name in ("train", "validation", "test") if name in dataset.split_names]
    names = dict.fromkeys([*standard, *dataset.splits])
    return {name: len(dataset.splits[name]) for name in names}


def export(
    dataset: Dataset,
    directory: Path,
    kind: str = "parquet",
    origin: ExportOrigin | None = None,
) -> None:
    """Write a file for each split, the vocabulary, and a data card, into a new directory.

    `kind` is parquet or jsonl. The directory appears with all files, or not at all. Raises
    ValueError if it exists and is not empty.
    """
    if kind not in WRITERS:
        raise ValueError(f"kind={kind} must be one of {', '.join(WRITERS)}")
    directory = directory.resolve()
    require_free(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary_directory = directory.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        temporary_directory.mkdir()
        for split in split_sizes(dataset):
            with _open_synced(temporary_directory / f"{split}.{kind}") as file:
                WRITERS[kind](dataset, split, file)
        name_lists = {"tokens": dataset.tokens, "classes": dataset.classes}
        with _open_synced(temporary_directory / VOCABULARY) as file:
            file.write(json.dumps(name_lists, ensure_ascii=False).encode())
        with _open_synced(temporary_directory / "README.md") as file:
            file.write(data_card(dataset, kind, origin).encode())
        # Another process may have filled it since the first check.
        require_free(directory)
        temporary_directory.rename(directory)
    finally:
        shutil.rmtree(temporary_directory, ignore_errors=True)


def require_free(directory: Path) -> None:
    """Refuse a directory that is not empty, or cannot be written. Raises ValueError."""
    if directory.is_dir() and any(directory.iterdir()):
        raise ValueError(f"{directory} is not empty; delete it, or name another directory")
    require_writable(directory)


def column_features(dataset: Dataset) -> "datasets.Features":
    """Return the types of the columns."""
    import datasets

    ids = datasets.List(datasets.Value("int32"))
    if dataset.classes is None:
        return datasets.Features({"inputs": ids, "targets": ids})
    label, position = datasets.ClassLabel(names=dataset.classes), datasets.Value("int32")
    if _has_several_classes(dataset, dataset.splits[dataset.report_split][:1]):
        label, position = datasets.List(label), datasets.List(position)
    return datasets.Features({"inputs": ids, "label": label, "at": position})


def example_columns(dataset: Dataset, batch: Batch) -> "dict[str, pa.Array]":
    """Return examples as columns, by name."""
    import pyarrow as pa

    inputs, targets = batch.inputs.numpy(), batch.targets.numpy()
    valid = np.ones(inputs.shape, dtype=bool) if batch.valid is None else batch.valid.numpy()
    is_counted = targets != IGNORE
    if batch.at is None:
        positions = np.broadcast_to(np.arange(targets.shape[1]), targets.shape)
    else:
        positions = batch.at.numpy()
    arrays = {"inputs": _list_array(inputs, valid, pa.int32())}
    if dataset.answer_length is not None:
        until_last = np.flip(np.logical_or.accumulate(np.flip(is_counted, axis=1), axis=1), axis=1)
        arrays["targets"] = _list_array(targets, until_last, pa.int32())
    elif dataset.classes is None:
        target_of_position = np.full(inputs.shape, IGNORE)
        row, label = np.nonzero(is_counted)
        target_of_position[row, positions[row, label]] = targets[row, label]
        arrays["targets"] = _list_array(target_of_position, valid, pa.int32())
    elif _has_several_classes(dataset, batch):
        arrays["label"] = _list_array(targets, is_counted, pa.int64())
        arrays["at"] = _list_array(positions, is_counted, pa.int32())
    else:
        arrays["label"] = pa.array(targets[:, 0], pa.int64(), mask=~is_counted[:, 0])
        arrays["at"] = pa.array(positions[:, 0], pa.int32())
    return arrays


def data_card(dataset: Dataset, kind: str = "parquet", origin: ExportOrigin | None = None) -> str:
    """Return the text of the data card: a header for the `datasets` library, then the facts."""
    name = origin.name if origin else type(dataset).__name__
    lines = ["---", _yaml_header(dataset, kind), "---", "", f"# {name}", ""]
    lines += [origin.summary, ""] if origin else []
    lines += ["```text", inspect.getdoc(type(dataset)) or name, "```", ""]
    if (chance := getattr(dataset, "chance", None)) is not None:
        best = getattr(dataset, "best", 1.0)
        lines += [f"Accuracy: chance {chance:.3g}, at best {best:.3g}.", ""]
    lines += ["## Splits", "", "| split | examples | file |", "|---|---|---|"]
    lines += [f"| {s} | {size:,} | {s}.{kind} |" for s, size in split_sizes(dataset).items()]
    lines += ["", *(f"- {note}" for note in dataset.notes)] if dataset.notes else []
    lines += ["", f"`data_hash`: `{dataset.data_hash}` (SHA-256 over the contents of all splits)"]
    lines += ["", "## Columns", "", "| column | type | what it is |", "|---|---|---|"]
    for field in column_features(dataset).arrow_schema:
        is_answer = field.name == "targets" and dataset.answer_length is not None
        meaning = "the answer, a sequence of its own" if is_answer else MEANING[field.name]
        lines.append(f"| `{field.name}` | `{_type_name(field.type)}` | {meaning} |")
    lines += ["", "## Vocabulary", "", _describe_names("tokens", dataset.tokens)]
    lines += ["", _describe_names("classes", dataset.classes)] if dataset.classes else []
    lines += ["", f"The number of each is its place in `{VOCABULARY}`."]
    if origin:
        lines += ["", "## Knobs", "", "| knob | value |", "|---|---|"]
        lines += [f"| `{knob}` | `{json.dumps(value)}` |" for knob, value in origin.knobs.items()]
    lines += ["", "## Load", "", "```python", "from datasets import load_dataset", ""]
    lines += ['data = load_dataset("DIR")  # where this file lies', "```", ""]
    lines += [f"Made with attnlab {version('attnlab')}{':' if origin else '.'}", ""]
    lines += ["```sh", origin.command, "```", ""] if origin else []
    return "\n".join(lines)


def _type_name(arrow_type: "pa.DataType") -> str:
    return str(arrow_type).replace("element: ", "").replace("item: ", "")


def _describe_names(unit: str, names: list[str]) -> str:
    """Return the number of names, and the first 16 of them."""
    first_names = " ".join(f"`{json.dumps(name, ensure_ascii=False)}`" for name in names[:16])
    return f"{len(names):,} {unit}: {first_names}{' ...' if len(names) > 16 else ''}"


def _yaml_header(dataset: Dataset, kind: str) -> str:
    """Return the header that tells the `datasets` library the files and columns."""
    from datasets import DatasetInfo
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    files = [{"split": split, "path": f"{split}.{kind}"} for split in split_sizes(dataset)]
    card_data = DatasetCardData(configs=[{"config_name": "default", "data_files": files}])
    dataset_infos = DatasetInfosDict({"default": DatasetInfo(features=column_features(dataset))})
    dataset_infos.to_dataset_card_data(card_data)
    return str(card_data)


def _has_several_classes(dataset: Dataset, batch: Batch) -> bool:
    """Return whether an example has several classes."""
    return dataset.classes is not None and batch.targets.shape[1] != 1


def _list_array(values: np.ndarray, mask: np.ndarray, arrow_type: "pa.DataType") -> "pa.Array":
    """Return an array of lists: of each row, the values at which the mask is True."""
    import pyarrow as pa

    offsets = np.concatenate([[0], mask.sum(axis=1).cumsum()])
    flat = pa.array(values[mask].astype(arrow_type.to_pandas_dtype()))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)


def _record_batches(dataset: Dataset, split: str) -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa

    schema = column_features(dataset).arrow_schema
    for batch in dataset.splits[split].batches(max(1, PIECE // dataset.max_length)):
        arrays = example_columns(dataset, batch)
        yield pa.record_batch([arrays[name] for name in schema.names], schema=schema)


def _write_parquet(dataset: Dataset, split: str, file: IO[bytes]) -> None:
    from pyarrow.parquet import ParquetWriter

    schema = column_features(dataset).arrow_schema
    with ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in _record_batches(dataset, split):
            writer.write_batch(batch)


def _write_jsonl(dataset: Dataset, split: str, file: IO[bytes]) -> None:
    for batch in _record_batches(dataset, split):
        for row in batch.to_pylist():
            file.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")


WRITERS = {"parquet": _write_parquet, "jsonl": _write_jsonl}


@contextmanager
def _open_synced(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file to write, and sync it to the disk at the end."""
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
