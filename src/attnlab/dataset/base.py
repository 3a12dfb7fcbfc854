"""What every dataset is: splits of examples that are the same bytes for every arm, on every device.

Generated examples come in blocks of 1,024 from numpy's counter-based Philox generator, keyed by
(data seed, split, block), so an example depends on nothing else: not on the model, the device, the
global random state, or how many examples are asked for.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from attnlab.tokenizer.base import Tokenizer

IGNORE = -100
"""The target that no loss or metric counts (torch's own convention)."""

BLOCK = 1024
"""Examples drawn from one key."""

# Earlier splits are drawn first, and later ones redraw what an earlier one holds: so the test split
# does not depend on how much one trains.
SPLITS = ("test", "validation", "train")


class Batch(NamedTuple):
    """What a model sees, what it should say, and where it is asked."""

    inputs: Int[Tensor, "batch seq"]
    targets: Int[Tensor, "batch label"]
    """A token or class for each label; `IGNORE` is not counted."""
    at: Int[Tensor, "batch label"] | None = None
    """The position that each label is read from; None where every position has one."""
    valid: Bool[Tensor, "batch seq"] | None = None
    """False at padding; None where there is none. Padding stands at the end."""
    prefix: Int[Tensor, "batch label"] | None = None
    """What the answering stack of a model with an encoder has before it; None without one."""
    key: Int[Tensor, " batch"] | None = None
    """A number for each example, of which an objective draws its noise; None for no noise."""

    @property
    def given(self) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """What a model is called with."""
        return self.inputs, self.at, self.valid, self.prefix

    @property
    def num_tokens(self) -> int:
        """The tokens that a model reads, padding included."""
        return self.inputs.numel() + (0 if self.prefix is None else self.prefix.numel())


class Split(ABC):
    """A sized set of examples, read by index."""

    @abstractmethod
    def __len__(self) -> int:
        """Count the examples."""

    @abstractmethod
    def batch(self, index: np.ndarray) -> Batch:
        """Fetch the examples at `index`, on the CPU."""

    @abstractmethod
    def digest(self) -> bytes:
        """SHA-256 of the contents."""


class Examples(Split):
    """Examples held in memory as arrays with one row each."""

    def __init__(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        at: np.ndarray | None = None,
        valid: np.ndarray | None = None,
    ) -> None:
        self.arrays = (inputs, targets, at, valid)
        self.inputs, self.targets = torch.from_numpy(inputs), torch.from_numpy(targets)
        self.at = None if at is None else torch.from_numpy(at)
        self.valid = None if valid is None else torch.from_numpy(valid)

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, index: np.ndarray) -> Batch:
        rows = torch.from_numpy(index)
        return Batch(
            self.inputs[rows].long(),
            self.targets[rows].long(),
            None if self.at is None else self.at[rows].long(),
            None if self.valid is None else self.valid[rows],
        )

    def digest(self) -> bytes:
        sha = hashlib.sha256()
        for array in self.arrays:
            if array is not None:
                sha.update(str((array.shape, array.dtype.str)).encode())
                sha.update(np.ascontiguousarray(array).data)
        return sha.digest()


