"""Which noun does "it" mean? The last adjective decides."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int
from torch import Tensor

from attnlab.dataset.base import Task, random_stream
from attnlab.ranges import Count, Seed, Share, ranged
from attnlab.split import Batch, ExampleArrays, Examples

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
"""The cells of Uszkoreit's well-known sentence; they are always held out."""
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
        self.nouns, self.noun_class = _list_words(NOUNS)
        self.adjectives, self.adjective_class = _list_words(ADJECTIVES)
        others = " ".join((FUNCTION_WORDS, VERBS, ADVERBIALS, MODIFIERS)).split()
        self.tokens = [PAD, *self.nouns, *self.adjectives, *others]
        self.classes = self.nouns
        self.number = {token: number for number, token in enumerate(self.tokens)}

    def draw_examples(self, generator: np.random.Generator, n: int, split: str) -> ExampleArrays:
        """Draw sentences uniformly over the admissible triples: right and wrong noun, adjective."""
        triples = self._triples["held out" if split == "test" else "seen"]
        right, wrong, adjective = triples[generator.integers(len(triples), size=n)].T
        return self._build_sentences(generator, right, wrong, adjective)

    @cached_property
    def _triples(self) -> dict[str, Int[np.ndarray, "triple 3"]]:
        return {"held out": self.triples(True), "seen": self.triples(False)}

    def held_cells(self) -> Bool[np.ndarray, "noun adjective"]:
        """Return which cells are held out of training; two per noun of its own class never are."""
        generator = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, 0, 2**32]))
        cells = generator.random((len(self.nouns), len(self.adjectives))) < self.held
        forced = np.zeros_like(cells)
        for noun, adjective in TWINS:
            forced[self.nouns.index(noun), self.adjectives.index(adjective)] = True
        cells |= forced
        fitting = self.noun_class[:, None] == self.adjective_class
        for noun in range(len(cells)):
            num_training_cells = int((fitting[noun] & ~cells[noun]).sum())
            releasable = np.flatnonzero(fitting[noun] & cells[noun] & ~forced[noun])
            cells[noun, releasable[: max(0, 2 - num_training_cells)]] = False
        return cells

    def triples(self, held_out: bool) -> Int[np.ndarray, "triple 3"]:
        """Return all (right noun, wrong noun, adjective) with both cells held out, or neither."""
        cells = self.held_cells()
        right, wrong, adjective = np.indices((len(cells), *cells.shape)).reshape(3, -1)
        fits = (self.noun_class[right] == self.adjective_class[adjective]) & (
            self.noun_class[wrong] != self.adjective_class[adjective]
        )
        right_is_held, wrong_is_held = cells[right, adjective], cells[wrong, adjective]
        neither_is_held = ~(right_is_held | wrong_is_held)
        admissible = fits & ((right_is_held & wrong_is_held) if held_out else neither_is_held)
        return np.stack([right, wrong, adjective], axis=1)[admissible]

    def contrast_pairs(self) -> tuple[Examples, Examples]:
        """Return test sentences, and the same with an adjective that decides for the other noun.

        The cells of the new adjective are held out too. Sentences without one are left out.
        """
        test = self.splits["test"]
        assert isinstance(test, Examples)
        inputs, targets, label_positions, valid = test.arrays
        assert label_positions is not None
        # Token ids: padding is 0, then come the nouns, the adjectives, and the other words.
        first_adjective = 1 + len(self.nouns)
        is_adjective = (inputs >= first_adjective) & (
            inputs < first_adjective + len(self.adjectives)
        )
        adjective_position = is_adjective.argmax(axis=1)
        is_noun = (inputs > 0) & (inputs < first_adjective)
        noun_ids = np.sort(np.where(is_noun, inputs, first_adjective), axis=1)[:, :2]
        right = targets[:, 0]
        wrong = (noun_ids - 1).sum(axis=1) - right
        cells = self.held_cells()
        admissible = (
            (self.adjective_class == self.noun_class[wrong][:, None]) & cells[right] & cells[wrong]
        )
        random_scores = (
            random_stream(self.seed, "test", 2**32).random(admissible.shape) * admissible
        )
        paired = np.flatnonzero(admissible.any(axis=1))
        new_adjective = first_adjective + random_scores[paired].argmax(axis=1)
        swapped = inputs[paired].copy()
        swapped[np.arange(len(paired)), adjective_position[paired]] = new_adjective
        assert valid is not None
        positions = label_positions[paired]
        return (
            Examples(inputs[paired], targets[paired], positions, valid[paired]),
            Examples(swapped, wrong[paired, None], positions, valid[paired]),
        )

    def tokenize(self, text: str) -> list[str]:
        """Split a sentence into its words; the last is always "."."""
        plain = text.lower().replace("\u2019", "'").replace("didn't", "did not")
        words = re.findall(r"[a-z']+|[^a-z'\s]", plain)
        return words if words[-1:] == ["."] else [*words, "."]

    def label_positions(self, words: Sequence[str]) -> list[int]:
        if words.count("it") != 1:
            raise ValueError(
                f'a sentence asks about one "it", and this one has {words.count("it")}'
            )
        return [words.index("it")]

    @classmethod
    def token_roles(cls, tokens: Sequence[str]) -> list[str]:
        """Return the role of each noun: meant, or the other one, as the adjective decides.

        With adjectives of both classes, which no sentence of the data has, both nouns are meant.
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
        """Return Uszkoreit's sentence with either adjective, then validation's first sentences."""
        famous = {
            adjective: self.batch_of_text(f"{KNOWN} {adjective}.")
            for adjective in ("tired", "wide")
        }
        return dict([*famous.items(), *super().probes(count).items()][:count])

    def _build_sentences(
        self,
        generator: np.random.Generator,
        right: Int[np.ndarray, " n"],
        wrong: Int[np.ndarray, " n"],
        adjective: Int[np.ndarray, " n"],
    ) -> ExampleArrays:
        """Build a sentence for each triple; the target is its right noun, at the position of "it".

        An absent optional word is -1 until the words after it move up.
        """
        n = len(right)

        def fixed_word(text: str) -> np.ndarray:
            return np.full(n, self.number[text])

        def random_word(words: str, share: float = 1.0) -> np.ndarray:
            """Draw a word for each sentence; it is absent with probability 1 - `share`."""
            ids = np.array([self.number[word] for word in words.split()])
            drawn = ids[generator.integers(len(ids), size=n)]
            return np.where(generator.random(n) < share, drawn, -1)

        is_first = generator.random(n) < 0.5
        opening = random_word(ADVERBIALS, 0.5)
        comma = np.where(opening < 0, -1, self.number[","])
        first_noun, second_noun = np.where(is_first, right, wrong), np.where(is_first, wrong, right)
        before_it = [opening, comma, fixed_word("the"), random_word(MODIFIERS, 0.4)]
        before_it += [1 + first_noun, fixed_word("did"), fixed_word("not"), random_word(VERBS)]
        before_it += [fixed_word("the"), random_word(MODIFIERS, 0.4), 1 + second_noun]
        before_it += [random_word(ADVERBIALS, 0.3), fixed_word("because")]
        from_it = [fixed_word(word) for word in ("it", "was", "too")]
        from_it += [1 + len(self.nouns) + adjective, fixed_word(".")]
        padding = [np.full(n, -1)] * (LENGTH - len(before_it) - len(from_it))
        words = np.stack([*before_it, *from_it, *padding], axis=1)
        absent = words < 0
        closed = np.take_along_axis(words, absent.argsort(axis=1, kind="stable"), axis=1)
        it_position = (np.stack(before_it, axis=1) >= 0).sum(axis=1)
        inputs = np.maximum(closed, 0).astype(np.int32)
        return ExampleArrays(inputs, right[:, None].copy(), it_position[:, None], closed >= 0)


def noun_places(
    inputs: Int[Tensor, "sentence seq"], targets: Int[Tensor, " sentence"]
) -> tuple[Int[Tensor, " sentence"], Int[Tensor, " sentence"]]:
    """Return the positions of the noun that is meant in each sentence, and of the other noun."""
    is_noun = (inputs > 0) & (inputs <= sum(len(words.split()) for words in NOUNS.values()))
    is_meant = inputs == 1 + targets[:, None]
    return is_meant.int().argmax(dim=1), (is_noun & ~is_meant).int().argmax(dim=1)


def _list_words(tokenize: Mapping[str, str]) -> tuple[list[str], Int[np.ndarray, " word"]]:
    """Return the words of all classes, and the class of each."""
    all_words = [word for text in tokenize.values() for word in text.split()]
    word_classes = [number for number, text in enumerate(tokenize.values()) for _ in text.split()]
    return all_words, np.array(word_classes)
