"""The interface of datasets: splits of examples, the same bytes for every arm, on every device.

Generated examples come in blocks of 1,024 from numpy's counter-based Philox generator, keyed by
(data seed, split, block), so an example depends on nothing else: not on the model, the device, the
global random state, or the number of examples.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from attnlab.ranges import Count, Seed, ranged
from attnlab.split import IGNORE, Batch, ExampleArrays, Examples, Split, Windows
from attnlab.tokenizer.base import Tokenizer
from attnlab.tokenizer.words import UNKNOWN

BLOCK = 1024
"""The number of examples drawn from one key."""

PIECE = 1 << 24
"""The number of tokens of a text that are counted at once."""
NEAR = 1 << 16
"""The number of tokens that are checked at once for different ones."""

# Splits are drawn in this order, and each redraws the examples that an earlier one holds: so the
# test split does not depend on the number of training examples.
SPLITS = ("test", "validation", "train")


class Dataset(ABC):
    """A task or corpus: its vocabulary, its lengths, its three splits.

    The constructor only checks its knobs, so that a bad one is refused before anything is drawn.
    """

    tokens: list[str]
    """The vocabulary; a token's index in it is its id."""
    max_length: int
    """The number of positions in the longest example."""
    classes: list[str] | None = None
    """The names of the classes, if labels are classes (None: labels are tokens)."""
    answer_length: int | None = None
    """The number of tokens of the longest answer, if answers are sequences of their own that end
    with `end` (None: labels belong to positions of the inputs)."""
    end: str | None = None
    """The last token of such an answer."""

    boundary: str | None = None
    """The token that begins each document, in data whose documents are kept apart."""

    headline: str = "accuracy"
    """The metric that a comparison shows first."""
    split_names: tuple[str, ...] = SPLITS
    """The names of all splits."""
    origin: str = "each drawn by itself, from `seed`"
    """Where the splits come from."""
    num_documents: Mapping[str, int] = MappingProxyType({})
    """The number of documents of each split whose data come in documents."""

    @property
    def report_split(self) -> str:
        """The split that results are reported for."""
        return "test" if "test" in self.split_names else "validation"

    @property
    def content_identity(self) -> dict[str, Any]:
        """What replaces the knobs that locate the data, such as paths, in a run's identity."""
        return {}

    @property
    def tokenizer_state(self) -> str | None:
        """The state learnt from the training part before training, as text saved with the run."""
        return None

    @property
    def notes(self) -> list[str]:
        """What a reader of a result must know about the data, a line for each fact.

        The lines say how many examples of a split were left out, of how many, and why.
        `attnlab data` prints these lines, and a data card has them.
        """
        return []

    @abstractmethod
    def build_split(self, split: str, earlier: Mapping[str, Split]) -> Split:
        """Draw or load a split of `split_names` that shares no example with the `earlier` ones."""

    @cached_property
    def splits(self) -> dict[str, Split]:
        """All splits, drawn once."""
        splits: dict[str, Split] = {}
        for name in self.split_names:
            splits[name] = self.build_split(name, splits)
        return splits

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 over the contents of all splits: equal for arms that saw the same data."""
        sha = hashlib.sha256()
        for name in self.split_names:
            sha.update(name.encode() + self.splits[name].digest())
        return sha.hexdigest()

    def tokenize(self, text: str) -> list[str]:
        """Split a text into tokens, in the vocabulary or not: at its spaces, unless overridden."""
        return text.split()

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of token ids: the inverse of `encode`."""
        return " ".join(self.tokens[token_id] for token_id in token_ids)

    def label_positions(self, words: Sequence[str]) -> list[int] | None:
        """Return the label positions of a text; None for all. Raises ValueError if it has none."""
        return None

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text of any length.

        Raises ValueError with the words that are no tokens, and the tokens that resemble them.
        """
        tokens = self.tokenize(text)
        id_of = {token: token_id for token_id, token in enumerate(self.tokens)}
        unknown_tokens = [token for token in dict.fromkeys(tokens) if token not in id_of]
        if unknown_tokens:
            close_matches = {
                token: get_close_matches(token, self.tokens, n=3) for token in unknown_tokens
            }
            suggestions = "; ".join(
                f"{token!r} (near: {', '.join(similar_tokens) or 'none'})"
                for token, similar_tokens in close_matches.items()
            )
            raise ValueError(f"{type(self).__name__} has no token {suggestions}")
        return [id_of[token] for token in tokens]

    def batch_of_text(self, text: str) -> Batch:
        """Return a batch of one sequence from a text, without targets.

        Raises ValueError for words that are no tokens, for too many words, and for none.
        """
        token_ids, tokens = self.encode(text), self.tokenize(text)
        if not 0 < len(tokens) <= self.max_length:
            raise ValueError(
                f"a text has 1 to {self.max_length} tokens here, and this one has {len(tokens)}"
            )
        label_positions = self.label_positions(tokens)
        num_labels = len(tokens) if label_positions is None else len(label_positions)
        return Batch(
            torch.tensor([token_ids]),
            torch.full((1, num_labels), IGNORE),
            None if label_positions is None else torch.tensor([label_positions]),
        )

    def slices(self, batch: Batch) -> dict[str, Int[Tensor, "batch ..."]]:
        """Return integers by which results are sliced, by name: one for each example or label."""
        return {}

    def probes(self, count: int) -> dict[str, Batch]:
        """Return the sequences, by name, whose patterns are recorded: validation's first ones."""
        split = self.splits["validation"]
        probes = {}
        for index in range(min(count, len(split))):
            inputs, targets, label_positions, valid = split[index][:4]
            if valid is not None:
                inputs = inputs[:, : int(valid.sum())]
            if label_positions is not None:
                is_counted = targets[0] != IGNORE
                targets, label_positions = targets[:, is_counted], label_positions[:, is_counted]
            elif self.answer_length is None:
                targets = targets[:, : inputs.shape[1]]
            probes[f"validation-{index}"] = Batch(inputs, targets, label_positions)
        return probes

    @classmethod
    def token_roles(cls, tokens: Sequence[str]) -> list[str]:
        """Return the role of each token of a sequence in the question, "" for none.

        A figure colours tokens by their roles; the list is empty for data without roles.
        """
        return []

    def contrast_pairs(self) -> tuple[Split, Split]:
        """Return pairs of test sequences that differ in one word, and in the answer."""
        raise ValueError(
            f"{type(self).__name__} has no twins: pairs of sequences that differ in one word and "
            "in the answer; `pronoun` has them"
        )

    def require_contrast_pairs(self) -> None:
        """Raise ValueError for data without twins."""
        if type(self).contrast_pairs is Dataset.contrast_pairs:
            self.contrast_pairs()

    def show(self, split: str = "train", index: int = 0) -> str:
        """Return one example to check by eye: its tokens, then its targets and their positions."""
        batch = self.splits[split][index]
        label_names = self.classes or self.tokens
        inputs = batch.inputs if batch.valid is None else batch.inputs[batch.valid][None]
        tokens = [self.tokens[token] for token in inputs[0].tolist()]
        positions = range(batch.inputs.shape[1]) if batch.at is None else batch.at[0].tolist()
        answers = [
            f"at {position} ({tokens[position]!r}): {label_names[target]}"
            for position, target in zip(positions, batch.targets[0].tolist(), strict=True)
            if target != IGNORE
        ]
        return " ".join(tokens) + "\n" + "\n".join(answers)


