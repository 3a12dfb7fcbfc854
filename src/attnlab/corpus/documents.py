"""Documents that are kept apart, each of one split, with the documents that are left out."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from attnlab.corpus.rows import split_of_content
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
    parts: dict[str, Source]
    notes: list[str]


def split_documents(
    sources: Mapping[str, Source], shares: Mapping[str, float], seed: int
) -> SplitDocuments:
    """Split the documents of train by shares, each by a hash of its content and the seed.

    `sources` are the splits that the data have. A document that an earlier split has (test, then
    validation) is left out of a later one, and so is one without a text.
    """
    held: dict[str, set[bytes]] = {}
    sha, notes = hashlib.sha256(), []
    for split in [name for name in ORDER if name in sources]:
        earlier, own = set[bytes]().union(*held.values()), set[bytes]()
        num_documents = num_blank = num_repeated = 0
        sha.update(f"{split}\n".encode())
        for document in sources[split].documents():
            digest = _digest(document)
            sha.update(digest)
            num_documents += 1
            is_blank = not document.strip()
            num_blank += is_blank
            num_repeated += not is_blank and digest in earlier
            # Those of train, which are many, are compared with the others, and never compared to.
            if split != "train":
                own.add(digest)
        held[split] = own
        if num_blank == num_documents:
            raise ValueError(
                f"{split}: none of the {num_documents:,} documents has a text; name the column of "
                "texts, or give other files"
            )
        reasons = {"in an earlier split": num_repeated, "without a text": num_blank}
        counts = "; ".join(f"{reason}: {count:,}" for reason, count in reasons.items() if count)
        if counts:
            num_left_out = num_blank + num_repeated
            notes.append(
                f"{split}: {num_left_out:,} of {num_documents:,} documents are left out ({counts})"
            )
    names = [*shares, *(name for name in sources if name not in shares)]
    parts: dict[str, Source] = {}
    for name in sorted(names, key=ORDER.index):
        is_own = name in sources and name != "train"
        earlier = [held[other] for other in ORDER[: ORDER.index(name)] if other in held]
        if not is_own:
            earlier = [*held.values()]
        parts[name] = Selection(
            sources[name if is_own else "train"],
            _belonging("" if is_own else name, earlier, shares, seed),
        )
    return SplitDocuments(sha.hexdigest(), parts, notes)


def _belonging(
    split: str, earlier: Sequence[set[bytes]], shares: Mapping[str, float], seed: int
) -> Callable[[bytes], bool]:
    """Return whether a document is in a split that is drawn by shares; "" for all documents."""

    def belongs(document: bytes) -> bool:
        digest = _digest(document)
        if any(digest in digests for digests in earlier):
            return False
        return not split or split_of_content(digest, shares, seed) == split

    return belongs


def _digest(document: bytes) -> bytes:
    return hashlib.sha256(document.strip()).digest()
