"""Describe a dataset without training: a report with examples, or files for use elsewhere.

from attnlab.analysis.data_report import data_report, export_data, open_data

mqar = open_data("mqar", ["dataset.num_pairs=4"])
print(data_report(mqar, split="test", count=1).examples[0].text)
export_data(mqar, Path("mqar"))
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from attnlab.analysis.report import IN_PYTHON, Report, to_plain
from attnlab.config import Config, compose, conf_dir, search_path
from attnlab.dataset.base import Dataset
from attnlab.dataset.export import ExportOrigin, example_columns, export, split_sizes
from attnlab.errors import RequestError
from attnlab.signatures import nearest_hint
from attnlab.split import IGNORE, Examples, Windows


@dataclass(frozen=True)
class OpenData:
    """A dataset of conf/, with the name and the overrides by which it was opened."""

    name: str
    summary: str
    overrides: Sequence[str]
    knobs: Mapping[str, Any]
    """Its config; the path of a text is replaced by the SHA-256 of its content."""
    dataset: Dataset
    config_dir: Path | None = None
    """The directory of the user's own configs with which it was opened."""

    @property
    def split_sizes(self) -> dict[str, int]:
        """The number of examples of each split, which draws them.

        Raises RequestError where the task cannot generate so many.
        """
        try:
            return split_sizes(self.dataset)
        except ValueError as error:
            raise RequestError(f"dataset: {error}") from error


@dataclass(frozen=True)
class Example:
    """An example of a split, as a text and as the columns of an export."""

    split: str
    index: int
    """From 0, in its split."""
    text: str
    """The example as a person reads it."""
    columns: Mapping[str, Any]
    """The columns of an export; JSON has each of them beside these fields."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name and the columns in one dict, like a row of an export."""
        fields = to_plain(self)
        value_by_column = fields.pop("columns")
        return {**fields, **value_by_column}


@dataclass(frozen=True)
class SplitContents:
    """What a split holds beside its number of examples; None for what its data do not have."""

    tokens: int | None
    """Tokens that are read, each once, without padding."""
    documents: int | None
    """Documents that are kept apart."""
    classes: Mapping[str, int] | None
    """The number of examples of each class."""


