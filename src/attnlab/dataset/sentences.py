"""Sentences, each of a class."""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from attnlab.corpus import hub, rows, source, tables
from attnlab.dataset.base import Dataset
from attnlab.ranges import Count, Seed, ranged
from attnlab.split import Examples, Split

ASKED = "<class>"
FILES = {"train": "train.tsv", "validation": "validation.tsv", "test": "test.tsv"}
LAYOUT = {"text": None, "label": None, "encoding": "utf-8"}
COLUMNS = {"text": ("sentence", "text"), "label": ("label", "coarse_label")}
"""The names of a column that is not named."""
NUMBERED = ("negative", "positive")
"""The classes of labels that are 0 and 1, where no other names are stated."""
LABEL = 1
WORDS = itemgetter(0)


@ranged
class Sentences(Dataset):
    """Names the class of a sentence, as SST-2 (Socher et al. 2013) and TREC (Li & Roth 2002) ask.

    "a gripping movie <class>" is positive: the label stands at the last token, where a causal model
    too has read everything. Words stand between spaces, lower-cased; the vocabulary has those that
    training has `min_count` times.

    `path` is one table (.csv, .tsv, .jsonl, .parquet; packed too); a directory with a file for each
    split of `files`, or named by its split (train.csv); a directory of `save_to_disk`; a directory
    with a directory of texts for each class, also below train and test; or `hub:NAME`. In `layout`,
    `text` and `label` name the columns of a table (null: `sentence` or `text`, and `label` or
    `coarse_label`), and `encoding` is that of files. Other files than tables have a label, a space
    and the sentence on each line.

    A label is the name of its class in `classes`, or its number. With null, classes are the labels
    of the data, sorted; labels 0 and 1 are negative and positive. A number in `files` is a share of
    the training sentences, drawn with `seed`; null leaves a split out. Of one table, the splits are
    shares too (0.1 where none is stated), each sentence by a hash of its words and `seed`.

    A sentence that an earlier split holds (test, then validation) is left out of a later one, as
    is one without words; `left_out` counts them, and `notes` says so: the published SST-2 trains
    on whole sentences of its test.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        files: rows.Files = FILES,
        layout: Mapping[str, str | None] = LAYOUT,
        classes: Sequence[str] | None = None,
        min_count: Count = 2,
        seed: Seed = 0,
        sha256: str | None = None,
        obtain: str | None = None,
    ) -> None:
        if classes is not None and (len(set(classes)) != len(classes) or len(classes) < 2):
            raise ValueError(f"classes={list(classes)} must be two or more different names")
        if unknown := [key for key in layout if key not in LAYOUT]:
            raise ValueError(f"layout: there is no {unknown[0]}; there is {', '.join(LAYOUT)}")
        self.encoding = layout.get("encoding") or "utf-8"
        rows.require_encoding(self.encoding, path)
        self._named_columns = [f"layout.{key}" for key in COLUMNS if layout.get(key)]
        self._columns = [
            [name] if (name := layout.get(key)) else names for key, names in COLUMNS.items()
        ]
        self._plain_file: str | None = None
        reader = rows.Reader(
            self._load_rows,
            self._columns,
            [LABEL],
            [f"layout.{key}" for key in COLUMNS],
            FILES,
            reads_folders=True,
        )
        self.sha256, file_rows = rows.load(path, files, sha256, obtain, reader)
        self.classes, class_of_label = self._find_classes(classes, file_rows)
        parsed = {
            split: [(tuple(text.lower().split()), class_of_label[label]) for text, label in texts]
            for split, texts in file_rows.items()
        }
        loaded = rows.build_splits(parsed, files, seed, WORDS)
        self.origin = rows.splits_origin(file_rows, files, seed)
        nonempty = {
            split: [row for row in split_rows if WORDS(row)] for split, split_rows in loaded.items()
        }
        self.rows, held = rows.remove_repeated(nonempty, WORDS)
        num_empty = {split: len(loaded[split]) - len(nonempty[split]) for split in loaded}
        self.left_out = {split: held[split] + num_empty[split] for split in loaded}
        reasons = {"in an earlier split": held, "without words": num_empty}
        sizes = {split: len(split_rows) for split, split_rows in loaded.items()}
        self._notes = rows.left_out_notes("sentences", sizes, reasons)
        rows.require_remaining("sentences", sizes, reasons, self.rows)
        self.split_names = tuple(self.rows)
        self._require_learnable_classes()
        words = map(WORDS, self.rows["train"])
        self.tokens = rows.build_vocabulary(words, [rows.PAD, rows.UNKNOWN, ASKED], min_count)
        self._vocabulary = set(self.tokens)
        all_rows = [row for split_rows in self.rows.values() for row in split_rows]
        self.max_length = 1 + max(len(words) for words, _ in all_rows)

    @property
    def content_identity(self) -> dict[str, Any]:
        return {"path": None, "obtain": None, "sha256": self.sha256, "classes": self.classes}

    @property
    def notes(self) -> list[str]:
        return self._notes

    def build_split(self, split: str, earlier: Mapping[str, Split]) -> Examples:
        sentences = [(*words, ASKED) for words, _ in self.rows[split]]
        inputs = rows.pad_sentences(sentences, self.tokens, 0, self.max_length)
        targets = np.array([[label] for _, label in self.rows[split]], dtype=np.int16)
        positions = np.array([[len(words)] for words, _ in self.rows[split]], dtype=np.int32)
        return Examples(inputs, targets, positions, inputs != 0)

    def tokenize(self, text: str) -> list[str]:
        """Split a sentence into words; those that training lacks are `<unk>`, as in the splits."""
        words = text.lower().removesuffix(ASKED).split()
        return [*(word if word in self._vocabulary else rows.UNKNOWN for word in words), ASKED]

    def label_positions(self, words: Sequence[str]) -> list[int]:
        return [len(words) - 1]

    def show(self, split: str = "train", index: int = 0) -> str:
        batch = self.splits[split][index]
        assert batch.valid is not None
        assert self.classes is not None
        class_name = self.classes[int(batch.targets[0, 0])]
        return f"{self.decode(batch.inputs[batch.valid].tolist())}\nclass: {class_name}"

    def _load_rows(self, directory: Path, name: str) -> list[rows.Row]:
        """Load the sentences of a file or directory, each with its label, as texts."""
        if (folder := directory / name).is_dir():
            return self._load_folder(folder)
        if tables.kind(name):
            table = rows.read_table(directory, name, self._columns, self.encoding, [LABEL])
            return [[cell.strip() for cell in row] for _, row in table]
        if self._named_columns:
            knobs = " and ".join(f"dataset.{knob}" for knob in self._named_columns)
            raise ValueError(
                f"{knobs}: {rows.find_file(directory, name)} is no table; leave it out"
            )
        self._plain_file = name
        label_texts = [
            line.partition(" ") for line in rows.read_lines(directory, name, self.encoding)
        ]
        return [[text.strip(), label] for label, _, text in label_texts]

    def _load_folder(self, folder: Path) -> list[rows.Row]:
        """Load the texts below a directory, each of the class that its directory is named after."""
        texts = [
            (
                place.relative_to(folder),
                " ".join(rows.read_lines(place.parent, place.name, self.encoding)),
            )
            for place in source.visible_files_below(folder)
        ]
        if loose := [relative for relative, _ in texts if len(relative.parts) < 2]:
            raise ValueError(
                f"path={folder} has {loose[0]} beside directories; give a directory of texts for "
                "each class and nothing else, or a table"
            )
        if not texts:
            raise ValueError(f"path={folder} has no text; give a directory of texts for each class")
        return [[text, relative.parts[0]] for relative, text in texts]

    def _find_classes(
        self, stated: Sequence[str] | None, file_rows: Mapping[str, list[rows.Row]]
    ) -> tuple[list[str], dict[str, int]]:
        """Return the names of the classes, and the number of the class of each label."""
        labels = {label for split_rows in file_rows.values() for _, label in split_rows}
        names = list(stated) if stated is not None else self._classes_of(labels, file_rows)
        numbers = {str(number): number for number in range(len(names))}
        if labels <= set(names):
            return names, {name: number for number, name in enumerate(names)}
        # Labels are names or numbers; where one is a name, the others should be.
        expected_labels = set(names) if labels & set(names) else numbers.keys()
        for split, split_rows in file_rows.items():
            for row_number, (_, label) in enumerate(split_rows):
                if label not in expected_labels:
                    raise ValueError(
                        f"{_place(split, row_number)} has the label {label!r}, which is none of "
                        f"the classes {', '.join(names)}, nor the number of one, "
                        f"0..{len(names) - 1}"
                    )
        return names, numbers

    def _classes_of(self, labels: set[str], file_rows: Mapping[str, list[rows.Row]]) -> list[str]:
        """Return the classes of data whose labels name them. Raises ValueError."""
        for split, split_rows in file_rows.items():
            for row_number, (_, label) in enumerate(split_rows):
                if not label:
                    place = _place(split, row_number)
                    raise ValueError(f"{place} has no label; leave the row out")
        numbers = {label for label in labels if label.isdecimal()}
        if labels <= {"0", "1"}:
            return list(NUMBERED)
        if numbers == labels:
            return sorted(labels, key=int)
        words = ", ".join(map(repr, sorted(labels - numbers)[:3]))
        if numbers:
            raise ValueError(
                f"labels are numbers ({', '.join(sorted(numbers)[:3])}) and texts ({words}); name "
                "the column of labels, or state dataset.classes"
            )
        if self._plain_file:
            raise ValueError(
                f"{self._plain_file} is no table, and its lines begin with {words}, which are no "
                "numbers of classes; give a table, or state dataset.classes"
            )
        num_rows = sum(map(len, file_rows.values()))
        if len(labels) > max(num_rows / 2, len(NUMBERED)):
            raise ValueError(
                f"{num_rows:,} rows have {len(labels):,} different labels ({words}, ...); name the "
                "column of classes, or state dataset.classes"
            )
        return sorted(labels)

    def _require_learnable_classes(self) -> None:
        """Refuse training sentences of one class, and classes that training lacks."""
        assert self.classes is not None
        trained = {label for _, label in self.rows["train"]}
        rows.require_several_classes(self.classes[label] for label in trained)
        for split, split_rows in self.rows.items():
            unseen = [label for _, label in split_rows if label not in trained]
            if unseen:
                raise ValueError(
                    f"class {self.classes[unseen[0]]!r} of {split} has no sentence in train; leave "
                    "its rows out, or give other files, shares or dataset.seed"
                )


def _place(split: str, row_number: int) -> str:
    return f"row {row_number}" if split == hub.ONLY else f"row {row_number} of {split}"
