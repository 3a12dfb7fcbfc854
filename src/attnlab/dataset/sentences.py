"""Sentences, each of a class."""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path

import numpy as np

from attnlab.corpus import rows, tables
from attnlab.dataset.base import Dataset
from attnlab.ranges import Count, Seed, ranged
from attnlab.split import Examples, Split

ASKED = "<class>"
FILES = {"train": "train.tsv", "validation": "validation.tsv", "test": "test.tsv"}
CLASSES = ("negative", "positive")
COLUMNS = (("sentence", "text"), ("label", "coarse_label"))
LABEL = 1
WORDS = itemgetter(0)


@ranged
class Sentences(Dataset):
    """Names the class of a sentence, as SST-2 (Socher et al. 2013) and TREC (Li & Roth 2002) ask.

    "a gripping movie <class>" is positive: the label stands at the last token, where a causal model
    too has read everything. `path` is a directory with a file (.gz too) for each split of `files`:
    a table (.tsv, .csv, .jsonl, .parquet) has columns `sentence` and `label`, others a label, a
    space and the sentence on each line. Or it is `hub:NAME` with such columns. A label is the
    number of its class in `classes`. A number in `files` is a share of the training sentences,
    drawn with `seed`. Words stand between spaces, lower-cased; the vocabulary has those that
    training has `min_count` times.

    A sentence that an earlier split holds (test, then validation) is left out of a later one, as
    is one without words; `left_out` counts them, and `notes` says so: the published SST-2 trains
    on whole sentences of its test.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        files: rows.Files = FILES,
        classes: Sequence[str] = CLASSES,
        encoding: str = "utf-8",
        min_count: Count = 2,
        seed: Seed = 0,
        sha256: str | None = None,
        obtain: str | None = None,
    ) -> None:
        if len(set(classes)) != len(classes) or len(classes) < 2:
            raise ValueError(f"classes={list(classes)} must be two or more different names")
        rows.require_encoding(encoding, path)
        self.classes, self.encoding = list(classes), encoding
        self.sha256, file_rows = rows.load(
            path, files, sha256, obtain, self._load_rows, COLUMNS, [LABEL]
        )
        parsed = {split: self._parse_rows(split, texts) for split, texts in file_rows.items()}
        loaded = rows.build_splits(parsed, files, seed, WORDS)
        nonempty = {
            split: [row for row in split_rows if row[0]] for split, split_rows in loaded.items()
        }
        self.rows, held = rows.remove_repeated(nonempty, WORDS)
        num_empty = {split: len(loaded[split]) - len(nonempty[split]) for split in loaded}
        self.left_out = {split: held[split] + num_empty[split] for split in loaded}
        reasons = {"in an earlier split": held, "without words": num_empty}
        sizes = {split: len(split_rows) for split, split_rows in loaded.items()}
        self._notes = rows.left_out_notes("sentences", sizes, reasons)
        rows.require_left("sentences", sizes, reasons, self.rows)
        self.split_names = tuple(self.rows)
        rows.require_classes(self.classes[label] for _, label in self.rows["train"])
        words = map(WORDS, self.rows["train"])
        self.tokens = rows.vocabulary(words, [rows.PAD, rows.UNKNOWN, ASKED], min_count)
        self._vocabulary = set(self.tokens)
        all_rows = [row for split_rows in self.rows.values() for row in split_rows]
        self.max_length = 1 + max(len(words) for words, _ in all_rows)

    @property
    def content_identity(self) -> dict[str, str | None]:
        return {"path": None, "obtain": None, "sha256": self.sha256}

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
        """Load the sentences of a file, each with its label, as texts."""
        if tables.kind(name):
            table = rows.table(directory, name, COLUMNS, self.encoding, [LABEL])
            return [[cell.strip() for cell in row] for _, row in table]
        label_texts = [line.partition(" ") for line in rows.lines(directory, name, self.encoding)]
        return [[text.strip(), label] for label, _, text in label_texts]

    def _parse_rows(
        self, split: str, file_rows: list[rows.Row]
    ) -> list[tuple[tuple[str, ...], int]]:
        """Return the words of each sentence with the number of its class. Raises ValueError."""
        assert self.classes is not None
        class_numbers = {str(number): number for number in range(len(self.classes))}
        for row_number, (_, label) in enumerate(file_rows):
            if label not in class_numbers:
                raise ValueError(
                    f"row {row_number} of {split} has the label {label!r}, which is no number of a "
                    f"class in 0..{len(class_numbers) - 1} ({', '.join(self.classes)})"
                )
        return [(tuple(text.lower().split()), class_numbers[label]) for text, label in file_rows]
