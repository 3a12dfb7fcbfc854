"""A dataset for use elsewhere: as a `datasets.Dataset`, or as files with a data card.

The columns are the same in both. `inputs` are the numbers of tokens, without padding. Beside them:
    labels at positions | `targets`, as long as `inputs`, -100 where nothing is asked
    answers that are sequences | `targets`, of their own length, the end included
    classes | `label` and the position `at` that it belongs to; lists where there are several
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
"""Tokens that are converted at once."""
VOCABULARY = "vocabulary.json"
MEANING = {
    "inputs": "the numbers of the tokens",
    "targets": "what each position should say, -100 where nothing is asked",
    "label": "the class",
    "at": "the position in `inputs` that the class belongs to",
}


class Origin(NamedTuple):
    """What a data card tells of where its data come from."""

    name: str
    summary: str
    knobs: Mapping[str, Any]
    command: str


def table(dataset: Dataset, split: str) -> "datasets.Dataset":
    """Give a split as a `datasets.Dataset`, held in memory."""
    import datasets
    import pyarrow as pa

    whole = pa.Table.from_batches(_batches(dataset, split), features(dataset).arrow_schema)
    told = dataset.splits[split].digest().hex()[:16]
    return datasets.Dataset(whole, split=datasets.NamedSplit(split), fingerprint=told)


def sizes(dataset: Dataset) -> dict[str, int]:
    """Count the examples of each split: training first, and tests of other lengths last."""
    known = [name for name in ("train", "validation", "test") if name in dataset.split_names]
    return {name: len(dataset.splits[name]) for name in dict.fromkeys([*known, *dataset.splits])}


def export(
    dataset: Dataset,
    directory: Path,
    kind: str = "parquet",
    origin: Origin | None = None,
) -> None:
    """Write a file for each split, the vocabulary, and a data card, into a new directory.

    `kind` is parquet or jsonl. It appears whole or not at all. Raises ValueError where the
    directory holds something.
    """
    if kind not in WRITERS:
        raise ValueError(f"kind={kind} must be one of {', '.join(WRITERS)}")
    directory = directory.resolve()
    require_free(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    born = directory.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        born.mkdir()
        for split in sizes(dataset):
            with _kept(born / f"{split}.{kind}") as file:
                WRITERS[kind](dataset, split, file)
        names = {"tokens": dataset.tokens, "classes": dataset.classes}
        with _kept(born / VOCABULARY) as file:
            file.write(json.dumps(names, ensure_ascii=False).encode())
        with _kept(born / "README.md") as file:
            file.write(card(dataset, kind, origin).encode())
        # It may have been filled since it was found free.
        require_free(directory)
        born.rename(directory)
    finally:
        shutil.rmtree(born, ignore_errors=True)


def require_free(directory: Path) -> None:
    """Refuse a place that holds something, or cannot hold anything. Raises ValueError."""
    if directory.is_dir() and any(directory.iterdir()):
        raise ValueError(f"{directory} is not empty; delete it, or name another directory")
    require_writable(directory)


def features(dataset: Dataset) -> "datasets.Features":
    """Type the columns."""
    import datasets

    row = datasets.List(datasets.Value("int32"))
    if dataset.classes is None:
        return datasets.Features({"inputs": row, "targets": row})
    label, at = datasets.ClassLabel(names=dataset.classes), datasets.Value("int32")
    if _several(dataset, dataset.splits[dataset.reported][:1]):
        label, at = datasets.List(label), datasets.List(at)
    return datasets.Features({"inputs": row, "label": label, "at": at})


def columns(dataset: Dataset, batch: Batch) -> "dict[str, pa.Array]":
    """Turn examples into columns."""
    import pyarrow as pa

    inputs, targets = batch.inputs.numpy(), batch.targets.numpy()
    there = np.ones(inputs.shape, dtype=bool) if batch.valid is None else batch.valid.numpy()
    asked = targets != IGNORE
    at = np.broadcast_to(np.arange(targets.shape[1]), targets.shape)
    at = at if batch.at is None else batch.at.numpy()
    found = {"inputs": _ragged(inputs, there, pa.int32())}
    if dataset.answer_length is not None:
        until_last = np.flip(np.logical_or.accumulate(np.flip(asked, axis=1), axis=1), axis=1)
        found["targets"] = _ragged(targets, until_last, pa.int32())
    elif dataset.classes is None:
        everywhere = np.full(inputs.shape, IGNORE)
        row, place = np.nonzero(asked)
        everywhere[row, at[row, place]] = targets[row, place]
        found["targets"] = _ragged(everywhere, there, pa.int32())
    elif _several(dataset, batch):
        found["label"] = _ragged(targets, asked, pa.int64())
        found["at"] = _ragged(at, asked, pa.int32())
    else:
        found["label"] = pa.array(targets[:, 0], pa.int64(), mask=~asked[:, 0])
        found["at"] = pa.array(at[:, 0], pa.int32())
    return found


def card(dataset: Dataset, kind: str = "parquet", origin: Origin | None = None) -> str:
    """Write the data card: a header that `datasets` reads, and what a person wants to know."""
    name = origin.name if origin else type(dataset).__name__
    lines = ["---", _header(dataset, kind), "---", "", f"# {name}", ""]
    lines += [origin.summary, ""] if origin else []
    lines += ["```text", inspect.getdoc(type(dataset)) or name, "```", ""]
    if (chance := getattr(dataset, "chance", None)) is not None:
        best = getattr(dataset, "best", 1.0)
        lines += [f"Accuracy: chance {chance:.3g}, at best {best:.3g}.", ""]
    lines += ["## Splits", "", "| split | examples | file |", "|---|---|---|"]
    lines += [f"| {s} | {size:,} | {s}.{kind} |" for s, size in sizes(dataset).items()]
    lines += ["", *(f"- {note}" for note in dataset.notes)] if dataset.notes else []
    lines += ["", f"`data_hash`: `{dataset.data_hash}` (SHA-256 over the contents of all splits)"]
    lines += ["", "## Columns", "", "| column | type | what it is |", "|---|---|---|"]
    for field in features(dataset).arrow_schema:
        own = field.name == "targets" and dataset.answer_length is not None
        meaning = "the answer, a sequence of its own" if own else MEANING[field.name]
        lines.append(f"| `{field.name}` | `{_typed(field.type)}` | {meaning} |")
    lines += ["", "## Vocabulary", "", _counted("tokens", dataset.tokens)]
    lines += ["", _counted("classes", dataset.classes)] if dataset.classes else []
    lines += ["", f"The number of each is its place in `{VOCABULARY}`."]
    if origin:
        lines += ["", "## Knobs", "", "| knob | value |", "|---|---|"]
        lines += [f"| `{knob}` | `{json.dumps(value)}` |" for knob, value in origin.knobs.items()]
    lines += ["", "## Load", "", "```python", "from datasets import load_dataset", ""]
    lines += ['data = load_dataset("DIR")  # where this file lies', "```", ""]
    lines += [f"Made with attnlab {version('attnlab')}{':' if origin else '.'}", ""]
    lines += ["```sh", origin.command, "```", ""] if origin else []
    return "\n".join(lines)


def _typed(kind: "pa.DataType") -> str:
    return str(kind).replace("element: ", "").replace("item: ", "")


def _counted(what: str, names: list[str]) -> str:
    shown = " ".join(f"`{json.dumps(name, ensure_ascii=False)}`" for name in names[:16])
    return f"{len(names):,} {what}: {shown}{' ...' if len(names) > 16 else ''}"


def _header(dataset: Dataset, kind: str) -> str:
    from datasets import DatasetInfo
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    files = [{"split": split, "path": f"{split}.{kind}"} for split in sizes(dataset)]
    told = DatasetCardData(configs=[{"config_name": "default", "data_files": files}])
    infos = DatasetInfosDict({"default": DatasetInfo(features=features(dataset))})
    infos.to_dataset_card_data(told)
    return str(told)


def _several(dataset: Dataset, batch: Batch) -> bool:
    """Whether an example has several classes."""
    return dataset.classes is not None and batch.targets.shape[1] != 1


def _ragged(values: np.ndarray, kept: np.ndarray, kind: "pa.DataType") -> "pa.Array":
    """Make lists of what is kept of each row."""
    import pyarrow as pa

    ends = np.concatenate([[0], kept.sum(axis=1).cumsum()])
    flat = pa.array(values[kept].astype(kind.to_pandas_dtype()))
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), flat)


def _batches(dataset: Dataset, split: str) -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa

    schema = features(dataset).arrow_schema
    for batch in dataset.splits[split].batches(max(1, PIECE // dataset.max_length)):
        found = columns(dataset, batch)
        yield pa.record_batch([found[name] for name in schema.names], schema=schema)


def _parquet(dataset: Dataset, split: str, file: IO[bytes]) -> None:
    from pyarrow.parquet import ParquetWriter

    schema = features(dataset).arrow_schema
    with ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in _batches(dataset, split):
            writer.write_batch(batch)


def _jsonl(dataset: Dataset, split: str, file: IO[bytes]) -> None:
    for batch in _batches(dataset, split):
        for row in batch.to_pylist():
            file.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")


WRITERS = {"parquet": _parquet, "jsonl": _jsonl}


@contextmanager
def _kept(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file, which is on the disk at the end."""
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
