"""Read letters, and say them backwards."""

import numpy as np

from attnlab.dataset.base import Task
from attnlab.ranges import Count, Seed, Tokens, ranged
from attnlab.split import IGNORE, ExampleArrays

END = "<end>"


@ranged
class Reversal(Task):
    """A row of letters, and the same row from its end (Sutskever et al. 2014 reverse the source).

    "d a c" is answered by "c a d <end>". Lengths are uniform in `min_length`..`length`. Guessing
    each token is right once in vocab_size; whoever reads everything can be right always.
    """

    end = END

    def __init__(
        self,
        *,
        vocab_size: Tokens = 16,
        min_length: Tokens = 4,
        length: Tokens = 12,
        num_train: Count = 20_000,
        num_validation: Count = 500,
        num_test: Count = 500,
        seed: Seed = 0,
    ) -> None:
        if not 2 <= vocab_size <= 26:
            raise ValueError(f"vocab_size={vocab_size} must lie in 2..26, a letter each")
        if min_length > length:
            raise ValueError(f"min_length={min_length} must lie in 1..length={length}")
        super().__init__(num_train, num_validation, num_test, seed, (min_length, length))
        self.tokens = [*"abcdefghijklmnopqrstuvwxyz"[:vocab_size], END]
        self.vocab_size, self.chance = vocab_size, 1 / vocab_size
        self.max_length, self.answer_length = length, length + 1

    def draw_examples(self, generator: np.random.Generator, n: int, split: str) -> ExampleArrays:
        length = generator.integers(*self.lengths(split), size=(n, 1), endpoint=True)
        letters = generator.integers(self.vocab_size, size=(n, self.max_length), dtype=np.int16)
        positions, end = np.arange(self.max_length + 1), self.vocab_size
        inputs = np.where(positions[:-1] < length, letters, np.int16(end))
        reversed_letters = np.take_along_axis(inputs, (length - 1 - positions).clip(min=0), axis=1)
        targets = np.select(
            [positions < length, positions == length],
            [reversed_letters, np.int16(end)],
            np.int16(IGNORE),
        )
        return ExampleArrays(inputs, targets, None, inputs != end)

    def show(self, split: str = "train", index: int = 0) -> str:
        batch = self.splits[split][index]
        assert batch.valid is not None
        letters = batch.inputs[batch.valid].tolist()
        answer = batch.targets[batch.targets != IGNORE].tolist()
        return f"{self.decode(letters)}\nanswer: {self.decode(answer)}"