@dataclass(frozen=True)
class DataReport(Report):
    """A description of a dataset, with some of its examples."""

    name: str
    """Its choice in conf/dataset."""
    summary: str
    """One line."""
    class_path: str
    """The dotted path of the class, in JSON under `class`."""
    vocabulary: int
    """The number of tokens."""
    classes: Sequence[str] | None
    """None where a label is a token."""
    max_length: int
    """The tokens in the longest sequence."""
    splits: Mapping[str, int]
    """The number of examples of each split."""
    contents: Mapping[str, SplitContents]
    origin: str
    """Where the splits come from."""
    notes: Sequence[str]
    """Sentences on what was left out, and why."""
    data_hash: str
    """The SHA-256 over all splits."""
    chance: float | None
    """The accuracy of guessing; None for a corpus."""
    best: float | None
    """The best accuracy that is possible; None for a corpus."""
    examples: Sequence[Example]
    tokens: Sequence[str] = field(metadata=IN_PYTHON)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON has it, with the examples as their `to_json` returns them."""
        fields = {
            "class" if name == "class_path" else name: value
            for name, value in super().to_json().items()
        }
        return {**fields, "examples": [example.to_json() for example in self.examples]}


def open_data(
    name: str, overrides: Sequence[str] = (), *, config_dir: Path | None = None
) -> OpenData:
    """Build a dataset of conf/, with its config checked as for training.

    Raises ConfigError with all faults, and RequestError for overrides that do not concern the data.
    """
    with search_path(config_dir) as user_targets:
        config = compose([f"dataset={name}", *overrides], user_targets)
    other_overrides = [
        override
        for override in overrides
        if not override.lstrip("+~").startswith(("dataset.", "dataset/"))
    ]
    if other_overrides:
        raise RequestError(
            f"{', '.join(other_overrides)}: changes no data; give dataset.KEY=VALUE only"
        )
    dataset = config.build("dataset")
    return OpenData(
        name=name,
        summary=_dataset_summary(name, config_dir, dataset),
        overrides=list(overrides),
        knobs=_dataset_knobs(config, dataset),
        dataset=dataset,
        config_dir=config_dir,
    )


def data_report(
    data: OpenData, *, split: str = "train", index: int = 0, count: int = 3
) -> DataReport:
    """Return a description of a dataset, and up to `count` examples of a split from `index` on.

    Raises RequestError for a split or an index that the dataset does not have.
    """
    dataset, split_sizes = data.dataset, data.split_sizes
    if split not in split_sizes:
        hint = nearest_hint(split, split_sizes)
        raise RequestError(f"split {split}: the data have no such split{hint}")
    num_examples = split_sizes[split]
    if not 0 <= index < num_examples:
        raise RequestError(f"index {index} must lie in 0..{num_examples - 1} for {split}")
    if count < 1:
        raise RequestError(f"count {count} must be at least 1")
    return DataReport(
        name=data.name,
        summary=data.summary,
        class_path=f"{type(dataset).__module__}.{type(dataset).__qualname__}",
        vocabulary=len(dataset.tokens),
        classes=dataset.classes,
        max_length=dataset.max_length,
        splits=split_sizes,
        contents={name: _count_contents(dataset, name) for name in split_sizes},
        origin=dataset.origin,
        notes=dataset.notes,
        data_hash=dataset.data_hash,
        chance=getattr(dataset, "chance", None),
        best=getattr(dataset, "best", None),
        examples=[
            _read_example(dataset, split, example_index)
            for example_index in range(index, min(index + count, num_examples))
        ],
        tokens=dataset.tokens,
    )


def export_data(data: OpenData, directory: Path, file_format: str = "parquet") -> None:
    """Write a file for each split, and a data card that names the command that wrote them.

    Raises RequestError for a directory that is not empty (`attnlab.dataset.export.export`).
    """
    # A task that cannot generate its examples is refused before a file is written.
    _ = data.split_sizes
    words = ["attnlab", "data", "export", data.name, *data.overrides]
    if data.config_dir is not None:
        words += ["--config-dir", str(data.config_dir)]
    command = shlex.join([*words, "-o", directory.name, "--format", file_format])
    try:
        export(
            data.dataset,
            directory,
            file_format,
            ExportOrigin(data.name, data.summary, data.knobs, command),
        )
    except ValueError as error:
        raise RequestError(f"output {error}") from error


def _count_contents(dataset: Dataset, split_name: str) -> SplitContents:
    """Return the counts of a split."""
    split, num_tokens, class_counts = dataset.splits[split_name], None, None
    if isinstance(split, Windows):
        num_tokens = len(split.tokens)
    elif isinstance(split, Examples):
        arrays = split.arrays
        num_tokens = arrays.inputs.size if arrays.valid is None else int(arrays.valid.sum())
        if dataset.classes is not None:
            labels = arrays.targets[arrays.targets != IGNORE]
            counts = np.bincount(labels, minlength=len(dataset.classes)).tolist()
            class_counts = dict(zip(dataset.classes, counts, strict=True))
    return SplitContents(num_tokens, dataset.num_documents.get(split_name), class_counts)


def _dataset_knobs(config: Config, dataset: Dataset) -> dict[str, Any]:
    """Return the dataset's config, with the content's identity in place of a path."""
    values = {**config.values["dataset"], **dataset.content_identity}
    return {knob: value for knob, value in values.items() if not knob.startswith("_")}


def _dataset_summary(name: str, config_dir: Path | None, dataset: Dataset) -> str:
    """Return a dataset's summary: the first comment of its YAML, else its class's first line."""
    directories = [conf_dir()] if config_dir is None else [config_dir, conf_dir()]
    paths = [directory / f"dataset/{name}.yaml" for directory in directories]
    yaml_text = next(path.read_text() for path in paths if path.is_file())
    comments = (line[1:].strip() for line in yaml_text.splitlines() if line.startswith("#"))
    summary = next((line for line in comments if not line.startswith("@package")), None)
    return summary or (type(dataset).__doc__ or "").split("\n")[0]


def _read_example(dataset: Dataset, split: str, index: int) -> Example:
    column_by_name = example_columns(dataset, dataset.splits[split][index])
    value_by_column = {name: column[0].as_py() for name, column in column_by_name.items()}
    return Example(split, index, dataset.show(split, index), value_by_column)
