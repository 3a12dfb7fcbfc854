"""Whom a pronoun means, in sentences that people wrote."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from attnlab.corpus import rows, tables
from attnlab.dataset.base import Dataset
from attnlab.ranges import Count, Seed, Tokens, ranged
from attnlab.split import Examples, Split

PRONOUN, FIRST, SECOND, BEGIN = "<pronoun>", "<a>", "<b>", "<text>"
SPECIAL = [rows.PAD, rows.UNKNOWN, FIRST, SECOND, BEGIN, PRONOUN]
FILES = {"train": "train.txt", "validation": 0.1, "test": "test.txt"}
HIDDEN = "[MASK]"
COREFERENT = ("A-coref", "B-coref")
COLUMNS = [[name] for name in ("Text", "Pronoun", "Pronoun-offset", "A", "A-coref", "B", "B-coref")]
BEFORE, AFTER, A, B, ANSWER = range(5)
NEITHER = "neither"


@ranged
class Resolution(Dataset):
    """Chooses between two candidates for a pronoun: DPR, WSC273 and GAP.

    Definite pronoun resolution (Rahman & Ng 2012), the Winograd schemas (Levesque et al. 2012), and
    gendered ambiguous pronouns of Wikipedia (Webster et al. 2018), all in one form:
    "<a> the bee <b> the flower <text> the bee landed on the flower because <pronoun> had pollen ."
    is B, asked at the pronoun. The candidates stand first, so a causal model has them too. The
    pronoun's own word is hidden, since the file of WSC273 does not give it.

    Guessing is right half the time, and a model trained from scratch on so few sentences learns
    about as much: an honest negative, which these sets are here for. A reader has about 0.95. Names
    that training does not have are `<unk>`, and two of them differ by their place alone.

    `path` is a directory with a file (.gz too) for each split of `files`: a table (.tsv, .csv,
    .jsonl, .parquet) has the columns of GAP; others four lines for each question (sentence, pronoun
    or [MASK], "A,B", answer), then an empty one; A is the candidate of which the sentence speaks
    first, whatever their order in the file. Where a pronoun stands several times, the first is
    meant. A number in `files` is a share of train, drawn with `seed`; twins (the same candidates)
    stay together. `left_out` counts, for each split: GAP's sentences that mean neither, those
    longer than `length`, and those that an earlier split (test, validation) holds; `notes` says so.
    """

    chance = 1 / 2

    def __init__(
        self,
        *,
        path: str | None = None,
        files: rows.Files = FILES,
        length: Tokens = 128,
        min_count: Count = 2,
        seed: Seed = 0,
        sha256: str | None = None,
        obtain: str | None = None,
    ) -> None:
        self.classes = ["A", "B"]
        self.sha256, file_rows = rows.load(path, files, sha256, obtain, rows.Reader(load_questions))
        rows_by_split = rows.build_splits(
            file_rows, files, seed, lambda row: (row[A].lower(), row[B].lower())
        )
        self.origin = rows.splits_origin(file_rows, files, seed)
        answered_rows = {
            split: [row for row in split_rows if row[ANSWER] != NEITHER]
            for split, split_rows in rows_by_split.items()
        }
        rows_within_length = {
            split: [row for row in split_rows if len(input_words(row)) <= length]
            for split, split_rows in answered_rows.items()
        }
        self.rows, repeated_counts = rows.remove_repeated(
            rows_within_length, lambda row: (*input_words(row), row[ANSWER])
        )
        reasons = {
            "in an earlier split": repeated_counts,
            "of neither candidate": {
                split: len(rows_by_split[split]) - len(answered_rows[split])
                for split in rows_by_split
            },
            f"longer than length={length}": {
                split: len(answered_rows[split]) - len(rows_within_length[split])
                for split in rows_by_split
            },
        }
        self.left_out = {
            split: sum(counts[split] for counts in reasons.values()) for split in rows_by_split
        }
        sizes = {split: len(split_rows) for split, split_rows in rows_by_split.items()}
        self._notes = rows.left_out_notes("questions", sizes, reasons)
        rows.require_remaining("questions", sizes, reasons, self.rows)
        self.split_names = tuple(self.rows)
        rows.require_several_classes(row[ANSWER] for row in self.rows["train"])
        self.tokens = rows.build_vocabulary(
            map(input_words, self.rows["train"]), SPECIAL, min_count
        )
        self._vocabulary = set(self.tokens)
        all_rows = [row for split_rows in self.rows.values() for row in split_rows]
        self.max_length = max(len(input_words(row)) for row in all_rows)

    @property
    def content_identity(self) -> dict[str, str | None]:
        return {"path": None, "obtain": None, "sha256": self.sha256}

    @property
    def notes(self) -> list[str]:
        return self._notes

    def build_split(self, split: str, earlier: Mapping[str, Split]) -> Examples:
        sentences = [input_words(row) for row in self.rows[split]]
        inputs = rows.pad_sentences(sentences, self.tokens, 0, self.max_length)
        classes = self.classes or []
        targets = np.array(
            [[classes.index(row[ANSWER])] for row in self.rows[split]], dtype=np.int16
        )
        positions = np.array([[words.index(PRONOUN)] for words in sentences], dtype=np.int32)
        return Examples(inputs, targets, positions, inputs != 0)

    def tokenize(self, text: str) -> list[str]:
        """Split a text in the form of the inputs; words that training lacks are `<unk>`."""
        return [
            word if word in self._vocabulary else rows.UNKNOWN
            for word in _split_words(text, "<a>|<b>|<text>|<pronoun>|")
        ]

    def label_positions(self, words: Sequence[str]) -> list[int]:
        if words.count(PRONOUN) != 1:
            raise ValueError(f"a text has one {PRONOUN}, and this one has {words.count(PRONOUN)}")
        return [words.index(PRONOUN)]

    def show(self, split: str = "train", index: int = 0) -> str:
        batch = self.splits[split][index]
        assert batch.valid is not None
        assert self.classes is not None
        answer = self.classes[int(batch.targets[0, 0])]
        return f"{self.decode(batch.inputs[batch.valid].tolist())}\n{PRONOUN} is {answer}"


def input_words(row: rows.Row) -> list[str]:
    """Return a question as the words of the input: both candidates, then the text."""
    before, after, a, b = (_split_words(row[column]) for column in (BEFORE, AFTER, A, B))
    return [FIRST, *a, SECOND, *b, BEGIN, *before, PRONOUN, *after]


def load_questions(directory: Path, name: str) -> list[rows.Row]:
    """Load questions: the text before and after the pronoun, both candidates, the answer."""
    if tables.kind(name):
        numbers = [COLUMNS.index([column]) for column in ("Pronoun-offset", *COREFERENT)]
        located_rows = rows.read_table(directory, name, COLUMNS, number_columns=numbers)
        return [_parse_gap_row(row, row_location) for row_location, row in located_rows]
    questions, block = [], []
    for number, line in enumerate([*rows.read_lines(directory, name), ""], start=1):
        if line.strip():
            block.append(line.strip())
        elif block:
            try:
                questions.append(_parse_schema(block))
            except ValueError as error:
                first_line = number - len(block)
                raise ValueError(f"{directory / name}, line {first_line}: {error}") from error
            block = []
    return questions


def _parse_schema(block: list[str]) -> rows.Row:
    """Return the question of four lines. Raises ValueError if they are not of that form."""
    if len(block) != 4:
        raise ValueError(
            f"a question has 4 lines (sentence, pronoun, A,B, answer), not {len(block)}"
        )
    text, pronoun, candidate_line, answer_line = block
    candidates = [" ".join(name.split()) for name in candidate_line.split(",")]
    if len(candidates) != 2:
        raise ValueError(f"{candidate_line!r} must be two candidates with a comma between")
    answer = " ".join(answer_line.split()).lower()
    if answer not in (name.lower() for name in candidates):
        raise ValueError(f"the answer {answer_line!r} is none of {candidate_line!r}")
    pattern = re.escape(pronoun) if pronoun == HIDDEN else rf"\b{re.escape(pronoun)}\b"
    # Some files write the right candidate first, which a model could exploit; so A is the candidate
    # that the text mentions first.
    candidates.sort(key=lambda name: (_mention_offset(name, text), name.lower()))
    answer_index = [name.lower() for name in candidates].index(answer)
    match = re.search(pattern, text, re.IGNORECASE)
    if match is None:
        raise ValueError(f"the pronoun {pronoun!r} does not stand in {text!r}")
    return [text[: match.start()], text[match.end() :], *candidates, "AB"[answer_index]]


def _mention_offset(candidate: str, text: str) -> int:
    """Return the offset in a text of a candidate, or else of its last word, or else the end."""
    mentions = candidate.lower(), candidate.lower().split()[-1]
    offsets = (text.lower().find(mention) for mention in mentions)
    return next((offset for offset in offsets if offset >= 0), len(text))


def _parse_gap_row(row: rows.Row, row_location: str) -> rows.Row:
    """Return the question of a row of GAP. Raises ValueError if its cells contradict each other."""
    text, pronoun, offset, a, is_a, b, is_b = row
    start = int(offset) if offset.isdecimal() else -1
    if text[start : start + len(pronoun)] != pronoun:
        raise ValueError(f"{row_location}: {pronoun!r} does not stand at {offset} of {text!r}")
    for column, value in zip(COREFERENT, (is_a, is_b), strict=True):
        if value.upper() not in ("TRUE", "FALSE"):
            raise ValueError(f"{row_location}: column={column!r} is {value!r}, not TRUE or FALSE")
    if is_a.upper() == is_b.upper() == "TRUE":
        raise ValueError(f"{row_location}: {' and '.join(COREFERENT)} are both TRUE; one may be")
    answer = "A" if is_a.upper() == "TRUE" else "B" if is_b.upper() == "TRUE" else NEITHER
    return [text[:start], text[start + len(pronoun) :], a, b, answer]


def _split_words(text: str, special: str = "") -> list[str]:
    """Return the lower-case words and marks of a text; `special` is a pattern of further words."""
    return re.findall(rf"{special}\w+(?:['\u2019-]\w+)*|[^\w\s]", text.lower())
