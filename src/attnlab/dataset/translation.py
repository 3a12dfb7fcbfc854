"""A sentence, and the same in another language."""

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from attnlab.corpus import rows, tables
from attnlab.dataset.base import Dataset
from attnlab.ranges import Count, Tokens, ranged
from attnlab.split import IGNORE, Batch, Examples, Split

END = "<end>"
JOINED = "@@ "
"""The mark after each piece of a word but its last, in files with a byte-pair encoding of their own
(Sennrich et al. 2016)."""
FILES = {"train": "train", "validation": "validation", "test": "test"}
SOURCE, TARGET = 0, 1
Pair = tuple[tuple[str, ...], tuple[str, ...]]
DECADE = 10
WORDS = re.compile(r"\w+(?:['\u2019-]\w+)*|[^\w\s]")
"""Matches a word, with the parts that apostrophes and hyphens join, or a mark."""


@ranged
class Translation(Dataset):
    """Answers a sentence with its translation, as Multi30k has them (Elliott et al. 2016).

    "zwei hunde spielen ." is answered by "two dogs are playing . <end>". `path` is a directory with
    the file FILE.LANGUAGE (.gz too) for each split of `files` and each of the two `languages`, what
    is read first: a sentence on each line. Or it has tables: one (.csv, .tsv, .jsonl, .parquet), a
    directory with one for each split, one of `save_to_disk`, or `hub:NAME`; each has a column for
    each language, or a column `translation` of objects that have both, as WMT's have. A number in
    `files` is a share of train; of one table, the splits are shares (0.1 where none is stated),
    each pair by a hash of its source.
    Where files are `segmented`, words are what stands between spaces, and "@@" joins the pieces of
    one; else they are lower-cased words and marks. One vocabulary for both languages, of the words
    that training has `min_count` times; `<unk>` stands for others.

    Pairs of which one side is empty or longer than `length` are left out, and so are those whose
    source an earlier split (test, validation) holds: `left_out` counts both for each split, and
    `notes` says so.
    """

    end = END
    headline = "loss"

    def __init__(
        self,
        *,
        path: str | None = None,
        files: rows.Files = FILES,
        languages: Sequence[str] = ("de", "en"),
        segmented: bool = False,
        length: Tokens = 64,
        min_count: Count = 1,
        sha256: str | None = None,
        obtain: str | None = None,
    ) -> None:
        if len(languages) != 2 or languages[0] == languages[1]:
            raise ValueError(f"languages={list(languages)} must be two different ones")
        self.languages, self.segmented, self.length = list(languages), segmented, length
        self._columns = [[language, f"translation.{language}"] for language in languages]
        reader = rows.Reader(self._load_pairs, self._columns, default_files=FILES)
        self.sha256, file_rows = rows.load(path, files, sha256, obtain, reader)
        file_pairs = {split: self._split_pairs(texts) for split, texts in file_rows.items()}
        pairs_by_split = rows.build_splits(file_pairs, files, 0, itemgetter(SOURCE))
        self.origin = rows.splits_origin(file_rows, files, 0)
        new_pairs, repeated_counts = rows.remove_repeated(pairs_by_split, itemgetter(SOURCE))
        nonempty_pairs = {
            split: [pair for pair in pairs if pair[SOURCE] and pair[TARGET]]
            for split, pairs in new_pairs.items()
        }
        self.pairs = {
            split: [pair for pair in pairs if max(map(len, pair)) <= length]
            for split, pairs in nonempty_pairs.items()
        }
        reasons = {
            "in an earlier split": repeated_counts,
            "with an empty side": {
                split: len(new_pairs[split]) - len(nonempty_pairs[split]) for split in new_pairs
            },
            f"longer than length={length}": {
                split: len(nonempty_pairs[split]) - len(self.pairs[split]) for split in new_pairs
            },
        }
        self.left_out = {
            split: sum(counts[split] for counts in reasons.values()) for split in new_pairs
        }
        sizes = {split: len(pairs) for split, pairs in pairs_by_split.items()}
        self._notes = rows.left_out_notes("pairs", sizes, reasons)
        rows.require_remaining("pairs", sizes, reasons, self.pairs)
        self.split_names = tuple(self.pairs)
        sentences = chain.from_iterable(self.pairs["train"])
        self.tokens = rows.build_vocabulary(sentences, [rows.PAD, rows.UNKNOWN, END], min_count)
        all_pairs = [pair for pairs in self.pairs.values() for pair in pairs]
        self.max_length = max(len(pair[SOURCE]) for pair in all_pairs)
        self.answer_length = 1 + max(len(pair[TARGET]) for pair in all_pairs)

    @property
    def content_identity(self) -> dict[str, str | None]:
        return {"path": None, "obtain": None, "sha256": self.sha256}

    @property
    def notes(self) -> list[str]:
        return self._notes

    def build_split(self, split: str, earlier: Mapping[str, Split]) -> Examples:
        pairs = self.pairs[split]
        inputs = rows.pad_sentences(
            [pair[SOURCE] for pair in pairs], self.tokens, 0, self.max_length
        )
        answers, width = [(*pair[TARGET], END) for pair in pairs], self.answer_length or 0
        targets = rows.pad_sentences(answers, self.tokens, IGNORE, width)
        return Examples(inputs, targets, None, inputs != 0)

    def slices(self, batch: Batch) -> dict[str, Int[Tensor, "batch ..."]]:
        """Return the length of each source sentence in tokens, rounded down to tens."""
        assert batch.valid is not None
        length = batch.valid.sum(dim=1)
        return {"length": torch.div(length, DECADE, rounding_mode="floor") * DECADE}

    def tokenize(self, text: str) -> list[str]:
        if self.segmented:
            return text.split()
        return WORDS.findall(text.lower())

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of token ids, with the pieces of each word joined."""
        return " ".join(self.tokens[token_id] for token_id in token_ids).replace(JOINED, "")

    def show(self, split: str = "train", index: int = 0) -> str:
        batch = self.splits[split][index]
        assert batch.valid is not None
        source = batch.inputs[batch.valid].tolist()
        answer = batch.targets[batch.targets != IGNORE].tolist()
        return f"{self.decode(source)}\nanswer: {self.decode(answer)}"

    def _load_pairs(self, directory: Path, name: str) -> list[rows.Row]:
        """Load the sentence pairs of a table, or of two files. Raises ValueError."""
        if tables.kind(name):
            table = rows.read_table(directory, name, self._columns)
            return [[cell.strip() for cell in row] for _, row in table]
        if (directory / name).is_file():
            raise ValueError(
                f"path={directory / name} is one file of text; give a table, or the directory of "
                f"files such as train.{self.languages[SOURCE]} and train.{self.languages[TARGET]}"
            )
        sides = [rows.read_lines(directory, f"{name}.{language}") for language in self.languages]
        if len(sides[SOURCE]) != len(sides[TARGET]):
            counts = " and ".join(f"{len(side):,}" for side in sides)
            raise ValueError(
                f"path={directory}: {name} has {counts} lines in {' and '.join(self.languages)}, "
                "which must be as many"
            )
        return [[line.strip() for line in pair] for pair in zip(*sides, strict=True)]

    def _split_pairs(self, pairs: list[rows.Row]) -> list[Pair]:
        """Return the words of both sentences of each pair."""
        return [
            (tuple(self.tokenize(source)), tuple(self.tokenize(target))) for source, target in pairs
        ]