@ranged
class Task(Dataset):
    """A dataset that is drawn: an example depends on (seed, split, its number) alone.

    If lengths vary, those of training, validation and test are uniform in `lengths`. Each N of
    `test_lengths` adds a split `test_N` as large as test, with longer lengths, up to N.
    """

    chance: float
    """The accuracy of a model that knows the task, but not how to find the answer."""
    best: float = 1.0
    """The best possible accuracy."""

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
        """Return the shortest and the longest length of a split."""
        return self._lengths[split]

    def build_split(self, split: str, earlier: Mapping[str, Split]) -> Examples:
        size = self.sizes.get(split, self.sizes["test"])
        return draw_disjoint(
            partial(self.draw_examples, split=split), self.seed, split, size, earlier
        )

    @abstractmethod
    def draw_examples(self, generator: np.random.Generator, n: int, split: str) -> ExampleArrays:
        """Draw n examples of a split."""


class Corpus(Dataset):
    """A dataset that continues a text, token by token."""

    tokenizer: Tokenizer
    headline = "loss"

    @property
    def tokenizer_state(self) -> str | None:
        return self.tokenizer.state or None

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 over the contents of all splits, and over a learnt vocabulary."""
        tokens_hash = super().data_hash
        if not self.tokenizer.learns:
            return tokens_hash
        hashed_text = "\n".join([tokens_hash, *self.tokens, self.tokenizer.state])
        return hashlib.sha256(hashed_text.encode()).hexdigest()

    def require_learnable(self, split: str, token_ids: np.ndarray, length: int) -> None:
        """Refuse a split that is too short, or has nothing to learn. Raises ValueError.

        That is a text of white space alone; for training, one of one token or unknown words.
        """
        if len(token_ids) <= length:
            raise ValueError(
                f"length={length} is too long: the {split} text has {len(token_ids):,} tokens"
            )
        distinct_ids = set[int]()
        empty_texts, min_distinct = (("", UNKNOWN), 2) if split == "train" else (("",), 1)
        for start in range(0, len(token_ids), NEAR):
            distinct_ids.update(np.unique(token_ids[start : start + NEAR]).tolist())
            texts = (self.decode([token_id]).strip() for token_id in distinct_ids)
            if len(distinct_ids) >= min_distinct and any(text not in empty_texts for text in texts):
                return
        token_names = ", ".join(repr(self.tokens[token_id]) for token_id in sorted(distinct_ids))
        raise ValueError(
            f"the {split} text has no other token than {token_names}, {len(token_ids):,} tokens "
            "in all; there is nothing to learn"
        )

    def bytes_per_token(self, split: str) -> float:
        """Return the mean number of bytes (UTF-8) of a split's tokens."""
        windows = self.splits[split]
        assert isinstance(windows, Windows)
        counts = np.zeros(len(self.tokens), dtype=np.int64)
        for start in range(0, len(windows.tokens), PIECE):
            piece = windows.tokens[start : start + PIECE]
            counts += np.bincount(piece, minlength=len(counts))
        sizes = np.array([self.tokenizer.num_bytes(token) for token in self.tokens])
        return float(counts @ sizes / counts.sum())

    def tokenize(self, text: str) -> list[str]:
        return self.tokenizer.tokenize(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self.tokenizer.detokenize([self.tokens[token_id] for token_id in token_ids])

    def show(self, split: str = "train", index: int = 0) -> str:
        batch = self.splits[split][index]
        text, last_target = self.decode(batch.inputs[0].tolist()), int(batch.targets[0, -1])
        last_position = batch.inputs.shape[1] - 1
        return (
            f"{text}\neach position: the token after it; at {last_position} "
            f"({self.tokens[int(batch.inputs[0, -1])]!r}): {self.tokens[last_target]!r}"
        )


def random_stream(seed: int, split: str, block: int) -> np.random.Generator:
    """Return the random generator of one block of one split; all blocks' streams are disjoint."""
    # The splits have the numbers 0 to 2, so test_1 has 3 and test_100 has 102. With one number for
    # two splits, their examples would be the same.
    split_number = SPLITS.index(split) if split in SPLITS else 2 + int(split.removeprefix("test_"))
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, block, split_number]))


