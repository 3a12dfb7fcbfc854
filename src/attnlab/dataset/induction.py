"""A segment of random tokens that comes twice."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from attnlab.dataset.base import Task
from attnlab.ranges import Count, Seed, Tokens, ranged
from attnlab.split import IGNORE, Batch, ExampleArrays

PAD = "<pad>"


@ranged
class Induction(Task):
    """Continues a random segment that comes a second time (Olsson et al. 2022, repeated tokens).

    "t7 t2 t9 t7 t2 t9": in the second half each token is asked for the one that followed it the
    first time, so t7 is answered by t2, t2 by t9, and t9 by t7, which followed the first t9. A
    segment has `min_length`..`length` tokens, so that no fixed distance leads to the answer; each
    N of `test_lengths` makes a test of longer segments.

    The tokens of a segment are different from each other: then one step back from the last such
    token is enough, and every label follows from what stands before it (drawn with repeats, as by
    Olsson et al., a few would not). Chance is one in the segment, for whoever knows its tokens but
    not their order: 2 / (min_length + length) on average. The best possible score is 1.
    """

    def __init__(
        self,
        *,
        vocab_size: Tokens = 64,
        min_length: Tokens = 8,
        length: Tokens = 32,
        test_lengths: Sequence[Tokens] = (64,),
        num_train: Count = 20_000,
        num_validation: Count = 500,
        num_test: Count = 500,
        seed: Seed = 0,
    ) -> None:
        lengths = min_length, length
        super().__init__(num_train, num_validation, num_test, seed, lengths, test_lengths)
        if min_length < 2:
            raise ValueError(f"min_length={min_length} must be at least 2 tokens")
        longest = max([length, *test_lengths])
        if vocab_size > 2**16:
            raise ValueError(f"vocab_size={vocab_size} must be at most {2**16}")
        if longest > vocab_size:
            raise ValueError(
                f"a segment of {longest} different tokens needs as many, but "
                f"vocab_size={vocab_size}"
            )
        self.tokens = [*(f"t{number}" for number in range(vocab_size)), PAD]
        self.vocab_size, self.max_length = vocab_size, 2 * longest
        self.chance = 2 / (min_length + length)

    def draw_examples(self, generator: np.random.Generator, n: int, split: str) -> ExampleArrays:
        low, high = self.lengths(split)
        length = generator.integers(low, high, size=(n, 1), dtype=np.int16, endpoint=True)
        segment = self._draw_distinct(generator, n, high)
        positions = np.arange(2 * high, dtype=np.int16)
        segment_positions = np.where(positions < length, positions, positions - length)
        valid = positions < 2 * length
        inputs = np.take_along_axis(segment, segment_positions.clip(max=high - 1), axis=1)
        inputs[~valid] = self.vocab_size
        # The last token of the second half is followed by the first of the segment.
        label_index = positions[:high]
        next_position = np.where(label_index + 1 < length, label_index + 1, 0)
        targets = np.take_along_axis(segment, next_position, axis=1)
        targets[label_index >= length] = IGNORE
        return ExampleArrays(inputs, targets, length + label_index, valid)

    def slices(self, batch: Batch) -> dict[str, Int[Tensor, "batch ..."]]:
        """Return the length of each segment, and each label's position in it."""
        assert batch.at is not None
        assert batch.valid is not None
        length = batch.valid.sum(dim=1) // 2
        return {"length": length, "place": torch.arange(batch.at.shape[1]).expand_as(batch.at)}

    def show(self, split: str = "train", index: int = 0) -> str:
        inputs, targets, _, valid = self.splits[split][index][:4]
        assert valid is not None
        answers = targets[targets != IGNORE].tolist()
        return f"{self.decode(inputs[valid].tolist())}\nsecond half asked: {self.decode(answers)}"

    def _draw_distinct(self, generator: np.random.Generator, n: int, count: int) -> np.ndarray:
        """Draw n rows of `count` different tokens, in random order."""
        if count * count > 4 * self.vocab_size:
            # Rows without a repeat are rare here, so sort all tokens by random numbers, whose low
            # bits hold the tokens.
            tokens = np.arange(self.vocab_size, dtype=np.uint64)
            sort_keys = generator.integers(2**40, size=(n, self.vocab_size), dtype=np.uint64)
            packed = sort_keys << np.uint64(16) | tokens
            packed.sort(axis=1)
            return (packed[:, :count] & np.uint64(2**16 - 1)).astype(np.int32)
        rows = generator.integers(self.vocab_size, size=(n, count), dtype=np.int32)
        unchecked = np.arange(n)
        while len(unchecked):
            ordered = np.sort(rows[unchecked], axis=1)
            repeating = unchecked[(ordered[:, 1:] == ordered[:, :-1]).any(axis=1)]
            rows[repeating] = generator.integers(self.vocab_size, size=(len(repeating), count))
            unchecked = repeating
        return rows
