"""Real text that needs no network: the language reference that ships inside Python."""

from collections.abc import Mapping, Sequence
from importlib import import_module

import numpy as np

from attnlab.dataset.base import Corpus
from attnlab.ranges import Seed, Tokens, ranged
from attnlab.split import Split, Windows
from attnlab.tokenizer.characters import Characters

PLAIN = str.maketrans(
    {
        "\u2018": "'",
        "\u2019": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u2013": "-",
        "\u2014": "--",
        "\u2026": "...",
    }
)
"""Typographic quotes, dashes and dots, and their plain equivalents."""


@ranged
class PyDocs(Corpus):
    """Continues the English of Python's own `help()` topics, character by character.

    The text is that of the running interpreter, so it differs between Python versions; data_hash
    says which one a run saw. A paragraph that several topics share is kept once, and a topic is in
    one split alone: about a tenth of the characters each for validation and test. Typographic
    quotes and dashes become plain ones, and other characters outside of ASCII "?". Training reads a
    window at any offset; the other splits are read once, each character but the first asked exactly
    once.
    """

    tokenizer = Characters()
    origin = "topics drawn with `seed`, a tenth of the characters for validation and test each"

    def __init__(self, *, length: Tokens = 128, seed: Seed = 0) -> None:
        self.max_length, self.seed = length, seed
        self.documents = _load_documents()
        self.tokens = sorted(set("".join(self.documents)))

    def build_split(self, split: str, earlier: Mapping[str, Split]) -> Windows:
        text = "\n\n".join(parted(self.documents, self.seed)[split])
        if len(text) <= self.max_length:
            raise ValueError(
                f"length={self.max_length} is too long: the {split} text has {len(text)} characters"
            )
        id_of = {character: token_id for token_id, character in enumerate(self.tokens)}
        tokens = np.array([id_of[character] for character in text], dtype=np.uint8)
        stride = 1 if split == "train" else self.max_length
        return Windows(tokens, self.max_length, stride)


def parted(documents: Sequence[str], seed: int) -> dict[str, list[str]]:
    """Split the documents, in random order: a tenth of the characters for test and validation each.

    A document goes to the first of the two that still has room for it, or else to training.
    """
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(documents))
    room = dict.fromkeys(("test", "validation"), sum(map(len, documents)) // 10)
    documents_by_split: dict[str, list[str]] = {"test": [], "validation": [], "train": []}
    for document in (documents[int(index)] for index in order):
        split = next((name for name in room if room[name] >= len(document)), "train")
        if split in room:
            room[split] -= len(document)
        documents_by_split[split].append(document)
    return documents_by_split


def unrepeated(documents: Sequence[str]) -> list[str]:
    """Return the documents, each paragraph only in the first that has it; empty ones are left out.

    Paragraphs that differ in indentation and line breaks alone count as equal.
    """
    earlier_paragraphs: set[str] = set()
    shortened = []
    for document in documents:
        new_paragraphs = []
        for paragraph in (piece.strip("\n") for piece in document.split("\n\n")):
            words = " ".join(paragraph.split())
            if words and words not in earlier_paragraphs:
                earlier_paragraphs.add(words)
                new_paragraphs.append(paragraph)
        shortened.append("\n\n".join(new_paragraphs))
    return [document for document in shortened if document]


def _load_documents() -> list[str]:
    try:
        topics: Mapping[str, str] = import_module("pydoc_data.topics").topics
    except ModuleNotFoundError as error:
        raise ValueError(
            "this Python comes without its documentation (pydoc_data.topics); install the full "
            "standard library, or use another dataset"
        ) from error
    plain_texts = (topics[name].translate(PLAIN) for name in sorted(topics))
    return unrepeated([text.encode("ascii", "replace").decode() for text in plain_texts])
