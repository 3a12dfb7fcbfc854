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
        self.sha256, found = rows.load(path, files, sha256, obtain, questions)
        parts = rows.parted(found, files, seed, lambda row: (row[A].lower(), row[B].lower()))
        told = {name: [r for r in part if r[ANSWER] != NEITHER] for name, part in parts.items()}
        fit = {n: [r for r in part if len(sentence(r)) <= length] for n, part in told.items()}
        self.rows, held = rows.unheld(fit, lambda row: (*sentence(row), row[ANSWER]))
        reasons = {
            "in an earlier split": held,
            "of neither candidate": {n: len(parts[n]) - len(told[n]) for n in parts},
            f"longer than length={length}": {n: len(told[n]) - len(fit[n]) for n in parts},
        }
        self.left_out = {name: sum(why[name] for why in reasons.values()) for name in parts}
        sizes = {name: len(part) for name, part in parts.items()}
        self._notes = rows.left_out_notes("questions", sizes, reasons)
        rows.require_left("questions", sizes, reasons, self.rows)
        self.split_names = tuple(self.rows)
        rows.require_classes(row[ANSWER] for row in self.rows["train"])
        self.tokens = rows.vocabulary(map(sentence, self.rows["train"]), SPECIAL, min_count)
        self._known = set(self.tokens)
        every = [row for part in self.rows.values() for row in part]
        self.max_length = max(len(sentence(row)) for row in every)

    @property
    def located(self) -> dict[str, str | None]:
        return {"path": None, "obtain": None, "sha256": self.sha256}

    @property
    def notes(self) -> list[str]:
        return self._notes

    def draw(self, split: str, earlier: Mapping[str, Split]) -> Examples:
        read = [sentence(row) for row in self.rows[split]]
        inputs = rows.padded(read, self.tokens, 0, self.max_length)
        names = self.classes or []
        targets = [[names.index(row[ANSWER])] for row in self.rows[split]]
        at = [[words.index(PRONOUN)] for words in read]
        return Examples(
            inputs, np.array(targets, dtype=np.int16), np.array(at, dtype=np.int32), inputs != 0
        )

    def words(self, text: str) -> list[str]:
        """Part a text of that form; words that training does not have are `<unk>`."""
        return [
            word if word in self._known else rows.UNKNOWN
            for word in _words(text, "<a>|<b>|<text>|<pronoun>|")
        ]

    def asked_at(self, words: Sequence[str]) -> list[int]:
        if words.count(PRONOUN) != 1:
            raise ValueError(f"a text has one {PRONOUN}, and this one has {words.count(PRONOUN)}")
        return [words.index(PRONOUN)]

    def show(self, split: str = "train", index: int = 0) -> str:
        batch = self.splits[split][index]
        assert batch.valid is not None
        assert self.classes is not None
        said = self.classes[int(batch.targets[0, 0])]
        return f"{self.write(batch.inputs[batch.valid].tolist())}\n{PRONOUN} is {said}"


def sentence(row: rows.Row) -> list[str]:
    """Write a question in words."""
    before, after, a, b = (_words(row[part]) for part in (BEFORE, AFTER, A, B))
    return [FIRST, *a, SECOND, *b, BEGIN, *before, PRONOUN, *after]


def questions(directory: Path, name: str) -> list[rows.Row]:
    """Read a file: what stands before the pronoun and after it, both candidates, the answer."""
    if tables.kind(name):
        numbers = [COLUMNS.index([column]) for column in ("Pronoun-offset", *COREFERENT)]
        table = rows.table(directory, name, COLUMNS, numbers=numbers)
        return [_gap(row, place) for place, row in table]
    found, block = [], []
    for number, line in enumerate([*rows.lines(directory, name), ""], start=1):
        if line.strip():
            block.append(line.strip())
        elif block:
            try:
                found.append(_schema(block))
            except ValueError as error:
                first = number - len(block)
                raise ValueError(f"{directory / name}, line {first}: {error}") from error
            block = []
    return found


def _schema(block: list[str]) -> rows.Row:
    if len(block) != 4:
        raise ValueError(
            f"a question has 4 lines (sentence, pronoun, A,B, answer), not {len(block)}"
        )
    text, pronoun, both, answer = block
    candidates = [" ".join(part.split()) for part in both.split(",")]
    if len(candidates) != 2:
        raise ValueError(f"{both!r} must be two candidates with a comma between")
    meant = " ".join(answer.split()).lower()
    if meant not in (part.lower() for part in candidates):
        raise ValueError(f"the answer {answer!r} is none of {both!r}")
    pattern = re.escape(pronoun) if pronoun == HIDDEN else rf"\b{re.escape(pronoun)}\b"
    # Some files set the right one first, which a model would read; so who comes first is A.
    candidates.sort(key=lambda part: (_mention(part, text), part.lower()))
    known = [part.lower() for part in candidates]
    place = re.search(pattern, text, re.IGNORECASE)
    if place is None:
        raise ValueError(f"the pronoun {pronoun!r} does not stand in {text!r}")
    return [text[: place.start()], text[place.end() :], *candidates, "AB"[known.index(meant)]]


def _mention(candidate: str, text: str) -> int:
    """Find where a text speaks of a candidate, or of the last word of it; the end if nowhere."""
    found = (text.lower().find(said) for said in (candidate.lower(), candidate.lower().split()[-1]))
    return next((at for at in found if at >= 0), len(text))


def _gap(row: rows.Row, place: str) -> rows.Row:
    text, pronoun, offset, a, is_a, b, is_b = row
    at = int(offset) if offset.isdecimal() else -1
    if text[at : at + len(pronoun)] != pronoun:
        raise ValueError(f"{place}: {pronoun!r} does not stand at {offset} of {text!r}")
    for column, value in zip(COREFERENT, (is_a, is_b), strict=True):
        if value.upper() not in ("TRUE", "FALSE"):
            raise ValueError(f"{place}: column={column!r} is {value!r}, not TRUE or FALSE")
    if is_a.upper() == is_b.upper() == "TRUE":
        raise ValueError(f"{place}: {' and '.join(COREFERENT)} are both TRUE; one may be")
    answer = "A" if is_a.upper() == "TRUE" else "B" if is_b.upper() == "TRUE" else NEITHER
    return [text[:at], text[at + len(pronoun) :], a, b, answer]


def _words(text: str, special: str = "") -> list[str]:
    return re.findall(rf"{special}\w+(?:['\u2019-]\w+)*|[^\w\s]", text.lower())
