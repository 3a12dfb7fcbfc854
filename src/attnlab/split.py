"""What a split of a dataset is: examples that are read by index."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

IGNORE = -100
"""The target that no loss or metric counts (torch's own convention)."""

LARGE = 1 << 24
"""Of more examples than this, no epoch's order is kept as a whole."""
STRETCH = 1 << 14
"""Places of such an order that are computed at once."""


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
    prefix_valid: Bool[Tensor, "batch label"] | None = None
    """False at the padding of the prefix, which stands at its end."""
    key: Int[Tensor, " batch"] | None = None
    """A number for each example, of which an objective draws its noise; None for no noise."""

    @property
    def given(
        self,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        """What a model is called with."""
        return self.inputs, self.at, self.valid, self.prefix, self.prefix_valid

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

    def choose(self, seed: int, number: int, size: int) -> np.ndarray:
        """Choose the examples of a training batch: a pure function of (seed, number, size).

        Every epoch is a permutation of the split; a last batch that would be short is left out.
        """
        epoch, place = divmod(number, len(self) // size)
        begin, end = place * size, (place + 1) * size
        if len(self) <= LARGE:
            return _permutation(len(self), seed, epoch)[begin:end]
        first, last = begin // STRETCH, (end - 1) // STRETCH
        parts = [_stretch(len(self), seed, epoch, number) for number in range(first, last + 1)]
        return np.concatenate(parts)[begin - first * STRETCH : end - first * STRETCH]

    def __getitem__(self, index: int | slice) -> Batch:
        """Fetch one example, or those of a slice, as tensors with the batch first."""
        if isinstance(index, slice):
            return self.batch(np.arange(*index.indices(len(self))))
        place = range(len(self))[index]
        return self.batch(np.array([place]))

    def batches(self, size: int) -> Iterator[Batch]:
        """Go through all examples in their order, `size` at a time; the last may be fewer."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


class Rows(NamedTuple):
    """Examples as arrays with one row each; what they mean is as in `Batch`."""

    inputs: np.ndarray
    targets: np.ndarray
    at: np.ndarray | None = None
    valid: np.ndarray | None = None


class Examples(Split):
    """Examples held in memory as arrays with one row each."""

    def __init__(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        at: np.ndarray | None = None,
        valid: np.ndarray | None = None,
    ) -> None:
        self.arrays = Rows(inputs, targets, at, valid)
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
        self._steps = np.arange(length + 1)

    def __len__(self) -> int:
        return -(-(len(self.tokens) - 1 - self.length) // self.stride) + 1

    def batch(self, index: np.ndarray) -> Batch:
        wanted = index * self.stride
        # The last window begins earlier, to be as long as the others; what it repeats is not asked.
        start = np.minimum(wanted, len(self.tokens) - 1 - self.length)
        at = start[:, None] + self._steps
        whole = torch.from_numpy(self.tokens[at].astype(np.int64))
        inputs, targets = whole[:, :-1], whole[:, 1:]
        if (start < wanted).any():
            targets = targets.where(torch.from_numpy(at[:, :-1] >= wanted[:, None]), IGNORE)
        return Batch(inputs, targets)

    def digest(self) -> bytes:
        sha = hashlib.sha256(f"{self.length} {self.stride} {self.tokens.dtype.str}".encode())
        sha.update(np.ascontiguousarray(self.tokens).data)
        return sha.digest()


@lru_cache(maxsize=2)
def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    draw = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, epoch, 0]))
    return draw.permutation(size)


@lru_cache(maxsize=4)
def _stretch(size: int, seed: int, epoch: int, number: int) -> np.ndarray:
    at = np.arange(number * STRETCH, min((number + 1) * STRETCH, size))
    return scattered(at, size, seed, epoch)


def scattered(at: np.ndarray, size: int, seed: int, epoch: int) -> np.ndarray:
    """Give places of a pseudo-random permutation of range(size), without making the whole of it.

    A Feistel network permutes the numbers of an even number of bits (Luby & Rackoff 1988); what
    falls outside is sent through again until it falls inside (Black & Rogaway 2002, sec. 3).
    """
    draw = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, epoch, 1]))
    half = np.uint64(-(-(size - 1).bit_length() // 2))
    mask = np.uint64((1 << int(half)) - 1)
    keys = draw.integers(2**63, size=(6, 2), dtype=np.uint64)
    numbers, outside = at.astype(np.uint64), np.arange(len(at))
    while len(outside):
        left, right = numbers[outside] >> half, numbers[outside] & mask
        for add, odd in keys:
            mixed = (right + add) * (odd | np.uint64(1))
            mixed ^= mixed >> np.uint64(32)
            left, right = right, left ^ ((mixed * np.uint64(0xD6E8FEB86659FD93)) >> (64 - half))
        numbers[outside] = left << half | right
        outside = outside[numbers[outside] >= size]
    return numbers.astype(np.int64)
