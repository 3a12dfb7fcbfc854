"""A new map of keys to values in each example, where both are of several tokens."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from attnlab.dataset.base import Task
from attnlab.ranges import Count, Seed, Tokens, Width, ranged
from attnlab.split import IGNORE, Batch, ExampleArrays

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

    def draw_examples(self, generator: np.random.Generator, n: int, split: str) -> ExampleArrays:
        motif, width = self.motif, self.max_length + 1
        max_pairs = width // 2 - motif
        min_key_size = motif if self.compat and split != "train" else 1
        shape = (n, max_pairs, 1)
        key_size = generator.integers(
            min_key_size, motif, size=shape, dtype=np.int32, endpoint=True
        )
        value_size = generator.integers(1, motif, size=shape, dtype=np.int32, endpoint=True)
        keys = self._draw_motifs(generator, (n, max_pairs), self.num_keys)
        values = self._draw_motifs(generator, (n, max_pairs), self.num_values) + self.num_keys
        # A repeated key has the value of the pair in which it occurs first.
        value_pair = _first_occurrences(self._motif_codes(keys, key_size))[:, :, None]
        value_size = np.take_along_axis(value_size, value_pair, axis=1)
        end = np.cumsum(key_size + value_size, axis=1)
        # The context has as many pairs as leave room for the longest query; the query is the pair
        # after them, a copy of one of them.
        num_context_pairs = (end <= width - 2 * motif).sum(axis=1, keepdims=True)
        pair = np.arange(max_pairs + 1)[:, None]
        query_source = generator.integers(num_context_pairs)
        source = np.where(pair == num_context_pairs, query_source, pair.clip(max=max_pairs - 1))
        key_size, value_size, value_pair = (
            np.take_along_axis(drawn, source, axis=1)
            for drawn in (key_size, value_size, value_pair)
        )
        motifs = (
            np.take_along_axis(keys, source, axis=1),
            np.take_along_axis(values, value_pair, axis=1),
        )
        tokens = np.concatenate(motifs, axis=2)
        motif_position = np.arange(motif)
        in_motif = (motif_position < key_size, motif_position < value_size)
        used = np.concatenate(in_motif, axis=2) & (pair <= num_context_pairs)
        is_answer = (value_pair < pair) & (np.arange(2 * motif) >= motif)
        # Indexing by a mask reads tokens, and fills positions, in the order of the rows.
        length = used.sum(axis=(1, 2))[:, None]
        positions = np.arange(width) - (width - length if self.compat else 0)
        valid = (positions >= 0) & (positions < length)
        sequence = np.full((n, width), self.vocab_size - 1, dtype=np.int32)
        sequence[valid] = tokens[used]
        is_target = np.zeros((n, width), dtype=bool)
        is_target[valid] = is_answer[used]
        if self.compat and split == "train":
            is_target[:] = True
        targets = np.where(is_target, sequence, IGNORE)[:, 1:].astype(np.int32)
        if self.compat:
            return ExampleArrays(sequence[:, :-1].copy(), targets)
        # The last token of the last value is a label alone.
        is_input = valid[:, 1:]
        inputs = np.where(is_input, sequence[:, :-1], self.vocab_size - 1)
        return ExampleArrays(inputs, targets, None, is_input.copy())

    def _draw_motifs(
        self, generator: np.random.Generator, shape: tuple[int, int], count: int
    ) -> np.ndarray:
        """Draw `motif` different tokens of `count`, each as the k-th of those not drawn yet."""
        drawn: list[np.ndarray] = []
        ascending: list[np.ndarray] = []
        for position in range(self.motif):
            token = generator.integers(count - position, size=shape, dtype=np.int32)
            for earlier in ascending:
                token += token >= earlier
            drawn.append(token)
            for rank, earlier in enumerate(ascending):
                ascending[rank], token = np.minimum(earlier, token), np.maximum(earlier, token)
            ascending.append(token)
        return np.stack(drawn, axis=2)

    def _motif_codes(self, motifs: np.ndarray, size: np.ndarray) -> np.ndarray:
        """Return a number for each motif; equal motifs alone have equal numbers."""
        code = np.zeros(size.shape[:2], dtype=np.int64)
        for position in range(self.motif):
            code *= self.num_keys + 1
            code += (motifs[:, :, position] + 1) * (position < size[:, :, 0])
        return code

    def slices(self, batch: Batch) -> dict[str, Int[Tensor, "batch ..."]]:
        """Return, for each position, how many tokens its key has up to there."""
        key_size, sizes = torch.zeros_like(batch.inputs[:, 0]), torch.zeros_like(batch.inputs)
        is_key = batch.inputs < self.num_keys
        for position in range(is_key.shape[1]):
            begins = is_key[:, position]
            if position:
                begins = begins & ~is_key[:, position - 1]
            key_size = torch.where(begins, 1, key_size + is_key[:, position])
            sizes[:, position] = key_size
        return {"key_size": sizes}

    def show(self, split: str = "train", index: int = 0) -> str:
        """Return one example: the inputs, and the targets on the line under them."""
        batch = self.splits[split][index]
        inputs, targets = batch.inputs[0], batch.targets[0]
        if batch.valid is not None:
            inputs, targets = inputs[batch.valid[0]], targets[batch.valid[0]]
        input_words = [self.tokens[token] for token in inputs.tolist()]
        target_words = [self.tokens[t] if t != IGNORE else "." for t in targets.tolist()]
        width = max(map(len, input_words))
        lines = (
            " ".join(f"{word:<{width}}" for word in words).rstrip()
            for words in (input_words, target_words)
        )
        return "\n".join(lines)


def _first_occurrences(codes: np.ndarray) -> np.ndarray:
    """Return, for each column of a row, the first column with the same number."""
    order = codes.argsort(axis=1, kind="stable")
    ordered = np.take_along_axis(codes, order, axis=1)
    begins = np.ones(codes.shape, dtype=bool)
    begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    begin = np.maximum.accumulate(np.where(begins, np.arange(codes.shape[1]), 0), axis=1)
    first = np.empty_like(order)
    np.put_along_axis(first, order, np.take_along_axis(order, begin, axis=1), axis=1)
    return first
