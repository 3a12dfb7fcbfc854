"""Documents that are kept apart, each of one split, with the documents that are left out."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from attnlab.corpus.rows import split_by_hash
from attnlab.corpus.source import Source
from attnlab.tokenizer.boundary import BEGIN

ORDER = ("test", "validation", "train")
"""The order in which splits keep a document that several of them have."""


class Selection(Source):
    """The documents of a text that belong to one split, each after a piece that begins it."""

    def __init__(self, text: Source, belongs: Callable[[bytes], bool]) -> None:
        self.text, self.belongs = text, belongs

    def pieces(self) -> Iterator[bytes]:
        for document in self.text.documents():
            if document.strip() and self.belongs(document):
                yield BEGIN
                yield document


class SplitDocuments(NamedTuple):
    """The documents of each split, and what was left out of them."""

    sha256: str
    """Of the digests of all documents, in their order, by the split that has them."""
    source_by_split: dict[str, Source]
    notes: list[str]


def split_documents(
    sources: Mapping[str, Source], shares: Mapping[str, float], seed: int
) -> SplitDocuments:
    """Split the documents of train by shares, each by a hash of its content and the seed.

    `sources` are the splits that the data have. A document that an earlier split has (test, then
    validation) is left out of a later one, and so is one without a text.
    """
    digests_by_split: dict[str, set[bytes]] = {}
    sha, notes = hashlib.sha256(), []
    for split in [name for name in ORDER if name in sources]:
        earlier_digests = set[bytes]().union(*digests_by_split.values())
        sha.update(f"{split}\n".encode())
        counts = _DocumentCounts()
        digests_by_split[split] = set()
        for document in sources[split].documents():
            digest = _digest(document)
            sha.update(digest)
            counts.add(document, is_repeated=digest in earlier_digests)
            # Those of train, which are many, are compared with the others, and never compared to.
            if split != "train":
                digests_by_split[split].add(digest)
        notes += counts.notes(split)
    source_by_split = _build_selections(sources, digests_by_split, shares, seed)
    return SplitDocuments(sha.hexdigest(), source_by_split, notes)


@dataclass
class _DocumentCounts:
    """How many documents a split has, and how many of them are left out."""

    total: int = 0
    blank: int = 0
    repeated: int = 0

    def add(self, document: bytes, *, is_repeated: bool) -> None:
        """Count a document, which an earlier split may have."""
        is_blank = not document.strip()
        self.total += 1
        self.blank += is_blank
        self.repeated += is_repeated and not is_blank

    def notes(self, split: str) -> list[str]:
        """Return a sentence if documents are left out. Raises ValueError if none has a text."""
        if self.blank == self.total:
            raise ValueError(
                f"{split}: none of the {self.total:,} documents has a text; name the column of "
                "texts, or give other files"
            )
        reasons = {"in an earlier split": self.repeated, "without a text": self.blank}
        counts = "; ".join(f"{reason}: {count:,}" for reason, count in reasons.items() if count)
        if not counts:
            return []
        num_left_out = self.blank + self.repeated
        return [f"{split}: {num_left_out:,} of {self.total:,} documents are left out ({counts})"]


def _build_selections(
    sources: Mapping[str, Source],
    digests_by_split: Mapping[str, set[bytes]],
    shares: Mapping[str, float],
    seed: int,
) -> dict[str, Source]:
    """Return the documents of each split: of its own source, or drawn from train by its share."""
    split_names = [*shares, *(name for name in sources if name not in shares)]
    source_by_split: dict[str, Source] = {}
    for name in sorted(split_names, key=ORDER.index):
        if name in sources and name != "train":
            earlier_splits = ORDER[: ORDER.index(name)]
            earlier_digests = [
                digests for split, digests in digests_by_split.items() if split in earlier_splits
            ]
            belongs = _membership_test("", earlier_digests, shares, seed)
            source_by_split[name] = Selection(sources[name], belongs)
        else:
            belongs = _membership_test(name, [*digests_by_split.values()], shares, seed)
            source_by_split[name] = Selection(sources["train"], belongs)
    return source_by_split


def _membership_test(
    split: str, earlier_digests: Sequence[set[bytes]], shares: Mapping[str, float], seed: int
) -> Callable[[bytes], bool]:
    """Return a test of whether a document is in a split drawn by shares; "" for all documents."""

    def belongs(document: bytes) -> bool:
        digest = _digest(document)
        if any(digest in digests for digests in earlier_digests):
            return False
        return not split or split_by_hash(digest, shares, seed) == split

    return belongs


def _digest(document: bytes) -> bytes:
    return hashlib.sha256(document.strip()).digest()
