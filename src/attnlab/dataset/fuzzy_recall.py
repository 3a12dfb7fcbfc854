"""A new map of keys to values in each example, where both are of several tokens."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from attnlab.dataset.base import Task
from attnlab.ranges import Count, Seed, Tokens, Width, ranged
from attnlab.split import IGNORE, Batch, Rows

PAD = "<pad>"


@ranged
class FuzzyRecall(Task):
    """Recalls values, where they and their keys are 1 to `motif` tokens (MAD: Poli et al. 2024).

    Keys and values are motifs: different tokens of their own kind in an order, of a length that is
    uniform in 1..motif. They alternate; every example has a map of its own, drawn with replacement,
    and keys are drawn with replacement too. Where a key comes again, each token of its value is the
    label at the token before it:

        k3 v5 v1 k1 k3 v0 k3 v5 v1 k1 k3    at the second lone k3: v5, at the v5 after it: v1,
                                            at the last k3, whose key is "k1 k3": v0

    The last key is one of those shown (at random among the showings), and the last token of its
    value is a label alone: `length` counts the rest. What cannot be known is asked in no split, and
    `<pad>` fills up the end.

    `vocab_size` counts `<pad>`; values have the odd token. With `compat`, as in MAD, padding stands
    at the beginning as an ordinary token, training asks for every next token, and validation and
    test have keys of `motif` tokens alone, which training does not; but the last key, unlike MAD's,
    has always been shown. Chance is one of the value tokens; the best possible score is 1, but not
    on training data with `compat`.
    """

    def __init__(
        self,
        *,
        vocab_size: Tokens = 16,
        length: Tokens = 128,
        motif: Width = 3,
        compat: bool = False,
        num_train: Count = 20_000,
        num_validation: Count = 500,
        num_test: Count = 500,
        seed: Seed = 0,
    ) -> None:
        super().__init__(num_train, num_validation, num_test, seed)
        self.num_keys = (vocab_size - 1) // 2
        self.num_values = vocab_size - 1 - self.num_keys
        if not 1 <= motif <= self.num_keys:
            raise ValueError(
                f"motif={motif} must lie in 1..{max(self.num_keys, 0)}: its tokens differ, and "
                f"vocab_size={vocab_size} has {max(self.num_keys, 0)} for keys"
            )
        if length < 4 * motif:
            raise ValueError(
                f"length={length} must be at least {4 * motif}: a key and a value of motif={motif} "
                "tokens each, twice"
            )
        if (self.num_keys + 1) ** motif >= 2**62:
            raise ValueError(f"motif={motif} with vocab_size={vocab_size} has too many keys")
        self.vocab_size, self.max_length, self.motif = vocab_size, length, motif
        self.compat, self.chance = compat, 1 / self.num_values
        keys = [f"k{i}" for i in range(self.num_keys)]
        self.tokens = [*keys, *(f"v{i}" for i in range(self.num_values)), PAD]

    def rows(self, generator: np.random.Generator, n: int, split: str) -> Rows:
        motif, width = self.motif, self.max_length + 1
        slots = width // 2 - motif
        shortest = motif if self.compat and split != "train" else 1
        sizes = (n, slots, 1)
        key_size = generator.integers(shortest, motif, size=sizes, dtype=np.int32, endpoint=True)
        value_size = generator.integers(1, motif, size=sizes, dtype=np.int32, endpoint=True)
        keys = self._motifs(generator, (n, slots), self.num_keys)
        values = self._motifs(generator, (n, slots), self.num_values) + self.num_keys
        first = _first(self._code(keys, key_size))[:, :, None]
        value_size = np.take_along_axis(value_size, first, axis=1)
        end = np.cumsum(key_size + value_size, axis=1)
        # As many pairs as leave room for the longest question, which then takes the next place.
        shown = (end <= width - 2 * motif).sum(axis=1, keepdims=True)
        pair = np.arange(slots + 1)[:, None]
        slot = np.where(pair == shown, generator.integers(shown), pair.clip(max=slots - 1))
        key_size, value_size, first = (
            np.take_along_axis(part, slot, axis=1) for part in (key_size, value_size, first)
        )
        tokens = np.concatenate(
            [np.take_along_axis(keys, slot, axis=1), np.take_along_axis(values, first, axis=1)],
            axis=2,
        )
        place = np.arange(motif)
        used = np.concatenate([place < key_size, place < value_size], axis=2) & (pair <= shown)
        known = (first < pair) & (np.arange(2 * motif) >= motif)
        # A mask takes tokens, and fills places, in the order of the rows.
        length = used.sum(axis=(1, 2))[:, None]
        at = np.arange(width) - (width - length if self.compat else 0)
        valid = (at >= 0) & (at < length)
        whole = np.full((n, width), self.vocab_size - 1, dtype=np.int32)
        whole[valid] = tokens[used]
        asked = np.zeros((n, width), dtype=bool)
        asked[valid] = known[used]
        if self.compat and split == "train":
            asked[:] = True
        targets = np.where(asked, whole, IGNORE)[:, 1:].astype(np.int32)
        if self.compat:
            return Rows(whole[:, :-1].copy(), targets)
        # The last token of the last value is a label alone.
        read = valid[:, 1:]
        return Rows(np.where(read, whole[:, :-1], self.vocab_size - 1), targets, None, read.copy())

    def _motifs(
        self, generator: np.random.Generator, shape: tuple[int, int], count: int
    ) -> np.ndarray:
        """Draw `motif` different tokens of `count`, each as the k-th of those that are left."""
        drawn: list[np.ndarray] = []
        ordered: list[np.ndarray] = []
        for place in range(self.motif):
            token = generator.integers(count - place, size=shape, dtype=np.int32)
            for earlier in ordered:
                token += token >= earlier
            drawn.append(token)
            for rank, earlier in enumerate(ordered):
                ordered[rank], token = np.minimum(earlier, token), np.maximum(earlier, token)
            ordered.append(token)
        return np.stack(drawn, axis=2)

    def _code(self, motifs: np.ndarray, size: np.ndarray) -> np.ndarray:
        """Give each motif a number of its own."""
        code = np.zeros(size.shape[:2], dtype=np.int64)
        for place in range(self.motif):
            code *= self.num_keys + 1
            code += (motifs[:, :, place] + 1) * (place < size[:, :, 0])
        return code

    def slices(self, batch: Batch) -> dict[str, Int[Tensor, "batch ..."]]:
        """Tell by how many tokens the key has whose value is asked."""
        run, size = torch.zeros_like(batch.inputs[:, 0]), torch.zeros_like(batch.inputs)
        key = batch.inputs < self.num_keys
        for at in range(key.shape[1]):
            begins = key[:, at] & ~key[:, at - 1] if at else key[:, at]
            run = torch.where(begins, 1, run + key[:, at])
            size[:, at] = run
        return {"key_size": size}

    def show(self, split: str = "train", index: int = 0) -> str:
        """One example: what is read, and under it what is asked."""
        batch = self.splits[split][index]
        inputs, targets = batch.inputs[0], batch.targets[0]
        if batch.valid is not None:
            inputs, targets = inputs[batch.valid[0]], targets[batch.valid[0]]
        read = [self.tokens[token] for token in inputs.tolist()]
        asked = [self.tokens[t] if t != IGNORE else "." for t in targets.tolist()]
        wide = max(map(len, read))
        lines = (" ".join(f"{word:<{wide}}" for word in line).rstrip() for line in (read, asked))
        return "\n".join(lines)


def _first(codes: np.ndarray) -> np.ndarray:
    """Give, for each place of a row, the first place that holds the same number."""
    order = codes.argsort(axis=1, kind="stable")
    ordered = np.take_along_axis(codes, order, axis=1)
    begins = np.ones(codes.shape, dtype=bool)
    begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    begin = np.maximum.accumulate(np.where(begins, np.arange(codes.shape[1]), 0), axis=1)
    first = np.empty_like(order)
    np.put_along_axis(first, order, np.take_along_axis(order, begin, axis=1), axis=1)
    return first
