"""A sentence, and the same in another language."""

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from attnlab.corpus import rows
from attnlab.dataset.base import Dataset
from attnlab.ranges import Count, Tokens, ranged
from attnlab.split import IGNORE, Batch, Examples, Split

END = "<end>"
JOINED = "@@ "
"""What follows the pieces of a word but its last, where files bring their own byte-pair encoding
(Sennrich et al. 2016)."""
FILES = {"train": "train", "validation": "validation", "test": "test"}
SOURCE, TARGET = 0, 1
Pair = tuple[tuple[str, ...], tuple[str, ...]]
DECADE = 10
WORDS = re.compile(r"\w+(?:['\u2019-]\w+)*|[^\w\s]")
"""Words, with what apostrophes and hyphens join, and marks."""


@ranged
class Translation(Dataset):
    """Answers a sentence with its translation, as Multi30k has them (Elliott et al. 2016).

    "zwei hunde spielen ." is answered by "two dogs are playing . <end>". `path` is a directory with
    the file FILE.LANGUAGE (.gz too) for each split of `files` and each of the two `languages`, what
    is read first: a sentence on each line. Or it is `hub:NAME` with a column for each language, or
    with a column `translation` of objects that have both.
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
        columns = [[language, f"translation.{language}"] for language in languages]
        self.sha256, found = rows.load(path, files, sha256, obtain, self._pairs, columns)
        read = {split: self._read(pairs) for split, pairs in found.items()}
        dealt = rows.parted(read, files, 0, itemgetter(SOURCE))
        parts, held = rows.unheld(dealt, itemgetter(SOURCE))
        full = {split: [p for p in pairs if p[0] and p[1]] for split, pairs in parts.items()}
        self.pairs = {
            split: [pair for pair in pairs if max(map(len, pair)) <= length]
            for split, pairs in full.items()
        }
        reasons = {
            "in an earlier split": held,
            "with an empty side": {split: len(parts[split]) - len(full[split]) for split in parts},
            f"longer than length={length}": {
                split: len(full[split]) - len(self.pairs[split]) for split in parts
            },
        }
        self.left_out = {split: sum(why[split] for why in reasons.values()) for split in parts}
        sizes = {split: len(pairs) for split, pairs in dealt.items()}
        self._notes = rows.left_out_notes("pairs", sizes, reasons)
        rows.require_left("pairs", sizes, reasons, self.pairs)
        self.split_names = tuple(self.pairs)
        words = chain.from_iterable(self.pairs["train"])
        self.tokens = rows.vocabulary(words, [rows.PAD, rows.UNKNOWN, END], min_count)
        every = [pair for pairs in self.pairs.values() for pair in pairs]
        self.max_length = max(len(pair[SOURCE]) for pair in every)
        self.answer_length = 1 + max(len(pair[TARGET]) for pair in every)

    @property
    def located(self) -> dict[str, str | None]:
        return {"path": None, "obtain": None, "sha256": self.sha256}

    @property
    def notes(self) -> list[str]:
        return self._notes

    def draw(self, split: str, earlier: Mapping[str, Split]) -> Examples:
        pairs = self.pairs[split]
        inputs = rows.padded([pair[SOURCE] for pair in pairs], self.tokens, 0, self.max_length)
        answers, width = [(*pair[TARGET], END) for pair in pairs], self.answer_length or 0
        targets = rows.padded(answers, self.tokens, IGNORE, width)
        return Examples(inputs, targets, None, inputs != 0)

    def slices(self, batch: Batch) -> dict[str, Int[Tensor, "batch ..."]]:
        """Tell by the length of what is read, in tens."""
        assert batch.valid is not None
        count = batch.valid.sum(dim=1)
        return {"length": torch.div(count, DECADE, rounding_mode="floor") * DECADE}

    def words(self, text: str) -> list[str]:
        if self.segmented:
            return text.split()
        return WORDS.findall(text.lower())

    def write(self, numbers: Sequence[int]) -> str:
        """Put tokens together, and the pieces of a word too."""
        return " ".join(self.tokens[number] for number in numbers).replace(JOINED, "")

    def show(self, split: str = "train", index: int = 0) -> str:
        batch = self.splits[split][index]
        assert batch.valid is not None
        read = batch.inputs[batch.valid].tolist()
        said = batch.targets[batch.targets != IGNORE].tolist()
        return f"{self.write(read)}\nanswer: {self.write(said)}"

    def _pairs(self, directory: Path, name: str) -> list[rows.Row]:
        sides = [rows.lines(directory, f"{name}.{language}") for language in self.languages]
        if len(sides[SOURCE]) != len(sides[TARGET]):
            counts = " and ".join(f"{len(side):,}" for side in sides)
            raise ValueError(
                f"path={directory}: {name} has {counts} lines in {' and '.join(self.languages)}, "
                "which must be as many"
            )
        return [[line.strip() for line in pair] for pair in zip(*sides, strict=True)]

    def _read(self, pairs: list[rows.Row]) -> list[Pair]:
        return [(tuple(self.words(one)), tuple(self.words(other))) for one, other in pairs]
