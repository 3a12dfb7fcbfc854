"""Say what followed the special token."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from torch import Tensor

from attnlab.dataset.base import Task
from attnlab.ranges import Count, Seed, Tokens, ranged
from attnlab.split import Batch, ExampleArrays

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPECIAL = "=>"
PAD = "<pad>"


@ranged
class InductionHead(Task):
    """Recalls the token after a special one (Fu et al. 2023, sec. 3.1 and table 1).

        a h c => f b b a =>    at the last =>: f

    Random letters, drawn with replacement; the special token stands once among them, anywhere but
    at the last two places, and again at the end. `length` counts both, and `vocab_size` the letters
    and the special token. `test_lengths` adds longer test splits, as Gu & Dao 2023 (sec. 4.1.2)
    have. The paper's code trains on every next token, most of which cannot be known; ours asks for
    the answer alone. Chance is one of the letters; the best possible score is 1.
    """

    def __init__(
        self,
        *,
        vocab_size: Tokens = 20,
        length: Tokens = 30,
        test_lengths: Sequence[Tokens] = (),
        num_train: Count = 20_000,
        num_validation: Count = 500,
        num_test: Count = 500,
        seed: Seed = 0,
    ) -> None:
        if not 3 <= vocab_size <= len(LETTERS) + 1:
            raise ValueError(
                f"vocab_size={vocab_size} must lie in 3..{len(LETTERS) + 1}: letters and {SPECIAL}"
            )
        if length < 4:
            raise ValueError(f"length={length} must be at least 4: {SPECIAL} a b {SPECIAL}")
        super().__init__(num_train, num_validation, num_test, seed, (length, length), test_lengths)
        self.num_letters, self.max_length = vocab_size - 1, max(length, *test_lengths, 0)
        self.chance = 1 / self.num_letters
        self.tokens = [*LETTERS[: self.num_letters], SPECIAL, PAD]

    def draw_examples(self, generator: np.random.Generator, n: int, split: str) -> ExampleArrays:
        low, high = self.lengths(split)
        last = generator.integers(low - 1, high, size=(n, 1))
        first = generator.integers(last - 2)
        inputs = generator.integers(self.num_letters, size=(n, high), dtype=np.int32)
        targets = np.take_along_axis(inputs, first + 1, axis=1)
        for special_position in (first, last):
            np.put_along_axis(inputs, special_position, np.int32(self.num_letters), axis=1)
        valid = np.arange(high) <= last
        inputs[~valid] = self.num_letters + 1
        return ExampleArrays(inputs, targets, last.astype(np.int32), valid if low < high else None)

    def slices(self, batch: Batch) -> dict[str, Int[Tensor, "batch ..."]]:
        """Return each example's length, and how many tokens after the answer its query comes."""
        assert batch.at is not None
        last = batch.at[:, 0]
        first = (batch.inputs == self.num_letters).int().argmax(dim=1)
        return {"length": last + 1, "distance": last - first - 1}
