"""What every dataset is: splits of examples that are the same bytes for every arm, on every device.

Generated examples come in blocks of 1,024 from numpy's counter-based Philox generator, keyed by
(data seed, split, block), so an example depends on nothing else: not on the model, the device, the
global random state, or how many examples are asked for.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from attnlab.ranges import Count, Seed, ranged
from attnlab.split import IGNORE, Batch, Examples, Rows, Split, Windows
from attnlab.tokenizer.base import Tokenizer

BLOCK = 1024
"""Examples drawn from one key."""

PIECE = 1 << 24
"""Tokens of a text that are counted at once."""

# Earlier splits are drawn first, and later ones redraw what an earlier one holds: so the test split
# does not depend on how much one trains.
SPLITS = ("test", "validation", "train")


class Dataset(ABC):
    """A task or corpus: its vocabulary, its lengths, its three splits.

    The constructor only checks its knobs, so that a bad one is refused before anything is drawn.
    """

    tokens: list[str]
    """The vocabulary; a token's place in it is its number."""
    max_length: int
    """Positions in the longest example."""
    classes: list[str] | None = None
    """What a label names where it is no token (None: labels are tokens)."""
    answer_length: int | None = None
    """Tokens of the longest answer, where labels are a sequence of their own that ends with `end`
    (None: labels belong to positions of the inputs)."""
    end: str | None = None
    """The token that closes such an answer."""

    headline: str = "accuracy"
    """The metric that a comparison shows first."""
    split_names: tuple[str, ...] = SPLITS
    """The splits that there are."""

    @property
    def reported(self) -> str:
        """The split that results are told of."""
        return "test" if "test" in self.split_names else "validation"

    @property
    def located(self) -> dict[str, Any]:
        """What stands in a run's identity in place of the knobs that say where its data lie."""
        return {}

    @property
    def learnt(self) -> str | None:
        """What was learnt of the training part before a model is trained; kept beside its run."""
        return None

    @property
    def notes(self) -> list[str]:
        """Return what whoever reads a result must know of the data: a line for each thing.

        What was left out of a split stands here, how much of how much and why, so that no example
        vanishes unsaid. `attnlab data` prints these lines, and a data card has them.
        """
        return []

    @abstractmethod
    def draw(self, split: str, earlier: Mapping[str, Split]) -> Split:
        """Make a split of `SPLITS`, sharing no example with the `earlier` ones."""

    @cached_property
    def splits(self) -> dict[str, Split]:
        """All splits, made once."""
        made: dict[str, Split] = {}
        for name in self.split_names:
            made[name] = self.draw(name, made)
        return made

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 over the contents of all splits: equal for arms that saw the same data."""
        sha = hashlib.sha256()
        for name in self.split_names:
            sha.update(name.encode() + self.splits[name].digest())
        return sha.hexdigest()

    def words(self, text: str) -> list[str]:
        """Part a text into tokens, known or not: at its spaces, unless the task says otherwise."""
        return text.split()

    def write(self, numbers: Sequence[int]) -> str:
        """Put tokens together to a text: the inverse of `words`."""
        return " ".join(self.tokens[number] for number in numbers)

    def asked_at(self, words: Sequence[str]) -> list[int] | None:
        """The positions that a text asks about; None for every one. Raises ValueError if none."""
        return None

    def numbers(self, text: str) -> list[int]:
        """Part a text into the numbers of its tokens, however many.

        Raises ValueError naming the words that are no tokens, and near ones.
        """
        words = self.words(text)
        number = {token: at for at, token in enumerate(self.tokens)}
        unknown = [word for word in dict.fromkeys(words) if word not in number]
        if unknown:
            near = {word: get_close_matches(word, self.tokens, n=3) for word in unknown}
            said = "; ".join(f"{w!r} (near: {', '.join(n) or 'none'})" for w, n in near.items())
            raise ValueError(f"{type(self).__name__} has no token {said}")
        return [number[word] for word in words]

    def read(self, text: str) -> Batch:
        """Make a batch of one sequence from a text; its answers are not known.

        Raises ValueError for words that are no tokens, and for too many or none.
        """
        numbers, words = self.numbers(text), self.words(text)
        if not 0 < len(words) <= self.max_length:
            raise ValueError(
                f"a text has 1 to {self.max_length} tokens here, and this one has {len(words)}"
            )
        at = self.asked_at(words)
        labels = len(words) if at is None else len(at)
        return Batch(
            torch.tensor([numbers]),
            torch.full((1, labels), IGNORE),
            None if at is None else torch.tensor([at]),
        )

    def slices(self, batch: Batch) -> dict[str, Int[Tensor, "batch ..."]]:
        """Name what results are told by: a whole number for each example, or for each label."""
        return {}

    def probes(self, count: int) -> dict[str, Batch]:
        """Name sequences whose patterns are worth a look: the first ones of validation."""
        split = self.splits["validation"]
        probes = {}
        for index in range(min(count, len(split))):
            inputs, targets, at, valid = split[index][:4]
            if valid is not None:
                inputs = inputs[:, : int(valid.sum())]
            if at is not None:
                asked = targets[0] != IGNORE
                targets, at = targets[:, asked], at[:, asked]
            elif self.answer_length is None:
                targets = targets[:, : inputs.shape[1]]
            probes[f"validation-{index}"] = Batch(inputs, targets, at)
        return probes

    @classmethod
    def token_roles(cls, tokens: Sequence[str]) -> list[str]:
        """Return what each token of a sequence is to the question, "" if nothing.

        A picture colours tokens by their roles; empty where the data give none.
        """
        return []

    def twins(self) -> tuple[Split, Split]:
        """Give pairs of test sequences that differ in one word, and in the answer."""
        raise ValueError(
            f"{type(self).__name__} has no twins: pairs of sequences that differ in one word and "
            "in the answer; `pronoun` has them"
        )

    def require_twins(self) -> None:
        """Raise ValueError for data without twins."""
        if type(self).twins is Dataset.twins:
            self.twins()

    def show(self, split: str = "train", index: int = 0) -> str:
        """One example, so that a reader can check it by eye: tokens, then what is asked where."""
        batch = self.splits[split][index]
        names = self.classes or self.tokens
        whole = batch.inputs if batch.valid is None else batch.inputs[batch.valid][None]
        words = [self.tokens[t] for t in whole[0].tolist()]
        at = range(batch.inputs.shape[1]) if batch.at is None else batch.at[0].tolist()
        asked = [
            f"at {p} ({words[p]!r}): {names[t]}"
            for p, t in zip(at, batch.targets[0].tolist(), strict=True)
            if t != IGNORE
        ]
        return " ".join(words) + "\n" + "\n".join(asked)


@ranged
class Task(Dataset):
    """A dataset that is drawn: an example hangs on (seed, split, its number) alone.

    Where lengths vary, those of training, validation and test are uniform in `lengths`. Each N of
    `test_lengths` makes a split `test_N` as large as test, of lengths beyond all of those, to N.
    """

    chance: float
    """The accuracy of whoever knows the task, but has not found what is asked."""
    best: float = 1.0
    """The accuracy of whoever makes no mistake."""

    def __init__(
        self,
        num_train: Count,
        num_validation: Count,
        num_test: Count,
        seed: Seed,
        lengths: tuple[int, int] = (0, 0),
        test_lengths: Sequence[int] = (),
    ) -> None:
        self.sizes = {"train": num_train, "validation": num_validation, "test": num_test}
        low, high = lengths
        if test_lengths and min(test_lengths) <= high:
            raise ValueError(
                f"test_lengths={list(test_lengths)} must all be longer than length={high}, which "
                "the other splits have"
            )
        if not low <= high:
            raise ValueError(f"min_length={low} must not exceed length={high}")
        self.seed = seed
        self._lengths: dict[str, tuple[int, int]] = dict.fromkeys(SPLITS, lengths)
        for longest in sorted(set(test_lengths)):
            self._lengths[f"test_{longest}"] = (high + 1, longest)
        self.split_names = tuple(self._lengths)

    def lengths(self, split: str) -> tuple[int, int]:
        """Give the shortest and the longest length of a split."""
        return self._lengths[split]

    def draw(self, split: str, earlier: Mapping[str, Split]) -> Examples:
        size = self.sizes.get(split, self.sizes["test"])
        return draw_distinct(partial(self.rows, split=split), self.seed, split, size, earlier)

    @abstractmethod
    def rows(self, generator: np.random.Generator, n: int, split: str) -> Rows:
        """Draw n examples of a split."""


class Corpus(Dataset):
    """A dataset that continues a text, token by token."""

    tokenizer: Tokenizer
    headline = "loss"

    @property
    def learnt(self) -> str | None:
        return self.tokenizer.learnt or None

    def bytes_per_token(self, split: str) -> float:
        """Give how many bytes of UTF-8 a token of a split stands for, on average."""
        windows = self.splits[split]
        assert isinstance(windows, Windows)
        counts = np.zeros(len(self.tokens), dtype=np.int64)
        for start in range(0, len(windows.tokens), PIECE):
            part = windows.tokens[start : start + PIECE]
            counts += np.bincount(part, minlength=len(counts))
        sizes = np.array([self.tokenizer.num_bytes(token) for token in self.tokens])
        return float(counts @ sizes / counts.sum())

    def words(self, text: str) -> list[str]:
        return self.tokenizer.part(text)

    def write(self, numbers: Sequence[int]) -> str:
        return self.tokenizer.join([self.tokens[number] for number in numbers])

    def show(self, split: str = "train", index: int = 0) -> str:
        batch = self.splits[split][index]
        text, last = self.write(batch.inputs[0].tolist()), int(batch.targets[0, -1])
        place = batch.inputs.shape[1] - 1
        return (
            f"{text}\neach position: the token after it; at {place} "
            f"({self.tokens[int(batch.inputs[0, -1])]!r}): {self.tokens[last]!r}"
        )


def stream(seed: int, split: str, block: int) -> np.random.Generator:
    """Return the generator of one block of one split; no other block shares a number with it."""
    number = SPLITS.index(split) if split in SPLITS else 2 + int(split.removeprefix("test_"))
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, block, number]))


def row_hash(rows: np.ndarray) -> np.ndarray:
    """Map each row of small integers to 64 bits; a collision costs one needless redraw, no more."""
    width = rows.shape[1]
    odd = np.random.Generator(np.random.Philox(key=width)).integers(
        2**63, size=width, dtype=np.uint64
    )
    mixed = (rows.astype(np.uint64) + np.uint64(1)) * (odd * np.uint64(2) + np.uint64(1))
    mixed ^= mixed >> np.uint64(29)
    return (mixed * odd[::-1] * np.uint64(2) + mixed).sum(axis=1, dtype=np.uint64)


def draw_distinct(
    draw: Callable[[np.random.Generator, int], Rows],
    seed: int,
    split: str,
    size: int,
    earlier: Mapping[str, Split],
) -> Examples:
    """Draw `size` examples in blocks, redrawing those whose inputs an earlier split holds.

    `draw(generator, n)` gives n of them. Raises ValueError when fresh examples cannot be found.
    """
    seen = [row_hash(s.arrays.inputs) for s in earlier.values() if isinstance(s, Examples)]
    taken_hashes = np.concatenate([np.empty(0, np.uint64), *seen])
    blocks: list[Rows] = []
    for block in range(-(-size // BLOCK)):
        generator = stream(seed, split, block)
        arrays = draw(generator, BLOCK)
        for _ in range(1000):
            taken = np.flatnonzero(np.isin(row_hash(arrays.inputs), taken_hashes))
            if not len(taken):
                break
            for array, fresh in zip(arrays, draw(generator, len(taken)), strict=True):
                if array is not None:
                    array[taken] = fresh
        else:
            raise ValueError(
                f"the task has too few different examples for a {split} split of {size} beside "
                f"the {len(taken_hashes)} examples of the earlier splits; ask for fewer"
            )
        blocks.append(arrays)
    return Examples(*(_joined(column, size) for column in zip(*blocks, strict=True)))


def _joined(parts: Sequence[Any], size: int) -> Any:
    return None if parts[0] is None else np.concatenate(parts)[:size]
