"""Letters with numbers, and one letter asked."""

import numpy as np
from jaxtyping import Int
from torch import Tensor

from attnlab.dataset.base import Task
from attnlab.ranges import Count, Seed, Tokens, ranged
from attnlab.split import Batch, ExampleArrays

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@ranged
class AssociativeRecall(Task):
    """Recalls the number that came with a letter (Fu et al. 2023, sec. 3.1 and table 1).

        a 2 c 4 b 3 d 1 a    at the last a: 2

    Letters and numbers, half of the vocabulary each, are drawn without replacement, so that chance
    is exactly 1 / num_pairs for a model that knows the numbers but not which. The paper's code
    draws letters with replacement (they keep their number), writes "=>" before the asked one, and
    trains on every next token, most of which cannot be known; ours asks for the answer alone. The
    best possible score is 1.
    """

    def __init__(
        self,
        *,
        vocab_size: Tokens = 20,
        num_pairs: Tokens = 10,
        num_train: Count = 20_000,
        num_validation: Count = 500,
        num_test: Count = 500,
        seed: Seed = 0,
    ) -> None:
        super().__init__(num_train, num_validation, num_test, seed)
        half = vocab_size // 2
        if vocab_size % 2 or not 1 <= half <= len(LETTERS):
            raise ValueError(
                f"vocab_size={vocab_size} must be even and lie in 2..{2 * len(LETTERS)}"
            )
        if num_pairs > half:
            raise ValueError(
                f"num_pairs={num_pairs} must lie in 1..{half}: vocab_size={vocab_size} has {half} "
                "letters and as many numbers"
            )
        self.half, self.num_pairs = half, num_pairs
        self.max_length, self.chance = 2 * num_pairs + 1, 1 / num_pairs
        self.tokens = [*LETTERS[:half], *map(str, range(half))]

    def draw_examples(self, generator: np.random.Generator, n: int, split: str) -> ExampleArrays:
        keys, values = (
            generator.random((n, self.half), dtype=np.float32).argsort(axis=1)[:, : self.num_pairs]
            for _ in range(2)
        )
        query_pair = generator.integers(self.num_pairs, size=(n, 1))
        inputs = np.empty((n, self.max_length), dtype=np.int32)
        inputs[:, 0:-1:2], inputs[:, 1::2] = keys, values + self.half
        inputs[:, -1:] = np.take_along_axis(keys, query_pair, axis=1)
        targets = (np.take_along_axis(values, query_pair, axis=1) + self.half).astype(np.int32)
        return ExampleArrays(inputs, targets, np.full((n, 1), 2 * self.num_pairs, dtype=np.int32))

    def slices(self, batch: Batch) -> dict[str, Int[Tensor, "batch ..."]]:
        """Return the distance of each query: how many tokens after its number the letter comes."""
        keys, query = batch.inputs[:, :-1:2], batch.inputs[:, -1:]
        return {"distance": 2 * self.num_pairs - 1 - 2 * (keys == query).int().argmax(dim=1)}
