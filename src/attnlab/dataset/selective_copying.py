"""Copy what stands scattered among blanks."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from attnlab.dataset.base import Task
from attnlab.ranges import Count, Seed, Tokens, ranged
from attnlab.split import Batch, ExampleArrays


@ranged
class SelectiveCopying(Task):
    """Says the tokens that stood among blanks, in their order (Gu & Dao 2023, sec. 3.1; MAD).

    "_" is a blank and "=>" says that answers begin; the i-th token is the label at the i-th blank
    after it (MAD: Poli et al. 2024, sec. 3.1):

        _ c _ _ a c _ => _ _ _    at the last three blanks: c, a, c

    Every choice of places is as likely as another. With `compat`, each blank stands before one of
    the tokens at random, as in MAD: the last token is always followed by "=>". (There, the places
    come from a random state that its seed does not set.) `vocab_size` counts "_" and "=>". Chance
    is one of the letters; the best possible score is 1.
    """

    def __init__(
        self,
        *,
        vocab_size: Tokens = 16,
        length: Tokens = 256,
        num_tokens: Tokens = 16,
        compat: bool = False,
        num_train: Count = 20_000,
        num_validation: Count = 500,
        num_test: Count = 500,
        seed: Seed = 0,
    ) -> None:
        super().__init__(num_train, num_validation, num_test, seed)
        if vocab_size < 4:
            raise ValueError(f"vocab_size={vocab_size} must be at least 4: two letters, _ and =>")
        if length < 2 * num_tokens + 2:
            raise ValueError(
                f"length={length} must be at least {2 * num_tokens + 2}: num_tokens={num_tokens} "
                "twice, a blank among them, and =>"
            )
        self.vocab_size, self.max_length, self.num_tokens = vocab_size, length, num_tokens
        self.compat, self.chance = compat, 1 / (vocab_size - 2)
        letters = "abcdefghijklmnopqrstuvwxyz"
        kinds = vocab_size - 2
        names = letters[:kinds] if kinds <= 26 else [f"t{i}" for i in range(kinds)]
        self.tokens = [*names, "_", "=>"]

    def draw_examples(self, generator: np.random.Generator, n: int, split: str) -> ExampleArrays:
        count, space = self.num_tokens, self.max_length - self.num_tokens - 1
        blank, copy = self.vocab_size - 2, self.vocab_size - 1
        targets = generator.integers(blank, size=(n, count), dtype=np.int32)
        if self.compat:
            blanks = generator.multinomial(space - count, np.full(count, 1 / count), size=n)
            token_positions = blanks.cumsum(axis=1) + np.arange(count)
        else:
            sort_keys = generator.random((n, space), dtype=np.float32)
            token_positions = np.sort(sort_keys.argpartition(count, axis=1)[:, :count], axis=1)
        inputs = np.full((n, self.max_length), blank, dtype=np.int32)
        np.put_along_axis(inputs, token_positions, targets, axis=1)
        inputs[:, space] = copy
        label_positions = np.arange(space + 1, self.max_length, dtype=np.int32)
        return ExampleArrays(inputs, targets, np.tile(label_positions, (n, 1)))

    def slices(self, batch: Batch) -> dict[str, Int[Tensor, "batch ..."]]:
        """Return each copied token's index, from 0, and its distance to its copy in tokens."""
        assert batch.at is not None
        is_token = batch.inputs < self.vocab_size - 2
        token_positions = is_token.nonzero()[:, 1].reshape(batch.at.shape)
        return {
            "place": torch.arange(self.num_tokens).expand_as(batch.at),
            "distance": batch.at - token_positions,
        }
