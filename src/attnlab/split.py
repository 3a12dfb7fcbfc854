"""What a split of a dataset is: examples that are read by index."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data._utils.collate import default_collate_fn_map

IGNORE = -100
"""The target that no loss or metric counts (torch's own convention)."""

LARGE = 1 << 24
"""The largest split whose order of an epoch is held in memory as a whole."""
STRETCH = 1 << 14
"""The positions of a larger split's order that are computed at once."""


class Batch(NamedTuple):
    """The inputs of a model, the targets, and the positions that the answers are read from."""

    inputs: Int[Tensor, "batch seq"]
    targets: Int[Tensor, "batch label"]
    """A token or class for each label; `IGNORE` is not counted."""
    at: Int[Tensor, "batch label"] | None = None
    """The position that each label is read from; None where every position has one."""
    valid: Bool[Tensor, "batch seq"] | None = None
    """False at padding, which is at the end of a sequence; None where there is none."""
    prefix: Int[Tensor, "batch label"] | None = None
    """The input of the answering stack of a model with an encoder; None without an encoder."""
    prefix_valid: Bool[Tensor, "batch label"] | None = None
    """False at the padding of the prefix, which is at its end."""
    noise_key: Int[Tensor, " batch"] | None = None
    """A number for each example, from which an objective draws its noise; None for no noise."""

    @property
    def model_inputs(
        self,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        """The arguments that a model is called with."""
        return self.inputs, self.at, self.valid, self.prefix, self.prefix_valid

    @property
    def num_tokens(self) -> int:
        """The number of tokens that a model reads, padding included."""
        return self.inputs.numel() + (0 if self.prefix is None else self.prefix.numel())


class Split(TorchDataset[Batch], ABC):
    """A sized set of examples, read by index; a dataset for `torch.utils.data.DataLoader` too."""

    @abstractmethod
    def __len__(self) -> int:
        """Count the examples."""

    @abstractmethod
    def batch(self, index: np.ndarray) -> Batch:
        """Return the examples at `index`, on the CPU."""

    @abstractmethod
    def digest(self) -> bytes:
        """Return the SHA-256 of the contents."""

    def batch_indices(self, seed: int, number: int, size: int) -> np.ndarray:
        """Return the examples of training batch `number`: a pure function of (seed, number, size).

        Every epoch is a permutation of the split; a last batch that would be short is left out.
        """
        epoch, batch_in_epoch = divmod(number, len(self) // size)
        start, end = batch_in_epoch * size, (batch_in_epoch + 1) * size
        # Beyond LARGE only the stretches of this batch are computed: a whole order takes 8 bytes
        # an example. With another LARGE some splits have another order, and old runs differ.
        if len(self) <= LARGE:
            return _permutation(len(self), seed, epoch)[start:end]
        first_stretch, last_stretch = start // STRETCH, (end - 1) // STRETCH
        stretches = [
            _permutation_stretch(len(self), seed, epoch, stretch)
            for stretch in range(first_stretch, last_stretch + 1)
        ]
        offset = first_stretch * STRETCH
        return np.concatenate(stretches)[start - offset : end - offset]

    def __getitem__(self, index: int | slice) -> Batch:
        """Return one example, or those of a slice, as a batch."""
        if isinstance(index, slice):
            return self.batch(np.arange(*index.indices(len(self))))
        nonnegative_index = range(len(self))[index]
        return self.batch(np.array([nonnegative_index]))

    def __getitems__(self, indices: Sequence[int]) -> list[Batch]:
        """Return the examples of a batch of `torch.utils.data.DataLoader`, drawn at once."""
        return [self.batch(np.asarray(indices))]

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield all examples in their order, `size` at a time; the last batch may be smaller."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


def collate(batches: Sequence[Batch], *, collate_fn_map: Any = None) -> Batch:
    """Return several batches as one, in their order; torch hands its own functions over too."""
    if len(batches) == 1:
        return batches[0]
    fields: list[Any] = [
        None if all(part is None for part in parts) else torch.cat(parts)
        for parts in zip(*batches, strict=True)
    ]
    return Batch(*fields)


# So a plain DataLoader of a split gives its batches: on its own, torch would stack examples, and
# fail on the fields that are None.
default_collate_fn_map[Batch] = collate


class ExampleArrays(NamedTuple):
    """Examples as arrays with one row each; the fields mean the same as in `Batch`."""

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
        self.arrays = ExampleArrays(inputs, targets, at, valid)
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
    """Windows of `length` tokens of one long text, each with its next tokens as targets.

    Windows begin `stride` tokens apart; a stride of at most `length` leaves no token out.
    """

    def __init__(self, tokens: np.ndarray, length: int, stride: int) -> None:
        self.tokens, self.length, self.stride = tokens, length, stride
        self._offsets = np.arange(length + 1)

    def __len__(self) -> int:
        return -(-(len(self.tokens) - 1 - self.length) // self.stride) + 1

    def batch(self, index: np.ndarray) -> Batch:
        nominal_starts = index * self.stride
        # The last window begins earlier, to be as long as the others; its repeated targets are
        # ignored.
        starts = np.minimum(nominal_starts, len(self.tokens) - 1 - self.length)
        positions = starts[:, None] + self._offsets
        tokens = torch.from_numpy(self.tokens[positions].astype(np.int64))
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        if (starts < nominal_starts).any():
            is_new = torch.from_numpy(positions[:, :-1] >= nominal_starts[:, None])
            targets = targets.where(is_new, IGNORE)
        return Batch(inputs, targets)

    def digest(self) -> bytes:
        sha = hashlib.sha256(f"{self.length} {self.stride} {self.tokens.dtype.str}".encode())
        sha.update(np.ascontiguousarray(self.tokens).data)
        return sha.digest()


@lru_cache(maxsize=2)
def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, epoch, 0]))
    return generator.permutation(size)


@lru_cache(maxsize=4)
def _permutation_stretch(size: int, seed: int, epoch: int, stretch: int) -> np.ndarray:
    positions = np.arange(stretch * STRETCH, min((stretch + 1) * STRETCH, size))
    return permutation_at(positions, size, seed, epoch)


def permutation_at(positions: np.ndarray, size: int, seed: int, epoch: int) -> np.ndarray:
    """Return the values of a pseudo-random permutation of range(size) at these positions alone.

    A Feistel network permutes all numbers of an even number of bits (Luby & Rackoff 1988); a value
    of `size` or more goes through it again until it is smaller (Black & Rogaway 2002, sec. 3).
    """
    generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, epoch, 1]))
    half_bits = np.uint64(-(-(size - 1).bit_length() // 2))
    half_mask = np.uint64((1 << int(half_bits)) - 1)
    round_keys = generator.integers(2**63, size=(6, 2), dtype=np.uint64)
    values, too_large_indices = positions.astype(np.uint64), np.arange(len(positions))
    # The network permutes more numbers than there are examples. One that is too large is permuted
    # again: a remainder would repeat some examples within an epoch, and leave others out.
    while len(too_large_indices):
        high, low = values[too_large_indices] >> half_bits, values[too_large_indices] & half_mask
        for addend, factor in round_keys:
            mixed_low = (low + addend) * (factor | np.uint64(1))
            mixed_low ^= mixed_low >> np.uint64(32)
            mixed_low *= np.uint64(0xD6E8FEB86659FD93)
            high, low = low, high ^ (mixed_low >> (64 - half_bits))
        values[too_large_indices] = high << half_bits | low
        too_large_indices = too_large_indices[values[too_large_indices] >= size]
    return values.astype(np.int64)
