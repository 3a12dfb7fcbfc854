"""Which noun does "it" mean? The last adjective decides."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int
from torch import Tensor

from attnlab.dataset.base import Task, stream
from attnlab.ranges import Count, Seed, Share, ranged
from attnlab.split import Batch, Examples, Rows

NOUNS = {
    "animal": "animal dog cat horse cow sheep rabbit bear wolf fox",
    "path": "street road bridge river path lane trail highway alley tunnel",
    "container": "box bag suitcase bottle jar basket trunk drawer bucket crate",
    "garment": "shirt coat jacket dress sweater scarf glove hat skirt sock",
    "tool": "hammer knife saw drill axe shovel wrench chisel rake plough",
    "food": "bread soup apple cake cheese rice meat pie stew salad",
}
ADJECTIVES = {
    "animal": "tired hungry scared sleepy thirsty lazy",
    "path": "wide narrow steep slippery muddy busy",
    "container": "full empty fragile leaky bulky cramped",
    "garment": "tight loose itchy baggy worn frayed",
    "tool": "blunt sharp rusty noisy jammed unwieldy",
    "food": "salty sweet stale spicy bitter raw",
}
VERBS = (
    "cross reach see follow enter leave touch find like need "
    "want carry use pass hit visit watch miss move hold"
)
ADVERBIALS = "yesterday today recently finally suddenly again later once"
MODIFIERS = "old new small big red strange famous local"
FUNCTION_WORDS = "the did not because it was too , ."

PAD = "<pad>"
LENGTH = 20
KNOWN = "The animal didn't cross the street because it was too"
TWINS = (("animal", "tired"), ("animal", "wide"), ("street", "tired"), ("street", "wide"))
"""The cells of the sentence that everybody knows; they are always held out."""
MEANT, OTHER = "the noun that is meant", "the other noun"
"""The roles of the two nouns."""


@ranged
class Pronoun(Task):
    """Names the noun that "it" stands for, which the last adjective decides.

    "The animal didn't cross the street because it was too tired" (Uszkoreit 2017). An adjective of
    a class is true of that class's nouns alone. A share `held` of all (noun, adjective) cells is
    never seen in training, in any role: training and validation sentences hold no such cell, and a
    test sentence needs both of its cells, (right noun, adjective) and (wrong noun, adjective), to
    be held out. So remembered pairs cannot answer it: the class must be inferred. Selection (early
    stopping, learning rates) sees validation only.

    The noun that is meant stands first or second with equal chance. Chance is 1/60 over all nouns
    and 1/2 between the two in the sentence; the best possible score is 1.
    """

    max_length = LENGTH
    chance = 1 / 2

    def __init__(
        self,
        *,
        num_train: Count = 40_000,
        num_validation: Count = 1_000,
        num_test: Count = 1_000,
        held: Share = 0.25,
        seed: Seed = 0,
    ) -> None:
        super().__init__(num_train, num_validation, num_test, seed)
        if not 0 < held <= 0.5:
            raise ValueError(f"held={held} must be a share above 0 and at most 0.5")
        self.held = held
        self.nouns, self.noun_class = _numbered(NOUNS)
        self.adjectives, self.adjective_class = _numbered(ADJECTIVES)
        others = " ".join((FUNCTION_WORDS, VERBS, ADVERBIALS, MODIFIERS)).split()
        self.tokens = [PAD, *self.nouns, *self.adjectives, *others]
        self.classes = self.nouns
        self.number = {token: number for number, token in enumerate(self.tokens)}

    def rows(self, generator: np.random.Generator, n: int, split: str) -> Rows:
        """Draw sentences uniformly over the admissible (right, wrong, adjective) triples."""
        triples = self._triples["held out" if split == "test" else "seen"]
        right, wrong, adjective = triples[generator.integers(len(triples), size=n)].T
        return self._sentences(generator, right, wrong, adjective)

    @cached_property
    def _triples(self) -> dict[str, Int[np.ndarray, "triple 3"]]:
        return {"held out": self.triples(True), "seen": self.triples(False)}

    def held_cells(self) -> Bool[np.ndarray, "noun adjective"]:
        """Say which cells are kept from training; each noun keeps two adjectives of its class."""
        generator = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, 0, 2**32]))
        cells = generator.random((len(self.nouns), len(self.adjectives))) < self.held
        forced = np.zeros_like(cells)
        for noun, adjective in TWINS:
            forced[self.nouns.index(noun), self.adjectives.index(adjective)] = True
        cells |= forced
        fitting = self.noun_class[:, None] == self.adjective_class
        for noun in range(len(cells)):
            seen = fitting[noun] & ~cells[noun]
            spare = np.flatnonzero(fitting[noun] & cells[noun] & ~forced[noun])
            cells[noun, spare[: max(0, 2 - int(seen.sum()))]] = False
        return cells

    def triples(self, held_out: bool) -> Int[np.ndarray, "triple 3"]:
        """List (right noun, wrong noun, adjective) with both cells held out, or neither."""
        cells = self.held_cells()
        right, wrong, adjective = np.indices((len(cells), *cells.shape)).reshape(3, -1)
        fits = (self.noun_class[right] == self.adjective_class[adjective]) & (
            self.noun_class[wrong] != self.adjective_class[adjective]
        )
        one, other = cells[right, adjective], cells[wrong, adjective]
        keep = fits & ((one & other) if held_out else ~(one | other))
        return np.stack([right, wrong, adjective], axis=1)[keep]

    def twins(self) -> tuple[Examples, Examples]:
        """Pair test sentences with themselves under an adjective that means the other noun.

        The other adjective's cells are held out too. A sentence without such a twin is left out.
        """
        test = self.splits["test"]
        assert isinstance(test, Examples)
        inputs, targets, at, valid = test.arrays
        assert at is not None
        first, last = 1 + len(self.nouns), 1 + len(self.nouns) + len(self.adjectives)
        place = ((inputs >= first) & (inputs < last)).argmax(axis=1)
        nouns = np.sort(np.where((inputs > 0) & (inputs < first), inputs, first), axis=1)[:, :2] - 1
        right = targets[:, 0]
        wrong = nouns.sum(axis=1) - right
        cells = self.held_cells()
        admissible = (
            (self.adjective_class == self.noun_class[wrong][:, None]) & cells[right] & cells[wrong]
        )
        race = stream(self.seed, "test", 2**32).random(admissible.shape) * admissible
        keep = np.flatnonzero(admissible.any(axis=1))
        swapped = inputs[keep].copy()
        swapped[np.arange(len(keep)), place[keep]] = first + race[keep].argmax(axis=1)
        assert valid is not None
        return (
            Examples(inputs[keep], targets[keep], at[keep], valid[keep]),
            Examples(swapped, wrong[keep, None], at[keep], valid[keep]),
        )

    def words(self, text: str) -> list[str]:
        """Part a sentence into its words; the last is always "."."""
        plain = text.lower().replace("\u2019", "'").replace("didn't", "did not")
        words = re.findall(r"[a-z']+|[^a-z'\s]", plain)
        return words if words[-1:] == ["."] else [*words, "."]

    def asked_at(self, words: Sequence[str]) -> list[int]:
        if words.count("it") != 1:
            raise ValueError(
                f'a sentence asks about one "it", and this one has {words.count("it")}'
            )
        return [words.index("it")]

    @classmethod
    def token_roles(cls, tokens: Sequence[str]) -> list[str]:
        """Return which noun is meant and which is the other; the adjective of the sentence decides.

        Where adjectives of both classes stand there, as in no sentence of the data, both are meant.
        """
        nouns, adjectives = (
            {word: kind for kind, text in words.items() for word in text.split()}
            for words in (NOUNS, ADJECTIVES)
        )
        deciding = {adjectives[token] for token in tokens if token in adjectives}
        return [
            "" if token not in nouns else MEANT if nouns[token] in deciding else OTHER
            for token in tokens
        ]

    def probes(self, count: int) -> dict[str, Batch]:
        """Name the sentence that everybody knows, in both senses, then validation's first ones."""
        known = {adjective: self.read(f"{KNOWN} {adjective}.") for adjective in ("tired", "wide")}
        return dict([*known.items(), *super().probes(count).items()][:count])

    def _sentences(
        self,
        generator: np.random.Generator,
        right: Int[np.ndarray, " n"],
        wrong: Int[np.ndarray, " n"],
        adjective: Int[np.ndarray, " n"],
    ) -> Rows:
        """Write a sentence for each triple: inputs, the noun, the place of "it", what is valid.

        A word that is left out is -1 until the rest closes up.
        """
        n = len(right)

        def word(text: str) -> np.ndarray:
            return np.full(n, self.number[text])

        def some(words: str, share: float = 1.0) -> np.ndarray:
            numbers = np.array([self.number[w] for w in words.split()])
            drawn = numbers[generator.integers(len(numbers), size=n)]
            return np.where(generator.random(n) < share, drawn, -1)

        is_first = generator.random(n) < 0.5
        opening = some(ADVERBIALS, 0.5)
        comma = np.where(opening < 0, -1, self.number[","])
        before = [opening, comma, word("the"), some(MODIFIERS, 0.4)]
        before += [1 + np.where(is_first, right, wrong), word("did"), word("not"), some(VERBS)]
        before += [word("the"), some(MODIFIERS, 0.4), 1 + np.where(is_first, wrong, right)]
        before += [some(ADVERBIALS, 0.3), word("because")]
        after = [word("it"), word("was"), word("too"), 1 + len(self.nouns) + adjective, word(".")]
        padding = [np.full(n, -1)] * (LENGTH - len(before) - len(after))
        words = np.stack([*before, *after, *padding], axis=1)
        absent = words < 0
        closed = np.take_along_axis(words, absent.argsort(axis=1, kind="stable"), axis=1)
        at = (np.stack(before, axis=1) >= 0).sum(axis=1)
        inputs = np.maximum(closed, 0).astype(np.int32)
        return Rows(inputs, right[:, None].copy(), at[:, None], closed >= 0)


def noun_places(
    inputs: Int[Tensor, "sentence seq"], targets: Int[Tensor, " sentence"]
) -> tuple[Int[Tensor, " sentence"], Int[Tensor, " sentence"]]:
    """Find where the noun that is meant stands in each sentence, and where the other one does."""
    noun = (inputs > 0) & (inputs <= sum(len(words.split()) for words in NOUNS.values()))
    right = inputs == 1 + targets[:, None]
    return right.int().argmax(dim=1), (noun & ~right).int().argmax(dim=1)


def _numbered(words: Mapping[str, str]) -> tuple[list[str], Int[np.ndarray, " word"]]:
    """List the words of all classes, and the class of each."""
    listed = [word for text in words.values() for word in text.split()]
    kinds = [kind for kind, text in enumerate(words.values()) for _ in text.split()]
    return listed, np.array(kinds)