def hash_rows(rows: np.ndarray) -> np.ndarray:
    """Compute a 64-bit hash of each row of small integers; a collision costs a needless redraw."""
    width = rows.shape[1]
    factors = np.random.Generator(np.random.Philox(key=width)).integers(
        2**63, size=width, dtype=np.uint64
    )
    mixed = (rows.astype(np.uint64) + np.uint64(1)) * (factors * np.uint64(2) + np.uint64(1))
    mixed ^= mixed >> np.uint64(29)
    return (mixed * factors[::-1] * np.uint64(2) + mixed).sum(axis=1, dtype=np.uint64)


def draw_disjoint(
    draw_examples: Callable[[np.random.Generator, int], ExampleArrays],
    seed: int,
    split: str,
    size: int,
    earlier: Mapping[str, Split],
) -> Examples:
    """Draw `size` examples in blocks, redrawing those whose inputs an earlier split holds.

    `draw(generator, n)` returns n examples. Raises ValueError if 1000 redraws are not enough.
    """
    hash_arrays = [hash_rows(s.arrays.inputs) for s in earlier.values() if isinstance(s, Examples)]
    earlier_hashes = np.concatenate([np.empty(0, np.uint64), *hash_arrays])
    blocks: list[ExampleArrays] = []
    for block in range(-(-size // BLOCK)):
        generator = random_stream(seed, split, block)
        # Every block is drawn whole, the last one too, and cut at the end: drawn to size, its
        # examples would be others for another number of them.
        arrays = draw_examples(generator, BLOCK)
        for _ in range(1000):
            repeated_rows = np.flatnonzero(np.isin(hash_rows(arrays.inputs), earlier_hashes))
            if not len(repeated_rows):
                break
            for array, new_rows in zip(
                arrays, draw_examples(generator, len(repeated_rows)), strict=True
            ):
                if array is not None:
                    array[repeated_rows] = new_rows
        else:
            raise ValueError(
                f"the task has too few different examples for a {split} split of {size} beside "
                f"the {len(earlier_hashes)} examples of the earlier splits; ask for fewer"
            )
        blocks.append(arrays)
    return Examples(*(_concatenate(column, size) for column in zip(*blocks, strict=True)))


def _concatenate(arrays: Sequence[Any], size: int) -> Any:
    """Return the first `size` rows of all arrays together; None if the arrays are None."""
    return None if arrays[0] is None else np.concatenate(arrays)[:size]
