"""Random tokens, to be put into few numbers and restored."""

import numpy as np

from attnlab.dataset.base import Task
from attnlab.ranges import Count, Seed, Tokens, ranged
from attnlab.split import IGNORE, ExampleArrays

END = "<end>"


@ranged
class Compression(Task):
    """Restores random tokens from the last state (MAD: Poli et al. 2024, sec. 3.1).

    "g b b f" is answered by "g b b f <end>". `length` counts "<end>", and so does `vocab_size`; all
    sequences are equally long, so that each has the same to be kept: (length - 1) times
    log2(vocab_size - 1) bits.

    The answer is a sequence of its own because what it has to pass through is the objective's
    choice, and so works for every family. objective=seq2seq, the default, gives an LSTM its last
    state alone; objective=autoregressive gives every recurrent mixer the state at [BEGIN], while
    attention keeps what it read and has only to copy. MAD decodes each position from the last
    state and the position, without the tokens before it. It gives "<end>" to be read, too, and asks
    for its noise although the targets mask it; there is no noise here.

    Guessing each letter is right once in vocab_size - 1; the best possible score is 1.
    """

    end = END

    def __init__(
        self,
        *,
        vocab_size: Tokens = 16,
        length: Tokens = 32,
        num_train: Count = 20_000,
        num_validation: Count = 500,
        num_test: Count = 500,
        seed: Seed = 0,
    ) -> None:
        super().__init__(num_train, num_validation, num_test, seed)
        if vocab_size < 3:
            raise ValueError(f"vocab_size={vocab_size} must be at least 3: two letters and {END}")
        if length < 2:
            raise ValueError(f"length={length} must be at least 2: a letter and {END}")
        self.num_letters = vocab_size - 1
        self.max_length, self.answer_length = length - 1, length
        self.chance = 1 / self.num_letters
        letters = "abcdefghijklmnopqrstuvwxyz"
        numbered = [f"t{i}" for i in range(self.num_letters)]
        self.tokens = [*(letters[: self.num_letters] if vocab_size <= 27 else numbered), END]

    def draw_examples(self, generator: np.random.Generator, n: int, split: str) -> ExampleArrays:
        shape = (n, self.max_length)
        inputs = generator.integers(self.num_letters, size=shape, dtype=np.int32)
        end = np.full((n, 1), self.num_letters, dtype=np.int32)
        return ExampleArrays(inputs, np.concatenate((inputs, end), axis=1))

    def show(self, split: str = "train", index: int = 0) -> str:
        batch = self.splits[split][index]
        answer = batch.targets[batch.targets != IGNORE].tolist()
        return f"{self.decode(batch.inputs[0].tolist())}\nanswer: {self.decode(answer)}"
