"""Read letters, and say them again."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from torch import Tensor

from attnlab.dataset.base import Task
from attnlab.ranges import Count, Seed, Tokens, ranged
from attnlab.split import IGNORE, Batch, ExampleArrays

END = "<end>"


@ranged
class Copying(Task):
    """A row of letters, and the same row again (Jelassi et al. 2024, sec. 4.1).

    "d a c" is answered by "d a c <end>". Letters are uniform, and lengths uniform in
    `min_length`..`length`; each N of `test_lengths` makes a test of longer rows. An autoregressive
    model reads the row, the token `[BEGIN]`, and what it has said so far, as in the paper.

    Guessing each letter is right once in vocab_size. The best possible score is 1.
    """

    end = END

    def __init__(
        self,
        *,
        vocab_size: Tokens = 26,
        min_length: Tokens = 4,
        length: Tokens = 20,
        test_lengths: Sequence[Tokens] = (40,),
        num_train: Count = 20_000,
        num_validation: Count = 500,
        num_test: Count = 500,
        seed: Seed = 0,
    ) -> None:
        lengths = min_length, length
        super().__init__(num_train, num_validation, num_test, seed, lengths, test_lengths)
        if not 2 <= vocab_size <= 26:
            raise ValueError(f"vocab_size={vocab_size} must lie in 2..26, a letter each")
        self.tokens = [*"abcdefghijklmnopqrstuvwxyz"[:vocab_size], END]
        self.vocab_size, self.chance = vocab_size, 1 / vocab_size
        self.max_length = max([length, *test_lengths])
        self.answer_length = self.max_length + 1

    def draw_examples(self, generator: np.random.Generator, n: int, split: str) -> ExampleArrays:
        low, high = self.lengths(split)
        length = generator.integers(low, high, size=(n, 1), endpoint=True)
        letters = generator.integers(self.vocab_size, size=(n, high + 1), dtype=np.int16)
        positions, end = np.arange(high + 1), np.int16(self.vocab_size)
        answers = np.where(positions < length, letters, end)
        targets = np.where(positions <= length, answers, np.int16(IGNORE))
        return ExampleArrays(answers[:, :-1].copy(), targets, None, positions[:-1] < length)

    def slices(self, batch: Batch) -> dict[str, Int[Tensor, "batch ..."]]:
        """Return the number of letters of each example."""
        assert batch.valid is not None
        return {"length": batch.valid.sum(dim=1)}

    def show(self, split: str = "train", index: int = 0) -> str:
        batch = self.splits[split][index]
        assert batch.valid is not None
        letters = batch.inputs[batch.valid].tolist()
        answer = batch.targets[batch.targets != IGNORE].tolist()
        return f"{self.decode(letters)}\nanswer: {self.decode(answer)}"