class Windows(Split):
    """Stretches of one long text, each with the token that follows each of its own.

    They begin `stride` tokens apart; no longer stride than `length` leaves a token out.
    """

    def __init__(self, tokens: np.ndarray, length: int, stride: int) -> None:
        self.tokens, self.length, self.stride = tokens, length, stride

    def __len__(self) -> int:
        return -(-(len(self.tokens) - 1 - self.length) // self.stride) + 1

    def batch(self, index: np.ndarray) -> Batch:
        wanted = index * self.stride
        # The last window begins earlier, to be as long as the others; what it repeats is not asked.
        start = np.minimum(wanted, len(self.tokens) - 1 - self.length)
        at = start[:, None] + np.arange(self.length + 1)
        whole = torch.from_numpy(self.tokens[at].astype(np.int64))
        asked = torch.from_numpy(at[:, :-1] >= wanted[:, None])
        return Batch(whole[:, :-1], whole[:, 1:].where(asked, IGNORE))

    def digest(self) -> bytes:
        sha = hashlib.sha256(f"{self.length} {self.stride} {self.tokens.dtype.str}".encode())
        sha.update(np.ascontiguousarray(self.tokens).data)
        return sha.digest()


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

    def probes(self, count: int) -> dict[str, Batch]:
        """Name sequences whose patterns are worth a look: the first ones of validation."""
        split = self.splits["validation"]
        probes = {}
        for index in range(min(count, len(split))):
            inputs, targets, at, valid = split.batch(np.array([index]))[:4]
            whole = inputs.shape[1] if valid is None else int(valid.sum())
            probes[f"validation-{index}"] = Batch(inputs[:, :whole], targets, at)
        return probes

    def show(self, split: str = "train", index: int = 0) -> str:
        """One example, so that a reader can check it by eye: tokens, then what is asked where."""
        batch = self.splits[split].batch(np.array([index]))
        names = self.classes or self.tokens
        words = [self.tokens[t] for t in batch.inputs[0].tolist()]
        at = range(len(words)) if batch.at is None else batch.at[0].tolist()
        asked = [
            f"at {p} ({words[p]!r}): {names[t]}"
            for p, t in zip(at, batch.targets[0].tolist(), strict=True)
            if t != IGNORE
        ]
        return " ".join(words) + "\n" + "\n".join(asked)


class Corpus(Dataset):
    """A dataset that continues a text, token by token."""

    tokenizer: Tokenizer
    headline = "loss"

    def words(self, text: str) -> list[str]:
        return self.tokenizer.part(text)

    def write(self, numbers: Sequence[int]) -> str:
        return self.tokenizer.join([self.tokens[number] for number in numbers])

    def show(self, split: str = "train", index: int = 0) -> str:
        batch = self.splits[split].batch(np.array([index]))
        text, last = self.write(batch.inputs[0].tolist()), int(batch.targets[0, -1])
        place = batch.inputs.shape[1] - 1
        return (
            f"{text}\neach position: the token after it; at {place} "
            f"({self.tokens[int(batch.inputs[0, -1])]!r}): {self.tokens[last]!r}"
        )


def stream(seed: int, split: str, block: int) -> np.random.Generator:
    """Return the generator of one block of one split; no other block shares a number with it."""
    return np.random.Generator(
        np.random.Philox(key=seed, counter=[0, 0, block, SPLITS.index(split)])
    )


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
    draw: Callable[[np.random.Generator, int], Sequence[np.ndarray]],
    seed: int,
    split: str,
    size: int,
    earlier: Mapping[str, Split],
) -> Examples:
    """Draw `size` examples in blocks, redrawing those whose inputs an earlier split holds.

    `draw(generator, n)` gives n rows of each array of `Examples`. Raises ValueError when fresh
    examples cannot be found.
    """
    seen = [row_hash(s.arrays[0]) for s in earlier.values() if isinstance(s, Examples)]
    taken_hashes, blocks = np.concatenate([np.empty(0, np.uint64), *seen]), []
    for block in range(-(-size // BLOCK)):
        generator = stream(seed, split, block)
        arrays = list(draw(generator, BLOCK))
        for _ in range(1000):
            taken = np.flatnonzero(np.isin(row_hash(arrays[0]), taken_hashes))
            if not len(taken):
                break
            for array, fresh in zip(arrays, draw(generator, len(taken)), strict=True):
                array[taken] = fresh
        else:
            raise ValueError(
                f"the task has too few different examples for a {split} split of {size} beside "
                f"the {len(taken_hashes)} examples of the earlier splits; ask for fewer"
            )
        blocks.append(arrays)
    return Examples(*(np.concatenate(parts)[:size] for parts in zip(*blocks, strict=True)))
